"""A move under load: what the guest keeps, how long its requests wait, how long the move takes; beside
blockdev-mirror.

One fio job goes on before, during and after a move, every request of it on record: idle is the window before the
move, moving the window from its begin to its end, in the same job. svmfs and QEMU have a file each, since a file
that svmfs serves is nobody else's to write; each is compared with its own idle rate."""

import collections
import os
import statistics
import time

import guest
import mounts
import qemu
import report
from guest import Job

LOADS = {
    "random": Job("4 KiB random writes QD8", "randwrite", "4k", 8),
    "mixed": Job("4 KiB random, 70 % reads, QD8", "randrw", "4k", 8, 1, ("--rwmixread=70",)),
    "sequential": Job("64 KiB sequential writes QD8", "write", "64k", 8),
}
MODES = ("background", "write-blocking")
DISK = "busy"
BIN = 0.02
Run = collections.namedtuple("Run", "idle moving seconds ended bins marks")


class Ours:
    name = "svmfs"

    def __init__(self, bench):
        self.bench = bench
        bench.disk(DISK, bench.args.busy_size)
        self.svmfs = bench.svmfs()

    def open(self, load):
        return guest.Guest.on_file(self.bench.scratch, self.svmfs.path(DISK), load, 600)

    def move(self, limit):
        """(when it began, when it switched or None, when it was done or given up on, whether it ended)"""
        begun = time.time()
        self.svmfs.migrate(DISK, self.svmfs.other(DISK))
        ended = self.svmfs.wait(DISK, "done", limit) is not None
        done = time.time()
        if not ended:
            self.svmfs.cancel(DISK)
        return begun, done if ended else None, done, ended

    def quiet(self):
        return self.svmfs.move(DISK, self.svmfs.other(DISK))[0]

    def close(self):
        pass


class Theirs:
    """A new daemon and a new target for each move."""

    def __init__(self, bench, mode):
        self.bench, self.mode, self.name = bench, mode, f"QEMU, {mode}"
        self.size = bench.args.busy_size
        self.source, self.target = os.path.join(bench.folder, "busy-qemu"), os.path.join(bench.target, "busy-qemu")
        self.daemon = None
        if not os.path.exists(self.source):
            guest.fill(self.source, self.size)

    def begin(self):
        with open(self.target, "wb") as out:
            out.truncate(self.size)
        self.daemon = qemu.Daemon(self.bench.scratch)
        self.daemon.add("source", qemu.file_node(self.source))
        self.daemon.add("target", qemu.file_node(self.target))

    def open(self, load):
        self.begin()
        self.daemon.export_nbd("source")
        return guest.Guest.on_nbd(self.bench.scratch, self.daemon.uri(), self.size, load, 600)

    def move(self, limit):
        begun = time.time()
        self.daemon.begin_mirror("source", "target", self.mode)
        end = self.daemon.end_mirror(limit)
        return begun, end and end[0], time.time(), end is not None

    def quiet(self):
        self.begin()
        seconds = self.daemon.mirror("source", "target", self.mode)[0]
        self.close()
        return seconds

    def close(self):
        if self.daemon:
            self.daemon.stop()
            self.daemon = None
        if os.path.exists(self.target):
            os.unlink(self.target)


def one_run(bench, mover, load):
    try:
        fio = mover.open(load)
        try:
            fio.settle(bench.args.idle_seconds)
            begun, switched, done, ended = mover.move(bench.args.move_limit)
            time.sleep(0.5)
            trace = fio.stop()
        finally:
            fio.end()
    finally:
        mover.close()
    idle = trace.window(max(trace.first(), begun - bench.args.idle_seconds), begun)
    moving = trace.window(begun, done)
    start = begun - min(1, bench.args.idle_seconds)
    marks = [(begun - start, "move begins")] + ([(switched - start, "switches over")] if switched else [])
    if idle is None:
        raise RuntimeError("fio was not at work before the move began: more --idle-seconds")
    return Run(idle, moving, done - begun, ended, trace.binned(start, done + 0.5, BIN), marks)


