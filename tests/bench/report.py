"""Medians, spreads and the page docs/BENCHMARKS.md."""

import os
import platform
import statistics
import subprocess


def rate(value):
    return f"{value / 1000:.1f}k" if value >= 10000 else f"{value:.0f}"


def spread(values, show):
    """The median, and the least and the most where there were several rounds."""
    text = show(statistics.median(values))
    return text if len(values) == 1 else f"{text} ({show(min(values))} to {show(max(values))})"


def ratio(values, base):
    """Round by round, so that a slow moment of the machine hits both."""
    return spread([a / b for a, b in zip(values, base)], lambda x: f"{x:.2f}")


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def machine(folder):
    model = next((line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo", encoding="utf-8", errors="replace")
                  if line.startswith("model name")), platform.machine())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    fs = subprocess.run(["stat", "-f", "-c", "%T", folder], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    kernel = platform.release().split("-")[0]
    fio = subprocess.run(["fio", "--version"], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    return (f"{os.cpu_count()} cores ({model}), {memory:.0f} GiB of memory, Linux {kernel}, "
            f"files on {fs.replace('ext2/ext3', 'ext4')}, {fio}.")


class Report:
    def __init__(self):
        self.parts = []

    def add(self, text=""):
        print(text, flush=True)
        self.parts.append(text)

    def write(self, path):
        with open(path, "w", encoding="utf-8") as out:
            out.write("\n".join(self.parts) + "\n")
