"""Permissions: what other users may do, as a matrix of modes, users and calls."""
import errno as E
import os
from os import O_CREAT, O_EXCL, O_RDONLY, O_RDWR, O_TRUNC, O_WRONLY

OWNER, GROUP, OTHER = 4001, 4002, 4003
WHO = {'owner': (OWNER, 5001, ()), 'group': (GROUP, 5000, ()), 'supplementary group': (GROUP, 5002, (5000,)),
       'other': (OTHER, 5003, ())}
SHIFT = {'owner': 6, 'group': 3, 'supplementary group': 3, 'other': 0}


def _denied(allowed):
    return 0 if allowed else E.EACCES


def files(t):
    """Each class's three bits, alone and as the only ones missing: the class that applies decides, not the best one."""
    t.as_root()
    modes = sorted({bits << shift for shift in (6, 3, 0) for bits in range(8)} |
                   {0o777 & ~(bits << shift) for shift in (6, 3, 0) for bits in range(1, 8)})
    for mode in modes:
        t.make(f'f{mode:03o}', b'content', mode, (OWNER, 5000))

    def script(bits_of):
        def run(p):
            for mode in modes:
                bits, name = bits_of(mode), f'f{mode:03o}'
                p.about = f'{mode:#o}'
                p.open(name, O_RDONLY, want=_denied(bits & 4))
                p.open(name, O_WRONLY, want=_denied(bits & 2))
                p.open(name, O_RDWR, want=_denied(bits & 6 == 6))
                p.access(name, os.X_OK, want=_denied(bits & 1))
                p.stat(name)
        return run
    for who, (uid, gid, groups) in WHO.items():
        t.run_as(uid, gid, script(lambda mode, s=SHIFT[who]: mode >> s & 7), groups)


def truncation(t):
    t.as_root()
    for mode in (0o600, 0o644, 0o666, 0o444):
        t.make(f'f{mode:o}', b'content', mode, (OWNER, 5000))

    def other(p):
        for mode in (0o600, 0o644, 0o666, 0o444):
            p.truncate(f'f{mode:o}', 3, want=_denied(mode & 2))
            p.open(f'f{mode:o}', O_RDONLY | O_TRUNC, want=_denied(mode & 6 == 6))
    t.run_as(OTHER, 5003, other)
    for mode in (0o600, 0o644, 0o666, 0o444):
        t.stat(f'f{mode:o}')

    def owner(p):
        p.truncate('f444', 1, want=E.EACCES)
        p.open('f444', O_WRONLY, want=E.EACCES)
        p.chmod('f444', 0o644)
        p.truncate('f444', 1)
    t.run_as(OWNER, 5001, owner)


def directories(t):
    t.as_root()
    for who in WHO:
        for bits in range(8):
            name = f'{who.split()[0]}{bits}'
            t.mkdir(name)
            for child in ('there', 'victim', 'mover'):
                t.make(f'{name}/{child}', b'x', 0o666)
            t.mkdir(f'{name}/sub', 0o777)
            t.chown(name, OWNER, 5000)
            t.chmod(name, bits << SHIFT[who])

    def script(who):
        def run(p):
            for bits in range(8):
                name, look, change = f'{who.split()[0]}{bits}', _denied(bits & 1), _denied(bits & 3 == 3)
                p.about = f'mode {bits << SHIFT[who]:#o}'
                p.listdir(name, want=_denied(bits & 4))
                p.chdir(name, want=look)
                p.chdir('..' if not look else '.')
                p.stat(f'{name}/there', want=look)
                p.stat(f'{name}/absent', want=look or E.ENOENT)
                p.open(f'{name}/there', O_RDWR, want=look)
                p.open(f'{name}/new', O_CREAT | O_EXCL | O_RDWR, want=change)
                p.mkdir(f'{name}/newdir', want=change)
                p.symlink('x', f'{name}/newlink', want=change)
                p.mkfifo(f'{name}/newpipe', want=change)
                p.rename(f'{name}/mover', f'{name}/moved', want=change)
                p.unlink(f'{name}/victim', want=change)
                p.rmdir(f'{name}/sub', want=change)
                p.chmod(f'{name}/there', 0o600, want=look or E.EPERM)
        return run
    for who in ('owner', 'group', 'other'):
        uid, gid, groups = WHO[who]
        t.run_as(uid, gid, script(who), groups)
    for who in ('owner', 'group', 'other'):
        for bits in range(8):
            t.listdir(f'{who}{bits}')


