"""Opening: flags, what a descriptor may do, descriptors whose name has gone."""
import errno as E
import os
from os import (O_APPEND, O_CREAT, O_DIRECT, O_DIRECTORY, O_EXCL, O_NOFOLLOW, O_NONBLOCK, O_PATH, O_RDONLY, O_RDWR,
                O_SYNC, O_DSYNC, O_TRUNC, O_WRONLY)

from trace import ANY


def create_and_open(t):
    t.open('absent', O_RDONLY, want=E.ENOENT)
    t.open('absent/x', O_CREAT | O_WRONLY, want=E.ENOENT)
    t.open('', O_RDONLY, want=E.ENOENT)
    for mode in (0o644, 0o600, 0o777, 0o400, 0):
        name = f'm{mode:o}'
        fd = t.open(name, O_CREAT | O_EXCL | O_RDWR, mode)
        t.stat(name)
        t.write(fd, b'written at once')
        t.fstat(fd)
    t.open('m644', O_CREAT | O_EXCL | O_RDWR, want=E.EEXIST)
    t.open('m644', O_CREAT | O_RDWR, 0o600)
    t.stat('m644')
    t.content('m644', b'written at once')
    t.mkdir('d')
    t.open('d', O_CREAT | O_RDWR, want=E.EISDIR)
    t.open('d', O_CREAT | O_EXCL | O_RDWR, want=E.EEXIST)
    t.open('d', O_WRONLY, want=E.EISDIR)
    t.open('d', O_RDWR, want=E.EISDIR)
    t.open('d', O_RDONLY | O_TRUNC, want=E.EISDIR)
    t.open('m644/x', O_RDONLY, want=E.ENOTDIR)
    t.open('m644/x', O_CREAT | O_RDWR, want=E.ENOTDIR)
    t.open('m644/', O_RDONLY, want=E.ENOTDIR)
    t.open('new/', O_CREAT | O_RDWR, want=E.EISDIR)
    t.listdir('.')


def truncate_at_open(t):
    t.make('f', b'x' * 5000)
    reader = t.open('f', O_RDONLY)
    fd = t.open('f', O_RDWR | O_TRUNC)
    t.fstat(fd)
    t.fstat(reader)
    t.read(reader, 100, value=b'')
    t.write(fd, b'new')
    t.read(reader, 100, value=b'new')
    t.close(t.open('f', O_WRONLY | O_CREAT | O_TRUNC))
    t.stat('f')
    t.fstat(fd)
    t.write(fd, b'after')
    t.content('f', b'\0\0\0after')
    t.close(t.open('f', O_RDONLY | O_TRUNC))
    t.stat('f')
    t.open('f', O_CREAT | O_EXCL | O_TRUNC | O_RDWR, want=E.EEXIST)


def directory_and_nofollow(t):
    t.make('f', b'1')
    t.mkdir('d')
    t.symlink('f', 'to-f')
    t.symlink('d', 'to-d')
    t.symlink('nowhere', 'to-nowhere')
    for path, want in (('f', E.ENOTDIR), ('to-f', E.ENOTDIR), ('d', 0), ('to-d', 0), ('to-nowhere', E.ENOENT),
                       ('none', E.ENOENT)):
        t.open(path, O_DIRECTORY, want=want)
    for path, want in (('f', 0), ('to-f', E.ELOOP), ('d', 0), ('to-d', E.ELOOP), ('to-nowhere', E.ELOOP),
                       ('to-d/.', 0)):
        t.open(path, O_NOFOLLOW, want=want)
    t.open('to-f', O_CREAT | O_NOFOLLOW | O_RDWR, want=E.ELOOP)
    t.open('to-nowhere', O_CREAT | O_EXCL | O_RDWR, want=E.EEXIST)
    t.open('d', O_DIRECTORY | O_RDWR, want=E.EISDIR)
    t.open('to-nowhere', O_CREAT | O_RDWR, 0o640)
    t.stat('nowhere')
    t.open('to-f', O_RDWR | O_TRUNC)
    t.stat('f')


def modes_of_access(t):
    t.make('f', b'0123456789')
    reader, writer = t.open('f', O_RDONLY), t.open('f', O_WRONLY)
    t.write(reader, b'x', want=E.EBADF)
    t.pwrite(reader, b'x', 3, want=E.EBADF)
    t.ftruncate(reader, 3, want=E.EINVAL)
    t.fallocate(reader, 0, 0, 100, want=E.EBADF)
    t.read(writer, 1, want=E.EBADF)
    t.pread(writer, 1, 0, want=E.EBADF)
    t.fsync(reader)
    t.fdatasync(writer)
    t.fchmod(reader, 0o640)
    t.stat('f')
    d = t.open('.', O_RDONLY)
    t.read(d, 10, want=E.EISDIR)
    t.fsync(d)
    t.fdatasync(d)
    t.syncfs(d)
    t.ftruncate(d, 0, want=E.EINVAL)
    t.close(reader)
    t.read(reader, 1, want=E.EBADF)
    t.content('f', b'0123456789')


