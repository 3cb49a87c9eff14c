"""A trace: the calls that one case made on one directory, each with its answer as text.

A case is a function of a Trace. It calls `t.open('a', O_RDWR)`, and the trace makes the call, notes a step (label,
answer, where in the case it stands, what a POSIX system answers) and gives the result back. A failing call gives None
(an open: a descriptor that is not open), so a case never branches on a result and always makes the same calls in the
same order on both directories. Steps go to the runner one by one, each announced before it is made, so a call that
hangs or kills its process can be named.

Other people and other processes are peers: a generator run in a forked process, with credentials of its own, which
advances to its next `yield` at each step(), and whose steps land in the trace of the case at that point.
"""
import errno
import hashlib
import itertools
import os
import pickle
import signal
import stat as modes
import sys
import types

from calls import Fd, name_of, settle

ANY = 'any'
_UNSET = object()
_OPEN_FLAGS = [(name, getattr(os, name)) for name in (
    'O_TMPFILE', 'O_SYNC', 'O_CREAT', 'O_EXCL', 'O_TRUNC', 'O_APPEND', 'O_DIRECT', 'O_DIRECTORY', 'O_NOFOLLOW',
    'O_PATH', 'O_NONBLOCK', 'O_DSYNC')]
_BITS = {'fallocate': ('KEEP_SIZE', 'PUNCH_HOLE', '4', 'COLLAPSE', 'ZERO_RANGE', 'INSERT'),
         'renameat2': ('NOREPLACE', 'EXCHANGE')}
_OCTAL = {'open': 2, 'chmod': 1, 'fchmod': 1, 'mkdir': 1, 'mkfifo': 1, 'mknod': 1, 'umask': 0}


class Skip(Exception):
    """What the case needs is not there; the text says what."""


class Step:
    def __init__(self, label, answer, where, want, value, allow):
        self.label, self.answer, self.where = label, answer, where
        self.want, self.value, self.allow = want, value, allow


def _runs(data):
    runs, at = [], 0
    while at < len(data):
        byte = data[at:at + 1]
        length = len(data) - at - len(data[at:].lstrip(byte))
        runs.append(f'{byte!r}*{length}' if length > 1 else repr(byte))
        at += length
        if len(runs) > 12:
            return None
    return ' '.join(runs)


def describe(value):
    """Two answers are the same when their descriptions are; long ones end in a digest."""
    if isinstance(value, Fd):
        return 'fd'
    if value is None:
        return 'success'
    if isinstance(value, (bool, int)):
        return str(value)
    if isinstance(value, (bytes, bytearray)):
        data = bytes(value)
        if len(data) <= 32:
            return repr(data)
        digest = hashlib.sha1(data).hexdigest()[:10]
        return f'{len(data)} bytes: {_runs(data) or f"{data[:16]!r}... sha1 {digest}"}'
    if isinstance(value, os.stat_result):
        return _describe_stat(value)
    if isinstance(value, (list, tuple)):
        text = ', '.join(describe(item) for item in value)
        tail = f'... {len(value)} items, sha1 {hashlib.sha1(os.fsencode(text)).hexdigest()[:10]}'
        return f'[{text}]' if len(text) <= 400 else f'[{text[:360]}{tail}]'
    return repr(value) if isinstance(value, str) else type(value).__name__


def _describe_stat(got):
    """What both directories must agree on: not the numbers of inodes and devices, not times, not a directory's own
    size.
    """
    kinds = {'d': 'directory', 'l': 'symlink', 'p': 'fifo', 's': 'socket', 'c': 'character', 'b': 'block', '-': 'file'}
    kind = kinds[modes.filemode(got.st_mode)[0]]
    text = f'{kind} {modes.S_IMODE(got.st_mode):04o} {got.st_uid}:{got.st_gid} nlink={got.st_nlink}'
    if kind in ('file', 'symlink'):
        text += f' size={got.st_size}'
    if kind in ('character', 'block'):
        text += f' device={os.major(got.st_rdev)}:{os.minor(got.st_rdev)}'
    return text