def path_search(t):
    """A directory on the way that may not be searched hides all below it, and a descriptor below it still works."""
    t.as_root()
    t.mkdir('closed')
    t.mkdir('closed/open')
    t.chmod('closed/open', 0o777)
    t.make('closed/open/f', b'f', 0o666)
    fd = t.open('closed/open/f', O_RDWR)
    directory = t.open('closed/open', O_RDONLY)
    t.chmod('closed', 0o600)

    def other(p):
        p.stat('closed/open/f', want=E.EACCES)
        p.open('closed/open/f', O_RDONLY, want=E.EACCES)
        p.rename('closed/open/f', 'closed/open/g', want=E.EACCES)
        p.pread(fd, 5, 0, value=b'f')
        p.open('f', O_RDWR, at=directory)
        p.open('made', O_CREAT | O_RDWR, at=directory)
    t.run_as(OTHER, 5003, other)
    t.listdir('closed/open')


def held_descriptors(t):
    """Permission is checked when a file is opened; taking it away later does not touch what is open."""
    t.as_root()
    t.make('f', b'before', 0o666)

    def other(p):
        fd = p.open('f', O_RDWR)
        yield
        p.open('f', O_RDWR, want=E.EACCES)
        p.pread(fd, 10, 0, value=b'before')
        p.pwrite(fd, b'after!', 0)
        p.ftruncate(fd, 5)
        p.fchmod(fd, 0o777, want=E.EPERM)
        p.fsync(fd)
        yield
    peer = t.peer(other, OTHER, 5003)
    peer.step()
    t.chmod('f', 0o600)
    t.chown('f', OWNER, 5000)
    peer.step()
    peer.end()
    t.content('f', b'after')


def opened_as_created(t):
    """Whoever creates a file may write to it through that descriptor, whatever mode it gave it."""
    t.as_root()
    t.chmod('.', 0o777)

    def other(p):
        for mode in (0, 0o400, 0o444, 0o200):
            fd = p.open(f'm{mode:o}', O_CREAT | O_EXCL | O_RDWR, mode)
            p.write(fd, b'mine')
            p.pread(fd, 10, 0, value=b'mine')
            p.ftruncate(fd, 2)
            p.fsync(fd)
            p.open(f'm{mode:o}', O_RDWR, want=E.EACCES)
    t.run_as(OTHER, 5003, other)
    for mode in (0, 0o400, 0o444, 0o200):
        t.stat(f'm{mode:o}')


def change_of_owner(t):
    t.as_root()
    t.make('f', b'', 0o644, (OWNER, 5001))
    t.mkdir('d')
    t.chown('d', OWNER, 5001)

    def owner(p):
        for path in ('f', 'd'):
            p.chown(path, OWNER, 5000)
            p.stat(path)
            p.chown(path, -1, 5001)
            p.chown(path, OWNER, -1)
            p.chown(path, -1, -1)
            p.chown(path, OTHER, -1, want=E.EPERM)
            p.chown(path, OWNER, 9999, want=E.EPERM)
            p.chown(path, 0, 0, want=E.EPERM)
            p.chmod(path, 0o600 if path == 'f' else 0o700)
            p.stat(path)

    def other(p):
        for path in ('f', 'd'):
            p.chown(path, OTHER, -1, want=E.EPERM)
            p.chown(path, -1, 5003, want=E.EPERM)
            p.chmod(path, 0o777, want=E.EPERM)
            p.stat(path)
    t.run_as(OWNER, 5001, owner, (5000,))
    t.run_as(OTHER, 5003, other)
    t.stat('f')
    t.stat('d')


def set_group_id_needs_the_group(t):
    t.as_root()
    t.make('f', b'', 0o644, (OWNER, 6000))
    t.run_as(OWNER, 5001, lambda p: p.chmod('f', 0o2755))
    t.stat('f')
    t.run_as(OWNER, 5001, lambda p: p.chmod('f', 0o2755), (6000,))
    t.stat('f')


