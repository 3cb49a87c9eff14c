#!/usr/bin/env python3
"""A storm of names: processes create, rename, remove and change files, each against a model with the exact answer.

    storm.py [--workers N] DIR SECONDS SEED

Every worker owns a subtree and, in a directory that all share, the names with its prefix; what it does there is
predicted exactly, result and errno. Nothing may be lost, done twice or answered twice while the mount's worker is
killed and comes back: a second mkdir would answer EEXIST, a second unlink ENOENT. In a third directory all workers
fight for the same names, where an answer cannot be predicted but the sum can: a directory that was made n times and
removed m times stands n - m times; a token that was renamed in comes out once.

At the end each tree is compared with its model. A difference is one line with the worker, the number of the operation,
the call, both answers, what the model and the directory hold; the worker then takes over what is really there and goes
on. The same seed gives the same operations to each worker. SECONDS only says how long the storm blows.
"""
import argparse
import collections
import errno
import mmap
import os
import pickle
import random
import shutil
import signal
import stat
import sys
import tempfile
import time

sys.dont_write_bytecode = True

import calls
from model import Errno, Node, Tree, put, resize

KINDS = {stat.S_IFREG: 'file', stat.S_IFDIR: 'directory', stat.S_IFLNK: 'symlink', stat.S_IFIFO: 'fifo'}
NOW_IN = 256
LINES = 100


def name_of(error):
    return errno.errorcode.get(error, str(error))


def short(value):
    text = repr(value)
    return text if len(text) <= 120 else f'{text[:90]}... ({len(value)} long)'


class Disk:
    """The same calls as the model's Tree, made on the directory."""

    @staticmethod
    def create(path, mode):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, mode))

    mkdir, symlink, mkfifo, truncate = os.mkdir, os.symlink, os.mkfifo, os.truncate
    unlink, rmdir, chmod, readlink = os.unlink, os.rmdir, os.chmod, os.readlink

    @staticmethod
    def write(path, offset, data, truncate):
        fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_NONBLOCK | (os.O_TRUNC if truncate else 0), 0o644)
        try:
            os.pwrite(fd, data, offset)
        finally:
            os.close(fd)

    @staticmethod
    def append(path, data):
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK)
        try:
            os.write(fd, data)
        finally:
            os.close(fd)

    @staticmethod
    def read(path):
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            return os.read(fd, 1 << 20)
        finally:
            os.close(fd)

    @staticmethod
    def rename(old, new, replace=True):
        calls.renameat2(old, new, 0 if replace else calls.NOREPLACE)

    @staticmethod
    def lstat(path):
        got = os.lstat(path)
        kind = KINDS.get(stat.S_IFMT(got.st_mode), 'unknown')
        return kind, stat.S_IMODE(got.st_mode), got.st_nlink, got.st_size if kind == 'file' else None

    @staticmethod
    def listdir(path):
        return sorted(os.listdir(path))

    @staticmethod
    def setxattr(path, name, value, flags):
        os.setxattr(path, name, value, flags)

    getxattr = os.getxattr
    removexattr = os.removexattr

    @staticmethod
    def listxattr(path):
        return sorted(name for name in os.listxattr(path) if name.startswith('user.'))


def scan(path):
    """What really stands at a path, as a node of the model; None where nothing does."""
    try:
        kind, mode, _, _ = Disk.lstat(path)
    except FileNotFoundError:
        return None
    node = Node(kind, mode, os.readlink(path) if kind == 'symlink' else None)
    if kind == 'file':
        node.data = bytearray(Disk.read(path))
    if kind in ('file', 'directory'):
        node.attributes = {name: os.getxattr(path, name) for name in Disk.listxattr(path)}
    if kind == 'directory':
        node.children = {name: scan(f'{path}/{name}') for name in os.listdir(path)}
    return node


def differences(path, model, real):
    """One line for each place where the model's node and the real one differ."""
    if model is None or real is None:
        return [f'{path}: model {model or "nothing"}, directory {real or "nothing"}']
    found = []
    if (model.kind, model.target) != (real.kind, real.target) or model.mode != real.mode:
        found.append(f'{path}: model {model}, directory {real}')
    elif model.data != real.data:
        at = next((i for i, (a, b) in enumerate(zip(model.data, real.data)) if a != b),
                  min(len(model.data), len(real.data)))
        found.append(f'{path}: content differs at {at}: model {len(model.data)} bytes '
                     f'{bytes(model.data[at:at + 16])!r}, directory {len(real.data)} bytes '
                     f'{bytes(real.data[at:at + 16])!r}')
    if model.attributes != real.attributes:
        names = sorted(name for name in model.attributes.keys() | real.attributes
                       if model.attributes.get(name) != real.attributes.get(name))
        found.append(f'{path}: attributes {names}: model {[model.attributes.get(n) for n in names]}, '
                     f'directory {[real.attributes.get(n) for n in names]}')
    for name in sorted((model.children or {}).keys() | (real.children or {})):
        found += differences(f'{path}/{name}', (model.children or {}).get(name), (real.children or {}).get(name))
    return found


