"""Names: rename, unlink, hard links, what a name and a path may be."""
import errno as E
import os
from os import O_CREAT, O_RDONLY, O_RDWR

from calls import EXCHANGE, NOREPLACE, Fd
from trace import ANY


def rename_file(t):
    t.make('a', b'a')
    t.rename('a', 'b')
    t.stat('a', want=E.ENOENT)
    t.content('b', b'a')
    t.make('c', b'c', 0o600)
    t.rename('b', 'c')
    t.content('c', b'a')
    t.stat('c')
    t.listdir('.')
    t.rename('c', 'c')
    t.content('c', b'a')
    t.rename('absent', 'x', want=E.ENOENT)
    t.rename('absent', 'c', want=E.ENOENT)
    t.rename('c', 'absent/x', want=E.ENOENT)
    t.rename('c', 'c/x', want=E.ENOTDIR)
    t.rename('c/x', 'y', want=E.ENOTDIR)
    t.rename('c', '', want=E.ENOENT)
    t.rename('', 'c', want=E.ENOENT)
    t.rename('c', 'new/', want=E.ENOTDIR)
    t.rename('c/', 'new', want=E.ENOTDIR)
    t.mkdir('d')
    t.rename('c', 'd', want=E.EISDIR)
    t.rename('c', 'd/c')
    t.rename('d/c', 'd/e')
    t.rename('d/e', 'f')
    t.listdir('d')
    t.listdir('.')


def rename_directory(t):
    for path in ('empty', 'empty2', 'full', 'full/in', 'full/in/deep', 'other'):
        t.mkdir(path)
    t.make('full/f', b'f')
    t.make('other/g', b'g')
    t.make('file')
    t.rename('full', 'file', want=E.ENOTDIR)
    t.rename('empty', 'full', want=(E.ENOTEMPTY, E.EEXIST), allow='not empty')
    t.rename('full', 'other', want=(E.ENOTEMPTY, E.EEXIST), allow='not empty')
    t.rename('full', 'full/in/x', want=E.EINVAL)
    t.rename('full', 'full/new', want=E.EINVAL)
    t.rename('full', 'full/in', want=E.EINVAL)
    t.rename('full/in/deep', 'full', want=E.ENOTEMPTY)
    t.rename('full/in', 'full/in')
    t.rename('.', 'x', want=E.EBUSY)
    t.rename('full/.', 'x', want=E.EBUSY)
    t.rename('full/..', 'x', want=E.EBUSY)
    t.rename('full', '.', want=E.EBUSY)
    t.rename('empty', 'empty2')
    t.stat('empty', want=E.ENOENT)
    t.rename('full', 'empty2')
    t.listdir('empty2')
    t.content('empty2/f', b'f')
    t.rename('empty2/in', 'other/in')
    t.listdir('other/in')
    t.stat('empty2')
    t.stat('other')
    t.stat('other/in')
    t.rename('other/in/', 'moved/')
    t.note('the parent of a moved directory', lambda: os.stat('moved/..').st_ino == os.stat('.').st_ino, value=True)
    t.listdir('.')


def rename_keeps_the_working_directory(t):
    t.mkdir('a')
    t.mkdir('a/b')
    t.make('a/b/f', b'f')
    t.chdir('a/b')
    t.rename('../../a', '../../z')
    t.getcwd_name()
    t.content('f', b'f')
    t.stat('../../z/b')
    t.make('g', b'g')
    t.chdir('../..')
    t.listdir('z/b')


def rename_with_flags(t):
    t.make('a', b'a')
    t.make('b', b'b')
    t.mkdir('d')
    t.mkdir('e')
    t.renameat2('a', 'b', NOREPLACE, want=E.EEXIST)
    t.renameat2('a', 'd', NOREPLACE, want=E.EEXIST)
    t.renameat2('d', 'e', NOREPLACE, want=E.EEXIST)
    t.renameat2('a', 'a', NOREPLACE, want=E.EEXIST)
    t.renameat2('absent', 'b', NOREPLACE, want=E.ENOENT)
    t.renameat2('a', 'c', NOREPLACE)
    t.renameat2('d', 'd2', NOREPLACE)
    t.renameat2('c', 'b', 0)
    t.content('b', b'a')
    t.symlink('nowhere', 'l')
    t.renameat2('b', 'l', NOREPLACE, want=E.EEXIST)
    t.renameat2('b', 'x', NOREPLACE | EXCHANGE, want=E.EINVAL)
    t.renameat2('b', 'x', 1 << 10, want=E.EINVAL)
    t.listdir('.')


def exchange(t):
    t.make('a', b'a')
    t.make('b', b'b')
    done = t.renameat2('a', 'b', EXCHANGE, allow='exchange')
    t.content('a', b'a' if done is None else b'b')
    t.renameat2('a', 'absent', EXCHANGE, want=E.ENOENT, allow='exchange')
    t.listdir('.')


