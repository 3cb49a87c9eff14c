"""Plots by gnuplot, each as SVG and PNG, in a folder beside the page."""

import os
import shutil
import subprocess

TERMINALS = {
    "svg": "svg size 900,{height} dynamic background rgb 'white' font 'sans,12'",
    "png": "pngcairo size 900,{height} font 'sans,10'",
}
COLOURS = ("#0060ad", "#c03000", "#007a4d", "#8040a0")


def quote(text):
    return "'" + str(text).replace("'", "''") + "'"


class Plots:
    def __init__(self, folder, page):
        self.folder, self.page = folder, page

    def draw(self, name, height, script, caption):
        """Both formats, and the line on the page. Without gnuplot or a folder the page says so."""
        if not self.folder:
            return
        if not shutil.which("gnuplot"):
            self.page.add(f"No plot of {caption}: there is no gnuplot here.\n")
            return
        os.makedirs(self.folder, exist_ok=True)
        for kind, terminal in TERMINALS.items():
            path = os.path.join(self.folder, f"{name}.{kind}")
            words = f"set terminal {terminal.format(height=height)}\nset output {quote(path)}\n{script}\n"
            subprocess.run(["gnuplot"], input=words, text=True, check=True, stdout=subprocess.DEVNULL)
        there = os.path.basename(self.folder.rstrip("/"))
        self.page.add(f"![{caption}]({there}/{name}.svg)\n\n{caption} ([PNG]({there}/{name}.png)).\n")

    def over_time(self, name, caption, panels):
        """panels: (title, [(seconds, median, worst)], [(seconds, label)]): one above the other, with the same axes."""
        longest = max(rows[-1][0] for _, rows, _ in panels if rows)
        most = max(worst for _, rows, _ in panels for _, _, worst in rows)
        least = min(median for _, rows, _ in panels for _, median, _ in rows if median)
        script = [
            f"set multiplot layout {len(panels)},1",
            "set logscale y",
            "set grid",
            "set key outside top center horizontal",
            f"set xrange [0:{longest * 1.01}]",
            f"set yrange [{max(least / 2000, 0.005)}:{most * 3 / 1000}]",
            "set ylabel 'milliseconds'",
        ]
        for number, (title, rows, marks) in enumerate(panels):
            script += [f"set title {quote(title)}", "unset arrow", "unset label"]
            for height, (at, label) in zip((0.93, 0.82), marks):
                script += [
                    f"set arrow from {at},graph 0 to {at},graph 1 nohead lc rgb 'black' dt 2",
                    f"set label {quote(label)} at {at},graph {height} offset 0.5,0",
                ]
            if number == len(panels) - 1:
                script.append("set xlabel 'seconds'")
            script += (
                [f"$d{number} << E"]
                + [f"{at} {median / 1000 if median else 'NaN'} {worst / 1000}" for at, median, worst in rows]
                + ["E"]
            )
            script.append(
                f"plot $d{number} using 1:3 with lines lc rgb {quote(COLOURS[1])} title 'longest wait "
                f"of a request under way', "
                f"$d{number} using 1:2 with lines lc rgb {quote(COLOURS[0])} title 'median of those answered'"
            )
        self.draw(name, 260 * len(panels), "\n".join(script) + "\nunset multiplot", caption)

    def over_count(self, name, caption, xlabel, ylabel, lines, xlog=True):  # pylint: disable=too-many-arguments
        """lines: title → [(count, figure)]; from zero, so that what grows is seen to grow."""
        script = [
            "set grid",
            "set key top left",
            f"set xlabel {quote(xlabel)}",
            f"set ylabel {quote(ylabel)}",
            "set yrange [0:*]",
        ]
        script += ["set logscale x"] if xlog else []
        drawn = []
        for number, (title, rows) in enumerate(lines.items()):
            script += [f"$d{number} << E"] + [f"{count} {figure}" for count, figure in rows] + ["E"]
            drawn.append(
                f"$d{number} using 1:2 with linespoints pt 7 ps 0.5 lc rgb "
                f"{quote(COLOURS[number % 4])} title {quote(title)}"
            )
        self.draw(name, 360, "\n".join(script) + "\nplot " + ", ".join(drawn), caption)
