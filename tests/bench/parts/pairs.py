"""A quiet move from each kind of datastore to each kind, beside blockdev-mirror between QEMU's drivers on the same
servers."""

import os
import time

import guest
import processors
import qemu
import report
from parts import speeds
from servers import KINDS

TEXT = """\
{size} MiB of random data, all servers' files on one disk; caches are dropped before each. QEMU: blockdev-mirror
(sync=full, copy-mode=write-blocking) in qemu-storage-daemon, to BLOCK_JOB_COMPLETED. svmfs: `setfattr -n
user.svmfs.migrate -v TARGET` to state=done, when all is durable and the source unlinked (its blocks are given back
meanwhile; what follows waits for a second). Processor time is the
moving process's own, without the servers'. The ideal is reading the source and writing the target in turn, each by
`qemu-img bench` with a flush at the end (files and devices: fio with fsync) at the best of {shapes} (block, depth)."""


def walk():
    """All pairs in an order in which each move begins where the one before it ended."""
    order = [KINDS[int(digit)] for digit in "00102031121322330"]
    return list(zip(order, order[1:]))


def measure(bench):
    svmfs, servers = bench.remote_svmfs(), bench.servers()
    fill_sources(servers)
    ends = {(kind, rw): End(servers, kind, rw) for kind in KINDS for rw in ("read", "write")}
    results = {pair: [] for pair in sorted(walk(), key=lambda pair: [KINDS.index(kind) for kind in pair])}
    svmfs.ensure("disk", f"{KINDS[0]}1")
    for number in range(bench.args.rounds):
        alone = {key: end.seconds() for key, end in ends.items()}
        for source, target in walk():
            guest.drop_caches()
            theirs = qemu_pair(servers, source, target)
            guest.drop_caches()
            ours = svmfs_pair(svmfs, f"{target}1" if svmfs.place("disk") != f"{target}1" else f"{target}2")
            results[source, target].append((theirs, ours, alone[source, "read"], alone[target, "write"]))
            bench.say(f"round {number + 1}: {source} → {target}: QEMU {theirs[0]:.2f} s, svmfs {ours[0]:.2f} s")
    show(bench, results, servers.size)


class End:
    """One side of a move alone, at its best request size and depth, which are looked for once."""

    def __init__(self, servers, kind, rw):
        self.kind, self.rw, self.size = kind, rw, servers.size
        node = servers.qemu_node(kind, 1 if rw == "read" else 2, False)
        self.path = os.path.join(servers.scratch, f"alone-{rw}") if kind == "local" else node.get("filename")
        if kind == "local" and rw == "read":
            guest.fill(self.path, self.size)
        self.options = ",".join(flat(node))
        self.shape = speeds.best_shape(self.run)

    def run(self, shape):
        if self.path:
            return speeds.of_file(self.path, self.rw, shape, self.size)
        return speeds.of_node(self.options, self.rw, shape, self.size)

    def seconds(self):
        guest.drop_caches()
        return self.run(self.shape)


def flat(value, prefix=""):
    """A blockdev as --image-opts wants it: driver=nfs,server.type=inet,…"""
    if not isinstance(value, dict):
        yield f"{prefix}={'on' if value is True else 'off' if value is False else value}"
        return
    for name, inner in value.items():
        yield from flat(inner, f"{prefix}.{name}" if prefix else name)


def qemu_pair(servers, source, target):
    """QEMU's move from kind to kind. Each end is new, the source filled."""
    daemon = qemu.Daemon(servers.scratch)
    try:
        daemon.add("source", servers.qemu_node(source, 1, False))
        daemon.add("target", servers.qemu_node(target, 2, True))
        return daemon.mirror("source", "target")
    finally:
        daemon.stop()


def fill_sources(servers):
    """What QEMU moves: as random as what svmfs moves."""
    for kind in KINDS:
        daemon = qemu.Daemon(servers.scratch)
        try:
            daemon.add("disk", servers.qemu_node(kind, 1, True))
            daemon.export_nbd("disk")
            guest.fill_nbd(daemon.uri(), servers.size)
        finally:
            daemon.stop()


def svmfs_pair(svmfs, target):
    before = processors.seconds_of(svmfs.pids())
    seconds, _ = svmfs.move("disk", target)
    used = processors.seconds_of(svmfs.pids()) - before
    time.sleep(1)
    return seconds, used


def show(bench, results, size):
    rows, ideals, mirrors = [], [], []
    speed = lambda took: report.spread([size / 1e6 / seconds for seconds in took], lambda x: f"{x:.0f}")  # noqa: E731
    used = lambda values: report.spread([value / (size / 2**30) for value in values], report.plain)  # noqa: E731
    for (source, target), got in results.items():
        label = f"{source} → {target}"
        theirs, ours = [pair[0][0] for pair in got], [pair[1][0] for pair in got]
        in_turn = [read + write for _, _, read, write in got]
        slower = [max(read, write) for _, _, read, write in got]
        ideals.append((label, report.median_ratio(in_turn, ours)))
        mirrors.append((label, report.median_ratio(theirs, ours)))
        rows.append(
            [
                label,
                speed([pair[2] for pair in got]),
                speed([pair[3] for pair in got]),
                speed(theirs),
                speed(ours),
                report.ratio(theirs, ours),
                report.ratio(in_turn, ours),
                report.ratio(slower, ours),
                used([pair[0][1] for pair in got]),
                used([pair[1][1] for pair in got]),
            ]
        )
    bench.page.section(
        "A quiet move, of all pairs (part pairs)",
        TEXT.replace("\n", " ").format(size=size // 2**20, shapes=speeds.SHAPES)
        + f" {bench.args.rounds} rounds, interleaved.",
    )
    bench.page.add(
        report.table(
            [
                "MB/s",
                "reading",
                "writing",
                "QEMU",
                "svmfs",
                "svmfs / QEMU",
                "svmfs / in turn",
                "svmfs / the slower",
                "QEMU, processor s/GiB",
                "svmfs, processor s/GiB",
            ],
            rows,
        )
        + "\n"
    )
    bench.goals.at_least("pairs-ideal", ideals, 0.95)
    bench.goals.at_least("pairs-mirror", mirrors, 1.3)
