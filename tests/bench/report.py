"""Medians, spreads, tables, and the page docs/BENCHMARKS.md."""

import os
import platform
import statistics
import subprocess

INTRODUCTION = """\
Written by `tests/bench/run`: everything below comes from one run, on the same files and servers, rounds
interleaved. A cell is the median and, in brackets, the least and the most of the rounds. Ratios are taken round by
round; "a / b" above 1 is better for a where both are rates, below 1 where both are times. Compare figures of one
run only: these machines are noisy."""


def rate(value):
    return f"{value / 1000:.1f}k" if value >= 10000 else f"{value:.0f}"


def ms(value):
    return f"{value:.2f} ms" if value < 10 else f"{value:.0f} ms"


def microseconds(value):
    return ms(value / 1000) if value >= 10000 else f"{value:.0f} us"


def plain(value):
    return f"{value:.2f}"


def spread(values, show):
    """The median, and the least and the most where there were several rounds."""
    if not values:
        return "not measured"
    text = show(statistics.median(values))
    return text if len(values) == 1 else f"{text} ({show(min(values))} to {show(max(values))})"


def ratios(values, base):
    """Round by round, so that a slow moment of the machine hits both."""
    return [a / b for a, b in zip(values, base) if b]


def ratio(values, base):
    return spread(ratios(values, base), plain)


def median_ratio(values, base):
    got = ratios(values, base)
    return statistics.median(got) if got else None


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def version(*command):
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip().split("\n")[0] or None


def machine(folder):
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in open("/proc/cpuinfo", encoding="utf-8", errors="replace")
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    fs = subprocess.run(
        ["stat", "-f", "-c", "%T", folder], stdout=subprocess.PIPE, text=True, check=True
    ).stdout.strip()
    kernel = platform.release().split("-")[0]
    programs = [
        version("fio", "--version"),
        version("qemu-storage-daemon", "--version"),
        version("nbdcopy", "--version"),
        version("pkg-config", "--modversion", "fuse3"),
    ]
    programs[3] = programs[3] and f"libfuse {programs[3]}"
    return (
        f"{os.cpu_count()} cores ({model}), {memory:.0f} GiB of memory, Linux {kernel}, "
        f"files on {fs.replace('ext2/ext3', 'ext4')}; " + ", ".join(filter(None, programs)) + "."
    )


class Page:
    """Sections in the order of their coming; the table of goals, whose figures come with them, stands at the top."""

    def __init__(self, goals, head):
        self.goals, self.head, self.parts = goals, head, []

    def add(self, text=""):
        print(text, flush=True)
        self.parts.append(text)

    def section(self, title, *paragraphs):
        """A part's table(s), with the commands that made them."""
        self.add(f"## {title}\n")
        for paragraph in paragraphs:
            self.add(paragraph + "\n")

    def text(self):
        parts = [
            "# Benchmarks\n",
            INTRODUCTION.replace("\n", " ") + "\n",
            self.head + "\n",
            "## Goals\n",
            self.goals.table() + "\n",
        ]
        return "\n".join(parts + self.parts).rstrip("\n") + "\n"

    def write(self, path):
        with open(path + ".new", "w", encoding="utf-8") as out:
            out.write(self.text())
        os.replace(path + ".new", path)
