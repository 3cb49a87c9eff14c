"""Bytes: buffered and direct reads and writes, vectors, ends of files, copies inside the kernel."""
import errno as E
import os
import random
from os import O_APPEND, O_CREAT, O_DIRECT, O_RDONLY, O_RDWR, O_WRONLY, SEEK_CUR, SEEK_END, SEEK_SET

from trace import ANY, describe, difference

KIB, MIB = 1 << 10, 1 << 20


def _pattern(size, seed=1):
    return random.Random(seed).randbytes(size)


def _direct(t, name, flags=O_CREAT | O_RDWR):
    t.need('O_DIRECT', lambda: os.close(os.open(name, O_CREAT | O_RDWR | O_DIRECT)))
    return t.open(name, flags | O_DIRECT)


def reads_and_offsets(t):
    fd = t.open('f', O_CREAT | O_RDWR)
    t.read(fd, 10, value=b'')
    t.write(fd, b'')
    t.write(fd, b'hello world', value=11)
    t.read(fd, 10, value=b'')
    t.lseek(fd, 0, SEEK_SET, value=0)
    t.read(fd, 0, value=b'')
    t.read(fd, 5, value=b'hello')
    t.lseek(fd, 0, SEEK_CUR, value=5)
    t.pread(fd, 5, 6, value=b'world')
    t.lseek(fd, 0, SEEK_CUR, value=5)
    t.read(fd, 100, value=b' world')
    t.pread(fd, 10, 11, value=b'')
    t.pread(fd, 10, 1 << 50, value=b'')
    t.pread(fd, 1, -1, want=E.EINVAL)
    t.pwrite(fd, b'x', -1, want=E.EINVAL)
    t.lseek(fd, -1, SEEK_SET, want=E.EINVAL)
    t.lseek(fd, -100, SEEK_END, want=E.EINVAL)
    t.lseek(fd, 0, 99, want=E.EINVAL)
    t.lseek(fd, -5, SEEK_END, value=6)
    t.write(fd, b'WORLD!')
    t.lseek(fd, 5000, SEEK_CUR, value=5012)
    t.fstat(fd)
    t.write(fd, b'far')
    t.fstat(fd)
    t.content('f', b'hello WORLD!' + bytes(5000) + b'far')


def overwrites(t):
    model = bytearray()
    fd = t.open('f', O_CREAT | O_RDWR)
    chance = random.Random(7)
    for _ in range(60):
        offset, size = chance.randrange(300000), chance.choice([1, 511, 512, 513, 4095, 4096, 4097, 20000])
        data = chance.randbytes(size)
        model.extend(bytes(max(0, offset + size - len(model))))
        model[offset:offset + size] = data
        t.pwrite(fd, data, offset, value=size)
        size, offset = chance.randrange(1, 30000), chance.randrange(320000)
        t.pread(fd, size, offset, value=bytes(model[offset:offset + size]))
    t.fsync(fd)
    t.content('f', bytes(model))
    t.stat('f')


def vectors(t):
    fd = t.open('f', O_CREAT | O_RDWR)
    t.writev(fd, [b'ab', b'', b'cde', b'f' * 5000], value=5005)
    t.pwritev(fd, [b'12', b'345'], 3, value=5)
    t.lseek(fd, 0, SEEK_SET)
    t.readv(fd, [1, 3, 10], value=b'abc12345ffffff')
    t.preadv(fd, [4096, 4096], 4, value=b'2345' + b'f' * 4997)
    t.preadv(fd, [10, 10], 5005, value=b'')
    t.preadv(fd, [10], -2, want=E.EINVAL)
    t.pwritev(fd, [bytes([i]) * 4096 for i in range(64)], 10000, value=262144)
    t.fstat(fd)
    t.preadv(fd, [100000, 100000], 10000, value=b''.join(bytes([i]) * 4096 for i in range(64))[:200000])


def large(t):
    data = _pattern(5 * MIB + 333)
    fd = t.open('f', O_CREAT | O_RDWR)
    t.pwrite(fd, data, 77, value=len(data))
    t.pread(fd, len(data), 77, value=data)
    t.fdatasync(fd)
    t.fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    t.pread(fd, 3 * MIB, MIB + 1, value=data[MIB + 1 - 77:4 * MIB + 1 - 77])
    t.content('f', bytes(77) + data)