def sticky(t):
    """In a sticky directory only the owner of a name, of the directory, or root removes or renames it."""
    t.as_root()
    t.mkdir('tmp')
    t.chown('tmp', OWNER, 5000)
    t.chmod('tmp', 0o1777)
    t.mkdir('plain')
    t.chmod('plain', 0o777)

    def make(p):
        for name in ('a', 'b', 'c', 'd'):
            p.make(f'tmp/{name}', b'', 0o666)
        p.mkdir('tmp/dir')
        p.mkdir('tmp/dir2')

    def stranger(p):
        p.unlink('tmp/a', want=E.EPERM)
        p.rename('tmp/a', 'tmp/x', want=E.EPERM)
        p.rename('tmp/a', 'plain/x', want=E.EPERM)
        p.rmdir('tmp/dir', want=E.EPERM)
        p.rename('tmp/dir', 'tmp/y', want=E.EPERM)
        p.make('tmp/own')
        p.rename('tmp/own', 'tmp/b', want=E.EPERM)
        p.rename('tmp/own', 'tmp/own2')
        p.mkdir('tmp/owndir')
        p.rename('tmp/owndir', 'tmp/dir2', want=E.EPERM)
        p.make('plain/p')
        p.rename('plain/p', 'tmp/b', want=E.EPERM)
        p.rename('plain/p', 'tmp/p')
        p.open('tmp/a', O_RDWR)
        p.unlink('tmp/own2')
        p.rmdir('tmp/owndir')

    def maker(p):
        p.unlink('tmp/a')
        p.rename('tmp/b', 'tmp/b2')
        p.rmdir('tmp/dir')
        p.unlink('tmp/p', want=E.EPERM)

    def owner_of_directory(p):
        p.unlink('tmp/c')
        p.rename('tmp/d', 'tmp/d2')
        p.rmdir('tmp/dir2')
    t.run_as(GROUP, 5001, make)
    t.run_as(OTHER, 5003, stranger)
    t.run_as(GROUP, 5001, maker)
    t.run_as(OWNER, 5001, owner_of_directory)
    t.listdir('tmp')
    t.unlink('tmp/b2')


def rename_of_a_directory_of_others(t):
    """Moving a directory elsewhere rewrites its .., so it must be writable itself."""
    t.as_root()
    t.mkdir('from')
    t.mkdir('to')
    t.chmod('from', 0o777)
    t.chmod('to', 0o777)
    t.mkdir('from/sealed')
    t.mkdir('from/open')
    t.chmod('from/open', 0o777)

    def other(p):
        p.rename('from/sealed', 'to/sealed', want=E.EACCES)
        p.rename('from/sealed', 'from/renamed')
        p.rename('from/open', 'to/open')
    t.run_as(OTHER, 5003, other)
    t.listdir('from')
    t.listdir('to')


def root_sees_all(t):
    t.as_root()
    t.make('f', b'hidden', 0, (OWNER, 5000))
    t.mkdir('d', 0)
    t.make('d/g', b'in')
    t.content('f', b'hidden')
    t.open('f', O_RDWR)
    t.listdir('d')
    t.access('f', os.X_OK, want=E.EACCES)
    t.rename('d/g', 'd/h')
    t.unlink('d/h')


def xattrs_of_others(t):
    t.as_root()
    t.make('f', b'', 0o600, (OWNER, 5000))
    t.make('readable', b'', 0o644, (OWNER, 5000))
    t.make('writable', b'', 0o666, (OWNER, 5000))
    t.need('user xattrs', lambda: os.setxattr('f', 'user.a', b'1'))
    t.setxattr('readable', 'user.a', b'1')
    t.mkdir('sticky')
    t.chmod('sticky', 0o1777)

    def other(p):
        p.getxattr('f', 'user.a', want=E.EACCES)
        p.setxattr('f', 'user.a', b'2', want=E.EACCES)
        p.removexattr('f', 'user.a', want=E.EACCES)
        p.getxattr('readable', 'user.a', value=b'1')
        p.setxattr('readable', 'user.a', b'2', want=E.EACCES)
        p.removexattr('readable', 'user.a', want=E.EACCES)
        p.setxattr('writable', 'user.a', b'2')
        p.setxattr('sticky', 'user.a', b'2', want=E.EPERM)
    t.run_as(OTHER, 5003, other)
    t.getxattr('f', 'user.a', value=b'1')