class Worker:
    def __init__(self, number, seed, now):
        self.number, self.seed, self.now = number, seed, now
        self.chance = random.Random(f'{seed}-{number}')
        self.own, self.prefix = f'w{number}', f'w{number}-'
        self.tree = Tree()
        for name in (self.own, 'shared', 'arena'):
            self.tree.root.children[name] = Node('directory', 0o755)
        self.operation = self.passed = self.failed = 0
        self.begun = time.monotonic()
        self.held = []
        self.arena = {}
        self.tokens_in, self.tokens_out = set(), []

    def report(self, call, problem, *paths):
        self.failed += 1
        if self.failed > LINES:
            return
        state = '; '.join(f'{path}: model {self.tree.find(path) or "nothing"}, directory {self.glance(path)}'
                          for path in paths)
        print(f'FAIL worker {self.number} operation {self.operation} (seed {self.seed}, '
              f'{time.monotonic() - self.begun:.2f} s): '
              f'{call}: {problem}' + (f'; now {state}' if state else ''), flush=True)
        if self.failed == LINES:
            print(f'worker {self.number} prints no more differences, and counts them', flush=True)

    @staticmethod
    def glance(path):
        try:
            return scan(path) or 'nothing'
        except OSError as error:
            return name_of(error.errno)

    def path(self):
        """A path of the own subtree, or of the own names in the shared directory; many do not exist."""
        names = 'abcdef'
        if self.chance.random() < 0.3:
            return self.existing()
        if self.chance.random() < 0.2:
            return f'shared/{self.prefix}{self.chance.choice("xyz")}' + self.chance.choice(['', '', '/a', '/b'])
        depth = self.chance.choice([1, 1, 1, 2, 2, 3])
        return self.own + ''.join('/' + self.chance.choice(names) for _ in range(depth))

    def existing(self):
        """A path that leads somewhere, on a walk down the model."""
        path, node = self.own, self.tree.root.children[self.own]
        while node.children and (path == self.own or self.chance.random() < 0.6):
            name = self.chance.choice(sorted(node.children))
            path, node = f'{path}/{name}', node.children[name]
        return path if path != self.own else f'{path}/a'

    def attributed(self):
        """A path with attributes, if a few walks find one."""
        paths = [self.existing() for _ in range(4)]
        return next((path for path in paths if self.tree.find(path) and self.tree.find(path).attributes), None)

    def data(self):
        return self.chance.randbytes(self.chance.choice([0, 1, 100, 5000, 20000]))

    def arguments(self, call):
        chance = self.chance
        if call in ('rename', 'rename_noreplace'):
            return (self.path(), self.path())
        if call == 'symlink':
            return f'nowhere/{chance.randrange(1000)}', self.path()
        if call in ('setxattr', 'getxattr', 'removexattr'):
            path, name = self.path(), f'user.{chance.choice("pqr")}'
            if call == 'setxattr':
                return path, name, chance.randbytes(chance.choice([0, 5, 50])), chance.choice([0, 1, 2])
            return (self.attributed() or path), name
        extra = {'create': lambda: (chance.choice([0o644, 0o600, 0o755]),),
                 'mkdir': lambda: (chance.choice([0o755, 0o700]),),
                 'mkfifo': lambda: (0o644,), 'chmod': lambda: (chance.choice([0o744, 0o700, 0o755, 0o1777]),),
                 'write': lambda: (chance.choice([0, 0, 10, 5000]), self.data(), chance.random() < 0.3),
                 'append': lambda: (self.data(),), 'truncate': lambda: (chance.choice([0, 1, 100, 4096, 30000]),)}
        return (self.path(),) + extra.get(call, tuple)()

    CALLS = {'create': 12, 'mkdir': 8, 'rename': 14, 'rename_noreplace': 6, 'unlink': 9, 'rmdir': 7, 'symlink': 6,
             'mkfifo': 2, 'write': 8, 'append': 3, 'read': 4, 'truncate': 3, 'chmod': 3, 'readlink': 4, 'lstat': 5,
             'listdir': 4, 'setxattr': 5, 'getxattr': 3, 'removexattr': 3, 'listxattr': 2, 'hold': 3, 'held': 6,
             'shared': 2, 'fight': 10, 'prune': 5}

    def blow(self, ends, limit):
        names, weights = list(self.CALLS), list(self.CALLS.values())
        while time.monotonic() < ends and self.operation != limit:
            self.operation += 1
            call = self.chance.choices(names, weights)[0]
            {'hold': self.hold, 'held': self.use_held, 'shared': self.list_shared, 'fight': self.fight,
             'prune': self.prune}.get(call, lambda: self.one(call))()
        self.settle()

    def note(self, text):
        """What the worker is doing, where the parent can read it should it never come back."""
        note = f'operation {self.operation}: {text}'.encode(errors='backslashreplace')
        self.now[:] = note[:NOW_IN].ljust(NOW_IN, b' ')

    def prune(self):
        """rm -r of something that is there, call by call."""
        self.remove(self.existing())

    def remove(self, path):
        node = self.tree.find(path)
        for name in sorted(node.children or ()) if node else ():
            self.remove(f'{path}/{name}')
        self.one('rmdir' if node and node.kind == 'directory' else 'unlink', (path,))

    def one(self, call, arguments=None):
        arguments = arguments or self.arguments(call)
        method, named = (call, {}) if call != 'rename_noreplace' else ('rename', {'replace': False})
        text = f'{call}({", ".join(short(argument) for argument in arguments)})'
        try:
            want = getattr(self.tree, method)(*arguments, **named)
        except Errno as error:
            want = error
        got = self.attempt(text, lambda: getattr(Disk, method)(*arguments, **named))
        paths = [word for word in arguments if isinstance(word, str) and word.startswith((self.own, 'shared/'))]
        self.judge(text, want, got, paths)

    def attempt(self, text, work):
        self.note(text)
        try:
            return work()
        except OSError as error:
            return error

    def judge(self, text, want, got, paths):
        wanted = name_of(want.number) if isinstance(want, Errno) else self.success(want)
        if isinstance(got, OSError):
            right = isinstance(want, Errno) and got.errno in (want.number, want.other)
            answer = name_of(got.errno)
        else:
            right = not isinstance(want, Errno) and (want is None or got == want)
            answer = self.success(got)
        if right:
            self.passed += 1
            return
        self.report(text, f'wanted {wanted}, got {answer}', *paths)
        self.take_over()

    @staticmethod
    def success(value):
        return 'success' if value is None else f'success {short(value)}'

    def take_over(self):
        """Goes on from what is really there."""
        try:
            real = scan(self.own)
            mine = {name: scan(f'shared/{name}') for name in os.listdir('shared') if name.startswith(self.prefix)}
        except OSError as error:
            self.report('reading the tree again', name_of(error.errno))
            return
        if real is not None:
            self.tree.root.children[self.own] = real
        self.tree.root.children['shared'].children = {name: node for name, node in mine.items() if node}
        for fd, _ in self.held:
            os.close(fd)
        self.held = []

    def hold(self):
        path = self.path()
        try:
            node = self.tree.hold(path)
        except Errno as error:
            node = error
        if len(self.held) >= 4 or isinstance(node, Node) and node.kind == 'fifo':
            return
        text = f'open({path!r}, O_RDWR)'
        got = self.attempt(text, lambda: os.open(path, os.O_RDWR))
        self.judge(text, node if isinstance(node, Errno) else None, got, [path])
        if isinstance(node, Node) and isinstance(got, int):
            self.held.append((got, node))

    def use_held(self):
        """Reads, writes, resizes and asks a file that was opened earlier and may have lost its name since."""
        if not self.held:
            return
        fd, node = self.chance.choice(self.held)
        what = self.chance.choice(['pread', 'pwrite', 'ftruncate', 'fstat', 'close', 'fsync'])
        offset, data, size = self.chance.choice([0, 3, 4096]), self.data(), self.chance.choice([0, 10, 9000])
        text = f'{what} of a held {"" if node.named else "unlinked "}file'
        if what == 'pread':
            got = self.attempt(text, lambda: os.pread(fd, 1 << 20, 0))
            self.judge(text, bytes(node.data), got, [])
        elif what == 'pwrite':
            put(node, offset, data)
            self.judge(text, len(data), self.attempt(text, lambda: os.pwrite(fd, data, offset)), [])
        elif what == 'ftruncate':
            resize(node, size)
            self.judge(text, None, self.attempt(text, lambda: os.ftruncate(fd, size)), [])
        elif what == 'fstat':
            got = self.attempt(text, lambda: (os.fstat(fd).st_size, os.fstat(fd).st_nlink))
            self.judge(text, (len(node.data), int(node.named)), got, [])
        elif what == 'fsync':
            self.judge(text, None, self.attempt(text, lambda: os.fsync(fd)), [])
        else:
            self.held.remove((fd, node))
            self.judge(text, None, self.attempt(text, lambda: os.close(fd)), [])

    def list_shared(self):
        """Other workers' names come and go beside ours; ours are all there, once."""
        got = self.attempt("listdir('shared')",
                           lambda: sorted(name for name in os.listdir('shared') if name.startswith(self.prefix)))
        mine = sorted(self.tree.root.children['shared'].children)
        self.judge("own names of listdir('shared')", mine, got, ['shared'])

    def fight(self):
        """One call on a name that every worker wants."""
        chance, slot = self.chance, self.chance.choice('123')
        what = chance.choice(['mkdir', 'rmdir', 'create', 'unlink', 'token in', 'token out'])
        if what in ('token in', 'token out'):
            self.fight_for_token(what, f'arena/token-{slot}')
            return
        path = f'arena/{"directory" if "dir" in what else "file"}-{slot}'
        work = {'mkdir': lambda: os.mkdir(path), 'rmdir': lambda: os.rmdir(path),
                'create': lambda: Disk.create(path, 0o644),
                'unlink': lambda: os.unlink(path)}[what]
        makes = what in ('mkdir', 'create')
        got = self.attempt(f'{what}({path!r})', work)
        if isinstance(got, OSError):
            self.judge_fight(f'{what}({path!r})', got, errno.EEXIST if makes else errno.ENOENT)
        else:
            self.passed += 1
            self.arena[path] = self.arena.get(path, 0) + (1 if makes else -1)

    def judge_fight(self, text, got, allowed):
        if got.errno == allowed:
            self.passed += 1
        else:
            self.report(text, f'wanted success or {name_of(allowed)}, got {name_of(got.errno)}')

    def fight_for_token(self, what, path):
        """Tokens go in by a rename that replaces nothing and come out by a rename to a name of one's own."""
        private = f'arena/{self.prefix}{"new" if what == "token in" else "won"}'
        if what == 'token in':
            token = f'{self.number}:{self.operation}'
            made = self.attempt(f'write({private!r})', lambda: Disk.write(private, 0, token.encode(), True))
            if isinstance(made, OSError):
                self.report(f'write({private!r})', f'wanted success, got {name_of(made.errno)}')
                return
            got = self.attempt(f'rename({private!r}, {path!r}, NOREPLACE)', lambda: Disk.rename(private, path, False))
            if isinstance(got, OSError):
                self.judge_fight(f'rename({private!r}, {path!r}, NOREPLACE)', got, errno.EEXIST)
            else:
                self.passed += 1
                self.tokens_in.add(token)
            return
        got = self.attempt(f'rename({path!r}, {private!r})', lambda: Disk.rename(path, private))
        if isinstance(got, OSError):
            self.judge_fight(f'rename({path!r}, {private!r})', got, errno.ENOENT)
            return
        token = self.attempt(f'read({private!r})', lambda: Disk.read(private).decode())
        if isinstance(token, OSError) or ':' not in token:
            self.report(f'read({private!r})', f'wanted a token, got {token!r}')
        else:
            self.passed += 1
            self.tokens_out.append(token)

    def settle(self):
        """Compares the tree with the model."""
        self.note('comparing the tree at the end')
        for fd, _ in self.held:
            os.close(fd)
        mine = self.tree.root.children['shared'].children
        try:
            found = differences(self.own, self.tree.find(self.own), scan(self.own))
            names = {name for name in os.listdir('shared') if name.startswith(self.prefix)} | set(mine)
            for name in sorted(names):
                found += differences(f'shared/{name}', mine.get(name), scan(f'shared/{name}'))
        except OSError as error:
            found = [f'reading the tree: {name_of(error.errno)} at {error.filename!r}']
        for line in found:
            self.report('the tree at the end', line)
        self.passed += not found


