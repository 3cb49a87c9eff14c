"""What svmfs costs while it does little: an idle mount's processor time, the memory of a mount, the bookkeeping of a
large move."""

import mmap
import os
import statistics
import time

import guest
import mounts
import processors
import report

GIB = 2**30
SETTLE = 6  # seconds after a mount's begin, or its servers' end


def measure(bench):
    bench.page.section("Processor and memory at rest (part cost)")
    rest(bench)
    memory(bench)
    sparse(bench)


def used_share(svmfs, seconds):
    time.sleep(SETTLE)
    before, begun = processors.exact_seconds_of(svmfs.pids()), time.monotonic()
    time.sleep(seconds)
    return (processors.exact_seconds_of(svmfs.pids()) - before) / (time.monotonic() - begun)


def rest(bench):
    svmfs = bench.svmfs()
    shares = [("two local datastores", used_share(svmfs, bench.args.rest_seconds) * 100)]
    bench.stop_subjects()
    try:
        svmfs = bench.remote_svmfs()
        shares.append(("eight datastores, two of each kind", used_share(svmfs, bench.args.rest_seconds) * 100))
        for kind in ("nfs", "iscsi"):
            bench.servers().tell(kind, "crash")
        shares.append(("the same, its servers dead", used_share(svmfs, bench.args.rest_seconds) * 100))
        bench.servers().start_again()
        bench.stop_subjects()
    except mounts.Unavailable as reason:
        bench.left_out(str(reason))
    rows = [[label, f"{share:.3f} %"] for label, share in shares]
    bench.page.add(
        report.table([f"an idle mount, {bench.args.rest_seconds:g} s after {SETTLE} s of rest, once", "of a core (worker and keeper)"], rows)
        + "\n"
    )
    bench.goals.at_most("idle-cpu", shares, 0.1, lambda x: f"{x:.3f} %")


def memory(bench):
    for i in range(bench.args.open_disks):
        with open(os.path.join(bench.native.store, f"idle{i}"), "wb") as out:
            out.truncate(GIB)
    svmfs = bench.svmfs()
    before = svmfs.memory()
    files = [os.open(svmfs.path(f"idle{i}"), os.O_RDWR | os.O_DIRECT) for i in range(bench.args.open_disks)]
    page_of_memory = mmap.mmap(-1, 4096)  # aligned, as O_DIRECT wants it
    for file in files:
        os.preadv(file, [page_of_memory], 0)
    after = svmfs.memory()
    for file in files:
        os.close(file)
    bench.stop_subjects()
    for i in range(bench.args.open_disks):
        bench.remove(f"idle{i}")
    mib = lambda value: f"{value / 2**20:.1f} MiB"  # noqa: E731
    bench.page.add(
        report.table(
            ["memory of the worker", "resident", "of that request slots and buffers (shared)", "of that its own"],
            [
                [label, mib(m["VmRSS"]), mib(m["RssShmem"]), mib(m["RssAnon"])]
                for label, m in (("no disk open", before), (f"{bench.args.open_disks} disks open", after))
            ],
        )
        + "\n"
    )


def scatter(dense, sparse, size, data):
    with open(sparse, "wb") as out, open(dense, "rb") as pieces:
        out.truncate(size)
        count = data >> 20
        for i in range(count):
            out.seek(size // count * i >> 20 << 20)
            out.write(pieces.read(1 << 20))
        os.fsync(out.fileno())


def sparse(bench):
    """A large disk with little data against a file that is that data alone."""
    size, data = bench.args.sparse_size, bench.args.sparse_data
    scatter(bench.disk("dense", data), os.path.join(bench.native.store, "sparse"), size, data)
    times, grown = {"dense": [], "sparse": []}, {"dense": [], "sparse": []}
    for number in range(bench.args.rounds):
        svmfs = bench.svmfs()  # a new one: the most that a worker ever had is what is read
        for name in ("dense", "sparse"):
            guest.drop_caches()
            before = svmfs.memory()["VmHWM"]
            times[name].append(svmfs.move(name, svmfs.other(name))[0])
            grown[name].append((svmfs.memory()["VmHWM"] - before) / 2**20)
        bench.say(
            f"round {number + 1}: {size >> 40} TiB sparse moved in {times['sparse'][-1]:.2f} s, grew "
            f"{grown['sparse'][-1]:.2f} MiB"
        )
        bench.stop_subjects()
    for name in ("dense", "sparse"):
        bench.remove(name)
    seconds, mib = (lambda x: f"{x:.2f} s"), (lambda x: f"{x:.2f} MiB")
    bench.page.add(
        f"A move of {data // 2**20} MiB of data, and of {size // GIB} GiB with the same data "
        f"scattered in it; after the first the "
        "copier's buffers are there, so that the second's growth is the bookkeeping. "
        f"{bench.args.rounds} rounds.\n"
    )
    bench.page.add(
        report.table(
            ["dense", "sparse", "sparse / dense", "memory grew, dense", "sparse"],
            [
                [
                    report.spread(times["dense"], seconds),
                    report.spread(times["sparse"], seconds),
                    report.ratio(times["sparse"], times["dense"]),
                    report.spread(grown["dense"], mib),
                    report.spread(grown["sparse"], mib),
                ]
            ],
        )
        + "\n"
    )
    bench.goals.at_most(
        "bookkeeping",
        [("", statistics.median(grown["sparse"]) / (size / 2**40))],
        1,
        lambda x: f"{x:.2f} MiB per TiB",
    )
