"""The calls that a parity case may make: one function per system call, by name, in TABLE.

Each takes what the kernel takes, returns what the kernel returns, and raises OSError with the kernel's errno. Nothing
here retries, follows up or hides a result (Python's own wrappers do for getxattr, mmap and readdir, so those go through
ctypes). The table is what notice.py bends to prove that a wrong answer is noticed.
"""
import ctypes
import fcntl
import mmap as pymmap
import os
import socket
import struct
import subprocess
import sys
import time

libc = ctypes.CDLL(None, use_errno=True)
for _name in ('lseek telldir getxattr lgetxattr fgetxattr listxattr llistxattr mmap readlink syscall splice '
              'copy_file_range').split():
    getattr(libc, _name).restype = ctypes.c_long
libc.opendir.restype = ctypes.c_void_p
libc.fdopendir.restype = ctypes.c_void_p
libc.readdir.restype = ctypes.c_void_p

PUNCH, KEEP, ZERO, COLLAPSE, INSERT = 2, 1, 16, 8, 32
NOREPLACE, EXCHANGE = 1, 2
CREATE, REPLACE = 1, 2
UTIME_NOW, UTIME_OMIT = (1 << 30) - 1, (1 << 30) - 2
AT_FDCWD, AT_SYMLINK_NOFOLLOW = -100, 0x100
OFD_GETLK, OFD_SETLK, OFD_SETLKW = 36, 37, 38
FLOCK = '@hhqqi4x'


class Fd(int):
    """A descriptor that remembers its name. After a failed open it is a number that nothing has, so the calls after it
    give EBADF.
    """

    NONE = 0x7ffffff0

    def __new__(cls, number, name='?'):
        self = int.__new__(cls, number)
        self.name = name
        return self


def _checked(result):
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def _long(value):
    return ctypes.c_long(value)


def _path(path):
    return ctypes.c_char_p(os.fsencode(path))


def open_(path, flags, mode=0o644, at=None):
    return Fd(os.open(path, flags, mode, dir_fd=at), name_of(path))


def name_of(opened):
    """The name of the descriptor that comes of opening a path or of duplicating a descriptor."""
    return opened.name + "'" if isinstance(opened, Fd) else os.fsdecode(opened)[-24:]


def close(fd):
    os.close(fd)


def dup(fd):
    return Fd(os.dup(fd), name_of(fd))


def read(fd, count):
    return os.read(fd, count)


def write(fd, data):
    return os.write(fd, data)


def pread(fd, count, offset):
    return os.pread(fd, count, offset)


def pwrite(fd, data, offset):
    return os.pwrite(fd, data, offset)


def readv(fd, sizes):
    parts = [bytearray(size) for size in sizes]
    count = os.readv(fd, parts)
    return b''.join(parts)[:count]


def writev(fd, parts):
    return os.writev(fd, parts)


def preadv(fd, sizes, offset):
    parts = [bytearray(size) for size in sizes]
    count = os.preadv(fd, parts, offset)
    return b''.join(parts)[:count]


def pwritev(fd, parts, offset, flags=0):
    return os.pwritev(fd, parts, offset, flags)


def _aligned(size, shift):
    return memoryview(pymmap.mmap(-1, size + shift + 4096))[shift:shift + size]


def dread(fd, count, offset, shift=0):
    """pread into memory that is aligned to a page (plus shift), as O_DIRECT wants it."""
    room = _aligned(count, shift)
    return bytes(room[:os.preadv(fd, [room], offset)])


def dwrite(fd, data, offset, shift=0):
    room = _aligned(len(data), shift)
    room[:] = data
    return os.pwritev(fd, [room], offset)


def lseek(fd, offset, whence):
    return os.lseek(fd, offset, whence)


def truncate(path, size):
    os.truncate(path, size)


def ftruncate(fd, size):
    os.ftruncate(fd, size)


def fallocate(fd, mode, offset, length):
    return _checked(libc.fallocate(int(fd), mode, _long(offset), _long(length)))


def fsync(fd):
    os.fsync(fd)


def fdatasync(fd):
    os.fdatasync(fd)


def syncfs(fd):
    return _checked(libc.syncfs(int(fd)))


def fadvise(fd, offset, length, advice):
    os.posix_fadvise(fd, offset, length, advice)


def copy_file_range(source, target, count, source_offset=None, target_offset=None):
    return os.copy_file_range(source, target, count, source_offset, target_offset)


def sendfile(target, source, offset, count):
    return os.sendfile(target, source, offset, count)


def mmap(fd, length, prot=3, flags=1, offset=0):
    return _checked(libc.mmap(None, ctypes.c_size_t(length), prot, flags, int(fd), _long(offset)))