def append(t):
    fd = t.open('log', O_CREAT | O_WRONLY | O_APPEND)
    other = t.open('log', O_RDWR | O_APPEND)
    plain = t.open('log', O_RDWR)
    t.write(fd, b'one ')
    t.write(other, b'two ')
    t.write(fd, b'three ')
    t.lseek(fd, 0, os.SEEK_SET)
    t.write(fd, b'four ')
    t.lseek(fd, 0, os.SEEK_CUR, value=19)
    t.pwrite(other, b'five ', 0)
    t.pwrite(plain, b'ONE', 0)
    t.content('log', b'ONE two three four five ')
    t.ftruncate(plain, 8)
    t.write(fd, b'six')
    t.content('log', b'ONE two six')
    t.setfl(plain, O_APPEND)
    t.pwrite(plain, b' seven', 0)
    t.setfl(plain, 0)
    t.pwrite(plain, b'one', 0)
    t.content('log', b'one two six seven')
    t.pwritev(plain, [b' eig', b'ht'], 0, getattr(os, 'RWF_APPEND', 0x10))
    t.content('log', b'one two six seven eight')


def append_of_two_processes(t):
    def other(p):
        fd = p.open('log', O_WRONLY | O_APPEND)
        yield
        for _ in range(3):
            p.write(fd, b'peer.')
            yield
    t.make('log')
    fd = t.open('log', O_WRONLY | O_APPEND)
    peer = t.peer(other)
    peer.step()
    for _ in range(3):
        t.write(fd, b'case.')
        peer.step()
    peer.end()
    t.content('log', b'case.peer.' * 3)


def synchronous(t):
    for flags in (O_SYNC, O_DSYNC, O_SYNC | O_APPEND):
        fd = t.open('s', O_CREAT | O_RDWR | flags)
        t.write(fd, b'abc')
        t.pwrite(fd, b'xyz', 10)
        t.fstat(fd)
    fd = t.open('s', O_RDWR)
    t.pwritev(fd, [b'durable'], 3, os.RWF_DSYNC)
    t.pwritev(fd, [b'durable'], 20, os.RWF_SYNC)
    t.pread(fd, 100, 0)
    t.fadvise(fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)
    t.fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    t.pread(fd, 100, 0)


def duplicates(t):
    t.make('f', b'abcdefghij')
    fd = t.open('f', O_RDWR)
    twin = t.dup(fd)
    other = t.open('f', O_RDWR)
    t.read(fd, 3, value=b'abc')
    t.read(twin, 3, value=b'def')
    t.read(other, 3, value=b'abc')
    t.lseek(twin, 0, os.SEEK_SET)
    t.write(fd, b'A')
    t.close(fd)
    t.write(twin, b'B')
    t.read(other, 10, value=b'defghij')
    t.read(fd, 1, want=E.EBADF)
    t.content('f', b'ABcdefghij')

    def child(p):
        p.read(twin, 2, value=b'cd')
        p.write(twin, b'E')
        p.close(twin)
    t.run_as(None, None, child)
    t.read(twin, 2, value=b'fg')
    t.content('f', b'ABcdEfghij')


def path_descriptors(t):
    t.make('f', b'content', 0o640)
    t.mkdir('d')
    t.symlink('f', 'link')
    fd = t.open('f', O_PATH)
    t.fstat(fd)
    t.read(fd, 1, want=E.EBADF)
    t.write(fd, b'x', want=E.EBADF)
    t.fchmod(fd, 0o600, want=E.EBADF)
    t.fsync(fd, want=E.EBADF)
    t.fgetxattr(fd, 'user.a', want=E.EBADF)
    t.note('open and read through /proc', lambda: open(f'/proc/self/fd/{int(fd)}', 'rb').read(), value=b'content')
    link = t.open('link', O_PATH | O_NOFOLLOW)
    t.fstat(link)
    t.note('readlinkat with no path', lambda: os.readlink('', dir_fd=link), value='f')
    d = t.open('d', O_PATH | O_DIRECTORY)
    t.open('inside', O_CREAT | O_RDWR, 0o644, at=d)
    t.stat('inside', at=d)
    t.mkdir('deeper', at=d)
    t.fchdir(d)
    t.listdir('.')
    t.getcwd_name(value='d')


