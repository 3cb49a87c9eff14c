"""The latency budget of a move, and whether its ETA can be believed."""

import errno
import statistics
import time

import guest
import report
from guest import Job

DISK = "budget"
BUDGETS = [Job("4 KiB random writes QD1", "randwrite", "4k", 1), Job("4 KiB random writes QD8", "randwrite", "4k", 8)]


def measure(bench):
    bench.disk(DISK, bench.args.busy_size)
    svmfs = bench.svmfs()
    bench.page.section(
        "Latency budget, ETA (part budget)", f"{bench.args.busy_size // 2**20} MiB of random data. {bench.legs()}"
    )
    latency(bench, svmfs)
    deadline(bench, svmfs)
    eta(bench, svmfs)
    bench.stop_subjects()
    bench.remove(DISK)


def latency(bench, svmfs):
    option = bench.args.budget_option
    rows, figures = [], []
    for job in BUDGETS:
        got = []
        for _ in range(bench.args.rounds):
            run = budgeted(bench, svmfs, job, option)
            if run is None:
                reason = f"this svmfs refuses the option {option} ({svmfs.error(DISK)})"
                bench.left_out(reason)
                bench.goals.missing("budget", reason)
                return
            bench.say(
                f"{option}, {job.label}: p99 idle {report.microseconds(run[0].p99)}, moving "
                f"{report.microseconds(run[1].p99)}"
            )
            got.append(run)
        idle, moving = ([run[side].p99 for run in got] for side in (0, 1))
        counts = statistics.median(idle) < bench.args.latency * 1000
        figures += [(job.label, statistics.median(moving))] if counts else []
        rows.append(
            [
                job.label,
                report.spread(idle, report.microseconds),
                report.spread(moving, report.microseconds),
                report.ratio([run[1].rate for run in got], [run[0].rate for run in got]),
                report.spread([run[2] for run in got], lambda x: f"{x:.1f} s"),
                f"{sum(run[3] for run in got)} of {len(got)}",
            ]
        )
    bench.page.add(
        guest.shown(BUDGETS[0], 600)
        + f" (and QD8), `setfattr -n user.svmfs.migrate -v target,{option}`; windows before "
        f"and during the move, {bench.args.rounds} rounds.\n"
    )
    bench.page.add(
        report.table(
            [
                option,
                "p99, idle",
                "p99, moving",
                "rate, moving / idle",
                "the move",
                f"ended within {bench.args.budget_limit:g} s",
            ],
            rows,
        )
        + "\n"
    )
    if not figures:
        bench.goals.missing("budget", "the idle disk's own p99 is above the budget here")
    bench.goals.at_most("latency", figures, bench.args.latency * 1000, report.microseconds)


def budgeted(bench, svmfs, job, option):
    """(idle, moving, seconds, ended), or None where the option is not available."""
    fio = guest.Guest.on_file(bench.scratch, svmfs.path(DISK), job, 600)
    try:
        fio.settle(bench.args.idle_seconds)
        begun = time.time()
        try:
            svmfs.migrate(DISK, f"{svmfs.other(DISK)},{option}")
        except OSError as error:
            if error.errno in (errno.EOPNOTSUPP, errno.EINVAL):
                return None
            raise
        ended = svmfs.wait(DISK, "done", bench.args.budget_limit) is not None
        done = time.time()
        if not ended:
            svmfs.cancel(DISK)
        trace = fio.stop()
    finally:
        fio.end()
    idle, moving = trace.window(max(trace.first(), begun - bench.args.idle_seconds), begun), trace.window(begun, done)
    if idle is None:
        raise RuntimeError("fio was not at work before the move began: more --idle-seconds")
    return idle, moving or guest.Figures(0, *[(done - begun) * 1e6] * 4, 0), done - begun, ended


def deadline(bench, svmfs):
    """The budget turned round: the move is to be done by then, whatever the guest does."""
    seconds = max(2, round(3 * svmfs.move(DISK, svmfs.other(DISK))[0]))
    option, rows = f"deadline={seconds}s", []
    for job in BUDGETS:
        got = [budgeted(bench, svmfs, job, option) for _ in range(bench.args.rounds)]
        if None in got:
            bench.left_out(f"this svmfs refuses the option {option} ({svmfs.error(DISK)})")
            return
        rows.append(
            [
                job.label,
                report.spread([run[2] for run in got], lambda x: f"{x:.1f} s"),
                f"{sum(run[3] and run[2] <= seconds for run in got)} of {len(got)}",
                report.ratio([run[1].rate for run in got], [run[0].rate for run in got]),
            ]
        )
    bench.page.add(report.table([option, "the move", "in time", "the guest's rate, moving / idle"], rows) + "\n")


def eta(bench, svmfs):
    """What it says when 10 % are done against what it then took; it is told in whole seconds, rounded down."""
    rate = int(bench.args.busy_size / bench.args.eta_seconds)
    errors, said, took = [], [], []
    for _ in range(bench.args.rounds):
        svmfs.migrate(DISK, f"{svmfs.other(DISK)},rate={rate}")
        while True:
            fields = svmfs.progress(DISK)
            if float(fields["percent"]) >= 10 or fields["state"] == "done":
                break
            time.sleep(0.01)
        asked = time.monotonic()
        if svmfs.wait(DISK) is None:
            raise RuntimeError("a limited move has no end")
        truth, eta_said = time.monotonic() - asked, int(fields["eta"])
        said.append(eta_said)
        took.append(truth)
        off = max(eta_said - truth, truth - (eta_said + 1), 0)
        errors.append(off / truth if truth > 0 else 0)
        bench.say(f"eta at {fields['percent']} %: {eta_said} s, in truth {truth:.1f} s")
    bench.page.add(
        f"A quiet move with `rate={rate}` (bytes a second), {bench.args.rounds} rounds; the ETA is in "
        f"whole seconds, so that it "
        "stands for the second that begins with it.\n"
    )
    bench.page.add(
        report.table(
            ["ETA at 10 %", "in truth", "off by"],
            [
                [
                    report.spread(said, lambda x: f"{x:.0f} s"),
                    report.spread(took, lambda x: f"{x:.1f} s"),
                    report.spread(errors, lambda x: f"{x * 100:.0f} %"),
                ]
            ],
        )
        + "\n"
    )
    bench.goals.at_most("eta", [("", max(errors))], 0.1, lambda x: f"off by {x * 100:.0f} %")
