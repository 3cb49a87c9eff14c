"""Owners, modes, umask, link counts, statfs: what stat and statfs tell."""
import errno as E
import os
import stat as modes
from os import O_CREAT, O_RDWR


def mode_of_everything(t):
    t.make('f', b'', 0o644)
    t.mkdir('d')
    for mode in (0, 0o777, 0o644, 0o1777, 0o4755, 0o2755, 0o6711, 0o7777, 0o600):
        t.chmod('f', mode)
        t.stat('f')
        t.chmod('d', mode)
        t.stat('d')
    t.chmod('d', 0o755)
    fd = t.open('f', O_RDWR)
    t.fchmod(fd, 0o4711)
    t.stat('f')
    t.chmod('absent', 0o600, want=E.ENOENT)
    t.chmod('f/x', 0o600, want=E.ENOTDIR)
    t.mkfifo('p')
    t.chmod('p', 0o6770)
    t.lstat('p')


def masks(t):
    for mask in (0, 0o022, 0o027, 0o077, 0o777):
        t.umask(mask)
        t.about = f'umask {mask:#o}'
        name = f'{mask:03o}'
        t.close(t.open(f'f{name}', O_CREAT | O_RDWR, 0o666))
        t.close(t.open(f'x{name}', O_CREAT | O_RDWR, 0o4777))
        t.mkdir(f'd{name}', 0o777)
        t.mkdir(f's{name}', 0o1777)
        t.mkfifo(f'p{name}', 0o666)
        t.mknod(f'n{name}', modes.S_IFREG | 0o666)
        t.symlink('x', f'l{name}')
        bound = t.bind(f'b{name}')
        for kind in 'fxdspnlb':
            t.lstat(f'{kind}{name}')
        t.chmod(f'd{name}', 0o755)
        t.chmod(f's{name}', 0o755)
        del bound
    t.about = ''
    t.umask(0o022, value=0o777)


def owners(t):
    t.as_root()
    t.make('f', b'', 0o644)
    t.mkdir('d')
    fd = t.open('f', O_RDWR)
    for uid, gid in ((1001, 1002), (-1, 1003), (1004, -1), (-1, -1), (0, 0), (70000, 80000), (0xfffffffe, 0xfffffffe)):
        t.chown('f', uid, gid)
        t.stat('f')
        t.chown('d', uid, gid)
        t.stat('d')
    t.fchown(fd, 5, 6)
    t.stat('f')
    t.chown('absent', 0, 0, want=E.ENOENT)
    t.mkfifo('p')
    t.chown('p', 7, 8)
    t.lstat('p')


def owner_of_what_is_made(t):
    t.as_root()
    t.chmod('.', 0o777)

    def other(p):
        p.make('f')
        p.close(p.open('g', O_CREAT | O_RDWR, 0o640))
        p.mkdir('d')
        p.symlink('x', 'l')
        p.mkfifo('p')
        p.mknod('n', modes.S_IFREG | 0o600)
        keep = p.bind('s')
        del keep
    t.run_as(2001, 2002, other, (2003,))
    for name in 'fgdlpns':
        t.lstat(name)


def group_of_the_directory(t):
    """A set-group-ID directory gives its group to what is made in it, and the bit to directories."""
    t.as_root()
    t.mkdir('shared')
    t.chown('shared', 2001, 3000)
    t.chmod('shared', 0o2777)
    t.stat('shared')

    def other(p):
        p.mkdir('shared/d', 0o755)
        p.mkdir('shared/d/e', 0o700)
        p.make('shared/f')
        p.symlink('x', 'shared/l')
        p.mkfifo('shared/p')
        p.mknod('shared/n', modes.S_IFREG | 0o600)
        p.close(p.open('shared/s', O_CREAT | O_RDWR, 0o2777))
        p.chmod('shared/f', 0o2755)
    t.run_as(2002, 2002, other)
    t.make('shared/by-root')
    t.mkdir('shared/by-root-d')
    for name in ('d', 'd/e', 'f', 'l', 'p', 'n', 's', 'by-root', 'by-root-d'):
        t.lstat(f'shared/{name}')
    t.mkdir('plain')
    t.rename('plain', 'shared/plain')
    t.stat('shared/plain')