def measure(bench):
    ours, movers, results, quiet = Ours(bench), [], {}, {}
    movers.append(ours)
    try:
        qemu.need()
        movers += [Theirs(bench, mode) for mode in MODES]
    except mounts.Unavailable as reason:
        bench.left_out(str(reason))
    for number in range(bench.args.rounds):
        for mover in movers:
            quiet.setdefault(mover.name, []).append(mover.quiet())
            for kind in bench.args.loads.split(","):
                run = one_run(bench, mover, LOADS[kind])
                results.setdefault((kind, mover.name), []).append(run)
                bench.say(
                    f"round {number + 1}: {LOADS[kind].label}, {mover.name}: idle "
                    f"{report.rate(run.idle.rate)}/s, keeps "
                    f"{kept(run):.2f}, worst {report.microseconds(worst(run))}, {run.seconds:.1f} s"
                    f"{'' if run.ended else ' and no end'}"
                )
    bench.stop_subjects()
    bench.remove(DISK)
    if len(movers) > 1:
        os.unlink(movers[1].source)
    show(bench, [mover.name for mover in movers], results, quiet)


def kept(run):
    return run.moving.rate / run.idle.rate if run.moving else 0


def worst(run):
    """Where nothing was answered during the whole move, it was that long at least."""
    return run.moving.worst if run.moving else run.seconds * 1e6


def tail(run):
    return (run.moving.p999 if run.moving else run.seconds * 1e6) / run.idle.p999


def row_of(bench, kind, name, runs, quiet):
    times = [run.seconds / alone for run, alone in zip(runs, quiet)]
    endless = sum(not run.ended for run in runs)
    time_cell = report.spread(times, report.plain)
    if endless:
        time_cell += f"; {endless} of {len(runs)} had no end within {bench.args.move_limit:g} s"
    return [
        f"{LOADS[kind].label}: {name}",
        report.spread([run.idle.rate for run in runs], report.rate),
        report.spread([run.moving.rate if run.moving else 0 for run in runs], report.rate),
        report.spread([kept(run) for run in runs], report.plain),
        report.spread([run.idle.p999 for run in runs], report.microseconds),
        report.spread([tail(run) for run in runs], report.plain),
        report.spread([run.idle.worst for run in runs], report.microseconds),
        report.spread([worst(run) for run in runs], report.microseconds),
        time_cell,
    ]


def show(bench, names, results, quiet):
    kinds = bench.args.loads.split(",")
    commands = ", ".join(guest.shown(LOADS[kind], 600) for kind in kinds)
    bench.page.section(
        "A move under load (part busy)",
        f"{bench.args.busy_size // 2**20} MiB of random data. {bench.legs()} svmfs's "
        "journal is on the source's disk, all settings are the defaults. QEMU: an NBD export of qemu-storage-daemon, "
        "fio's nbd engine, blockdev-mirror sync=full with the copy-mode named, job-complete as soon as it is ready.",
        f"{commands}, with a log of every request; {bench.args.idle_seconds:g} s before the move are idle. "
        f"{bench.args.rounds} rounds, interleaved.",
    )
    rows = [row_of(bench, kind, name, results[kind, name], quiet[name]) for kind in kinds for name in names]
    bench.page.add(
        report.table(
            [
                "",
                "requests/s, idle",
                "moving",
                "moving / idle",
                "p99.9, idle",
                "p99.9, moving / idle",
                "worst, idle",
                "worst, moving",
                "time of the move / quiet",
            ],
            rows,
        )
        + "\n"
    )
    for kind in kinds:
        panels = []
        for name in names:
            run = sorted(results[kind, name], key=worst)[len(results[kind, name]) // 2]
            panels.append((name, run.bins, run.marks))
        bench.plots.over_time(
            f"busy-{kind}", f"Latency of {LOADS[kind].label} around a move, round of the median worst", panels
        )
    tell(bench, kinds, results, quiet["svmfs"])


def tell(bench, kinds, results, quiet):
    median = lambda kind, figure: statistics.median([figure(run) for run in results[kind, "svmfs"]])  # noqa: E731
    labelled = lambda figure: [(LOADS[kind].label, median(kind, figure)) for kind in kinds]  # noqa: E731
    bench.goals.at_least("busy-rate", labelled(kept), 0.75)
    bench.goals.at_most("busy-p999", labelled(tail), 3)
    bench.goals.at_most(
        "busy-worst",
        [(LOADS[kind].label, max(worst(run) for run in results[kind, "svmfs"])) for kind in kinds],
        20000,
        report.microseconds,
    )
    times = [
        (
            LOADS[kind].label,
            statistics.median([run.seconds / alone for run, alone in zip(results[kind, "svmfs"], quiet)]),
        )
        for kind in kinds
    ]
    bench.goals.at_most("busy-time", times, 1.5)
