"""Sizes and space: truncate, fallocate, holes, sparse files."""
import errno as E
import os
from os import O_CREAT, O_RDONLY, O_RDWR, O_WRONLY, SEEK_DATA, SEEK_HOLE

from calls import COLLAPSE, INSERT, KEEP, PUNCH, ZERO
from trace import ANY

KIB, MIB, TIB = 1 << 10, 1 << 20, 1 << 40


def truncate(t):
    t.make('f', b'x' * 10000)
    fd = t.open('f', O_RDWR)
    for size in (10000, 5000, 20000, 4096, 4097, 0, 123456, 1):
        t.truncate('f', size)
        t.fstat(fd)
        t.ftruncate(fd, size + 50)
        t.stat('f')
    t.content('f', b'\0' * 51)
    t.truncate('f', -1, want=E.EINVAL)
    t.ftruncate(fd, -1, want=E.EINVAL)
    t.truncate('absent', 0, want=E.ENOENT)
    t.truncate('f/x', 0, want=E.ENOTDIR)
    t.mkdir('d')
    t.truncate('d', 0, want=E.EISDIR)
    t.symlink('f', 'l')
    t.truncate('l', 3)
    t.stat('f')
    t.symlink('none', 'dangling')
    t.truncate('dangling', 3, want=E.ENOENT)
    t.mkfifo('p')
    t.truncate('p', 3, want=E.EINVAL)
    reader = t.open('f', O_RDONLY)
    t.ftruncate(reader, 0, want=E.EINVAL)


def no_old_bytes_after_growing(t):
    t.make('f', b'secret' * 5000)
    fd = t.open('f', O_RDWR)
    t.ftruncate(fd, 1000)
    t.ftruncate(fd, 30000)
    t.content('f', (b'secret' * 5000)[:1000] + bytes(29000))
    t.pwrite(fd, b'end', 50000)
    t.content('f', (b'secret' * 5000)[:1000] + bytes(49000) + b'end')
    t.ftruncate(fd, 4096 + 17)
    t.pwrite(fd, b'x', 8192)
    t.pread(fd, 8193, 0, value=(b'secret' * 5000)[:1000] + bytes(7192) + b'x')


def _allocated(t, fd, label, expected):
    """Whether the file takes room at all; how much is the filesystem's own affair."""
    t.note(f'{label}: takes room', lambda: os.fstat(fd).st_blocks > 0, value=expected)


def allocate(t):
    fd = t.open('f', O_CREAT | O_RDWR)
    _allocated(t, fd, 'an empty file', False)
    t.fallocate(fd, 0, 0, 100000)
    t.fstat(fd)
    _allocated(t, fd, 'after allocation', True)
    t.note('takes at least what was asked for', lambda: os.fstat(fd).st_blocks * 512 >= 100000, value=True)
    t.content('f', bytes(100000))
    t.fallocate(fd, 0, 50000, 20000)
    t.fstat(fd)
    t.fallocate(fd, KEEP, 0, MIB)
    t.fstat(fd)
    t.note('takes room past its end', lambda: os.fstat(fd).st_blocks * 512 >= MIB, value=True)
    t.fallocate(fd, KEEP, 2 * MIB, MIB)
    t.fstat(fd)
    t.pwrite(fd, b'data', 60000)
    t.fallocate(fd, 0, 0, 120000)
    t.pread(fd, 4, 60000, value=b'data')
    t.fallocate(fd, 0, 0, 0, want=E.EINVAL)
    t.fallocate(fd, 0, -1, 10, want=E.EINVAL)
    t.fallocate(fd, 0, 0, -10, want=E.EINVAL)
    t.fallocate(fd, 0, (1 << 63) - 10, 100, want=E.EFBIG)
    t.fallocate(fd, 1 << 20, 0, 10, want=E.EOPNOTSUPP)
    t.fallocate(fd, PUNCH, 0, 10, want=E.EOPNOTSUPP)
    t.fallocate(fd, PUNCH | ZERO | KEEP, 0, 10, want=(E.EOPNOTSUPP, E.EINVAL))
    writer = t.open('f', O_WRONLY)
    t.fallocate(writer, 0, 0, 10)
    d = t.open('.', O_RDONLY)
    t.fallocate(d, 0, 0, 10, want=E.EBADF)
    t.fstat(fd)
    t.ftruncate(fd, 0)
    t.fstat(fd)


