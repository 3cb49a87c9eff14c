"""A move of a quiet local disk beside those who copy one: dd as the floor, nbdcopy, qemu-img convert, and
blockdev-mirror."""

import os
import shutil
import time

import guest
import processors
import qemu
import report
from parts import speeds

SOURCE = "quiet"


def measure(bench):
    size = bench.args.move_size
    source, copy = bench.disk(SOURCE, size), os.path.join(bench.target, "copy")
    shapes = {rw: speeds.best_of_file(path, rw, size) for rw, path in (("read", source), ("write", copy))}
    svmfs = bench.svmfs()
    results, pause = {}, []
    for number in range(bench.args.rounds):
        for name, run in contestants(bench, svmfs, source, copy, size, shapes, pause):
            guest.drop_caches()
            got = run()
            if got is not None:
                results.setdefault(name, []).append(got)
                bench.say(f"round {number + 1}: {name}: {got[0]:.2f} s")
            if os.path.exists(copy):
                os.unlink(copy)
    bench.stop_subjects()
    bench.remove(SOURCE)
    show(bench, results, shapes, pause, size)


def contestants(bench, svmfs, source, copy, size, shapes, pause):
    """(name, function that gives (seconds, processor seconds or None), or None when it is missing here)"""

    def move():
        before = processors.seconds_of(svmfs.pids())
        seconds, fields = svmfs.move(SOURCE, "target")
        used = processors.seconds_of(svmfs.pids()) - before
        pause.append(int(fields["pause_us"]))
        svmfs.move(SOURCE, "source")  # back to where the others look for it, not timed
        time.sleep(1)
        return seconds, used

    def mirror(mode, program=qemu.PROGRAM):
        if not shutil.which(program):
            return None
        daemon = qemu.Daemon(bench.scratch, program)
        try:
            with open(copy, "wb") as out:
                out.truncate(size)
            daemon.add("source", qemu.file_node(source))
            daemon.add("target", qemu.file_node(copy))
            return daemon.mirror("source", "target", mode)
        finally:
            daemon.stop()

    newer = bench.newer_qemu()
    return [
        ("reading", lambda: (speeds.of_file(source, "read", shapes["read"], size), None)),
        ("writing", lambda: (speeds.of_file(copy, "write", shapes["write"], size), None)),
        ("svmfs", move),
        ("blockdev-mirror, background", lambda: mirror("background")),
        ("blockdev-mirror, write-blocking", lambda: mirror("write-blocking")),
        *(
            [(f"blockdev-mirror, write-blocking, QEMU {newer[1]}", lambda: mirror("write-blocking", newer[0]))]
            if newer
            else []
        ),
        (
            "qemu-img convert",
            lambda: program(
                "qemu-img",
                "convert",
                "-f",
                "raw",
                "-O",
                "raw",
                "-W",
                "-m",
                "8",
                "-t",
                "none",
                "-T",
                "none",
                source,
                copy,
            ),
        ),
        ("nbdcopy", lambda: program("nbdcopy", "--flush", source, copy)),
        (
            "dd, O_DIRECT",
            lambda: program("dd", f"if={source}", f"of={copy}", "bs=4M", "iflag=direct", "oflag=direct", "conv=fsync"),
        ),
    ]


def program(*command):
    if not shutil.which(command[0]):
        return None
    if command[0] == "nbdcopy":
        with open(command[-1], "wb") as out:
            out.truncate(os.stat(command[-2]).st_size)
    before = processors.seconds_of_children()
    return speeds.timed(*command), processors.seconds_of_children() - before


COMMANDS = """\
reading and writing: fio, libaio, O_DIRECT, {read} and {write} (block, depth), the best of {shapes}, the writer with
fsync at its end. svmfs: `setfattr -n user.svmfs.migrate -v target` until state=done, when all is durable and the
source unlinked (its blocks are given back meanwhile; what follows waits for a second). blockdev-mirror: sync=full, copy-mode as named, until BLOCK_JOB_COMPLETED. `qemu-img convert -W -m 8
-t none -T none`. `nbdcopy --flush` (by the page cache). `dd bs=4M iflag=direct oflag=direct conv=fsync`. Caches are
dropped before each. {rounds} rounds, interleaved."""


def show(bench, results, shapes, pause, size):
    shared, gib = bench.shared_disk(), size / 2**30
    seconds = {name: [got[0] for got in all_rounds] for name, all_rounds in results.items()}
    ideal = [speeds.ideal(read, write, shared) for read, write in zip(seconds["reading"], seconds["writing"])]
    seconds["ideal"] = ideal
    show_speed = lambda name: report.spread(
        [size / 1e6 / took for took in seconds[name]], lambda x: f"{x:.0f}"
    )  # noqa: E731
    rows = []
    for name in ["reading", "writing", "ideal"] + [name for name in results if name not in ("reading", "writing")]:
        used = [got[1] / gib for got in results.get(name, []) if got[1] is not None]
        mine = "" if name in ("reading", "writing", "svmfs") else report.ratio(seconds[name], seconds["svmfs"])
        rows.append(
            [
                name,
                show_speed(name),
                report.ratio(ideal, seconds[name]),
                mine,
                report.spread(used, report.plain) if used else "",
            ]
        )
    bench.page.section(
        "A quiet move, local (part quiet)",
        f"{size // 2**20} MiB of random data. {bench.legs()} The ideal is "
        + ("reading and writing in turn." if shared else "the slower of reading and writing."),
        COMMANDS.replace("\n", " ").format(
            read=shapes["read"], write=shapes["write"], shapes=speeds.SHAPES, rounds=bench.args.rounds
        ),
    )
    bench.page.add(report.table(["", "MB/s", "of the ideal", "svmfs / it", "processor s/GiB"], rows) + "\n")
    bench.page.add(
        f"Longest wait of a request around svmfs's switchover: {report.spread(pause, report.microseconds)}.\n"
    )
    bench.goals.at_least("move-ideal", [("", report.median_ratio(ideal, seconds["svmfs"]))], 0.95)
    mirrors = [name for name in results if name.startswith("blockdev")]
    bench.goals.at_least(
        "move-mirror", [(name, report.median_ratio(seconds[name], seconds["svmfs"])) for name in mirrors], 1.3
    )
    cost = lambda name: [got[1] for got in results[name]]  # noqa: E731
    bench.goals.at_most(
        "cpu-moved",
        [(name, report.median_ratio(cost("svmfs"), cost(name))) for name in mirrors],
        1,
        lambda value: f"{value:.2f} of QEMU's",
    )
