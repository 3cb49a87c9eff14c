"""The cost of the n-th file, the n-th region and the n-th job: flat lines, if it does not grow with n."""

import os
import statistics
import subprocess
import time

import guest
import report

SAMPLE = 200
FOLDER = "crowd"
VERBS = ("create", "open", "stat", "unlink")


def measure(bench):
    bench.page.section("What the n-th costs (part growth)")
    files(bench)
    regions(bench)
    jobs(bench)


def grows(rows):
    """The last third of the axis over the first: medians."""
    few = max(1, len(rows) // 3)
    return statistics.median([value for _, value in rows[-few:]]) / statistics.median(
        [value for _, value in rows[:few]]
    )


def files(bench):
    """One folder with more and more files: they are put there beneath the mount, since only its size is of interest."""
    store = os.path.join(bench.native.store, FOLDER)
    os.makedirs(store)
    lines, rows, made = {f"svmfs: {verb}": [] for verb in VERBS}, [], 0
    lines.update({f"native: {verb}": [] for verb in ("create", "open")})
    for count in [n for n in (1000, 3000, 10000, 30000, 100000) if n <= bench.args.files]:
        while made < count:
            os.close(os.open(os.path.join(store, f"file{made}"), os.O_CREAT | os.O_WRONLY))
            made += 1
        svmfs = bench.svmfs()
        pairs = [
            (cost_of_verbs(svmfs.path(FOLDER), count), cost_of_verbs(store, count)) for _ in range(bench.args.rounds)
        ]
        bench.stop_subjects()
        ours, native = (
            {verb: statistics.median([pair[side][verb] for pair in pairs]) for verb in VERBS} for side in (0, 1)
        )
        for verb in VERBS:
            lines[f"svmfs: {verb}"].append((count, ours[verb]))
        for verb in ("create", "open"):
            lines[f"native: {verb}"].append((count, native[verb]))
        rows.append(
            [str(count)]
            + [report.microseconds(ours[verb]) for verb in VERBS]
            + [report.microseconds(native[verb]) for verb in VERBS]
        )
        bench.say(f"{count} files: " + ", ".join(f"{verb} {report.microseconds(ours[verb])}" for verb in VERBS))
    subprocess.run(["rm", "-rf", store], check=True)
    bench.page.add(
        f"Each the median of {bench.args.rounds} rounds, interleaved, of the median of {SAMPLE} calls "
        f"from Python, in a folder that has so "
        "many files already:\n"
    )
    bench.page.add(
        report.table(
            ["files in the folder"] + [f"svmfs: {verb}" for verb in VERBS] + [f"native: {verb}" for verb in VERBS], rows
        )
        + "\n"
    )
    bench.plots.over_count(
        "files", "Cost of a call in a folder of n files", "files in the folder", "microseconds", lines
    )
    bench.goals.at_most(
        "scale-files",
        [(verb, grows(lines[f"svmfs: {verb}"])) for verb in VERBS],
        1.5,
        lambda x: f"the last third costs {x:.2f} times the first",
    )


def cost_of_verbs(folder, count):
    """verb → the median of its calls, microseconds"""
    fresh = [os.path.join(folder, f"fresh{i}") for i in range(SAMPLE)]
    old = [os.path.join(folder, f"file{i * (count // SAMPLE)}") for i in range(SAMPLE)]

    def opened(path, flags):
        os.close(os.open(path, flags))

    return {
        "create": median_of(fresh, lambda path: opened(path, os.O_CREAT | os.O_EXCL | os.O_RDWR)),
        "stat": median_of(old, os.stat),
        "open": median_of(old, lambda path: opened(path, os.O_RDONLY)),
        "unlink": median_of(fresh, os.unlink),
    }


def median_of(paths, call):
    took = []
    for path in paths:
        begun = time.perf_counter()
        call(path)
        took.append((time.perf_counter() - begun) * 1e6)
    return statistics.median(took)


def regions(bench):
    """Moves of ever larger disks with the same data at their two ends: what is left is the cost of their regions."""
    rows, line = [], []
    for size in [2**30 * n for n in (64, 256, 1024, 4096) if 2**30 * n <= bench.args.largest]:
        name = f"large{size >> 30}"
        path = os.path.join(bench.native.store, name)
        with open(path, "wb") as out:
            out.truncate(size)
            for at in (0, size // 2, size - 2**20):
                out.seek(at)
                out.write(os.urandom(2**20))
        took, grown = [], []
        for _ in range(bench.args.rounds):
            svmfs = bench.svmfs()
            before = svmfs.memory()["VmHWM"]
            took.append(svmfs.move(name, svmfs.other(name))[0])
            grown.append((svmfs.memory()["VmHWM"] - before) / 2**20)
            bench.stop_subjects()
        bench.remove(name)
        line.append((size >> 20, statistics.median(took) * 1000))
        rows.append(
            [
                f"{size >> 30} GiB",
                str(size >> 20),
                report.spread(took, lambda x: f"{x * 1000:.0f} ms"),
                f"{statistics.median(took) * 1e6 / (size >> 20):.3f} us",
                report.spread(grown, lambda x: f"{x:.2f} MiB"),
            ]
        )
        bench.say(f"{size >> 30} GiB: {statistics.median(took) * 1000:.0f} ms")
    bench.page.add(f"Moves of sparse disks with 3 MiB of data each, {bench.args.rounds} rounds:\n")
    bench.page.add(report.table(["disk", "regions", "the move", "a region", "memory grew"], rows) + "\n")
    bench.plots.over_count(
        "regions", "Time of a move of n regions, 3 of them with data", "regions", "milliseconds", {"svmfs": line}
    )
    # against the move of the fewest regions, which is all fixed cost
    slopes = [((value - line[0][1]) * 1000 / (count - line[0][0])) for count, value in line[1:]]
    if len(slopes) > 1:
        bench.goals.tell(
            "scale-regions",
            "a further region costs "
            + ", ".join(f"{slope:.3f} us" for slope in slopes)
            + " at "
            + ", ".join(
                f"{count // 2**20} TiB" if count >= 2**20 else f"{count // 1024} GiB" for count, _ in line[1:]
            ),
            slopes[-1] <= max(1.5 * slopes[-2], 0.05),
        )


def jobs(bench):
    """One small disk moves to and fro, again and again; then many wait in the queue at once."""
    path = os.path.join(bench.native.store, "small")
    guest.fill(path, 65536 * 16)
    svmfs = bench.svmfs()
    took = [(n + 1, svmfs.move("small", svmfs.other("small"))[0] * 1000) for n in range(bench.args.jobs)]
    bench.stop_subjects()
    bench.remove("small")
    few = max(1, len(took) // 20)
    line = [(took[at][0], statistics.median([ms for _, ms in took[at : at + few]])) for at in range(0, len(took), few)]
    rows = [
        [f"move {at} to {min(at + few, len(took) + 1) - 1} of a mount", f"{ms:.1f} ms"]
        for at, ms in line[:1] + line[-1:]
    ]
    queue, commands = queued(bench)
    rows += [[f"{count} moves queued at once, per move", f"{ms:.1f} ms"] for count, ms in queue]
    rows += [[f"{count} moves queued at once, the command", report.microseconds(us)] for count, us in commands]
    bench.page.add("Moves of a disk of 1 MiB, by `setfattr -n user.svmfs.migrate` to state=done, once:\n")
    bench.page.add(report.table(["", "median"], rows) + "\n")
    bench.plots.over_count(
        "jobs",
        "Time of the n-th move of a mount",
        "n",
        "milliseconds",
        dict({"one after the other": line}, **({"n queued at once, per move": queue} if queue else {})),
        xlog=False,
    )
    bench.goals.at_most(
        "scale-jobs",
        [("one after the other", grows(line))] + ([("queued at once", grows(queue))] if queue else []),
        1.5,
        lambda x: f"the last third costs {x:.2f} times the first",
    )


def queued(bench):
    """[(how many at once, milliseconds per move)]; the commands' own times come with it."""
    found, commands = [], []
    for count in [n for n in (10, 100, 300, 1000) if n <= bench.args.jobs]:
        names = [f"queued{i}" for i in range(count)]
        for name in names:
            with open(os.path.join(bench.native.store, name), "wb") as out:
                out.write(os.urandom(2**20))
        svmfs = bench.svmfs()
        begun = time.monotonic()
        command = median_of(names, lambda name: svmfs.migrate(name, "target"))  # pylint: disable=cell-var-from-loop
        for name in names:
            if svmfs.wait(name, "done") is None:
                raise RuntimeError(f"the move of {name} has no end")
        found.append((count, (time.monotonic() - begun) * 1000 / count))
        commands.append((count, command))
        bench.stop_subjects()
        for name in names:
            bench.remove(name)
        bench.say(f"{count} moves queued: {found[-1][1]:.1f} ms each")
    return found, commands
