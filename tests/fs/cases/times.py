"""Times: which calls change which, and how exactly they can be set."""
import errno as E
import os
import time
from os import O_CREAT, O_RDONLY, O_RDWR, O_TRUNC

from calls import AT_SYMLINK_NOFOLLOW, KEEP, PUNCH, UTIME_NOW, UTIME_OMIT
from trace import ANY


def of_data(t):
    t.make('f', b'x' * 100000)
    fd = t.open('f', O_RDWR)
    for label, work in (
            ('write', lambda: t.raw.write(fd, b'abc')), ('pwrite', lambda: t.raw.pwrite(fd, b'abc', 50)),
            ('write of nothing', lambda: t.raw.write(fd, b'')), ('pread', lambda: t.raw.pread(fd, 10, 0)),
            ('fsync', lambda: t.raw.fsync(fd)), ('ftruncate down', lambda: t.raw.ftruncate(fd, 50000)),
            ('ftruncate up', lambda: t.raw.ftruncate(fd, 90000)),
            ('ftruncate to the same', lambda: t.raw.ftruncate(fd, 90000)),
            ('truncate to the same', lambda: t.raw.truncate('f', 90000)),
            ('truncate', lambda: t.raw.truncate('f', 80000)),
            ('fallocate', lambda: t.raw.fallocate(fd, 0, 0, 200000)),
            ('fallocate past the end', lambda: t.raw.fallocate(fd, KEEP, 300000, 4096)),
            ('punch', lambda: t.raw.fallocate(fd, PUNCH | KEEP, 0, 4096)),
            ('open', lambda: t.raw.close(t.raw.open('f', O_RDWR))),
            ('open to truncate', lambda: t.raw.close(t.raw.open('f', O_RDWR | O_TRUNC))),
            ('open to truncate what is empty', lambda: t.raw.close(t.raw.open('f', O_RDWR | O_TRUNC))),
            ('extending write', lambda: t.raw.pwrite(fd, b'x' * 9000, 0)),
            ('lseek', lambda: t.raw.lseek(fd, 0, os.SEEK_SET)),
            ('close', lambda: t.raw.close(fd))):
        t.changes(label, ['f'], work)


def of_mapped_stores(t):
    t.make('f', b'x' * 8192)
    fd = t.open('f', O_RDWR)

    def store():
        at = t.raw.mmap(fd, 8192)
        t.raw.poke(at, b'stored')
        t.raw.msync(at, 8192)
        t.raw.munmap(at, 8192)
        t.raw.fsync(fd)
    t.changes('a store to mapped memory, synced', ['f'], store)


def of_attributes(t):
    t.make('f', b'x')
    t.mkdir('d')
    fd = t.open('f', O_RDWR)
    for label, work in (
            ('chmod', lambda: t.raw.chmod('f', 0o600)), ('chmod to the same', lambda: t.raw.chmod('f', 0o600)),
            ('fchmod', lambda: t.raw.fchmod(fd, 0o644)),
            ('chown to the same', lambda: t.raw.chown('f', os.getuid(), os.getgid())),
            ('chown to none', lambda: t.raw.chown('f', -1, -1)), ('stat', lambda: t.raw.stat('f')),
            ('utime', lambda: os.utime('f')), ('chmod of a directory', lambda: t.raw.chmod('d', 0o700)),
            ('access', lambda: t.raw.access('f', 4))):
        t.changes(label, ['f', 'd'], work)


def of_xattrs(t):
    t.make('f', b'x')
    t.need('user xattrs', lambda: os.setxattr('f', 'user.probe', b''))
    t.changes('setxattr', ['f'], lambda: t.raw.setxattr('f', 'user.a', b'1'))
    t.changes('getxattr', ['f'], lambda: t.raw.getxattr('f', 'user.a'))
    t.changes('listxattr', ['f'], lambda: t.raw.listxattr('f'))
    t.changes('removexattr', ['f'], lambda: t.raw.removexattr('f', 'user.a'))


def of_names(t):
    for path in ('d', 'e', 'd/sub'):
        t.mkdir(path)
    t.make('d/f', b'f')
    held = t.open('d/f', O_RDONLY)

    def make(path):
        return lambda: t.raw.close(t.raw.open(path, O_CREAT | O_RDWR, 0o644))
    for label, work in (
            ('creat', make('d/new')), ('open of what is there', make('d/new')),
            ('mkdir', lambda: t.raw.mkdir('d/newdir')),
            ('symlink', lambda: t.raw.symlink('x', 'd/l')), ('mkfifo', lambda: t.raw.mkfifo('d/p')),
            ('unlink', lambda: t.raw.unlink('d/new')),
            ('rmdir', lambda: t.raw.rmdir('d/newdir')), ('rename inside', lambda: t.raw.rename('d/f', 'd/g')),
            ('rename away', lambda: t.raw.rename('d/g', 'e/g')),
            ('rename of a directory away', lambda: t.raw.rename('d/sub', 'e/sub')),
            ('rename over a file', lambda: (make('d/over')(), t.raw.rename('e/g', 'd/over'))),
            ('readlink', lambda: t.raw.readlink('d/l')), ('listdir', lambda: t.raw.listdir('d')),
            ('failed mkdir', lambda: _ignore(t.raw.mkdir, 'd')), ('failed rmdir', lambda: _ignore(t.raw.rmdir, 'd')),
            ('unlink of what is open', lambda: t.raw.unlink('d/over'))):
        t.changes(label, ['d', 'e', held], work)


def _ignore(call, *arguments):
    try:
        call(*arguments)
    except OSError:
        pass