def cleared_bits(t):
    """Who writes to a set-ID file without the privilege takes the bits away; so does a change of owner."""
    t.as_root()

    def clear(name, mode, work, who=2001):
        t.about = f'{name}, mode {mode:#o}'
        t.make('f', b'0123456789' * 1000, mode, (2002, 2002))
        t.stat('f')
        if who == 0:
            work(t)
        else:
            t.run_as(who, 2003, work, (2002,))
        t.stat('f')
        t.unlink('f')
    by_write = {
        'write': lambda p: p.write(p.open('f', O_RDWR), b'x'),
        'pwrite nothing': lambda p: p.pwrite(p.open('f', O_RDWR), b'', 0),
        'truncate': lambda p: p.truncate('f', 5),
        'truncate to the same size': lambda p: p.truncate('f', 10000),
        'ftruncate': lambda p: p.ftruncate(p.open('f', O_RDWR), 5),
        'open to truncate': lambda p: p.open('f', O_RDWR | os.O_TRUNC),
        'fallocate': lambda p: p.fallocate(p.open('f', O_RDWR), 0, 0, 20000),
        'punch': lambda p: p.fallocate(p.open('f', O_RDWR), 3, 0, 4096),
        'append': lambda p: p.write(p.open('f', os.O_WRONLY | os.O_APPEND), b'x'),
    }
    for name, work in by_write.items():
        for mode in (0o6777, 0o2767):
            clear(name, mode, work)
    for name in ('write', 'truncate', 'fallocate'):
        clear(name + ' by root', 0o6777, by_write[name], 0)
    for mode in (0o6777, 0o4755, 0o2755, 0o2745):
        clear('chown by root', mode, lambda p: p.chown('f', 2005, 2006), 0)
        clear('chown to none by root', mode, lambda p: p.chown('f', -1, -1), 0)
        clear('chgrp by owner', mode, lambda p: p.chown('f', -1, 2003), 2002)
        clear('chmod by owner', mode & 0o777, lambda p: p.chmod('f', 0o6755), 2002)
    t.about = ''
    t.mkdir('d')
    t.chmod('d', 0o6777)
    t.chown('d', 2001, 2002)
    t.stat('d')


def mapped_store_clears_bits(t):
    t.as_root()
    t.make('f', b'm' * 4096, 0o6777, (2002, 2002))

    def other(p):
        fd = p.open('f', O_RDWR)
        at = []
        p.note('mmap', lambda: at.append(p.raw.mmap(fd, 4096)))
        if at:
            p.poke(at[0], b'x')
            p.msync(at[0], 4096)
    t.run_as(2001, 2001, other)
    t.content('f', b'x' + b'm' * 4095)


def link_counts(t):
    t.make('f')
    t.stat('f')
    fd = t.open('f', O_RDWR)
    t.rename('f', 'g')
    t.fstat(fd)
    t.make('h')
    t.rename('h', 'g')
    t.fstat(fd)
    t.symlink('x', 'l')
    t.lstat('l')


def room(t):
    fd = t.open('f', O_CREAT | O_RDWR)
    t.note('an empty file takes no room', lambda: os.fstat(fd).st_blocks, value=0)
    t.pwrite(fd, b'x' * 300000, 0)
    t.fsync(fd)
    t.note('300000 bytes take about their room', lambda: 300000 <= os.fstat(fd).st_blocks * 512 <= 1 << 20, value=True)
    t.ftruncate(fd, 1 << 32)
    t.fsync(fd)
    t.note('a hole takes none', lambda: os.fstat(fd).st_blocks * 512 <= 1 << 20, value=True)
    t.note('block size of a file is a power of two', lambda: os.fstat(fd).st_blksize >= 512
           and os.fstat(fd).st_blksize & (os.fstat(fd).st_blksize - 1) == 0, value=True)


def filesystem(t):
    t.make('f', b'x')
    fd = t.open('f', O_RDWR)
    for label, get in (('of a directory', lambda: os.statvfs('.')), ('of a file', lambda: os.statvfs('f')),
                       ('of a descriptor', lambda: os.fstatvfs(fd))):
        t.note(f'statfs {label} is plausible', lambda: _plausible(get()), value=[])
    t.statvfs('absent', want=E.ENOENT)
    t.statvfs('f/x', want=E.ENOTDIR)


def _plausible(got):
    tests = {'a block size': got.f_bsize >= 512, 'a fragment size': got.f_frsize >= 512, 'blocks': got.f_blocks > 0,
             'no more free than there is': got.f_bfree <= got.f_blocks,
             'no more for users than free': got.f_bavail <= got.f_bfree,
             'some room': got.f_bavail > 0, 'names of 255': got.f_namemax == 255,
             'free inodes are inodes': got.f_ffree <= got.f_files,
             'not read-only': not got.f_flag & os.ST_RDONLY}
    return [name for name, holds in tests.items() if not holds]


def inode_numbers(t):
    t.make('f', b'f')
    t.mkdir('d')
    fd = t.open('f', O_RDWR)
    before = []
    t.note('has a number', lambda: before.append(os.stat('f').st_ino))
    t.rename('f', 'd/g')
    t.note('survives a rename', lambda: [os.stat('d/g').st_ino] == before, value=True)
    t.pwrite(fd, b'more', 0)
    t.chmod('d/g', 0o600)
    t.note('survives changes', lambda: [os.fstat(fd).st_ino] == before, value=True)
    t.note('one device', lambda: os.stat('d').st_dev == os.stat('d/g').st_dev, value=True)
    t.make('other')
    t.note('another file has another', lambda: [os.stat('other').st_ino] != before, value=True)


def access(t):
    t.as_root()
    t.make('f', b'', 0)
    t.make('x', b'', 0o100)
    t.mkdir('d', 0)
    for path, mode, want in (('f', os.F_OK, 0), ('f', os.R_OK, 0), ('f', os.W_OK, 0), ('f', os.X_OK, E.EACCES),
                             ('x', os.X_OK, 0),
                             ('d', os.X_OK, 0), ('absent', os.F_OK, E.ENOENT), ('f/x', os.F_OK, E.ENOTDIR),
                             ('f', 64, E.EINVAL)):
        t.access(path, mode, want=want)
