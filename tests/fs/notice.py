#!/usr/bin/env python3
"""Proves that parity.py and storm.py notice what they are there to notice.

    notice.py DIR

A baseline runs every case on DIR. Then one thing at a time is bent in the calls of a second run on the same filesystem,
as if a mount did it wrong: a call fails, does nothing and says that it worked, answers another errno, lets pass what
must be refused, or breaks one of the rules below. Each must end in at least one difference. It does not judge a mount:
run it when a case or the comparison changes.
"""
import argparse
import errno
import os
import shutil
import sys
import tempfile
import time

sys.dont_write_bytecode = True

import cases
import parity
import storm
from calls import TABLE
from faults import (ARENA_FAULTS, INVISIBLE, RIGHT, RULES, STORM_FAULTS, errno_becomes, failing, idle, now_and_then,
                    wrapped)

# When a bent case counts as hung, which is a difference too.
HUNG = 20


class Proof:
    def __init__(self, directory):
        self.directory = directory
        self.baseline, self.users, self.errors, self.answers, self.cost = {}, {}, {}, {}, {}
        self.passed = self.failed = self.skipped = 0

    def observe(self):
        for case in cases.ALL:
            begun = time.monotonic()
            outcome = parity.run_case(case, self.directory, TABLE, 300)
            self.cost[case] = time.monotonic() - begun
            if outcome.skip:
                self.skipped += 1
                print(f'SKIP {parity.case_name(case)}: {outcome.skip}')
                continue
            self.baseline[case] = outcome
            for step in outcome.steps:
                call = getattr(step, 'call', None)
                if call is None:
                    continue
                self.users.setdefault(call, {})[case] = None
                self.answers.setdefault(call, set()).add(step.answer)
                if step.answer.startswith('error E'):
                    self.errors.setdefault((call, getattr(errno, step.answer.split()[1])), {})[case] = None
        repeats = {case: parity.run_case(case, self.directory, TABLE, 300) for case in self.baseline}
        for case, outcome in self.baseline.items():
            self.expect(f'two runs of {parity.case_name(case)} agree', not self.differs(outcome, repeats[case]))

    @staticmethod
    def differs(plain, mount):
        return any(problem for _, problem, _ in parity.compare(plain, mount))

    def noticed(self, label, table, among):
        self.expect(label, any(self.differs(self.baseline[case], parity.run_case(case, self.directory, table, HUNG))
                               for case in sorted(among, key=self.cost.get)))

    def expect(self, label, holds):
        self.passed += bool(holds)
        self.failed += not holds
        if not holds:
            print(f'FAIL not noticed: {label}')

    def bend(self):
        for name, among in sorted(self.users.items()):
            self.noticed(f'{name} fails with EIO', failing(name), among)
            if name not in INVISIBLE:
                self.noticed(f'{name} does nothing', idle(name, self.answers[name]), among)
        for (name, number), among in sorted(self.errors.items()):
            text = errno.errorcode[number]
            self.noticed(f'{name} gives EIO for {text}', errno_becomes(name, number, errno.EIO), among)
            self.noticed(f'{name} works where {text} is right', errno_becomes(name, number, None), among)
        for name, change in RIGHT.items():
            same = wrapped(name, change)
            self.expect(f'{name} that is wrapped and right is right', not any(
                self.differs(self.baseline[case], parity.run_case(case, self.directory, same, HUNG))
                for case in self.users[name]))
        for label, (name, change) in RULES.items():
            self.noticed(label, wrapped(name, change), self.users.get(name, self.baseline))

    def bend_storm(self):
        self.expect_storm('a storm without a fault', None, None, None, False)
        for name, fault in STORM_FAULTS:
            self.expect_storm(f'storm: {name} {fault.__name__.strip("_")}', storm.Disk, name, fault)
        for name, fault in ARENA_FAULTS:
            self.expect_storm(f'storm: os.{name} {fault.__name__.strip("_")}', storm.os, name, fault)

    def expect_storm(self, label, owner, name, fault, notices=True):
        options = argparse.Namespace(directory=self.directory, seconds=600, seed=label, workers=3, operations=6000,
                                     timeout=60)
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            if owner:
                bent = now_and_then(fault)(getattr(owner, name))
                setattr(owner, name, staticmethod(bent) if owner is storm.Disk else bent)
            os._exit(bool(storm.run(options).failed))
        self.expect(label, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == int(notices))


def main():
    parser = argparse.ArgumentParser(description='Proves that parity.py and storm.py notice wrong answers.')
    parser.add_argument('directory', metavar='DIR')
    options = parser.parse_args()
    place = tempfile.mkdtemp(prefix='notice.', dir=options.directory)
    os.chmod(place, 0o755)
    proof = Proof(place)
    try:
        proof.observe()
        proof.bend()
        proof.bend_storm()
    finally:
        shutil.rmtree(place, ignore_errors=True)
    print(f'{proof.passed} passed, {proof.failed} failed, {proof.skipped} skipped')
    return 1 if proof.failed else 0


if __name__ == '__main__':
    sys.exit(main())
