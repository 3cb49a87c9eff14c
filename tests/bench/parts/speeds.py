"""The best that a leg can read and write: what a move is held against. No part of its own."""

import json
import os
import re
import time

import guest
import mounts

SHAPES = [("1m", 4), ("1m", 16), ("4m", 4), ("256k", 32)]


def of_file(path, rw, shape, size):
    """Seconds to read or to write so much of it with O_DIRECT; writing ends with fsync, as a move does."""
    block, depth = shape
    words = [
        "fio",
        "--name=leg",
        f"--filename={path}",
        "--ioengine=libaio",
        "--direct=1",
        f"--rw={rw}",
        f"--bs={block}",
        f"--iodepth={depth}",
        f"--size={size}",
        "--fallocate=none",
        "--output-format=json",
    ]
    if rw == "write":
        words += ["--end_fsync=1"]
        if os.path.isfile(path):
            os.unlink(path)  # the target of a move is new, too
    out = mounts.run(*words)
    side = json.loads(out[out.index("{") :])["jobs"][0]["read" if rw == "read" else "write"]
    return max(side["runtime"] / 1000, 0.001)  # the fsync included


def of_node(options, rw, shape, size):
    """The same through QEMU's driver, whose remote protocols fio does not speak."""
    block, depth = {"1m": 2**20, "4m": 2**22, "256k": 2**18}[shape[0]], shape[1]
    words = ["qemu-img", "bench", "-c", str(size // block), "-d", str(depth), "-s", str(block), "-t", "none"]
    if rw == "write":
        words += ["-w", f"--flush-interval={size // block}"]  # durable in the end, as a move is
    out = mounts.run(*words, "--image-opts", options)
    return float(re.search(r"completed in ([0-9.]+) seconds", out).group(1))


def best_shape(measure):
    """The fastest of the shapes."""
    return min(SHAPES, key=measure)


def best_of_file(path, rw, size):
    guest.drop_caches()
    return best_shape(lambda shape: of_file(path, rw, shape, size))


def timed(*command):
    begun = time.monotonic()
    mounts.run(*command)
    return time.monotonic() - begun


def ideal(read, write, shared):
    """Seconds: both in turn where the legs share a disk, the slower of both where they do not."""
    return read + write if shared else max(read, write)