def munmap(address, length):
    return _checked(libc.munmap(ctypes.c_void_p(address), ctypes.c_size_t(length)))


def msync(address, length, flags=4):
    return _checked(libc.msync(ctypes.c_void_p(address), ctypes.c_size_t(length), flags))


def peek(address, length):
    return ctypes.string_at(address, length)


def poke(address, data):
    ctypes.memmove(address, data, len(data))


def aio(fd, operations):
    """Submits Linux AIO as QEMU's aio=native does: [('write', data, offset) | ('read', size, offset) | ('sync',)], one
    at a time.
    """
    context = ctypes.c_ulong(0)
    _checked(libc.syscall(_long(206), _long(8), ctypes.byref(context)))
    answers = []
    try:
        for kind, *rest in operations:
            room = _aligned(len(rest[0]) if kind == 'write' else rest[0], 0) if rest else None
            if kind == 'write':
                room[:] = rest[0]
            address = ctypes.addressof(ctypes.c_char.from_buffer(room)) if rest else 0
            opcode = {'read': 0, 'write': 1, 'sync': 3}[kind]
            block = ctypes.create_string_buffer(struct.pack('=QIiHhIQQqQII', 0, 0, 0, opcode, 0, int(fd), address,
                                                            len(room) if rest else 0, rest[1] if rest else 0, 0, 0, 0),
                                                64)
            blocks = (ctypes.c_void_p * 1)(ctypes.addressof(block))
            _checked(libc.syscall(_long(209), context, _long(1), blocks))
            event = ctypes.create_string_buffer(32)
            _checked(libc.syscall(_long(208), context, _long(1), _long(1), event, None))
            result = struct.unpack('=QQqq', event.raw)[2]
            answers.append(bytes(room[:result]) if kind == 'read' and result >= 0 else result)
    finally:
        libc.syscall(_long(207), context)
    return answers


def fstat(fd):
    return os.fstat(fd)


def stat(path, at=None):
    return os.stat(path, dir_fd=at)


def lstat(path):
    return os.lstat(path)


def access(path, mode):
    return _checked(libc.access(_path(path), mode))


def chmod(path, mode):
    os.chmod(path, mode)


def fchmod(fd, mode):
    os.fchmod(fd, mode)


def chown(path, uid, gid):
    os.chown(path, uid, gid)


def lchown(path, uid, gid):
    os.lchown(path, uid, gid)


def fchown(fd, uid, gid):
    os.fchown(fd, uid, gid)


def utimensat(path, atime, mtime, flags=0):
    """atime and mtime are (seconds, nanoseconds); None for both means now. An Fd as path means futimens."""
    times = None if atime is None else (ctypes.c_long * 4)(*atime, *mtime)
    if isinstance(path, int):
        return _checked(libc.futimens(int(path), times))
    return _checked(libc.utimensat(AT_FDCWD, _path(path), times, flags))


def times_ns(path):
    """The modification time as it stands in the inode; access time is left out, since mount options change it."""
    return os.lstat(path).st_mtime_ns


def both_times_ns(path):
    got = os.lstat(path)
    return [got.st_atime_ns, got.st_mtime_ns]


def statvfs(path):
    return os.statvfs(path)


def umask(mode):
    return os.umask(mode)


def mkdir(path, mode=0o755, at=None):
    os.mkdir(path, mode, dir_fd=at)


def rmdir(path):
    os.rmdir(path)


def unlink(path):
    os.unlink(path)


def rename(old, new):
    os.rename(old, new)


def renameat2(old, new, flags):
    return _checked(libc.renameat2(AT_FDCWD, _path(old), AT_FDCWD, _path(new), flags))


def link(old, new):
    os.link(old, new)


def symlink(target, path):
    os.symlink(target, path)


def readlink(path, size=4096):
    room = ctypes.create_string_buffer(size)
    got = _checked(libc.readlink(_path(path), room, ctypes.c_size_t(size)))
    return room.raw[:got]


def mkfifo(path, mode=0o644):
    os.mkfifo(path, mode)


def mknod(path, mode, major=0, minor=0):
    os.mknod(path, mode, os.makedev(major, minor))


def listdir(path):
    return sorted(os.listdir(path))


def chdir(path):
    os.chdir(path)


def fchdir(fd):
    os.fchdir(fd)


def getcwd_name():
    """The last part of the working directory's path: what stands before it differs between the two directories."""
    return os.path.basename(os.getcwd())


