"""The guest: fio's jobs, what fio says of them, and traces of every request.

A trace is fio's log of each request (when it was answered, how long it took), in the host's time, so that a part
can ask for the window in which a move went on, and for the window before it, of the same job."""

import bisect
import collections
import glob
import json
import os
import signal
import statistics
import subprocess
import time

import mounts

Job = collections.namedtuple("Job", "label rw block depth jobs extra", defaults=(1, ()))
Figures = collections.namedtuple("Figures", "rate p50 p99 p999 worst bytes")  # microseconds
RAMP = "200ms"


def command(path, job, seconds, *more):
    words = [
        "fio",
        "--name=bench",
        f"--filename={path}",
        "--ioengine=libaio",
        "--direct=1",
        f"--rw={job.rw}",
        f"--bs={job.block}",
        f"--iodepth={job.depth}",
        "--thread",
        "--time_based",
        f"--runtime={int(seconds * 1000)}ms",
        "--randrepeat=1",
        "--norandommap",
        "--fallocate=none",
        "--overwrite=1",
        "--output-format=json",
    ]
    if job.jobs > 1:
        words += [f"--numjobs={job.jobs}", "--group_reporting"]
    return words + list(job.extra) + list(more)


def command_nbd(uri, size, job, seconds, *more):
    """The same job through fio's nbd engine, for exports that are no file."""
    native = ("--direct=1", "--overwrite=1", "--fallocate=none")
    words = [
        word.replace("=libaio", "=nbd")
        for word in command("", job, seconds)
        if word not in native and not word.startswith("--filename=")
    ]
    return words + [f"--uri={uri}", f"--size={size}", *more]  # which the engine's name must come before


def shown(job, seconds, *more):
    """The command as a page shows it."""
    return "`" + " ".join(command("DISK", job, seconds, *more)) + "`"


def parse(output):
    """Both directions together; percentiles of the busier one."""
    job = json.loads(output[output.index("{") :])["jobs"][0]
    sides = [side for side in (job["read"], job["write"]) if side["total_ios"]]
    main = max(sides, key=lambda side: side["total_ios"])
    percentile = {name: value / 1000 for name, value in main["clat_ns"].get("percentile", {}).items()}
    return Figures(
        sum(side["iops"] for side in sides),
        percentile.get("50.000000", 0),
        percentile.get("99.000000", 0),
        percentile.get("99.900000", 0),
        max(side["lat_ns"]["max"] for side in sides) / 1000,
        sum(side["io_bytes"] for side in sides),
    )


def run(path, job, seconds):
    return parse(mounts.run(*command(path, job, seconds, f"--ramp_time={RAMP}")))


def run_nbd(uri, size, job, seconds):
    return parse(mounts.run(*command_nbd(uri, size, job, seconds, f"--ramp_time={RAMP}")))


def rates_over_time(scratch, path, job, seconds, every=0.5):
    """[(seconds, requests a second)] of a long run."""
    prefix = os.path.join(scratch, "rates")
    mounts.run(*command(path, job, seconds, f"--write_iops_log={prefix}", f"--log_avg_msec={int(every * 1000)}"))
    rows = []
    for log in glob.glob(prefix + "_iops*.log"):
        with open(log, encoding="ascii") as lines:
            rows += [(int(line.split(",")[0]) / 1000, float(line.split(",")[1])) for line in lines]
        os.unlink(log)
    return sorted(rows)


def fill(path, size):
    """Random data, on the disk."""
    mounts.run(
        "fio",
        "--name=fill",
        f"--filename={path}",
        "--rw=write",
        "--bs=1m",
        "--direct=1",
        "--ioengine=libaio",
        "--iodepth=4",
        f"--size={size}",
        "--refill_buffers",
        "--end_fsync=1",
        "--fallocate=none",
    )


