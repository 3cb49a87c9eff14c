"""Locks between two processes: OFD locks as QEMU takes them on an image, POSIX locks, flock."""
import errno as E
import fcntl
import os
import time
from os import O_CREAT, O_RDONLY, O_RDWR

from calls import OFD_GETLK, OFD_SETLK, OFD_SETLKW

# QEMU's image locking: a byte for each permission that is used, and one for each that is not shared.
PERMISSION, SHARED = 100, 200
BUSY = (E.EAGAIN, E.EACCES)


def _take(p, fd, permissions, unshared):
    for bit in range(4):
        if permissions >> bit & 1:
            p.lock(fd, OFD_SETLK, 'read', PERMISSION + bit, 1)
        if unshared >> bit & 1:
            p.lock(fd, OFD_SETLK, 'read', SHARED + bit, 1)


def _test(p, fd):
    for bit in range(4):
        p.lock(fd, OFD_GETLK, 'write', PERMISSION + bit, 1)
        p.lock(fd, OFD_GETLK, 'write', SHARED + bit, 1)


def as_qemu(t):
    """A running machine, a second one that must be refused, a reader that may share, the end of the first."""
    def machine(p):
        fd = p.open('disk', O_RDWR)
        _take(p, fd, 0b1011, 0b1010)
        _test(p, fd)
        yield
        p.lock(fd, OFD_SETLK, 'none', PERMISSION + 1, 1)
        yield
        p.close(fd)
        yield
    t.make('disk', b'image')
    fd = t.open('disk', O_RDWR)
    _test(t, fd)
    peer = t.peer(machine)
    peer.step()
    _test(t, fd)
    t.lock(fd, OFD_SETLK, 'read', PERMISSION, 1)
    t.lock(fd, OFD_SETLK, 'write', PERMISSION + 1, 1, want=BUSY)
    t.lock(fd, OFD_SETLK, 'write', PERMISSION + 2, 1)
    t.lock(fd, OFD_SETLK, 'none', PERMISSION + 2, 1)
    peer.step()
    _test(t, fd)
    t.lock(fd, OFD_SETLK, 'write', PERMISSION + 1, 1)
    peer.step()
    _test(t, fd)
    t.lock(fd, OFD_SETLK, 'write', PERMISSION, 104)
    peer.end()


def end_of_the_holder(t):
    def holder(p):
        p.lock(p.open('disk', O_RDWR), OFD_SETLK, 'write', 100, 104)
        yield
    t.make('disk')
    fd = t.open('disk', O_RDWR)
    peer = t.peer(holder)
    peer.step()
    t.lock(fd, OFD_SETLK, 'read', 150, 1, want=BUSY)
    t.lock(fd, OFD_GETLK, 'read', 0, 0, value='write 100+104 of OFD')
    peer.end(kill=True)
    t.lock(fd, OFD_SETLK, 'read', 150, 1)


def of_one_process(t):
    """OFD locks belong to the open file: two opens of one process exclude each other, a duplicate does not, and no
    close drops them.
    """
    t.make('f')
    one, two = t.open('f', O_RDWR), t.open('f', O_RDWR)
    t.lock(one, OFD_SETLK, 'write', 0, 10)
    t.lock(two, OFD_SETLK, 'write', 5, 10, want=BUSY)
    t.lock(two, OFD_SETLK, 'write', 10, 10)
    t.lock(two, OFD_GETLK, 'write', 0, 0, value='write 0+10 of OFD')
    twin = t.dup(one)
    t.lock(twin, OFD_SETLK, 'write', 0, 5)
    t.close(twin)
    t.lock(two, OFD_SETLK, 'read', 0, 1, want=BUSY)
    third = t.open('f', O_RDWR)
    t.close(third)
    t.lock(two, OFD_SETLK, 'read', 0, 1, want=BUSY)
    t.lock(one, OFD_SETLK, 'none', 3, 4)
    t.lock(two, OFD_SETLK, 'write', 3, 4)
    t.lock(two, OFD_SETLK, 'write', 2, 1, want=BUSY)
    t.close(one)
    t.lock(two, OFD_SETLK, 'write', 0, 10)
    t.lock(two, OFD_SETLK, 'read', 0, 0)