def run_worker(number, options, now, pipe, ends):
    worker = Worker(number, options.seed, now)
    try:
        os.mkdir(worker.own, 0o755)
        worker.blow(ends, options.operations)
    except BaseException as error:
        worker.report('the worker itself', f'ended by {error!r} in {bytes(now).decode().strip()}')
    with os.fdopen(pipe, 'wb') as file:
        pickle.dump((worker.passed, worker.failed, worker.arena, worker.tokens_in, worker.tokens_out), file)
    sys.stdout.flush()
    os._exit(0)


class Storm:
    def __init__(self, options):
        self.options = options
        self.passed = self.failed = 0
        self.results = []

    def check(self, label, problem):
        self.failed += problem is not None
        self.passed += problem is None
        if problem is not None:
            print(f'FAIL {label} (seed {self.options.seed}): {problem}')

    def blow(self):
        for name in ('shared', 'arena'):
            os.mkdir(name, 0o755)
        ends, children = time.monotonic() + self.options.seconds, []
        for number in range(self.options.workers):
            now = mmap.mmap(-1, NOW_IN)
            reader, writer = os.pipe()
            sys.stdout.flush()
            child = os.fork()
            if child == 0:
                os.close(reader)
                run_worker(number, self.options, now, writer, ends)
            os.close(writer)
            children.append((child, number, now, reader))
        for child in children:
            self.collect(*child, ends)
        self.account()

    def collect(self, child, number, now, reader, ends):
        """Waits for a worker; one that hangs is named with what it hangs in."""
        last_sign, last = time.monotonic(), bytes(now)
        while os.waitpid(child, os.WNOHANG)[0] == 0:
            if bytes(now) != last:
                last_sign, last = time.monotonic(), bytes(now)
            if time.monotonic() > max(last_sign, ends) + self.options.timeout:
                self.check(f'worker {number}', f'hung for {self.options.timeout} s in {last.decode().strip()}')
                os.kill(child, signal.SIGKILL)
                os.close(reader)
                return
            time.sleep(0.05)
        with os.fdopen(reader, 'rb') as file:
            data = file.read()
        if not data:
            self.check(f'worker {number}', f'died in {bytes(now).decode(errors="replace").strip()}')
            return
        self.results.append(pickle.loads(data))
        self.passed += self.results[-1][0]
        self.failed += self.results[-1][1]

    def account(self):
        """What all workers did to the names that they fought for must add up to what is there."""
        if len(self.results) < self.options.workers:
            print('SKIP accounts of the arena: a worker is missing')
            return
        for path in sorted({path for result in self.results for path in result[2]}):
            balance, there = sum(result[2].get(path, 0) for result in self.results), int(os.path.lexists(path))
            problem = f'made {balance} times more than removed, but there {there} times'
            self.check(f'account of {path}', None if balance == there else problem)
        put_in = set().union(*(result[3] for result in self.results))
        seen = collections.Counter(token for result in self.results for token in result[4])
        for name in os.listdir('arena'):
            if name.startswith('token-'):
                seen[Disk.read(f'arena/{name}').decode()] += 1
        self.check_tokens('tokens that came out twice', {token for token, times in seen.items() if times > 1})
        self.check_tokens('tokens that were lost', put_in - set(seen))
        self.check_tokens('tokens from nowhere', set(seen) - put_in)

    def check_tokens(self, label, tokens):
        self.check(label, f'{len(tokens)}: {sorted(tokens)[:20]} (worker:operation)' if tokens else None)


