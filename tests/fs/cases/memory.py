"""Mapped files: what is stored through memory is read through descriptors, and the other way round."""
import errno as E
import os
import signal
from os import O_CREAT, O_DIRECT, O_RDONLY, O_RDWR, O_WRONLY

PAGE = 4096
READ, WRITE = 1, 2
SHARED, PRIVATE = 1, 2


def _map(t, fd, length, **named):
    """A mapping's address is no answer to compare: only whether there is one."""
    found = []
    t.note(f'mmap({fd.name}, {length}, {named})', lambda: found.append(t.raw.mmap(fd, length, **named)))
    return found[0] if found else None


def _stores(t, fd):
    t.pwrite(fd, b'a' * 3 * PAGE, 0)
    at = _map(t, fd, 3 * PAGE)
    if at is None:
        return
    t.peek(at, 8, value=b'a' * 8)
    t.poke(at + 10, b'mapped')
    t.peek(at + 8, 10, value=b'aamappedaa')
    t.msync(at, 3 * PAGE)
    t.pread(fd, 10, 8, value=b'aamappedaa')
    t.pwrite(fd, b'written', PAGE + 5)
    t.peek(at + PAGE + 4, 9, value=b'awrittena')
    t.poke(at + 2 * PAGE, b'last' * 1024)
    t.munmap(at, 3 * PAGE)
    t.pread(fd, PAGE, 2 * PAGE, value=b'last' * 1024)
    t.fsync(fd)
    t.stat('m')


def shared(t):
    _stores(t, t.open('m', O_CREAT | O_RDWR))
    reader = t.open('m', O_RDONLY)
    t.pread(reader, 10, 8, value=b'aamappedaa')
    t.note('mmap to write what is open to read', lambda: t.raw.mmap(reader, PAGE), want=E.EACCES)
    writer = t.open('m', O_WRONLY)
    t.note('mmap to read what is open to write', lambda: t.raw.mmap(writer, PAGE, prot=READ), want=E.EACCES)
    t.note('mmap of a directory', lambda: t.raw.mmap(t.raw.open('.', O_RDONLY), PAGE, prot=READ), want=E.ENODEV)


def shared_of_a_direct_file(t):
    t.need('O_DIRECT', lambda: os.close(os.open('m', O_CREAT | O_RDWR | O_DIRECT)))
    buffered = t.open('m', O_RDWR)
    fd = t.open('m', O_RDWR | O_DIRECT)
    t.dwrite(fd, b'd' * 4 * PAGE, 0)
    at = _map(t, fd, 4 * PAGE)
    if at is None:
        return
    t.peek(at, 4, value=b'dddd')
    t.poke(at + 100, b'mapped')
    t.msync(at, 4 * PAGE)
    t.dread(fd, PAGE, 0, value=b'd' * 100 + b'mapped' + b'd' * (PAGE - 106))
    t.pread(buffered, 8, 99, value=b'dmappedd')
    t.dwrite(fd, b'D' * PAGE, PAGE)
    t.peek(at + PAGE - 1, 3, value=b'dDD')
    t.poke(at + PAGE, b'both')
    t.dread(fd, PAGE, PAGE, value=b'both' + b'D' * (PAGE - 4))
    t.munmap(at, 4 * PAGE)
    t.pread(buffered, 6, PAGE, value=b'bothDD')


def private(t):
    t.make('m', b'p' * PAGE)
    fd = t.open('m', O_RDONLY)
    at = _map(t, fd, PAGE, flags=PRIVATE)
    if at is None:
        return
    t.poke(at, b'mine only')
    t.peek(at, 10, value=b'mine onlyp')
    t.munmap(at, PAGE)
    t.content('m', b'p' * PAGE)


def end_of_file(t):
    t.make('m', b'short')
    fd = t.open('m', O_RDWR)
    at = _map(t, fd, 2 * PAGE)
    if at is None:
        return
    t.peek(at, 10, value=b'short' + bytes(5))
    t.poke(at + 5, b'beyond the end')
    t.msync(at, PAGE)
    t.stat('m')
    t.content('m', b'short')
    t.note('touching a page past the end', lambda: _touch(at + PAGE), value=-signal.SIGBUS)
    t.ftruncate(fd, 2 * PAGE)
    t.peek(at + PAGE, 4, value=bytes(4))
    t.poke(at + PAGE, b'grown')
    t.msync(at, 2 * PAGE)
    t.pread(fd, 5, PAGE, value=b'grown')
    t.ftruncate(fd, 10)
    t.note('touching a page cut off', lambda: _touch(at + PAGE), value=-signal.SIGBUS)
    t.ftruncate(fd, 2 * PAGE)
    t.peek(at + PAGE, 5, value=bytes(5))


def _touch(address):
    import ctypes
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGBUS, signal.SIG_DFL)
        ctypes.string_at(address, 1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def two_processes(t):
    def other(p):
        fd = p.open('m', O_RDWR)
        at = _map(p, fd, PAGE)
        yield
        p.peek(at, 5, value=b'hello')
        p.poke(at + 5, b' back')
        yield
    t.make('m', bytes(PAGE))
    fd = t.open('m', O_RDWR)
    at = _map(t, fd, PAGE)
    peer = t.peer(other)
    peer.step()
    t.poke(at, b'hello')
    peer.step()
    peer.end()
    t.peek(at, 10, value=b'hello back')
    t.close(fd)
    t.poke(at, b'H')
    t.munmap(at, PAGE)
    t.content('m', b'Hello back' + bytes(PAGE - 10))


def after_unlink(t):
    t.make('m', b'u' * PAGE)
    fd = t.open('m', O_RDWR)
    at = _map(t, fd, PAGE)
    t.unlink('m')
    t.peek(at, 2, value=b'uu')
    t.poke(at, b'gone')
    t.msync(at, PAGE)
    t.pread(fd, 5, 0, value=b'gonea'[:4] + b'u')
    t.close(fd)
    t.peek(at, 5, value=b'goneu')
