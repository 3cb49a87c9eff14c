#!/usr/bin/env python3
"""pile.py FOLDER COUNT: so many requests at once, data and names, on a folder whose datastore hangs.

Says "opened" when it holds the disk and waits for a line on stdin; says "piled" when all are on their way, and at the end how each kind ended. Exits 0 when every request ended, well or with
an error; a request that succeeds where it cannot (a write, say) is named, for the caller to judge.
"""
import collections
import errno
import mmap
import os
import sys
import threading
import time

folder, count = sys.argv[1], int(sys.argv[2])
disk = os.path.join(folder, "disk")
direct = os.open(disk, os.O_RDWR | os.O_DIRECT)
results = collections.defaultdict(collections.Counter)
longest = 0.0
lock = threading.Lock()
gate = threading.Barrier(count + 1)


def page():
    return mmap.mmap(-1, 4096)


def own(number, name):
    return os.path.join(folder, f"own{number}", name)


# What changes names, sizes or flushes has a directory and files of its own: on shared ones the kernel's locks of the
# directory and of the file would make each wait for the one before it.
KINDS = [
    ("direct read", lambda n: os.preadv(direct, [page()], n * 4096)),
    ("direct write", lambda n: os.pwritev(direct, [page()], n * 4096)),
    ("buffered read", lambda n: os.pread(files[n], 10, 0)),
    ("fsync", lambda n: os.fsync(files[n])),
    ("create", lambda n: os.close(os.open(own(n, "new"), os.O_CREAT | os.O_EXCL | os.O_RDWR))),
    ("unlink", lambda n: os.unlink(own(n, "file"))),
    ("rename", lambda n: os.rename(own(n, "file"), own(n, "renamed"))),
    ("open", lambda n: os.close(os.open(own(n, "file"), os.O_RDONLY))),
    ("truncate", lambda n: os.ftruncate(files[n], 10000)),
    ("getxattr", lambda n: os.getxattr(own(n, "file"), "user.note")),
]
NEEDS_OPEN = ("buffered read", "fsync", "truncate")
files = {n: os.open(own(n, "file"), os.O_RDWR) for n in range(count) if KINDS[n % len(KINDS)][0] in NEEDS_OPEN}
for n in files:
    if KINDS[n % len(KINDS)][0] == "fsync":
        os.pwrite(files[n], b"dirty", 0)


def request(number):
    global longest
    kind, call = KINDS[number % len(KINDS)]
    gate.wait()
    begun = time.monotonic()
    try:
        call(number)
        how = "done"
    except OSError as error:
        how = errno.errorcode.get(error.errno, str(error.errno))
    with lock:
        results[kind][how] += 1
        longest = max(longest, time.monotonic() - begun)


print("opened", flush=True)
sys.stdin.readline()
threads = [threading.Thread(target=request, args=(i,), daemon=True) for i in range(count)]
for thread in threads:
    thread.start()
gate.wait()
print("piled", flush=True)
deadline = time.monotonic() + float(os.environ.get("PATIENCE", "300"))
for thread in threads:
    thread.join(max(0.0, deadline - time.monotonic()))
left = sum(thread.is_alive() for thread in threads)
for kind, hows in sorted(results.items()):
    print(kind + ":", ", ".join(f"{how} {n}" for how, n in sorted(hows.items())))
print(f"longest {longest:.1f} s, without an answer {left}", flush=True)
os._exit(1 if left else 0)
