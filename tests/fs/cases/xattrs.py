"""Extended attributes of the user namespace; trusted, security and system ones are not compared."""
import errno as E
import os
from os import O_CREAT, O_RDONLY, O_RDWR

from calls import CREATE, REPLACE
from trace import ANY


def _need(t):
    def probe():
        os.close(os.open('probe', O_CREAT | O_RDWR))
        os.setxattr('probe', 'user.probe', b'')
        os.unlink('probe')
    t.need('user xattrs', probe)


def of_a_file(t):
    _need(t)
    t.make('f')
    t.mkdir('d')
    for path in ('f', 'd'):
        t.listxattr(path, value=[])
        t.getxattr(path, 'user.a', want=E.ENODATA)
        t.removexattr(path, 'user.a', want=E.ENODATA)
        t.setxattr(path, 'user.a', b'one')
        t.getxattr(path, 'user.a', value=b'one')
        t.setxattr(path, 'user.a', b'two, which is longer')
        t.getxattr(path, 'user.a', value=b'two, which is longer')
        t.setxattr(path, 'user.a', b'3')
        t.setxattr(path, 'user.empty', b'')
        t.getxattr(path, 'user.empty', value=b'')
        t.setxattr(path, 'user.binary', bytes(range(256)))
        t.getxattr(path, 'user.binary', value=bytes(range(256)))
        t.listxattr(path, value=['user.a', 'user.binary', 'user.empty'])
        t.removexattr(path, 'user.a')
        t.getxattr(path, 'user.a', want=E.ENODATA)
        t.listxattr(path, value=['user.binary', 'user.empty'])
    t.setxattr('absent', 'user.a', b'', want=E.ENOENT)
    t.getxattr('absent', 'user.a', want=E.ENOENT)
    t.listxattr('absent', want=E.ENOENT)
    t.getxattr('f/x', 'user.a', want=E.ENOTDIR)


def create_and_replace(t):
    _need(t)
    t.make('f')
    t.setxattr('f', 'user.a', b'1', REPLACE, want=E.ENODATA)
    t.setxattr('f', 'user.a', b'2', CREATE)
    t.setxattr('f', 'user.a', b'3', CREATE, want=E.EEXIST)
    t.getxattr('f', 'user.a', value=b'2')
    t.setxattr('f', 'user.a', b'4', REPLACE)
    t.getxattr('f', 'user.a', value=b'4')
    t.setxattr('f', 'user.a', b'5', 64, want=E.EINVAL)
    t.removexattr('f', 'user.a')
    t.setxattr('f', 'user.a', b'6', REPLACE, want=E.ENODATA)
    t.listxattr('f', value=[])


def small_rooms(t):
    _need(t)
    t.make('f')
    t.setxattr('f', 'user.a', b'x' * 100)
    t.getxattr('f', 'user.a', 0, value=100)
    t.getxattr('f', 'user.a', 1, want=E.ERANGE)
    t.getxattr('f', 'user.a', 99, want=E.ERANGE)
    t.getxattr('f', 'user.a', 100, value=b'x' * 100)
    t.listxattr('f', 0, value='some')
    t.listxattr('f', 3, want=E.ERANGE)
    t.setxattr('f', 'user.empty', b'')
    t.getxattr('f', 'user.empty', 0, value=0)
    t.getxattr('f', 'user.absent', 0, want=E.ENODATA)


def names(t):
    _need(t)
    t.make('f')
    longest = 'user.' + 'n' * 250
    t.setxattr('f', longest, b'v')
    t.getxattr('f', longest, value=b'v')
    t.listxattr('f', value=[longest])
    t.setxattr('f', longest + 'n', b'v', want=E.ERANGE)
    t.getxattr('f', longest + 'n', want=E.ERANGE)
    t.removexattr('f', longest + 'n', want=E.ERANGE)
    t.setxattr('f', '', b'v', want=E.ERANGE)
    t.setxattr('f', 'user.', b'v', want=E.EINVAL)
    t.setxattr('f', 'nonsense.a', b'v', want=E.EOPNOTSUPP)
    t.setxattr('f', 'user', b'v', want=E.EOPNOTSUPP)
    t.getxattr('f', 'nonsense.a', want=E.EOPNOTSUPP)
    t.setxattr('f', b'user.\xff\xfe', b'v', want=ANY)
    t.setxattr('f', 'user.UPPER', b'u')
    t.setxattr('f', 'user.upper', b'l')
    t.getxattr('f', 'user.UPPER', value=b'u')
    t.setxattr('f', 'user.with space', b's')
    t.getxattr('f', 'user.with space', value=b's')


