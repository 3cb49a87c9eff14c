"""Plain requests to an idle disk on a remote datastore, beside QEMU's own drivers on the same server, by their NBD
export."""

import guest
import processors
import qemu
import report
from guest import Job
from parts.requests import JOBS as LOCAL_JOBS

JOBS = [job for job in LOCAL_JOBS if job.jobs == 1]
TEXT = (
    "QEMU: its own driver in qemu-storage-daemon, by fio's nbd engine over a unix socket. svmfs: a "
    "file of the mount, by fio's "
    "libaio engine. The same server; for iSCSI two LUNs of one target, svmfs's is a volume. The "
    "servers answer from memory."
)


def measure(bench):
    svmfs, servers = bench.remote_svmfs(), bench.servers()
    results = {}
    for kind in ("nfs", "iscsi"):
        daemon = qemu.Daemon(servers.scratch)
        try:
            daemon.add("disk", servers.qemu_node(kind, 1, True))
            daemon.export_nbd("disk")
            guest.fill_nbd(daemon.uri(), servers.size)
            svmfs.ensure("disk", f"{kind}1")
            for job in JOBS:
                results[kind, job] = rounds(bench, daemon, svmfs, kind, job)
        finally:
            daemon.stop()
    show(bench, results)


def rounds(bench, daemon, svmfs, kind, job):
    """[(QEMU's figures and processor seconds per GiB, svmfs's)]"""
    got = []
    for _ in range(bench.args.rounds):
        theirs = counted(
            [daemon.process.pid],
            lambda: guest.run_nbd(daemon.uri(), bench.args.pair_size, job, bench.args.seconds),
            bench,
        )
        ours = counted(svmfs.pids(), lambda: guest.run(svmfs.path(), job, bench.args.seconds), bench)
        got.append((theirs, ours))
        bench.say(f"{kind}, {job.label}: QEMU {report.rate(theirs[0].rate)}, svmfs {report.rate(ours[0].rate)}")
    return got


def counted(pids, run, bench):
    before = processors.seconds_of(pids)
    figures = run()
    used = processors.seconds_of(pids) - before
    return figures, used / (figures.bytes * (1 + 0.2 / bench.args.seconds) / 2**30)


def column(got, side, field):
    return [getattr(pair[side][0], field) for pair in got]


def show(bench, results):
    rows, rates, latencies = [], [], []
    for (kind, job), got in results.items():
        theirs, ours = column(got, 0, "rate"), column(got, 1, "rate")
        label = f"{kind}, {job.label}"
        rates.append((label, report.median_ratio(ours, theirs)))
        if job.depth == 1:
            latencies.append((label, report.median_ratio(column(got, 1, "p50"), column(got, 0, "p50"))))
        rows.append(
            [label, report.spread(theirs, report.rate), report.spread(ours, report.rate), report.ratio(ours, theirs)]
            + [report.ratio(column(got, 1, field), column(got, 0, field)) for field in ("p50", "p99")]
            + [report.spread([pair[side][1] for pair in got], report.plain) for side in (0, 1)]
        )
    bench.page.section(
        "An idle disk on a remote datastore (part remote)",
        TEXT,
        "Every cell by "
        + guest.shown(Job("", "RW", "BLOCK", "DEPTH"), bench.args.seconds)
        + f", {bench.args.rounds} rounds, interleaved; processor time without the servers'.",
    )
    bench.page.add(
        report.table(
            [
                "requests a second",
                "QEMU",
                "svmfs",
                "svmfs / QEMU",
                "latency, svmfs / QEMU: p50",
                "p99",
                "QEMU, processor s/GiB",
                "svmfs, processor s/GiB",
            ],
            rows,
        )
        + "\n"
    )
    bench.goals.at_least("remote-rate", rates, 1.3)
    bench.goals.at_most("remote-latency", latencies, 1.1)