class Directory:
    """An open directory stream of the C library: readdir, telldir, seekdir, rewinddir."""

    def __init__(self, stream):
        self.stream = ctypes.c_void_p(stream)

    def next(self):
        ctypes.set_errno(0)
        entry = libc.readdir(self.stream)
        if not entry:
            if ctypes.get_errno():
                _checked(-1)
            return None
        number, _, length, kind = struct.unpack_from('=QqHB', ctypes.string_at(entry, 19))
        return os.fsdecode(ctypes.string_at(entry + 19)), kind, number

    def tell(self):
        return _checked(libc.telldir(self.stream))

    def seek(self, position):
        libc.seekdir(self.stream, _long(position))

    def rewind(self):
        libc.rewinddir(self.stream)

    def close(self):
        libc.closedir(self.stream)


def opendir(path):
    stream = libc.opendir(_path(path))
    return Directory(stream or _checked(-1))


def setxattr(path, name, value, flags=0, follow=True):
    call = libc.setxattr if follow else libc.lsetxattr
    return _checked(call(_path(path), _path(name), value, ctypes.c_size_t(len(value)), flags))


def fsetxattr(fd, name, value, flags=0):
    return _checked(libc.fsetxattr(int(fd), _path(name), value, ctypes.c_size_t(len(value)), flags))


def getxattr(path, name, size=65536, follow=True):
    room = ctypes.create_string_buffer(size) if size else None
    call = libc.getxattr if follow else libc.lgetxattr
    got = _checked(call(_path(path), _path(name), room, ctypes.c_size_t(size)))
    return room.raw[:got] if size else got


def fgetxattr(fd, name, size=65536):
    room = ctypes.create_string_buffer(size)
    got = _checked(libc.fgetxattr(int(fd), _path(name), room, ctypes.c_size_t(size)))
    return room.raw[:got]


def listxattr(path, size=65536):
    """Names of the user namespace only; size 0 asks for the length, which is told as 'some' or 'none'."""
    room = ctypes.create_string_buffer(size) if size else None
    got = _checked(libc.listxattr(_path(path), room, ctypes.c_size_t(size)))
    if not size:
        return 'some' if got else 'none'
    return sorted(name.decode() for name in room.raw[:got].split(b'\0') if name.startswith(b'user.'))


def removexattr(path, name, follow=True):
    return _checked((libc.removexattr if follow else libc.lremovexattr)(_path(path), _path(name)))


def fremovexattr(fd, name):
    return _checked(libc.fremovexattr(int(fd), _path(name)))


def lock(fd, command, kind, start, length):
    """One struct flock through fcntl; the two GETLK commands return what stands in the way."""
    kinds = {'read': fcntl.F_RDLCK, 'write': fcntl.F_WRLCK, 'none': fcntl.F_UNLCK}
    packed = fcntl.fcntl(fd, command, struct.pack(FLOCK, kinds[kind], os.SEEK_SET, start, length, 0))
    if command not in (OFD_GETLK, fcntl.F_GETLK):
        return None
    got, _, start, length, pid = struct.unpack(FLOCK, packed)
    owner = {-1: 'OFD', 0: 'nobody'}.get(pid, 'a process')
    if got == fcntl.F_UNLCK:
        return 'free'
    return f'{next(name for name, value in kinds.items() if value == got)} {start}+{length} of {owner}'


def flock(fd, operation):
    fcntl.flock(fd, operation)


def setfl(fd, flags):
    return fcntl.fcntl(fd, fcntl.F_SETFL, flags)


def ioctl(fd, request, value=0):
    return fcntl.ioctl(fd, request, value)


def bind(path):
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    bound.bind(os.fsencode(path))
    bound.listen(4)
    return bound


def connect(path):
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        peer.connect(os.fsencode(path))
    except OSError:
        peer.close()
        raise
    return peer


def execute(path):
    """Runs a program of the directory and returns its exit code."""
    return os.waitstatus_to_exitcode(os.waitpid(os.posix_spawn(path, [path], {}), 0)[1])


def run(command):
    done = subprocess.run(command, capture_output=True, text=True, errors='backslashreplace')
    return f'exit {done.returncode}' + (f': {done.stderr.strip()}' if done.stderr else '')


def settle():
    """Lets the kernel's coarse clock tick, so that a time that is set again can be seen to have changed."""
    time.sleep(0.012)


_OWN = sys.modules[__name__]
TABLE = {name: getattr(_OWN, name) for name in (
    'close dup read write pread pwrite readv writev preadv pwritev dread dwrite lseek truncate ftruncate fallocate '
    'fsync fdatasync syncfs fadvise copy_file_range sendfile mmap munmap msync peek poke aio fstat stat lstat '
    'access chmod fchmod chown lchown fchown utimensat times_ns both_times_ns statvfs umask mkdir rmdir unlink '
    'rename renameat2 link symlink readlink mkfifo mknod listdir chdir fchdir getcwd_name opendir setxattr '
    'fsetxattr getxattr fgetxattr listxattr removexattr fremovexattr lock flock setfl ioctl bind connect execute '
    'run').split()}
TABLE['open'] = open_