def values(t):
    _need(t)
    t.make('f')
    for size in (1, 255, 256, 1000, 3000):
        t.setxattr('f', 'user.big', b'v' * size)
        t.getxattr('f', 'user.big', value=b'v' * size)
    t.removexattr('f', 'user.big')
    t.setxattr('f', 'user.page', b'p' * 4096, want=ANY)
    t.getxattr('f', 'user.page', want=ANY)
    t.setxattr('f', 'user.largest', b'p' * 65536, want=ANY)
    t.setxattr('f', 'user.too-big', b'p' * 65537, want=E.E2BIG)
    t.listxattr('f')


def many(t):
    _need(t)
    t.make('f')
    for i in range(40):
        t.setxattr('f', f'user.number-{i}', b'%d' % i)
    t.listxattr('f', value=sorted(f'user.number-{i}' for i in range(40)))
    for i in range(0, 40, 2):
        t.removexattr('f', f'user.number-{i}')
    t.listxattr('f')
    for i in range(1, 40, 2):
        t.getxattr('f', f'user.number-{i}', value=b'%d' % i)


def of_other_kinds(t):
    _need(t)
    t.make('f')
    t.symlink('f', 'l')
    t.mkfifo('p')
    t.setxattr('l', 'user.a', b'through')
    t.getxattr('f', 'user.a', value=b'through')
    t.setxattr('l', 'user.a', b'x', follow=False, want=E.EPERM)
    t.getxattr('l', 'user.a', follow=False, want=E.ENODATA)
    t.removexattr('l', 'user.a', follow=False, want=E.EPERM)
    t.setxattr('p', 'user.a', b'x', want=E.EPERM)
    t.getxattr('p', 'user.a', want=E.ENODATA)
    t.symlink('absent', 'dangling')
    t.setxattr('dangling', 'user.a', b'x', want=E.ENOENT)


def of_a_descriptor(t):
    _need(t)
    fd = t.open('f', O_CREAT | O_RDWR)
    t.fsetxattr(fd, 'user.a', b'1')
    t.fgetxattr(fd, 'user.a', value=b'1')
    t.getxattr('f', 'user.a', value=b'1')
    reader = t.open('f', O_RDONLY)
    t.fsetxattr(reader, 'user.b', b'2')
    t.fsetxattr(fd, 'user.a', b'3', CREATE, want=E.EEXIST)
    t.fremovexattr(fd, 'user.a')
    t.fgetxattr(reader, 'user.a', want=E.ENODATA)
    t.fremovexattr(fd, 'user.a', want=E.ENODATA)
    t.listxattr('f', value=['user.b'])
    t.fsync(fd)


def go_with_the_file(t):
    _need(t)
    t.make('f', b'1')
    t.mkdir('d')
    t.setxattr('f', 'user.a', b'kept')
    t.rename('f', 'd/g')
    t.getxattr('d/g', 'user.a', value=b'kept')
    t.make('h', b'2')
    t.setxattr('h', 'user.h', b'other')
    t.rename('d/g', 'h')
    t.listxattr('h', value=['user.a'])
    t.truncate('h', 0)
    t.chmod('h', 0o400)
    t.getxattr('h', 'user.a', value=b'kept')
    t.unlink('h')
    t.make('h')
    t.listxattr('h', value=[])
    t.setxattr('d', 'user.d', b'dir')
    t.rename('d', 'e')
    t.getxattr('e', 'user.d', value=b'dir')


def of_programs(t):
    """cp -a carries attributes along, and finds nothing to carry that it cannot."""
    _need(t)
    t.make('f', b'1')
    t.setxattr('f', 'user.a', b'value')
    t.run(['cp', '-a', 'f', 'g'], value='exit 0')
    t.getxattr('g', 'user.a', value=b'value')
    t.listxattr('g', value=['user.a'])
