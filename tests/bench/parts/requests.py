"""Plain requests to an idle local disk: the native file, passthrough_hp, QEMU's FUSE export and svmfs, all on one
file."""

import statistics

import guest
import processors
import report
from guest import Job

JOBS = [
    Job("4 KiB random read QD1", "randread", "4k", 1),
    Job("4 KiB random write QD1", "randwrite", "4k", 1),
    Job("4 KiB random read QD16", "randread", "4k", 16),
    Job("4 KiB random write QD16", "randwrite", "4k", 16),
    Job("4 KiB random read QD16, 4 jobs", "randread", "4k", 16, 4),
    Job("4 KiB random write QD16, 4 jobs", "randwrite", "4k", 16, 4),
    Job("1 MiB sequential read QD4", "read", "1m", 4),
    Job("1 MiB sequential write QD4", "write", "1m", 4),
]
SMALL = [job for job in JOBS if job.block == "4k"]


def measure(bench):
    bench.page.section("An idle local disk (part requests)")
    bench.disk()
    subjects = [bench.native]
    subjects += [peer for peer in [bench.passthrough_hp()] if peer] + bench.qemu_fuse()
    subjects.append(bench.svmfs())
    results = rounds(bench, subjects)
    bench.page.add(
        "Every cell by "
        + guest.shown(Job("", "RW", "BLOCK", "DEPTH"), bench.args.seconds)
        + f" (and --numjobs=4 --group_reporting), {bench.args.rounds} rounds, interleaved.\n"
    )
    names = [subject.name for subject in subjects]
    show_rates(bench, names, results)
    show_latencies(bench, names, results)
    show_processor(bench, names, results)


def rounds(bench, subjects):
    """(job's label, subject's name) → [(figures, processor seconds per GiB)]"""
    results = {}
    for number in range(bench.args.rounds):
        for job in JOBS:
            for subject in subjects:
                before = processors.seconds_of(subject.pids())
                got = guest.run(subject.path(), job, bench.args.seconds)
                used = processors.seconds_of(subject.pids()) - before
                # what was served before the measuring began is in the processor time
                served = got.bytes * (1 + 0.2 / bench.args.seconds) / 2**30
                results.setdefault((job.label, subject.name), []).append((got, used / served if served else 0))
                bench.say(f"round {number + 1}: {job.label}, {subject.name}: {report.rate(got.rate)}/s")
    return results


def figures(results, job, name, field):
    return [getattr(got, field) for got, _ in results[job.label, name]]


def compare(results, job, name, other, field):
    return report.median_ratio(figures(results, job, name, field), figures(results, job, other, field))


def show_rates(bench, names, results):
    others = names[1:]
    head = ["requests a second"] + names + [f"{name} / native" for name in others]
    head += [f"svmfs / {name}" for name in others if name != "svmfs"]
    rows = []
    for job in JOBS:
        row = [job.label] + [report.spread(figures(results, job, name, "rate"), report.rate) for name in names]
        row += [
            report.ratio(figures(results, job, name, "rate"), figures(results, job, "native", "rate"))
            for name in others
        ]
        row += [
            report.ratio(figures(results, job, "svmfs", "rate"), figures(results, job, name, "rate"))
            for name in others
            if name != "svmfs"
        ]
        rows.append(row)
    bench.page.add(report.table(head, rows) + "\n")
    rate = lambda other, jobs: [
        (job.label, compare(results, job, "svmfs", other, "rate")) for job in jobs
    ]  # noqa: E731
    bench.goals.at_least("native", rate("native", [job for job in SMALL if job.depth == 16]), 0.85)
    bench.goals.at_least("sequential", rate("native", [job for job in JOBS if job.block == "1m"]), 0.95)
    if "passthrough_hp" in names:
        bench.goals.at_least("passthrough", rate("passthrough_hp", SMALL), 1.3)
    else:
        bench.goals.missing("requests", "passthrough_hp cannot be had here")


def show_latencies(bench, names, results):
    head = ["latency"] + [f"{name}: p50, p99" for name in names] + ["svmfs / native: p50", "p99"]
    rows = []
    for job in JOBS:
        row = [job.label]
        for name in names:
            p50, p99 = (statistics.median(figures(results, job, name, field)) for field in ("p50", "p99"))
            row.append(f"{report.microseconds(p50)}, {report.microseconds(p99)}")
        row += [
            report.ratio(figures(results, job, "svmfs", field), figures(results, job, "native", field))
            for field in ("p50", "p99")
        ]
        rows.append(row)
    bench.page.add(report.table(head, rows) + "\n")
    bench.goals.at_most("p99", [(job.label, compare(results, job, "svmfs", "native", "p99")) for job in SMALL], 2)


def show_processor(bench, names, results):
    served = [name for name in names if name != "native"]
    cost = lambda job, name: [used for _, used in results[job.label, name]]  # noqa: E731
    rows = [[job.label] + [report.spread(cost(job, name), report.plain) for name in served] for job in JOBS]
    bench.page.add(
        "Processor time of the processes that serve (svmfs: worker and keeper), the guest's own not counted:\n"
    )
    bench.page.add(report.table(["processor seconds per GiB served"] + served, rows) + "\n")
    compared = [
        (f"{job.label}, {name}", report.median_ratio(cost(job, "svmfs"), cost(job, name)))
        for job in JOBS
        for name in served
        if name.startswith("QEMU")
    ]
    bench.goals.at_most("cpu-served", compared, 1, lambda value: f"{value:.2f} of QEMU's")
