"""Processor time of processes: what serving and moving cost."""

import os
import resource

TICKS = os.sysconf("SC_CLK_TCK")


def seconds_of(pids):
    """Of all their threads, in the program and in the kernel."""
    return sum(_one(pid) for pid in pids)


def _one(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def exact_seconds_of(pids):
    """Of the threads that live, by the nanosecond, for what uses next to nothing."""
    total = 0
    for pid in pids:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/schedstat", encoding="ascii") as stat:
                total += int(stat.read().split()[0])
    return total / 1e9


def seconds_of_children():
    """Of the programs that were run and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def processes_that_serve(mountpoint):
    """Those whose command line ends in it."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as line:
                if line.read().rstrip(b"\0").split(b"\0")[-1] == os.fsencode(mountpoint):
                    found.append(int(pid))
        except OSError:
            continue
    return found