def wrong_locks(t):
    t.make('f')
    reader, writer = t.open('f', O_RDONLY), t.open('f', os.O_WRONLY)
    t.lock(reader, OFD_SETLK, 'write', 0, 1, want=E.EBADF)
    t.lock(writer, OFD_SETLK, 'read', 0, 1, want=E.EBADF)
    t.lock(reader, OFD_SETLK, 'read', 0, 1)
    t.lock(reader, OFD_SETLK, 'read', -1, 1, want=E.EINVAL)
    t.lock(reader, OFD_SETLK, 'none', 0, 0)
    d = t.open('.', O_RDONLY)
    t.lock(d, OFD_SETLK, 'read', 0, 1)
    path = t.open('f', os.O_PATH)
    t.lock(path, OFD_SETLK, 'read', 0, 1, want=E.EBADF)
    t.lock(writer, OFD_SETLK, 'write', 1 << 40, 1 << 20)


def waiting(t):
    def waiter(p):
        fd = p.open('f', O_RDWR)
        p.lock(fd, OFD_SETLK, 'write', 100, 1, want=BUSY)
        yield
        p.lock(fd, OFD_SETLKW, 'write', 100, 1)
        p.note('after the release', lambda: os.path.exists('released'), value=True)
        yield
    t.make('f')
    fd = t.open('f', O_RDWR)
    t.lock(fd, OFD_SETLK, 'write', 100, 1)
    peer = t.peer(waiter)
    peer.step()
    peer.start()
    time.sleep(0.05)
    t.make('released')
    t.lock(fd, OFD_SETLK, 'none', 100, 1)
    peer.finish()
    t.lock(fd, OFD_SETLK, 'read', 100, 1, want=BUSY)
    peer.end()


def posix(t):
    """POSIX locks belong to the process: its own opens never conflict, and any close of the file drops them all."""
    def other(p):
        fd = p.open('f', O_RDWR)
        p.lock(fd, fcntl.F_SETLK, 'write', 5, 1, want=BUSY)
        p.lock(fd, fcntl.F_GETLK, 'write', 0, 0, value='write 0+10 of a process')
        p.lock(fd, fcntl.F_SETLK, 'write', 20, 1)
        yield
        p.lock(fd, fcntl.F_SETLK, 'write', 5, 1)
        yield
    t.make('f')
    one, two = t.open('f', O_RDWR), t.open('f', O_RDWR)
    t.lock(one, fcntl.F_SETLK, 'write', 0, 10)
    t.lock(two, fcntl.F_SETLK, 'write', 0, 10)
    peer = t.peer(other)
    peer.step()
    t.lock(one, fcntl.F_SETLK, 'write', 20, 1, want=BUSY)
    t.close(two)
    peer.step()
    t.lock(one, fcntl.F_GETLK, 'write', 5, 1, value='write 5+1 of a process')
    peer.end()
    t.lock(one, fcntl.F_SETLK, 'write', 0, 0)


def posix_against_ofd(t):
    t.make('f')
    one, two = t.open('f', O_RDWR), t.open('f', O_RDWR)
    t.lock(one, OFD_SETLK, 'write', 0, 10)
    t.lock(two, fcntl.F_SETLK, 'write', 0, 1, want=BUSY)
    t.lock(two, fcntl.F_GETLK, 'write', 0, 1, value='write 0+10 of OFD')
    t.lock(two, fcntl.F_SETLK, 'write', 10, 1)
    t.lock(one, OFD_SETLK, 'write', 10, 1, want=BUSY)


def flocks(t):
    def other(p):
        fd = p.open('f', O_RDONLY)
        p.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, want=E.EAGAIN)
        p.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB, want=E.EAGAIN)
        yield
        p.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        p.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, want=E.EAGAIN)
        yield
        p.flock(fd, fcntl.LOCK_EX)
        yield
    t.make('f')
    fd = t.open('f', O_RDONLY)
    t.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    t.lock(t.open('f', O_RDWR), OFD_SETLK, 'write', 0, 0)
    peer = t.peer(other)
    peer.step()
    t.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    peer.step()
    t.flock(fd, fcntl.LOCK_UN)
    peer.step()
    t.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB, want=E.EAGAIN)
    peer.end()
    t.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    d = t.open('.', O_RDONLY)
    t.flock(d, fcntl.LOCK_EX | fcntl.LOCK_NB)


def follow_the_file(t):
    """Locks are of the file, not of its name."""
    def other(p):
        p.lock(p.open('g', O_RDWR), OFD_SETLK, 'write', 0, 1, want=BUSY)
        p.lock(p.open('f', O_CREAT | O_RDWR), OFD_SETLK, 'write', 0, 1)
    t.make('f')
    fd = t.open('f', O_RDWR)
    t.lock(fd, OFD_SETLK, 'write', 0, 1)
    t.rename('f', 'g')
    t.run_as(None, None, other)
    t.unlink('g')
    t.lock(fd, OFD_GETLK, 'write', 0, 0, value='free')
    t.lock(fd, OFD_SETLK, 'none', 0, 0)
