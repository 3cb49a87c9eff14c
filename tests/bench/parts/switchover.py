"""The worst wait of a request around a switchover, move after move, under a guest with 32 requests in flight.

The moves wait for the command (switchover=manual), so that the window is the switchover's own: from the command to
a moment after state=done. As a control the same number of windows as long is taken from the idle time before: what the machine
alone does to a request."""

import collections
import random
import statistics
import time

import guest
import mounts
import report
from guest import Job

LOAD = Job("4 KiB random, 50 % reads, QD32", "randrw", "4k", 32, 1, ("--rwmixread=50",))
DISK = "switch"
AFTER = 0.1  # seconds: the source's blocks are given back
Result = collections.namedtuple("Result", "idle worst control told seconds")


def measure(bench):
    results = {}
    disk_size = bench.args.switch_size
    bench.disk(DISK, disk_size)
    svmfs = bench.svmfs()
    results["local ↔ local"] = series(bench, svmfs, DISK, ("source", "target"), bench.args.moves)
    bench.stop_subjects()
    bench.remove(DISK)
    show(bench, results)
    remote(bench, results, disk_size)


def remote(bench, results, disk_size):
    try:
        svmfs = bench.remote_svmfs()
    except mounts.Unavailable as reason:
        bench.left_out(str(reason))
        bench.goals.missing("switchover", str(reason))
        return
    guest.fill(svmfs.path(DISK), disk_size)
    moves = bench.args.remote_moves
    got = {}
    for pair in (("local1", "nfs1"), ("local1", "iscsi1"), ("nfs1", "iscsi1")):
        svmfs.ensure(DISK, pair[0])
        label = " ↔ ".join(name.rstrip("1") for name in pair)
        got[label] = series(bench, svmfs, DISK, pair, moves)
    results.update(got)
    table(bench, got)
    tell(bench, "switchover-remote", got)


def series(bench, svmfs, name, places, moves):
    """So many moves, in portions: a trace of all requests is large."""
    portions = []
    while moves > 0:
        portions.append(portion(bench, svmfs, name, places, min(moves, bench.args.portion)))
        moves -= bench.args.portion
    joined = [sum(lists, []) for lists in zip(*(portion[1:] for portion in portions))]
    result = Result([idle for portion in portions for idle in portion.idle], *joined[:3], joined[3])
    bench.say(
        f"{' ↔ '.join(places)}: {len(result.worst)} moves, worst {report.microseconds(max(result.worst))}, idle p99.9 "
        f"{report.microseconds(statistics.median([idle.p999 for idle in result.idle]))}"
    )
    return result


def portion(bench, svmfs, name, places, moves):
    fio = guest.Guest.on_file(bench.scratch, svmfs.path(name), LOAD, 600)
    windows, told = [], []
    try:
        fio.settle(bench.args.idle_seconds)
        idle_end = time.time()
        for _ in range(moves):
            target = places[1] if svmfs.place(name) == places[0] else places[0]
            svmfs.migrate(name, f"{target},switchover=manual")
            wait_mirrored(svmfs, name)
            begun = time.time()
            svmfs.control(name, "switchover")
            fields = svmfs.wait(name)
            time.sleep(AFTER)
            windows.append((begun - 0.001, time.time()))
            told.append(int(fields["pause_us"]))
        trace = fio.stop()
    finally:
        fio.end()
    idle_begin = max(trace.first() + 0.1, idle_end - bench.args.idle_seconds)
    idle = trace.window(idle_begin, idle_end)
    if idle is None:
        raise RuntimeError("fio was not at work before the first move: more --idle-seconds")
    worst = [worst_of(trace, window) for window in windows]
    return Result(
        [idle],
        worst,
        control_windows(trace, idle_begin, idle_end, windows),
        told,
        [end - begin for begin, end in windows],
    )


def wait_mirrored(svmfs, name):
    if svmfs.wait(name, "mirrored", 120) is None:
        raise RuntimeError("the move does not come to state=mirrored")


def worst_of(trace, window):
    """Answered in it; a request that waited past its end is answered right after it, and had begun inside."""
    got = trace.window(window[0], window[1])
    return got.worst if got else (window[1] - window[0]) * 1e6


def control_windows(trace, begin, end, windows):
    chooser, found = random.Random(1), []
    for first, last in windows:
        length = min(last - first, (end - begin) / 2)
        at = chooser.uniform(begin, end - length)
        found.append(worst_of(trace, (at, at + length)))
    return found


def show(bench, results):
    bench.page.section(
        "Switchover under load (part switchover)",
        f"A disk of {bench.args.switch_size // 2**20} MiB moves to and fro with "
        "`switchover=manual` while " + guest.shown(LOAD, 600) + " goes on; for each move the worst wait of a request "
        "from `setfattr -n user.svmfs.control -v switchover` to 0.1 s after state=done (the source's blocks are given back), "
        "by fio's log of every request, and what "
        "progress says (pause_us). The control: as many windows as long of the idle time before.",
    )
    table(bench, results)
    tell(bench, "switchover", results)


def row(label, got):
    return [
        label,
        str(len(got.worst)),
        report.spread([idle.p999 for idle in got.idle], report.microseconds),
        report.spread(got.seconds, lambda x: f"{x * 1000:.0f} ms"),
        report.spread(got.control, report.microseconds),
        report.spread(got.worst, report.microseconds),
        report.spread(got.told, report.microseconds),
        f"{above(got)}",
    ]


def above(got):
    limit = statistics.median([idle.p999 for idle in got.idle]) + 1000
    return f"{sum(value > limit for value in got.worst)}; control {sum(value > limit for value in got.control)}"


def table(bench, results):
    bench.page.add(
        report.table(
            [
                "",
                "moves",
                "p99.9, idle",
                "length of the window",
                "worst wait in the control's windows",
                "worst wait in the switchover's",
                "pause_us",
                "windows above idle p99.9 + 1 ms",
            ],
            [row(label, got) for label, got in results.items()],
        )
        + "\n"
    )


def tell(bench, key, results):
    figures = [
        (label, max(got.worst) - statistics.median([idle.p999 for idle in got.idle])) for label, got in results.items()
    ]
    bench.goals.at_most(
        key,
        figures,
        1000,
        lambda value: f"{report.microseconds(abs(value))} {'above' if value > 0 else 'below'} idle p99.9",
    )
