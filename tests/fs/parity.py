#!/usr/bin/env python3
"""Makes the same calls on a plain directory and on a mount and compares them, call by call: result, errno, effect.

    parity.py [--case GLOB] [--trace] [--list] [--timeout SECONDS] PLAIN_DIR MOUNT_DIR

PLAIN_DIR lies on a filesystem that has what a VM host uses (ext4, xfs). Both directories are left as they were found.
Each case runs in a process of its own in a directory of its own, first plain, then mount; a difference is one line that
names the call, both answers and the line of the case. Each call also carries the answer that POSIX or Linux gives, so
that a script that fails alike on both sides is not taken for agreement. The timeout is no measure of speed: it only
ends a case that hangs, and says in which call.
"""
import argparse
import fnmatch
import os
import pickle
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback

sys.dont_write_bytecode = True

import calls
import cases
from trace import ANY, Skip, Trace, answer_of

# Where the mount may answer otherwise than the plain directory, and why. A case names the entry beside its call, as in
# allow='exchange'.
EXCEPTIONS = {
    'hard link': (['EPERM'], 'one file has one name: hard links are refused'),
    'exchange': (['EINVAL'], 'RENAME_EXCHANGE cannot be atomic across two datastores'),
    'shift': (['EOPNOTSUPP'], 'COLLAPSE_RANGE and INSERT_RANGE move what a running migration has copied'),
    'tmpfile': (['EOPNOTSUPP'], 'O_TMPFILE makes a file without a name, whose datastore nobody has chosen'),
    'unaligned direct': (['success'], 'O_DIRECT that is not aligned is served, where a disk refuses it'),
    'not empty': (['ENOTEMPTY', 'EEXIST'], 'POSIX names both, and filesystems choose'),
    'deeper': (['ENAMETOOLONG'], 'a path below the mount has at most 4095 bytes, even from a directory half way down'),
    'reflink': (['EOPNOTSUPP', 'EXDEV'], 'FICLONE does not pass through FUSE: cp copies the bytes'),
}


# A case runs so deep in its directory that a '..' after a chdir that failed does not lead out of it.
INSIDE = '/in/in/in/in/in'

# After so many hung cases in a row the mount counts as dead.
HUNG_CASES = 3


class Outcome:
    """What one case did on one side."""

    def __init__(self):
        self.steps, self.last, self.skip, self.end, self.hung = [], 'making its directory', None, None, False


def _send(pipe, kind, value):
    data = pickle.dumps((kind, value))
    while data:
        data = data[os.write(pipe, data):]


def _run_child(case, directory, table, pipe):
    """Makes the directory of the case, runs the case in it and removes it; all that may hang is done here."""
    os.setpgid(0, 0)
    os.umask(0o022)
    trace = Trace(table, lambda label: _send(pipe, 'begin', label[:600]), lambda step: _send(pipe, 'step', step))
    kind, value = 'end', 'done'
    try:
        place = tempfile.mkdtemp(prefix=case.__name__ + '.', dir=directory)
        os.chmod(place, 0o755)
        os.makedirs(place + INSIDE)
        os.chdir(place + INSIDE)
        case(trace)
    except Skip as reason:
        kind, value = 'skip', str(reason)
    except BaseException:
        value = 'the case itself failed: ' + ' | '.join(traceback.format_exc().strip().splitlines()[-3:])
    os.chdir('/')
    os.umask(0o022)
    os.closerange(pipe + 1, 1024)
    trace.about = ''
    trace.note('remove the directory of the case with all that is in it', lambda: remove(place), value=[])
    _send(pipe, kind, value)
    os._exit(0)


def remove(place):
    problems = []
    shutil.rmtree(place, onerror=lambda call, path, info: problems.append(
        f'{call.__name__}({os.path.relpath(path, place)[-60:]}): {info[1]!r}'))
    return problems


def in_time(work, timeout):
    """Does what may hang in a process of its own; true when that came to a good end."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    ends = time.monotonic() + timeout
    while time.monotonic() < ends:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return status == 0
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    return False


def _receive(outcome, stream, timeout):
    """Takes in what the case tells; true when it has fallen silent."""
    ends = time.monotonic() + timeout
    while True:
        if not select.select([stream], [], [], max(0, ends - time.monotonic()))[0]:
            outcome.end = f'hung for {timeout} s in: {outcome.last}'
            return True
        try:
            kind, value = pickle.load(stream)
        except (EOFError, pickle.UnpicklingError):
            return False
        if kind == 'begin':
            outcome.last = value
        elif kind == 'step':
            outcome.steps.append(value)
        else:
            setattr(outcome, kind, value)
            if kind in ('end', 'skip'):
                return False


def run_case(case, directory, table, timeout):
    """Runs one case in a new directory under directory and returns its outcome."""
    outcome = Outcome()
    reader, writer = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _run_child(case, directory, table, writer)
    os.close(writer)
    with os.fdopen(reader, 'rb', buffering=0) as stream:
        try:
            outcome.hung = _receive(outcome, stream, timeout)
        except BaseException:
            _kill_group(child)
            raise
    if not outcome.hung:
        status = os.waitpid(child, 0)[1]
        if outcome.end is None and outcome.skip is None:
            outcome.end = f'ended with status {status:#x} in: {outcome.last}'
    _kill_group(child)
    return outcome


def _kill_group(leader):
    """Ends what the case left behind: the process group that it made for itself."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        pass