def fill_nbd(uri, size):
    mounts.run(
        "fio",
        "--name=fill",
        "--ioengine=nbd",
        f"--uri={uri}",
        "--rw=write",
        "--bs=1m",
        "--iodepth=4",
        f"--size={size}",
        "--refill_buffers",
        "--end_fsync=1",
    )


def drop_caches():
    subprocess.run(["sync"], check=True)
    try:
        with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as out:
            out.write("1")
    except OSError:
        pass


class Trace:
    """Answers in the order of time: when, in seconds since 1970, and how long the request took, in microseconds."""

    def __init__(self, pattern, block):
        answered = []
        for path in glob.glob(pattern):
            with open(path, encoding="ascii") as lines:
                for line in lines:
                    when, took, _ = line.split(",", 2)
                    answered.append((int(when) / 1000, int(took) / 1000))
        answered.sort()
        self.times, self.took = [when for when, _ in answered], [took for _, took in answered]
        self.block = block

    def window(self, begin, end):
        """Figures of what was answered in it; None when nothing was, though the guest was waiting all the time."""
        first, last = bisect.bisect_left(self.times, begin), bisect.bisect_right(self.times, end)
        took = sorted(self.took[first:last])
        if not took or end <= begin:
            return None
        pick = lambda share: took[min(len(took) - 1, int(len(took) * share))]  # noqa: E731
        return Figures(len(took) / (end - begin), pick(0.5), pick(0.99), pick(0.999), took[-1], len(took) * self.block)

    def first(self):
        return self.times[0] if self.times else 0

    def last(self):
        return self.times[-1] if self.times else 0

    def binned(self, begin, end, width):
        """(seconds since begin, median of what was answered or None, longest wait of what was under way) of each
        piece."""
        count = max(1, int((end - begin) / width))
        answered, longest = [[] for _ in range(count)], [0] * count
        for when, took in zip(self.times, self.took):
            last = int((when - begin) / width)
            if 0 <= last < count:
                answered[last].append(took)
            for at in range(max(0, int((when - took / 1e6 - begin) / width)), min(last, count - 1) + 1):
                longest[at] = max(longest[at], took)
        return [
            (at * width, statistics.median(answered[at]) if answered[at] else None, longest[at])
            for at in range(count)
            if longest[at]
        ]


class Guest:
    """A job that runs until it is told to stop, every request of it on record."""

    # room for the log beforehand: making room would count as a wait
    LOGGED = ("--log_unix_epoch=1", "--disable_slat=1", "--disable_clat=1", "--log_entries=1048576")

    def __init__(self, scratch, job, words):
        self.prefix = os.path.join(scratch, "trace")
        self.forget()
        self.block = {"4k": 4096, "64k": 65536, "1m": 2**20}[job.block]
        self.process = subprocess.Popen(
            words + [f"--write_lat_log={self.prefix}", *self.LOGGED],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    @classmethod
    def on_file(cls, scratch, path, job, limit):
        return cls(scratch, job, command(path, job, limit))

    @classmethod
    def on_nbd(cls, scratch, uri, size, job, limit):
        return cls(scratch, job, command_nbd(uri, size, job, limit))

    def forget(self):
        for path in glob.glob(self.prefix + "*"):
            os.unlink(path)

    def settle(self, seconds):
        """It is at work for so long, what it takes to start not counted."""
        time.sleep(0.7 + seconds)
        if self.process.poll() is not None:
            raise RuntimeError(f"fio ended early: {self.process.stdout.read()[:400]}")

    def stop(self):
        """Its trace."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        output = self.process.communicate(timeout=120)[0]
        if self.process.returncode not in (0, 128):  # 128: told to stop
            raise RuntimeError(f"fio ended with {self.process.returncode}: {output[:400]}")
        trace = Trace(self.prefix + "_lat*.log", self.block)
        self.forget()
        if not trace.times:
            raise RuntimeError(f"fio left no trace: {output[:400]}")
        return trace

    def end(self):
        """However it stands, no process stays."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