def unlinked_file(t):
    t.make('f', b'0123456789', 0o640)
    fd = t.open('f', O_RDWR)
    reader = t.open('f', O_RDONLY)
    t.unlink('f')
    t.stat('f', want=E.ENOENT)
    t.fstat(fd)
    t.note('no name, no links', lambda: os.fstat(fd).st_nlink, value=0)
    t.pwrite(fd, b'AB', 4)
    t.pread(reader, 20, 0, value=b'0123AB6789')
    t.ftruncate(fd, 100000)
    t.pwrite(fd, b'end', 99997)
    t.fstat(reader)
    t.pread(reader, 10, 99995, value=b'\0\0end')
    t.fchmod(fd, 0o600)
    t.fsync(fd)
    t.fdatasync(reader)
    t.fallocate(fd, 3, 0, 4096)
    t.pread(reader, 12, 0, value=bytes(12))
    t.fsetxattr(fd, 'user.late', b'value')
    t.fgetxattr(reader, 'user.late', value=b'value')
    t.make('f', b'another')
    t.fstat(fd)
    t.content('f', b'another')
    t.note('the new file is another inode', lambda: os.stat('f').st_ino != os.fstat(fd).st_ino, value=True)
    again = t.open(f'/proc/self/fd/{int(reader)}', O_RDONLY)
    t.pread(again, 3, 99997, value=b'end')
    t.close(fd)
    t.close(reader)
    t.pread(again, 3, 99997, value=b'end')
    t.listdir('.')


def unlinked_in_another_process(t):
    def holder(p):
        fd = p.open('shared', O_RDWR)
        yield
        p.fstat(fd)
        p.write(fd, b'still here')
        p.pread(fd, 20, 0, value=b'still here')
        yield
    t.make('shared')
    peer = t.peer(holder)
    peer.step()
    t.unlink('shared')
    t.mkdir('shared')
    peer.step()
    peer.end()
    t.stat('shared')
    t.rmdir('shared')


def replaced_file(t):
    t.make('disk', b'old disk')
    t.make('disk.new', b'new disk')
    fd = t.open('disk', O_RDWR)
    t.rename('disk.new', 'disk')
    t.fstat(fd)
    t.pread(fd, 20, 0, value=b'old disk')
    t.pwrite(fd, b'OLD', 0)
    t.content('disk', b'new disk')
    t.pread(fd, 20, 0, value=b'OLD disk')
    t.fsync(fd)


def renamed_file(t):
    t.mkdir('a')
    t.mkdir('b')
    t.make('a/disk', b'disk')
    fd = t.open('a/disk', O_RDWR)
    t.rename('a/disk', 'b/moved')
    t.pwrite(fd, b'DISK and more', 0)
    t.content('b/moved', b'DISK and more')
    t.rename('b', 'a/b')
    t.pwrite(fd, b'-', 0)
    t.content('a/b/moved', b'-ISK and more')
    t.fstat(fd)
    t.ftruncate(fd, 3)
    t.stat('a/b/moved')
    t.unlink('a/b/moved')
    t.fstat(fd)


def temporary_file(t):
    t.open('.', os.O_TMPFILE | O_RDWR, 0o600, allow='tmpfile')
    t.open('.', os.O_TMPFILE, want=E.EINVAL)
    t.listdir('.')


def terminals_and_reflinks(t):
    t.make('f', b'x')
    t.make('g')
    fd, other = t.open('f', O_RDWR), t.open('g', O_RDWR)
    t.note('isatty', lambda: os.isatty(fd), value=False)
    t.ioctl(fd, 0x5401, want=E.ENOTTY)
    t.ioctl(fd, 0x1268, want=(E.ENOTTY, E.EINVAL))
    t.ioctl(other, 0x40049409, int(fd), want=ANY, allow='reflink')


def nonblocking_and_direct_flags(t):
    t.make('f', b'x' * 4096)
    fd = t.open('f', O_RDWR | O_NONBLOCK)
    t.read(fd, 10)
    t.need('O_DIRECT', lambda: os.close(os.open('f', O_RDWR | O_DIRECT)))
    t.setfl(fd, O_DIRECT)
    t.dread(fd, 4096, 0, value=b'x' * 4096)
    t.dwrite(fd, b'y' * 4096, 4096)
    t.setfl(fd, 0)
    t.pread(fd, 5000, 1, value=b'x' * 4095 + b'y' * 905)