def _flags(value):
    words, rest = [('O_RDONLY', 'O_WRONLY', 'O_RDWR', 'O_ACCMODE')[value & 3]], value & ~3 & ~0o100000
    for name, bits in _OPEN_FLAGS:
        if bits and rest & bits == bits:
            words.append(name)
            rest &= ~bits
    return '|'.join(words + ([hex(rest)] if rest else []))


def _argument(call, position, value):
    if isinstance(value, Fd):
        return f'<{value.name}>'
    if call in ('open', 'setfl') and position == 1:
        return _flags(value)
    if call in ('peek', 'poke', 'msync', 'munmap') and position == 0:
        return 'map'
    if call in _BITS and isinstance(value, int) and position == (2 if call == 'renameat2' else 1):
        return '|'.join(name for bit, name in enumerate(_BITS[call]) if value >> bit & 1) or '0'
    if _OCTAL.get(call) == position and isinstance(value, int):
        return f'{value:#o}'
    if isinstance(value, str) and len(value) > 90:
        return f'{value[:40]!r}...({len(value)} characters)'
    return describe(value)


def answer_of(error):
    name = errno.errorcode.get(error.errno, str(error.errno))
    return f'error {"EOPNOTSUPP" if error.errno == errno.EOPNOTSUPP else name}'


class Trace:
    def __init__(self, table, announce=None, note=None, peer=''):
        self._table, self._announce, self._note, self._peer = table, announce, note, peer
        self._seen = {}
        self.raw = types.SimpleNamespace(**table)
        self.about = ''
        self.steps = []

    def __getattr__(self, name):
        if name not in self._table:
            raise AttributeError(name)

        def call(*args, want=0, value=_UNSET, allow=None, **named):
            words = [_argument(name, i, arg) for i, arg in enumerate(args)]
            words += [f'{key}={_argument(name, -1, arg)}' for key, arg in named.items()]
            return self._step(f'{name}({", ".join(words)})', lambda: self._table[name](*args, **named), want, value,
                              allow, name, args)
        return call

    def check(self, label, value, expected=True):
        """Notes a value that the case worked out itself."""
        return self._step(label, lambda: value, 0, expected, None)

    def note(self, label, work, want=0, value=_UNSET, allow=None):
        """Like a call, for several that have one answer together."""
        return self._step(label, work, want, value, allow)

    def need(self, feature, work):
        """Skips the case where the plain directory lacks the feature; a mount that lacks it differs."""
        try:
            work()
            self.check(f'has {feature}', True)
        except OSError as error:
            self.check(f'has {feature}', answer_of(error), ANY)
            raise Skip(f'no {feature}: {answer_of(error)}') from error

    def as_root(self):
        if os.geteuid() != 0:
            raise Skip('needs root')

    def make(self, path, data=b'', mode=0o644, owner=None):
        """A file with content, as one step."""
        def work():
            fd = os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
            try:
                if data:
                    os.write(fd, data)
                os.fchmod(fd, mode)
                if owner:
                    os.fchown(fd, *owner)
                    os.fchmod(fd, mode)
            finally:
                os.close(fd)
        self._step(f'make {path!r}, {len(data)} bytes, mode {mode:#o}' + (f', owner {owner}' if owner else ''), work,
                   0, _UNSET, None)

    def content(self, path, expected):
        """Reads a file whole and tells where it first differs from what must stand in it."""
        def work():
            with open(path, 'rb', buffering=0) as file:
                got = file.read()
            return 'as written' if got == expected else difference(expected, got)
        self._step(f'content of {path!r}', work, 0, 'as written', None)

    def changes(self, label, paths, work):
        """Whether work() changed the modification and change time of each path, as words."""
        def times(path):
            got = os.fstat(path) if isinstance(path, int) else os.lstat(path)
            return got.st_mtime_ns, got.st_ctime_ns

        def changed(path, before):
            words = [f'{name} {"changed" if now != then else "same"}'
                     for name, then, now in zip(('mtime', 'ctime'), before, times(path))]
            return f'{getattr(path, "name", path)}: ' + ' '.join(words)

        def observe():
            before = [times(path) for path in paths]
            settle()
            work()
            return [changed(path, then) for path, then in zip(paths, before)]
        return self._step(f'times after {label}', observe, 0, _UNSET, None)

    def peer(self, script, uid=None, gid=None, groups=()):
        return Peer(self, script, uid, gid, groups)

    def run_as(self, uid, gid, script, groups=()):
        """Runs script(trace) as somebody else, to its end."""
        def whole(trace):
            script(trace)
            yield
        peer = self.peer(whole, uid, gid, groups)
        peer.step()
        peer.end()

    def _step(self, label, work, want, value, allow, name=None, arguments=()):
        label = self._peer + (f'[{self.about}] ' if self.about else '') + label
        if self._announce:
            self._announce(label)
        result = Fd(Fd.NONE, name_of(arguments[0])) if name in ('open', 'dup') else None
        try:
            result = work()
            answer = describe(result)
        except OSError as error:
            answer = answer_of(error)
        except (ValueError, TypeError, IndexError, AttributeError, OverflowError) as error:
            answer = f'error {error!r}'
        step = Step(label, answer, _where(), want, None if value is _UNSET or value is ANY else describe(value), allow)
        step.call = name
        self.add(step)
        return result

    def add(self, step):
        if not self._peer:
            self._seen[step.label] = self._seen.get(step.label, 0) + 1
            if self._seen[step.label] > 1:
                step.label += f' #{self._seen[step.label]}'
        self.steps.append(step)
        if self._note:
            self._note(step)


