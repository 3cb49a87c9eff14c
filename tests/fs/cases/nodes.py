"""What is neither file nor directory: symlinks, fifos, sockets, device nodes."""
import errno as E
import os
import stat as modes
from os import O_CREAT, O_NONBLOCK, O_RDONLY, O_RDWR, O_WRONLY

from trace import ANY, Skip


def symlinks(t):
    t.mkdir('d')
    t.make('d/f', b'f')
    t.symlink('d/f', 'relative')
    t.symlink('../d/f', 'd/up')
    t.symlink('d', 'to-d')
    t.symlink('nowhere', 'dangling')
    t.symlink('relative', 'twice')
    t.symlink('/', 'root')
    t.symlink('./d/../d/./f', 'odd')
    for name in ('relative', 'd/up', 'to-d', 'dangling', 'twice', 'odd', 'root'):
        t.readlink(name)
        t.lstat(name)
    for name in ('relative', 'd/up', 'to-d', 'twice', 'odd', 'to-d/f', 'to-d/../relative'):
        t.stat(name)
    t.stat('dangling', want=E.ENOENT)
    t.stat('root/nothing-of-this-name', want=E.ENOENT)
    t.content('twice', b'f')
    t.symlink('x', 'd', want=E.EEXIST)
    t.symlink('x', 'dangling', want=E.EEXIST)
    t.symlink('', 'empty', want=E.ENOENT)
    t.symlink('x', 'absent/l', want=E.ENOENT)
    t.symlink('x', 'd/f/l', want=E.ENOTDIR)
    t.readlink('d', want=E.EINVAL)
    t.readlink('d/f', want=E.EINVAL)
    t.readlink('absent', want=E.ENOENT)
    t.listdir('to-d')
    t.open('dangling', O_CREAT | O_RDWR)
    t.stat('nowhere')


def loops(t):
    t.symlink('loop', 'loop')
    t.symlink('b', 'a')
    t.symlink('a', 'b')
    for name in ('loop', 'a', 'loop/x'):
        t.stat(name, want=E.ELOOP)
        t.open(name, O_RDONLY, want=E.ELOOP)
        t.open(name, O_CREAT | O_RDWR, want=E.ELOOP)
        t.chmod(name, 0o600, want=E.ELOOP)
        t.truncate(name, 0, want=E.ELOOP)
    t.lstat('loop')
    t.unlink('loop')
    t.make('chain0', b'end')
    for i in range(45):
        t.symlink(f'chain{i}', f'chain{i + 1}')
    t.stat('chain40')
    t.stat('chain41', want=E.ELOOP)


def lengths(t):
    for size in (1, 59, 60, 255, 1000, 4000, 4095):
        target = ('t' * 99 + '/') * 50
        want = ANY if size > 1023 else 0
        t.symlink(target[:size], f's{size}', want=want)
        t.readlink(f's{size}', want=want)
        t.lstat(f's{size}', want=want)
    t.symlink('t' * 4096, 'too-long', want=E.ENAMETOOLONG)
    t.readlink('s255', 10, value=((b't' * 99 + b'/') * 3)[:10])
    t.readlink('s255', 255)
    t.readlink('s255', 0, want=E.EINVAL)
    t.stat('s1000', want=E.ENOENT)


def symlink_attributes(t):
    t.as_root()
    t.make('f', b'', 0o600)
    t.symlink('f', 'l')
    t.lchown('l', 1001, 1002)
    t.lstat('l')
    t.stat('f')
    t.chown('l', 1003, 1004)
    t.stat('f')
    t.lstat('l')
    t.chmod('l', 0o640)
    t.stat('f')
    t.utimensat('l', (1, 2), (3, 4), 0x100)
    t.times_ns('l', value=3_000_000_004)


def fifos(t):
    t.mkfifo('p', 0o620)
    t.lstat('p')
    t.mkfifo('p', want=E.EEXIST)
    t.open('p', O_WRONLY | O_NONBLOCK, want=E.ENXIO)
    reader = t.open('p', O_RDONLY | O_NONBLOCK)
    t.read(reader, 10, value=b'')
    writer = t.open('p', O_WRONLY | O_NONBLOCK)
    t.read(reader, 10, want=E.EAGAIN)
    t.write(writer, b'through the pipe')
    t.read(reader, 7, value=b'through')
    t.read(reader, 100, value=b' the pipe')
    t.close(reader)
    t.write(writer, b'x', want=E.EPIPE)
    t.lseek(writer, 0, os.SEEK_SET, want=E.ESPIPE)
    t.rename('p', 'q')
    both = t.open('q', O_RDWR)
    t.write(both, b'self')
    t.unlink('q')
    t.read(both, 10, value=b'self')
    t.fstat(both)


