"""The goals that the parts' figures are held against. A figure that nobody measured is said to be missing."""

import report

# key → number of the goal, what it says, the part that measures it
GOALS = {
    "native": (1, "idle local disk, 4 KiB QD16: at least 0.85 of the native file", "requests"),
    "passthrough": (1, "the same: at least 1.3 times passthrough_hp", "requests"),
    "p99": (1, "4 KiB requests: p99 within 2 times native", "requests"),
    "sequential": (1, "1 MiB sequential: at least 0.95 of native", "requests"),
    "remote-rate": (2, "idle disk on NFS and iSCSI: at least 1.3 times QEMU's drivers", "remote"),
    "remote-latency": (2, "the same, QD1: within 1.1 times their latency", "remote"),
    "move-ideal": (3, "quiet move: at least 0.95 of reading and writing at their best", "quiet"),
    "pairs-ideal": (3, "the same, every pair of kinds", "pairs"),
    "move-mirror": (3, "quiet move: at least 1.3 times blockdev-mirror", "quiet"),
    "pairs-mirror": (3, "the same, every pair of kinds", "pairs"),
    "busy-rate": (4, "move under load: the guest keeps at least 0.75 of its idle rate", "busy"),
    "busy-p999": (4, "move under load: p99.9 within 3 times idle", "busy"),
    "busy-worst": (4, "move under load: no write takes longer than 20 ms", "busy"),
    "busy-time": (4, "move under load: at most 1.5 times the quiet one", "busy"),
    "latency": (5, "latency=2ms: p99 during the move below 2 ms where the idle disk's is", "budget"),
    "eta": (5, "ETA at 10 % of a steady move: within 10 % of the truth", "budget"),
    "switchover": (6, "switchover at QD32: no wait above idle p99.9 + 1 ms, local", "switchover"),
    "switchover-remote": (6, "the same, remote", "switchover"),
    "marks": (7, "marks cost a random writer at most 5 %", "marks"),
    "marks-sequential": (7, "marks cost a sequential writer nothing that can be measured", "marks"),
    "cpu-served": (8, "processor time per GiB served: lower than QEMU's", "requests"),
    "cpu-moved": (8, "processor time per GiB moved: lower than QEMU's", "quiet"),
    "bookkeeping": (8, "bookkeeping: under 1 MiB per TiB moving", "cost"),
    "idle-cpu": (8, "idle mount: under 0.1 % of a core", "cost"),
    "scale-rate": (9, "256 open, 64 active, 8 moving: at least 0.9 of one disk's rate", "scale"),
    "scale-fair": (9, "the same: worst share over fair share at least 0.5", "scale"),
    "scale-files": (9, "the cost of the n-th file does not grow", "growth"),
    "scale-regions": (9, "the cost of the n-th region does not grow", "growth"),
    "scale-jobs": (9, "the cost of the n-th job does not grow", "growth"),
}


class Goals:
    def __init__(self, parts_wanted):
        self.results, self.reasons, self.wanted = {}, {}, parts_wanted

    def tell(self, key, figure, met):
        """met None: there is a figure, but it decides nothing."""
        self.results[GOALS[key] and key] = (figure, met)

    def at_least(self, key, labelled, bound, show=report.plain):
        """labelled: (label, figure) of everything that the goal speaks of; the worst one decides."""
        known = [(value, label) for label, value in labelled if value is not None]
        if known:
            value, label = min(known)
            self.tell(key, f"{show(value)}{f' ({label})' if label else ''}{self._range(known, show)}", value >= bound)

    def at_most(self, key, labelled, bound, show=report.plain):
        known = [(value, label) for label, value in labelled if value is not None]
        if known:
            value, label = max(known)
            self.tell(key, f"{show(value)}{f' ({label})' if label else ''}{self._range(known, show)}", value <= bound)

    @staticmethod
    def _range(known, show):
        if len(known) == 1:
            return ""
        values = sorted(value for value, _ in known)
        return f"; all {len(known)}: {show(values[0])} to {show(values[-1])}"

    def missing(self, part, reason):
        self.reasons[part] = reason

    def table(self):
        rows = []
        for key, (number, words, part) in GOALS.items():
            figure, met = self.results.get(key, (None, None))
            if figure is None:
                reason = self.reasons.get(part, "no figure" if part in self.wanted else "part not run")
                figure, verdict = f"not measured: {reason}", "—"
            else:
                verdict = {True: "met", False: "**not met**", None: "—"}[met]
            rows.append([str(number), words, figure, verdict, part])
        return report.table(["goal", "", "measured (worst of all that it speaks of)", "", "table"], rows)