def punch(t):
    data = b'p' * MIB
    t.make('f', data)
    fd = t.open('f', O_RDWR)
    t.fsync(fd)
    before = []
    t.note('room before', lambda: before.append(os.fstat(fd).st_blocks))
    t.fallocate(fd, PUNCH | KEEP, 64 * KIB, 128 * KIB)
    t.fstat(fd)
    t.note('gives room back', lambda: before[0] - os.fstat(fd).st_blocks >= 2 * 124, value=True)
    model = bytearray(data)
    model[64 * KIB:192 * KIB] = bytes(128 * KIB)
    t.content('f', bytes(model))
    for offset, size in ((1, 1), (300000, 5000), (400001, 17), (MIB - 100, 5000), (MIB, 4096), (2 * MIB, 100)):
        t.fallocate(fd, PUNCH | KEEP, offset, size)
        end = min(MIB, offset + size)
        model[offset:end] = bytes(max(0, end - offset))
        t.content('f', bytes(model))
    t.fstat(fd)
    t.pwrite(fd, b'again', 70000)
    t.pread(fd, 7, 69999, value=b'\0again\0')
    t.fallocate(fd, PUNCH | KEEP, 0, MIB)
    t.fsync(fd)
    _allocated(t, fd, 'a file that is all hole', False)
    t.fstat(fd)


def zero_range(t):
    t.need('ZERO_RANGE', lambda: _zero_probe())
    t.make('f', b'z' * 200000)
    fd = t.open('f', O_RDWR)
    model = bytearray(b'z' * 200000)
    for offset, size in ((4096, 8192), (1, 1), (50000, 333), (65536, 65536)):
        t.fallocate(fd, ZERO, offset, size)
        model[offset:offset + size] = bytes(size)
        t.content('f', bytes(model))
    t.fallocate(fd, ZERO, 199000, 5000)
    t.fstat(fd)
    t.content('f', bytes(model[:199000]) + bytes(5000))
    t.fallocate(fd, ZERO | KEEP, 203000, 100000)
    t.fstat(fd)
    t.fallocate(fd, ZERO | KEEP, 100000, 2000)
    model[100000:102000] = bytes(2000)
    t.content('f', bytes(model[:199000]) + bytes(5000))
    t.fallocate(fd, ZERO, MIB, 4096)
    t.fstat(fd)
    t.fallocate(fd, ZERO, 0, 0, want=E.EINVAL)
    reader = t.open('f', O_RDONLY)
    t.fallocate(reader, ZERO, 0, 10, want=E.EBADF)


def _zero_probe():
    fd = os.open('probe', O_CREAT | O_RDWR)
    try:
        from calls import fallocate
        fallocate(fd, ZERO, 0, 4096)
    finally:
        os.close(fd)
        os.unlink('probe')


def shifts(t):
    t.make('f', bytes(range(256)) * 256)
    fd = t.open('f', O_RDWR)
    done = t.fallocate(fd, COLLAPSE, 4096, 4096, want=ANY, allow='shift')
    t.note('collapsed, or left as it was', lambda: os.fstat(fd).st_size == (65536 if done is None else 61440),
           value=True)
    t.fallocate(fd, INSERT, 4096, 4096, want=ANY, allow='shift')
    t.pread(fd, 256, 0, value=bytes(range(256)))


