#!/usr/bin/env python3
"""pile.py FOLDER COUNT: so many requests at once, data and names, on a folder whose datastore hangs.

Says "piled" when all are on their way, and at the end how each kind ended. Exits 0 when every request ended, well or with
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
buffered = os.open(disk, os.O_RDWR)
results = collections.defaultdict(collections.Counter)
longest = 0.0
lock = threading.Lock()
gate = threading.Barrier(count + 1)


def page():
    return mmap.mmap(-1, 4096)


KINDS = [
    ("direct read", lambda n: os.preadv(direct, [page()], n * 4096)),
    ("direct write", lambda n: os.pwritev(direct, [page()], n * 4096)),
    ("buffered read", lambda n: os.pread(buffered, 10, (n + 600) * 4096)),
    ("fsync", lambda n: os.fsync(direct)),
    ("create", lambda n: os.close(os.open(f"{folder}/new{n}", os.O_CREAT | os.O_EXCL | os.O_RDWR))),
    ("unlink", lambda n: os.unlink(f"{folder}/old{n}")),
    ("rename", lambda n: os.rename(f"{folder}/old{n}", f"{folder}/renamed{n}")),
    ("open", lambda n: os.close(os.open(f"{folder}/old{n}", os.O_RDONLY))),
    ("truncate", lambda n: os.ftruncate(buffered, (64 << 20) + n)),
    ("getxattr", lambda n: os.getxattr(f"{folder}/old{n}", "user.note")),
]


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