def direct_aligned(t):
    fd = _direct(t, 'd')
    data = _pattern(2 * MIB + 64 * KIB)
    t.dwrite(fd, data, 0, value=len(data))
    t.dread(fd, len(data), 0, value=data)
    for size in (4 * KIB, 8 * KIB, 60 * KIB, MIB):
        for offset in (0, 4 * KIB, MIB - 4 * KIB):
            t.dread(fd, size, offset, value=data[offset:offset + size])
    t.dwrite(fd, b'\xaa' * 8192, 12288)
    t.dread(fd, 16384, 8192, value=data[8192:12288] + b'\xaa' * 8192 + data[20480:24576])
    t.content('d', data[:12288] + b'\xaa' * 8192 + data[20480:])
    t.dwrite(fd, b'\xbb' * 4096, 4 * MIB)
    t.dread(fd, 8192, 4 * MIB - 4096, value=bytes(4096) + b'\xbb' * 4096)
    t.fstat(fd)
    t.pwritev(fd, [], 0, value=0)
    t.fsync(fd)


def direct_at_the_end(t):
    t.make('d', b'e' * 5000)
    fd = _direct(t, 'd', O_RDWR)
    t.dread(fd, 8192, 0, value=b'e' * 5000)
    t.dread(fd, 4096, 4096, value=b'e' * 904)
    t.dread(fd, 4096, 8192, value=b'')
    t.dread(fd, 4096, MIB, value=b'')
    t.ftruncate(fd, 4097)
    t.dread(fd, 8192, 0, value=b'e' * 4097)
    t.dwrite(fd, b'w' * 4096, 4096)
    t.fstat(fd)
    t.ftruncate(fd, 6000)
    t.ftruncate(fd, 8192)
    t.dread(fd, 4096, 4096, value=b'w' * 1904 + bytes(2192))
    t.lseek(fd, 0, SEEK_END, value=8192)
    appender = t.open('d', O_WRONLY | O_APPEND | O_DIRECT)
    t.dwrite(appender, b'a' * 4096, 0)
    t.fstat(fd)
    t.dread(fd, 4096, 8192, value=b'a' * 4096)


def direct_unaligned(t):
    """A disk refuses these and the mount may serve them; served, they must do what they say."""
    for kind, offset, size, shift in (('offset', 1, 4096, 0), ('length', 0, 100, 0), ('offset and length', 5, 7, 0),
                                      ('memory', 0, 4096, 1)):
        name = 'd-' + kind.replace(' ', '-')
        before = _pattern(8192)
        t.make(name, before)
        fd = _direct(t, name, O_RDWR)
        got = t.dread(fd, size, offset, shift, want=ANY, allow='unaligned direct')
        right = got is None or got == before[offset:offset + size]
        t.check(f'an unaligned read ({kind}) fails or is right', right or difference(before[offset:offset + size], got))
        done = t.dwrite(fd, b'\xcc' * size, offset, shift, want=ANY, allow='unaligned direct')
        after = before if done is None else before[:offset] + b'\xcc' * size + before[offset + size:]
        t.content(name, after)


def direct_beside_buffered(t):
    fd = _direct(t, 'd')
    buffered = t.open('d', O_RDWR)
    t.dwrite(fd, b'1' * 16384, 0)
    t.pread(buffered, 16384, 0, value=b'1' * 16384)
    t.pwrite(buffered, b'2' * 100, 50)
    t.dread(fd, 4096, 0, value=b'1' * 50 + b'2' * 100 + b'1' * 3946)
    t.dwrite(fd, b'3' * 4096, 4096)
    t.pread(buffered, 10, 4090, value=b'1' * 6 + b'3' * 4)
    t.pwrite(buffered, b'4' * 5000, 14000)
    t.fsync(buffered)
    t.dread(fd, 8192, 12288, value=b'3' * 0 + b'1' * 1712 + b'4' * 5000)
    t.fstat(fd)
    t.dwrite(fd, b'5' * 4096, 16384)
    t.pread(buffered, 8192, 16380, value=b'4' * 4 + b'5' * 4096)


def direct_from_another_process(t):
    def other(p):
        fd = p.open('d', O_RDWR | O_DIRECT)
        yield
        p.dread(fd, 4096, 0, value=b'a' * 4096)
        p.dwrite(fd, b'b' * 4096, 4096)
        yield
    fd = _direct(t, 'd')
    peer = t.peer(other)
    peer.step()
    t.dwrite(fd, b'a' * 4096, 0)
    peer.step()
    peer.end()
    t.dread(fd, 8192, 0, value=b'a' * 4096 + b'b' * 4096)
    t.stat('d')