def compare(plain, mount):
    """Yields (label, problem or None, documented exception or None) for each step of a case that ran on both sides."""
    answers = {step.label: step for step in mount.steps}
    for step in plain.steps:
        other = answers.pop(step.label, None)
        if other is None and mount.skip:
            continue
        problem, documented = _compare_step(step, other), None
        if problem and other and step.allow and _allowed(step, other):
            problem, documented = None, step.allow
        yield step.label, problem and f'{problem} ({step.where})', documented
    for label, step in answers.items():
        yield label, f'made on the mount only, where it gives {step.answer} ({step.where})', None
    if mount.skip:
        yield 'the case', f'skipped on the mount: {mount.skip}', None
    elif plain.end != 'done' or mount.end != 'done':
        yield 'the end of the case', f'plain: {plain.end}; mount: {mount.end}', None


def _compare_step(step, other):
    if other is None:
        return f'plain {step.answer}; never reached on the mount'
    if other.answer != step.answer:
        return f'plain {step.answer}; mount {other.answer}'
    wanted = _wanted(step)
    return wanted and f'both {step.answer}; but {wanted} is right'


def _wanted(step):
    """What the script expects, where the answer is not that."""
    if step.want == ANY:
        return None
    wants = step.want if isinstance(step.want, tuple) else (step.want,)
    names = [answer_of(OSError(want, '')) for want in wants if want]
    if step.answer.startswith('error '):
        return None if step.answer in names else ' or '.join(names) or 'success'
    if 0 not in wants:
        return ' or '.join(names)
    return step.value if step.value is not None and step.answer != step.value else None


def _allowed(step, other):
    answers = EXCEPTIONS[step.allow][0]
    if not other.answer.startswith('error '):
        return 'success' in answers
    return other.answer.removeprefix('error ') in answers


class Report:
    def __init__(self):
        self.passed = self.failed = self.skipped = 0
        self.documented = {}

    def case(self, name, plain, mount):
        if plain.skip:
            self.skipped += 1
            print(f'SKIP {name}: {plain.skip}')
            return
        for label, problem, documented in compare(plain, mount):
            self.failed += problem is not None
            self.passed += problem is None
            if problem:
                print(f'FAIL {name}: {label}: {problem}', flush=True)
            if documented:
                self.documented[documented] = self.documented.get(documented, 0) + 1

    def fail(self, line):
        self.failed += 1
        print(line, flush=True)

    def close(self):
        for name, count in self.documented.items():
            print(f'documented: {name} ({count} calls): {EXCEPTIONS[name][1]}')
        print(f'{self.passed} passed, {self.failed} failed, {self.skipped} skipped')
        return 1 if self.failed else 0


def _print_trace(name, plain, mount):
    answers = {step.label: step.answer for step in mount.steps}
    for step in plain.steps:
        print(f'  {name}: {step.label} = {step.answer}; mount {answers.get(step.label, "-")}')


def chosen_cases(glob):
    return [case for case in cases.ALL if fnmatch.fnmatch(case_name(case), glob)]


def case_name(case):
    return f'{case.__module__.rpartition(".")[2]}.{case.__name__}'


def main():
    parser = argparse.ArgumentParser(description='Compares a mount with a plain directory, call by call.')
    parser.add_argument('--case', default='*', metavar='GLOB', help='only cases whose name matches, such as names.*')
    parser.add_argument('--trace', action='store_true', help='print each call with both answers')
    parser.add_argument('--list', action='store_true', help='print the names of the cases and end')
    parser.add_argument('--timeout', type=float, default=180, metavar='SECONDS', help='when a case counts as hung')
    parser.add_argument('plain', nargs='?', metavar='PLAIN_DIR')
    parser.add_argument('mount', nargs='?', metavar='MOUNT_DIR')
    options = parser.parse_args()
    if options.list:
        print('\n'.join(case_name(case) for case in chosen_cases(options.case)))
        return 0
    both = options.plain, options.mount
    if not options.mount or not in_time(lambda: [os.listdir(path) for path in both], options.timeout):
        parser.error('PLAIN_DIR and MOUNT_DIR must be two directories that answer')
    return run(options)


def run(options):
    report, hung = Report(), 0
    places = [f'{directory}/parity.{os.getpid()}' for directory in (options.plain, options.mount)]
    try:
        for place in places:
            if not in_time(lambda: os.mkdir(place, 0o755), options.timeout):
                report.fail(f'FAIL cannot make {place!r}')
                return report.close()
        for case in chosen_cases(options.case):
            if hung == HUNG_CASES:
                report.fail(f'FAIL {case_name(case)}: not run, since {hung} cases have hung one after the other')
                continue
            plain = run_case(case, places[0], calls.TABLE, options.timeout)
            mount = Outcome() if plain.skip else run_case(case, places[1], calls.TABLE, options.timeout)
            hung = hung + 1 if mount.hung else 0
            report.case(case_name(case), plain, mount)
            if options.trace:
                _print_trace(case_name(case), plain, mount)
    finally:
        for place in places:
            in_time(lambda: shutil.rmtree(place, ignore_errors=True), options.timeout)
    return report.close()


if __name__ == '__main__':
    sys.exit(main())