def _where():
    frame = sys._getframe(1)
    while frame.f_back and os.path.basename(frame.f_code.co_filename) == 'trace.py':
        frame = frame.f_back
    return f'{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}'


def difference(expected, got):
    at = next((i for i, (a, b) in enumerate(itertools.zip_longest(expected, got)) if a != b), 0)
    return (f'{len(got)} bytes for {len(expected)}; at offset {at} {got[at:at + 16]!r} for {expected[at:at + 16]!r}')


class Peer:
    """A forked process that runs a generator of steps in lockstep with the case."""

    def __init__(self, trace, script, uid, gid, groups):
        self.trace = trace
        down_read, down_write = os.pipe()
        up_read, up_write = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(down_write)
            os.close(up_read)
            self._serve(script, uid, gid, groups, os.fdopen(down_read, 'rb'), os.fdopen(up_write, 'wb'))
        os.close(down_read)
        os.close(up_write)
        self.down, self.up = os.fdopen(down_write, 'wb', buffering=0), os.fdopen(up_read, 'rb')

    def _serve(self, script, uid, gid, groups, down, up):
        try:
            if uid is not None:
                os.setgroups(list(groups))
                os.setgid(gid)
                os.setuid(uid)
            name = 'peer' if uid is None else f'uid {uid} gid {gid}' + (f' groups {list(groups)}' if groups else '')
            trace = Trace(self.trace._table, self.trace._announce, None, f'{name}: ')
            trace.about = self.trace.about
            for steps in self._rounds(script(trace), trace, down):
                pickle.dump(steps, up)
                up.flush()
        except BaseException as error:
            pickle.dump([Step(f'peer ended by {error!r}', 'crash', _where(), 0, 'no crash', None)], up)
            up.flush()
        os._exit(0)

    @staticmethod
    def _rounds(rounds, trace, down):
        while down.read(1):
            next(rounds, None)
            steps, trace.steps = trace.steps, []
            yield steps

    def start(self):
        """Lets the peer go on to its next yield without waiting for it."""
        try:
            self.down.write(b'.')
        except BrokenPipeError:
            pass

    def finish(self):
        try:
            for step in pickle.load(self.up):
                self.trace.add(step)
        except EOFError:
            self.trace.check('peer goes on', 'it is gone', 'it goes on')

    def step(self):
        self.start()
        self.finish()

    def end(self, kill=False):
        if kill:
            os.kill(self.pid, signal.SIGKILL)
        self.down.close()
        self.up.close()
        os.waitpid(self.pid, 0)