def rename_other_kinds(t):
    t.symlink('target', 'l')
    t.mkfifo('p')
    t.make('f')
    t.mkdir('d')
    t.rename('l', 'l2')
    t.readlink('l2', value=b'target')
    t.rename('p', 'f')
    t.lstat('f')
    t.rename('l2', 'f')
    t.lstat('f')
    t.rename('f', 'd', want=E.EISDIR)
    t.rename('d', 'f', want=E.ENOTDIR)
    t.make('g', b'g')
    t.rename('g', 'f')
    t.content('f', b'g')
    t.symlink('d', 'to-d')
    t.rename('d', 'to-d', want=E.ENOTDIR)
    t.rename('f', 'to-d/f')
    t.listdir('d')
    t.rename('to-d', 'renamed')
    t.listdir('.')


def unlink(t):
    t.make('f')
    t.unlink('f')
    t.unlink('f', want=E.ENOENT)
    t.mkdir('d')
    t.unlink('d', want=(E.EISDIR, E.EPERM))
    t.make('g')
    t.unlink('g/x', want=E.ENOTDIR)
    t.unlink('g/', want=E.ENOTDIR)
    t.unlink('', want=E.ENOENT)
    t.unlink('.', want=(E.EISDIR, E.EPERM, E.EINVAL))
    t.symlink('g', 'l')
    t.unlink('l')
    t.stat('g')
    t.symlink('d', 'ld')
    t.unlink('ld')
    t.mkfifo('p')
    t.unlink('p')
    t.listdir('.')
    t.make('f')
    t.stat('f')


def hard_links(t):
    t.make('f', b'f')
    t.link('f', 'g', allow='hard link')
    t.link('absent', 'h', want=E.ENOENT)
    t.link('f', 'f', want=E.EEXIST)
    t.mkdir('d')
    t.link('d', 'e', want=E.EPERM)
    t.link('f', 'd', want=E.EEXIST)
    t.link('f', 'absent/x', want=E.ENOENT)
    t.content('f', b'f')


def lengths(t):
    for size in (1, 254, 255):
        t.make('n' * size, b'x')
        t.stat('n' * size)
    t.mkdir('m' * 255)
    t.make('m' * 255 + '/' + 'o' * 255)
    t.rename('n' * 255, 'r' * 255)
    t.symlink('n', 's' * 255)
    t.mkfifo('p' * 255)
    t.listdir('.')
    long = 'n' * 256
    t.open(long, O_CREAT | O_RDWR, want=E.ENAMETOOLONG)
    t.open(long, O_RDONLY, want=E.ENAMETOOLONG)
    t.stat(long, want=E.ENAMETOOLONG)
    t.mkdir(long, want=E.ENAMETOOLONG)
    t.rename('n', long, want=E.ENAMETOOLONG)
    t.rename(long, 'n', want=E.ENAMETOOLONG)
    t.unlink(long, want=E.ENAMETOOLONG)
    t.rmdir(long, want=E.ENAMETOOLONG)
    t.symlink('n', long, want=E.ENAMETOOLONG)
    t.mkfifo(long, want=E.ENAMETOOLONG)
    t.link('n', long, want=E.ENAMETOOLONG, allow='hard link')
    t.mknod(long, 0o100644, want=E.ENAMETOOLONG)
    t.note('f_namemax', lambda: os.statvfs('.').f_namemax, value=255)
    t.stat('./' * 2047 + 'n')
    t.stat('./' * 2048 + 'n', want=E.ENAMETOOLONG)
    t.open('./' * 2048 + 'x', O_CREAT | O_RDWR, want=E.ENAMETOOLONG)