def run(options):
    place = tempfile.mkdtemp(prefix='storm.', dir=options.directory)
    os.chmod(place, 0o755)
    os.umask(0)
    home, storm, problems = os.getcwd(), Storm(options), []
    try:
        os.chdir(place)
        storm.blow()
        os.chdir(home)
        shutil.rmtree(place, onerror=lambda call, path, info: problems.append(
            f'{call.__name__}({os.path.relpath(path, place)}): {info[1]}'))
        storm.check('removal of the whole tree', '; '.join(problems[:5]) if problems else None)
    finally:
        os.chdir(home)
        shutil.rmtree(place, ignore_errors=True)
    return storm


def main():
    parser = argparse.ArgumentParser(description='A storm of names against a model.')
    parser.add_argument('--workers', type=int, default=4, metavar='N')
    parser.add_argument('--operations', type=int, metavar='N',
                        help='end after N operations of each worker, if that comes first')
    parser.add_argument('--timeout', type=float, default=300, metavar='SECONDS',
                        help='silence after which a worker counts as hung')
    parser.add_argument('directory', metavar='DIR')
    parser.add_argument('seconds', type=float, metavar='SECONDS')
    parser.add_argument('seed', metavar='SEED')
    storm = run(parser.parse_args())
    print(f'{storm.passed} passed, {storm.failed} failed, 0 skipped')
    return 1 if storm.failed else 0


if __name__ == '__main__':
    sys.exit(main())
