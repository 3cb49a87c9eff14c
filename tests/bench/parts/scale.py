"""Many disks: all open, some active with one request in flight each, some of those moving, against one disk at the
same depth."""

import json
import os
import statistics
import threading

import guest
import mounts
import report
from guest import Job


def measure(bench):
    args = bench.args
    for i in range(args.disks):
        path = os.path.join(bench.native.store, f"many{i}")
        size = args.moving_size if i < args.moving else args.scale_size if i < args.active else 2**20
        with open(path, "wb") as out:
            if i < args.active:
                out.write(os.urandom(size))
                os.fsync(out.fileno())
            else:
                out.truncate(size)
    one = Job("one disk", "randwrite", "4k", args.active)
    bench.disk("disk", args.scale_size * args.active)
    svmfs = bench.svmfs(jobs=args.moving)
    held = [os.open(svmfs.path(f"many{i}"), os.O_RDWR | os.O_DIRECT) for i in range(args.disks)]
    results = {"one": [], "many": [], "moving": []}
    for number in range(args.rounds):
        results["one"].append([guest.run(svmfs.path(), one, args.seconds).rate])
        results["many"].append(many(svmfs, args))
        results["moving"].append(moving(svmfs, args))
        bench.say(
            f"round {number + 1}: "
            + ", ".join(f"{name} {report.rate(sum(got[-1]))}/s" for name, got in results.items())
        )
    for file in held:
        os.close(file)
    bench.stop_subjects()
    for i in range(args.disks):
        bench.remove(f"many{i}")
    show(bench, one, results)


def command(svmfs, args):
    words = [
        "fio",
        "--output-format=json",
        "--ioengine=libaio",
        "--direct=1",
        "--rw=randwrite",
        "--bs=4k",
        "--iodepth=1",
        "--thread",
        "--time_based",
        f"--runtime={int(args.seconds * 1000)}ms",
        f"--ramp_time={guest.RAMP}",
        "--fallocate=none",
        "--overwrite=1",
        "--norandommap",
    ]
    for i in range(args.active):
        words += [f"--name=disk{i}", f"--filename={svmfs.path(f'many{i}')}"]
    return words


def many(svmfs, args):
    out = mounts.run(*command(svmfs, args))
    return [job["write"]["iops"] for job in json.loads(out[out.index("{") :])["jobs"]]


def moving(svmfs, args):
    """The first of the active ones are moving all the time: each begins anew when it is done."""
    stop, failures = threading.Event(), []

    def keep_moving(name):
        try:
            while not stop.is_set():
                svmfs.move(name, svmfs.other(name))
        except (OSError, RuntimeError) as error:
            failures.append(error)

    threads = [threading.Thread(target=keep_moving, args=(f"many{i}",)) for i in range(args.moving)]
    for thread in threads:
        thread.start()
    try:
        rates = many(svmfs, args)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    if failures:
        raise RuntimeError(f"a move among many: {failures[0]}")
    return rates


def show(bench, one, results):
    args = bench.args
    labels = {
        "one": f"one disk, QD{args.active}",
        "many": f"{args.active} of {args.disks} open disks, QD1 each",
        "moving": f"the same, {args.moving} of them moving all the time",
    }
    totals = {name: [sum(got) for got in all_rounds] for name, all_rounds in results.items()}
    fair = {name: [min(got) / statistics.mean(got) for got in all_rounds] for name, all_rounds in results.items()}
    resting = [min(got[args.moving :]) / statistics.mean(got[args.moving :]) for got in results["moving"]]
    rows = [
        [
            labels[name],
            report.spread(totals[name], report.rate),
            report.ratio(totals[name], totals["one"]),
            report.spread(fair[name], report.plain) if name != "one" else "",
            report.spread(resting, report.plain) if name == "moving" else "",
        ]
        for name in labels
    ]
    bench.page.section(
        "Many disks (part scale)",
        f"{args.active} disks of {args.scale_size // 2**20} MiB are active, those "
        f"that move have {args.moving_size // 2**20} MiB, jobs={args.moving}. "
        f"{guest.shown(one, args.seconds)}, for many a job with --iodepth=1 for each. {bench.legs()} "
        f"{args.rounds} rounds, interleaved.",
    )
    bench.page.add(
        report.table(
            [
                "4 KiB random writes a second",
                "total",
                "of one disk's",
                "worst share / fair share",
                "of those that do not move",
            ],
            rows,
        )
        + "\n"
    )
    median = lambda name: report.median_ratio(totals[name], totals["one"])  # noqa: E731
    bench.goals.at_least("scale-rate", [("moving", median("moving")), ("none moving", median("many"))], 0.9)
    bench.goals.at_least(
        "scale-fair",
        [("moving", statistics.median(fair["moving"])), ("none moving", statistics.median(fair["many"]))],
        0.5,
    )