def sparse(t):
    fd = t.open('f', O_CREAT | O_RDWR)
    t.ftruncate(fd, TIB)
    t.fstat(fd)
    _allocated(t, fd, 'a sparse file', False)
    t.pread(fd, 100, TIB // 2, value=bytes(100))
    t.pwrite(fd, b'far out', TIB // 2)
    t.pread(fd, 9, TIB // 2 - 1, value=b'\0far out\0')
    t.pwrite(fd, b'last', TIB - 4)
    t.fstat(fd)
    t.pwrite(fd, b'beyond', TIB + 3 * MIB)
    t.fstat(fd)
    t.fsync(fd)
    _allocated(t, fd, 'with three islands', True)
    t.note('is sparse', lambda: os.fstat(fd).st_blocks * 512 < 16 * MIB, value=True)
    t.lseek(fd, 0, os.SEEK_END, value=TIB + 3 * MIB + 6)
    t.lseek(fd, TIB + 3 * MIB, os.SEEK_SET)
    t.read(fd, 100, value=b'beyond')
    t.fallocate(fd, PUNCH | KEEP, TIB // 4, TIB // 2)
    t.pread(fd, 9, TIB // 2 - 1, value=bytes(9))
    t.ftruncate(fd, TIB + 2)
    t.pread(fd, 100, TIB - 4, value=b'last\0\0')
    t.ftruncate(fd, 0)
    t.fsync(fd)
    _allocated(t, fd, 'cut to nothing', False)


def _within(t, fd, label, offset, whence, low, high):
    what = 'SEEK_DATA' if whence == SEEK_DATA else 'SEEK_HOLE'
    t.note(f'{label}: lseek(<{fd.name}>, {offset}, {what}) is within {low}..{high}',
           lambda: low <= os.lseek(fd, offset, whence) <= high or os.lseek(fd, offset, whence), value=True)


def seeks(t):
    """Where data and holes begin, with the slack that a filesystem's block may add."""
    slack = 64 * KIB
    fd = t.open('f', O_CREAT | O_RDWR)
    t.lseek(fd, 0, SEEK_DATA, want=E.ENXIO)
    t.lseek(fd, 0, SEEK_HOLE, want=E.ENXIO)
    t.ftruncate(fd, 16 * MIB)
    t.pwrite(fd, b'1' * MIB, 0)
    t.pwrite(fd, b'2' * MIB, 8 * MIB)
    t.fsync(fd)
    _within(t, fd, 'first data', 0, SEEK_DATA, 0, 0)
    _within(t, fd, 'inside data', MIB // 2, SEEK_DATA, MIB // 2, MIB // 2)
    _within(t, fd, 'first hole', 0, SEEK_HOLE, MIB, MIB + slack)
    _within(t, fd, 'in the hole', 4 * MIB, SEEK_HOLE, 4 * MIB, 4 * MIB)
    _within(t, fd, 'data after the hole', 4 * MIB, SEEK_DATA, 8 * MIB - slack, 8 * MIB)
    _within(t, fd, 'second hole', 8 * MIB, SEEK_HOLE, 9 * MIB, 9 * MIB + slack)
    t.lseek(fd, 12 * MIB, SEEK_DATA, want=E.ENXIO)
    t.lseek(fd, 16 * MIB, SEEK_DATA, want=E.ENXIO)
    t.lseek(fd, 16 * MIB, SEEK_HOLE, want=E.ENXIO)
    t.lseek(fd, 16 * MIB - 1, SEEK_HOLE, value=16 * MIB - 1)
    t.lseek(fd, 99 * MIB, SEEK_DATA, want=E.ENXIO)
    t.lseek(fd, -1, SEEK_DATA, want=E.ENXIO)
    t.fallocate(fd, PUNCH | KEEP, 0, MIB)
    _within(t, fd, 'after a punch', 0, SEEK_DATA, 8 * MIB - slack, 8 * MIB)
    _within(t, fd, 'after a punch', 0, SEEK_HOLE, 0, 0)
    t.pwrite(fd, b'3', 12 * MIB)
    _within(t, fd, 'unsynced data', 10 * MIB, SEEK_DATA, 12 * MIB - slack, 12 * MIB)
    t.ftruncate(fd, 8 * MIB)
    t.lseek(fd, 0, SEEK_DATA, want=E.ENXIO)
    t.lseek(fd, 0, SEEK_HOLE, value=0)
    t.make('full', b'f' * 300000)
    full = t.open('full', O_RDONLY)
    t.lseek(full, 0, SEEK_HOLE, value=300000)
    t.lseek(full, 1234, SEEK_DATA, value=1234)
    t.lseek(full, 299999, SEEK_HOLE, value=300000)
    t.lseek(full, 0, os.SEEK_CUR, value=300000)


def sync(t):
    fd = t.open('f', O_CREAT | O_RDWR)
    t.pwrite(fd, b'1' * 100000, 0)
    t.fdatasync(fd)
    t.pwrite(fd, b'2' * 100000, 500000)
    t.fsync(fd)
    t.fsync(fd)
    t.syncfs(fd)
    t.mkfifo('p')
    pipe = t.open('p', O_RDWR)
    t.fsync(pipe, want=E.EINVAL)
    t.close(fd)
    t.fsync(fd, want=E.EBADF)