def deeper_than_a_path(t):
    """Directories nest as deep as a path can say. Deeper ones are reached from their parents; a mount refuses them."""
    here = root = os.getcwd()
    while not os.path.ismount(root):
        root = os.path.dirname(root)
    above = len(os.path.relpath(here, root))
    name, other, directory = 'n' * 100, 'o' * 100, 'd' * 100
    levels = []

    def descend():
        """To a directory in which a name of 100 bytes makes the longest path."""
        missing, fd = os.pathconf('.', 'PC_PATH_MAX') - 1 - len('/' + name) - above, os.open('.', O_RDONLY)
        while missing:
            length = min(missing, 251)
            length -= missing - length == 1
            missing -= length
            levels.append('p' * (length - 1))
            os.mkdir(levels[-1], dir_fd=fd)
            fd = os.open(levels[-1], O_RDONLY, dir_fd=fd)
        return Fd(fd, 'bottom')

    bottom = t.note('mkdir down to where 100 bytes are left of the longest path', descend)
    file = t.open(name, O_CREAT | O_RDWR, at=bottom)
    t.write(file, b'deep')
    t.pread(file, 10, 0, value=b'deep')
    t.fchdir(bottom)
    t.stat(name)
    t.mkdir(directory)
    t.rename(name, other)
    t.content(other, b'deep')
    t.rename(other, 'short')
    t.rename('short', name)
    t.truncate(name, 2)
    t.content(name, b'de')
    t.setxattr(name, 'user.deep', b'deep')
    t.getxattr(name, 'user.deep', value=b'deep')
    t.listdir('.')

    there = {name, directory}
    for what, make in (('mkdir', os.mkdir), ('mkfifo', os.mkfifo), ('mknod', os.mknod),
                       ('symlink', lambda path: os.symlink('n', path)),
                       ('open', lambda path: os.close(os.open(path, O_CREAT | O_RDWR))),
                       ('rename', lambda path: os.rename(name, path) or there.remove(name))):
        longer = what.ljust(101, '-')
        t.note(f'{what} of a longer path', lambda: make(longer) or there.add(longer), allow='deeper')
    t.note('mkdir below the longest path', lambda: os.mkdir(directory + '/x'), allow='deeper')
    t.note('what was refused is not there, what was there is', lambda: sorted(set(os.listdir('.')) ^ there), value=[])
    t.chdir('../..')
    t.note('listed from above', lambda: sorted(set(os.listdir('/'.join(levels[-2:]))) ^ there), value=[])


def characters(t):
    names = [b'with space', b'new\nline', b'tab\there', b'back\\slash', b'quote\'"', b'-dash', b'~', b'%s%n', b'*?[a]',
             b'\x01\x7f',
             'übergröße'.encode(), 'файл'.encode(), '磁盘'.encode(), '💾.qcow2'.encode(), b'latin\xe9', b'\xff\xfe\xfd',
             b'a;b', b'a\'); --',
             'é'.encode(), 'e\u0301'.encode(), b'...', b'..a', b'.hidden', b'a:b', b'a,b', b'user.svmfs',
             'ü'.encode() * 127]
    for name in names:
        fd = t.open(name, O_CREAT | O_RDWR)
        t.write(fd, name)
    for name in names:
        t.stat(name)
        t.content(name, name)
    t.note('all are listed', lambda: sorted(set(os.listdir(b'.')) ^ set(names)), value=[])
    for name in names:
        t.rename(name, b'r' + name[:200])
    t.note('all are listed under their new names',
           lambda: sorted(set(os.listdir(b'.')) ^ {b'r' + name[:200] for name in names}), value=[])
    t.symlink(b'\xff target', b'link\xff')
    t.readlink(b'link\xff', value=b'\xff target')


def upper_and_lower_case(t):
    t.make('Disk', b'upper')
    t.make('disk', b'lower')
    t.mkdir('DISK')
    t.content('Disk', b'upper')
    t.content('disk', b'lower')
    t.listdir('.')
    t.stat('dISK', want=E.ENOENT)
    t.rename('Disk', 'dISK')
    t.listdir('.')


def looked_up_before_it_was_there(t):
    """A name that was asked for in vain must be found as soon as it is made, by whatever makes it."""
    for name, make in (('file', lambda n: t.make(n)), ('dir', lambda n: t.mkdir(n)),
                       ('link', lambda n: t.symlink('x', n)),
                       ('fifo', lambda n: t.mkfifo(n)), ('renamed', lambda n: t.rename('file', n))):
        t.lstat(name, want=E.ENOENT)
        make(name)
        t.lstat(name)
    t.rename('renamed', 'again')
    t.lstat('renamed', want=E.ENOENT)
    t.unlink('again')
    t.lstat('again', want=E.ENOENT)
    t.mkdir('again')
    t.lstat('again')


def another_process_sees_it(t):
    def watcher(p):
        p.stat('x', want=E.ENOENT)
        yield
        p.stat('x')
        p.content('x', b'1')
        yield
        p.stat('x', want=E.ENOENT)
        p.content('y', b'1')
        p.listdir('.')
        p.unlink('y')
        yield
    peer = t.peer(watcher)
    peer.step()
    t.make('x', b'1')
    peer.step()
    t.rename('x', 'y')
    peer.step()
    t.stat('y', want=E.ENOENT)
    t.open('y', O_RDWR, want=E.ENOENT)
    t.listdir('.')
    peer.end()


def many_renames(t):
    """The way in which a manager replaces a small file: write aside, sync, rename over it."""
    for i in range(30):
        t.make('state.new', b'%d' % i)
        t.rename('state.new', 'state')
        t.content('state', b'%d' % i)
    d = t.open('.', O_RDONLY)
    t.fsync(d)
    t.listdir('.')
    t.open('state.new', O_RDONLY, want=E.ENOENT)
    t.access('state', os.W_OK, want=ANY)