def set_exactly(t):
    t.make('f')
    t.mkdir('d')
    t.symlink('f', 'l')
    t.mkfifo('p')
    for path in ('f', 'd', 'p'):
        for atime, mtime in (((1, 1), (2, 2)), ((1000000000, 123456789), (1000000001, 987654321)), ((0, 0), (0, 0)),
                             ((1 << 32, 5), ((1 << 32) + 1, 999999999)), ((-1, 0), (-1000000, 500000000))):
            t.utimensat(path, atime, mtime)
            t.both_times_ns(path, value=[atime[0] * 10**9 + atime[1], mtime[0] * 10**9 + mtime[1]])
    t.utimensat('l', (11, 12), (13, 14), AT_SYMLINK_NOFOLLOW)
    t.times_ns('l', value=13_000_000_014)
    t.utimensat('l', (21, 22), (23, 24))
    t.times_ns('l', value=13_000_000_014)
    t.times_ns('f', value=23_000_000_024)
    fd = t.open('f', O_RDWR)
    t.utimensat(fd, (31, 32), (33, 34))
    t.times_ns('f', value=33_000_000_034)
    t.utimensat('f', (1, 10**9), (1, 1), want=E.EINVAL)
    t.utimensat('f', (1, -1), (1, 1), want=E.EINVAL)
    t.utimensat('absent', (1, 1), (1, 1), want=E.ENOENT)
    t.utimensat('f/x', None, None, want=E.ENOTDIR)
    t.both_times_ns('f')


def now_and_omit(t):
    t.make('f')

    def recent(index):
        return lambda: abs([os.stat('f').st_atime, os.stat('f').st_mtime][index] - time.time()) < 3600
    t.utimensat('f', (5, 5), (6, 6))
    t.utimensat('f', (0, UTIME_OMIT), (7, 7))
    t.both_times_ns('f', value=[5000000005, 7000000007])
    t.utimensat('f', (8, 8), (0, UTIME_OMIT))
    t.both_times_ns('f', value=[8000000008, 7000000007])
    t.utimensat('f', (0, UTIME_OMIT), (0, UTIME_OMIT))
    t.both_times_ns('f', value=[8000000008, 7000000007])
    t.utimensat('f', (0, UTIME_NOW), (9, 9))
    t.note('atime is now', recent(0), value=True)
    t.times_ns('f', value=9000000009)
    t.utimensat('f', (10, 10), (0, UTIME_NOW))
    t.note('mtime is now', recent(1), value=True)
    t.note('atime is as set', lambda: os.stat('f').st_atime_ns, value=10000000010)
    t.utimensat('f', None, None)
    t.note('both are now', lambda: recent(0)() and recent(1)(), value=True)
    t.changes('both left out', ['f'], lambda: t.raw.utimensat('f', (0, UTIME_OMIT), (0, UTIME_OMIT)))
    t.changes('set', ['f'], lambda: t.raw.utimensat('f', (1, 1), (2, 2)))


def kept(t):
    """What was set stays, until something changes it."""
    t.make('f', b'x' * 5000)
    t.utimensat('f', (100, 1), (200, 2))
    fd = t.open('f', O_RDWR)
    t.pread(fd, 10, 0)
    t.fsync(fd)
    t.chmod('f', 0o600)
    t.rename('f', 'g')
    t.times_ns('g', value=200_000_000_002)
    t.pwrite(fd, b'y', 0)
    t.utimensat('g', (100, 1), (300, 3))
    t.fsync(fd)
    t.close(fd)
    t.times_ns('g', value=300_000_000_003)
    t.mkdir('d')
    t.utimensat('d', (1, 1), (400, 4))
    t.listdir('d')
    t.chmod('d', 0o700)
    t.times_ns('d', value=400_000_000_004)


def who_may_set(t):
    t.as_root()
    t.make('theirs', b'', 0o644, (2001, 2001))
    t.make('writable', b'', 0o666, (2001, 2001))

    def other(p):
        p.utimensat('theirs', None, None, want=E.EACCES)
        p.utimensat('theirs', (1, 1), (1, 1), want=E.EPERM)
        p.utimensat('writable', None, None)
        p.utimensat('writable', (0, UTIME_NOW), (0, UTIME_NOW))
        p.utimensat('writable', (1, 1), (1, 1), want=E.EPERM)
        p.utimensat('writable', (0, UTIME_NOW), (0, UTIME_OMIT), want=E.EPERM)
        p.utimensat('theirs', (0, UTIME_OMIT), (0, UTIME_OMIT), want=ANY)

    def owner(p):
        p.utimensat('theirs', None, None)
        p.utimensat('theirs', (1, 1), (1, 1))
        p.both_times_ns('theirs', value=[1000000001, 1000000001])
    t.run_as(2002, 2002, other)
    t.run_as(2001, 2001, owner)


def clock(t):
    """A new file's times are the time at which it was made, not the server's idea of it."""
    t.make('f', b'x')
    t.note('of a new file', lambda: all(abs(now - time.time()) < 3600 for now in (
        os.stat('f').st_mtime, os.stat('f').st_ctime, os.stat('f').st_atime)), value=True)
    t.note('has nanoseconds', lambda: any(_made(i).st_mtime_ns % 1000 for i in range(20)), value=True)
    t.note('does not run backwards', lambda: (times := [_made(i).st_mtime_ns for i in range(20, 40)]) == sorted(times),
           value=True)


def _made(number):
    with open(f'n{number}', 'wb') as file:
        file.write(b'x')
    return os.stat(f'n{number}')