def fifo_of_two_processes(t):
    def writer(p):
        fd = p.open('p', O_WRONLY)
        p.write(fd, b'hello from a peer')
        yield
    t.mkfifo('p')
    peer = t.peer(writer)
    peer.start()
    fd = t.open('p', O_RDONLY)
    t.read(fd, 100, value=b'hello from a peer')
    peer.finish()
    peer.end()
    t.read(fd, 100, value=b'')


def sockets(t):
    def server(p):
        bound = p.bind('s')
        yield
        p.note('accept, read, answer', lambda: _answer(bound))
        yield
    peer = t.peer(server)
    peer.step()
    t.lstat('s')
    peer.start()
    client = t.connect('s')
    t.note('send', lambda: client.send(b'info status'))
    t.note('receive', lambda: client.recv(100), value=b'running')
    peer.finish()
    t.bind('s', want=E.EADDRINUSE)
    t.open('s', O_RDONLY, want=E.ENXIO)
    t.chmod('s', 0o700)
    t.rename('s', 'renamed')
    t.lstat('renamed')
    again = t.connect('renamed')
    t.connect('s', want=E.ENOENT)
    peer.end()
    t.connect('renamed', want=E.ECONNREFUSED)
    t.lstat('renamed')
    t.make('file')
    t.connect('file', want=E.ECONNREFUSED)
    t.unlink('renamed')
    kept = [again, t.bind('renamed')]
    t.connect('renamed')
    t.umask(0o077)
    kept.append(t.bind('private'))
    t.lstat('private')
    kept.clear()


def _answer(bound):
    peer, _ = bound.accept()
    got = peer.recv(100)
    peer.send(b'running')
    return got


def socket_permission(t):
    t.as_root()
    keep = [t.bind('s')]
    t.chmod('s', 0o600)
    t.run_as(2001, 2001, lambda p: p.connect('s', want=E.EACCES))
    t.chmod('s', 0o666)
    t.run_as(2001, 2001, lambda p: p.connect('s'))
    t.run_as(2001, 2001, lambda p: p.bind('mine', want=E.EACCES))
    t.chmod('.', 0o777)
    t.run_as(2001, 2001, lambda p: p.bind('mine'))
    t.lstat('mine')
    del keep


def device_nodes(t):
    t.as_root()
    t.mknod('null', modes.S_IFCHR | 0o666, 1, 3)
    t.mknod('loop', modes.S_IFBLK | 0o660, 7, 200)
    t.mknod('big', modes.S_IFCHR | 0o600, 300, 70000)
    t.mknod('file', modes.S_IFREG | 0o640)
    t.mknod('pipe', modes.S_IFIFO | 0o600)
    t.mknod('socket', modes.S_IFSOCK | 0o600)
    for name in ('null', 'loop', 'big', 'file', 'pipe', 'socket'):
        t.lstat(name)
    t.mknod('null', modes.S_IFCHR | 0o666, 1, 3, want=E.EEXIST)
    t.mknod('dir', modes.S_IFDIR | 0o755, want=E.EPERM)
    t.open('big', O_RDONLY, want=(E.ENXIO, E.EACCES))
    t.rename('null', 'renamed')
    t.lstat('renamed')
    t.chown('loop', 2001, 2002)
    t.lstat('loop')
    t.chmod('.', 0o777)

    def other(p):
        p.mknod('mine', modes.S_IFCHR | 0o666, 1, 3, want=E.EPERM)
        p.mknod('mine', modes.S_IFBLK | 0o666, 7, 0, want=E.EPERM)
        p.mknod('my-pipe', modes.S_IFIFO | 0o644)
        p.mknod('my-file', modes.S_IFREG | 0o644)
    t.run_as(2001, 2001, other)
    t.listdir('.')
    t.unlink('renamed')
    t.unlink('loop')


def device_access(t):
    t.as_root()
    if os.statvfs('.').f_flag & os.ST_NODEV:
        t.check('devices may be opened', False, ANY)
        raise Skip('mounted nodev')
    t.mknod('null', modes.S_IFCHR | 0o666, 1, 3)
    t.chmod('null', 0o666)
    t.mknod('zero', modes.S_IFCHR | 0o600, 1, 5)
    fd = t.open('null', O_RDWR)
    t.write(fd, b'into nothing')
    t.read(fd, 10, value=b'')
    zero = t.open('zero', O_RDONLY)
    t.read(zero, 4, value=bytes(4))
    t.run_as(2001, 2001, lambda p: p.open('zero', O_RDONLY, want=E.EACCES))
    t.run_as(2001, 2001, lambda p: p.open('null', O_RDWR))
