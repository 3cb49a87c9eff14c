"""What the marks cost a writer: its disk is mirrored and waits for its switchover (switchover=manual), so that all
that a move does to a write is the second leg and the marks. The journal lies on the source's disk; beside it the
same mount with its state in memory, where a mark costs no disk's time; and with the journal on disk, a long run:
its first seconds, in which no mark has expired, against the rest."""

import os
import shutil
import statistics

import guest
import mounts
import report
from guest import Job

LOADS = {
    "marks": Job("4 KiB random writes QD8", "randwrite", "4k", 8),
    "marks-sequential": Job("64 KiB sequential writes QD4", "write", "64k", 4),
}
DISK = "marks"
MEMORY = "/dev/shm"
PLACES = ("on the source's disk", "in memory")


def measure(bench):
    bench.disk(DISK, bench.args.marks_size)
    memory = os.path.join(MEMORY, os.path.basename(bench.scratch))
    if not os.access(MEMORY, os.W_OK):
        raise mounts.Unavailable(f"there is no {MEMORY} for a journal in memory")
    results, minute = {}, []
    try:
        for _ in range(bench.args.rounds):
            for key, load in LOADS.items():
                for place in PLACES:
                    got = one(bench, load, memory if place == "in memory" else None)
                    results.setdefault((key, place), []).append(got)
                    bench.say(f"{load.label}, journal {place}: {report.rate(got[0])}/s")
        svmfs = mirrored(bench, None)
        minute = guest.rates_over_time(bench.scratch, svmfs.path(DISK), LOADS["marks"], bench.args.marks_seconds)
        end(bench, svmfs)
    finally:
        bench.stop_subjects()
        shutil.rmtree(memory, ignore_errors=True)
    bench.remove(DISK)
    show(bench, results)
    show_minute(bench, minute)
    tell(bench, results, minute)


def mirrored(bench, state):
    svmfs = bench.svmfs(label="memory" if state else "svmfs", state=state)
    svmfs.migrate(DISK, f"{svmfs.other(DISK)},switchover=manual{bench.args.marks_options}")
    if svmfs.wait(DISK, "mirrored", 300) is None:
        raise RuntimeError("the move does not come to state=mirrored")
    return svmfs


def end(bench, svmfs):
    state = svmfs.progress(DISK)["state"]
    if state != "mirrored":
        raise RuntimeError(f"the move did not stay mirrored: {state}")
    svmfs.cancel(DISK)
    bench.stop_subjects()


def one(bench, load, state):
    """Writes a second in state=mirrored, p99.9."""
    svmfs = mirrored(bench, state)
    got = guest.run(svmfs.path(DISK), load, bench.args.marks_round)
    end(bench, svmfs)
    return got.rate, got.p999


def show(bench, results):
    rows = []
    for key, load in LOADS.items():
        disk, memory = (results[key, place] for place in PLACES)
        rows.append(
            [load.label]
            + [report.spread([got[0] for got in side], report.rate) for side in (disk, memory)]
            + [
                report.spread(ratios(results, key), report.plain),
                report.ratio([got[1] for got in disk], [got[1] for got in memory]),
            ]
        )
    bench.page.section(
        "What marks cost (part marks)",
        f"A disk of {bench.args.marks_size // 2**20} MiB in state=mirrored, "
        f"`-v target,switchover=manual{bench.args.marks_options}`. {bench.legs()} "
        + ", ".join(guest.shown(load, bench.args.marks_round) for load in LOADS.values())
        + f"; {bench.args.rounds} rounds, interleaved.",
    )
    bench.page.add(
        report.table(["writes a second, journal", *PLACES, "disk / memory", "p99.9, disk / memory"], rows) + "\n"
    )


def halves(bench, minute):
    first = [rate for at, rate in minute if at <= bench.args.marks_first]
    after = [rate for at, rate in minute if at > bench.args.marks_first]
    return (statistics.mean(first), statistics.mean(after)) if first and after else None


def show_minute(bench, minute):
    got = halves(bench, minute)
    if not got:
        bench.left_out("the long run is shorter than --marks-first")
        return
    bench.page.add(f"{LOADS['marks'].label} for {bench.args.marks_seconds:g} s, once, journal {PLACES[0]}:\n")
    bench.page.add(
        report.table(
            [f"writes a second in the first {bench.args.marks_first:g} s", "after", "after / first"],
            [[report.rate(got[0]), report.rate(got[1]), report.plain(got[1] / got[0])]],
        )
        + "\n"
    )
    bench.plots.over_count(
        "marks", "A random writer on a mirrored disk", "seconds", "writes a second", {"svmfs": minute}, xlog=False
    )


def tell(bench, results, minute):
    got = halves(bench, minute)
    figures = [("of the rate with its journal in memory", statistics.median(ratios(results, "marks")))]
    figures += [("of the first seconds' rate, after them", got[1] / got[0])] if got else []
    bench.goals.at_least("marks", figures, 0.95)
    sequential = ratios(results, "marks-sequential")
    # nothing that can be measured: within the spread of the rounds
    bench.goals.tell(
        "marks-sequential",
        f"{statistics.median(sequential):.2f} of the rate with its journal in memory",
        max(sequential) >= 1,
    )


def ratios(results, key):
    disk, memory = ([got[0] for got in results[key, place]] for place in PLACES)
    return report.ratios(disk, memory)