def asynchronous(t):
    """aio=native of a VM monitor."""
    fd = _direct(t, 'd')
    t.ftruncate(fd, MIB)
    t.aio(fd, [('write', b'A' * 8192, 4096), ('sync',), ('read', 16384, 0)],
          value=[8192, 0, bytes(4096) + b'A' * 8192 + bytes(4096)])
    t.aio(fd, [('read', 8192, MIB - 4096), ('read', 4096, MIB), ('write', b'B' * 4096, MIB), ('read', 4096, MIB)],
          value=[bytes(4096), b'', 4096, b'B' * 4096])
    t.fstat(fd)
    reader = t.open('d', O_RDONLY | O_DIRECT)
    t.aio(reader, [('write', b'C' * 4096, 0)], want=E.EBADF)
    t.aio(reader, [('read', 4096, 4096), ('sync',)], value=[b'A' * 4096, 0])


def copies_in_the_kernel(t):
    data = _pattern(300000)
    t.make('source', data)
    t.make('other', b'.' * 100)
    source, target = t.open('source', O_RDONLY), t.open('target', O_CREAT | O_RDWR)
    t.sendfile(target, source, 1000, 50000, value=50000)
    t.content('target', data[1000:51000])
    t.copy_file_range(source, target, 100000, 100000, 7, value=100000)
    t.content('target', data[1000:1007] + data[100000:200000])
    t.copy_file_range(source, target, 10, 400000, 0, value=0)
    t.copy_file_range(source, target, 1000, 299900, 0, value=100)
    t.lseek(source, 10, SEEK_SET)
    t.lseek(target, 0, SEEK_SET)
    t.copy_file_range(source, target, 20, value=20)
    t.lseek(source, 0, SEEK_CUR, value=30)
    t.lseek(target, 0, SEEK_CUR, value=20)
    t.pread(target, 20, 0, value=data[10:30])
    t.copy_file_range(target, source, 10, want=E.EBADF)
    both = t.open('other', O_RDWR)
    t.copy_file_range(both, both, 50, 0, 20, want=E.EINVAL)
    t.copy_file_range(both, both, 20, 0, 60, value=20)
    appender = t.open('other', O_WRONLY | O_APPEND)
    t.copy_file_range(source, appender, 20, want=E.EBADF)
    d = t.open('.', O_RDONLY)
    t.copy_file_range(d, target, 20, want=E.EISDIR)
    t.content('source', data)


def copies_of_programs(t):
    """What cp and a shell's redirection do to a sparse image."""
    data = b'head' * 1024 + bytes(8 * MIB) + b'tail' * 1024
    t.make('image', data)
    t.run(['cp', '--sparse=always', 'image', 'copy'], value='exit 0')
    t.content('copy', data)
    t.note('the copy has holes', lambda: os.stat('copy').st_blocks * 512 < 4 * MIB)
    t.mkdir('home', 0o750)
    t.run(['cp', '-a', 'image', 'copy', 'home/'], value='exit 0')
    t.run(['cp', '-a', 'home', 'home2'], value='exit 0')
    t.stat('home2')
    t.stat('home2/copy')
    t.content('home2/image', data)
    t.run(['mv', 'home2/image', 'home/moved'], value='exit 0')
    t.listdir('home')
    t.listdir('home2')
    t.run(['rm', '-rf', 'home2'], value='exit 0')
    t.stat('home2', want=E.ENOENT)


def programs(t):
    """A program runs from the directory, and is protected while it does."""
    if (os.statvfs('.').f_flag & os.ST_NOEXEC):
        t.check('may run programs', False, ANY)
        return
    t.note('copy of a program', lambda: describe(_copy_program('/bin/true', 'true')))
    t.execute('./true', want=E.EACCES)
    t.chmod('true', 0o755)
    t.execute('./true', value=0)
    t.make('script', b'#!/bin/sh\nexit 7\n', 0o755)
    t.execute('./script', value=7)
    fd = t.open('true', O_WRONLY)
    t.execute('./true', want=ANY)
    t.close(fd)
    t.execute('./true', value=0)


def _copy_program(source, target):
    with open(source, 'rb') as program, open(target, 'wb') as copy:
        copy.write(program.read())
    os.chmod(target, 0o644)
