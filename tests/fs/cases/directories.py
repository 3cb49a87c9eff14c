"""Directories: making and removing them, reading them while they change."""
import errno as E
import os
import stat as modes
from os import O_CREAT, O_DIRECTORY, O_RDONLY, O_RDWR


def make_and_remove(t):
    t.mkdir('d', 0o700)
    t.stat('d')
    t.mkdir('d', want=E.EEXIST)
    t.make('f')
    t.mkdir('f', want=E.EEXIST)
    t.mkdir('f/x', want=E.ENOTDIR)
    t.mkdir('absent/x', want=E.ENOENT)
    t.mkdir('', want=E.ENOENT)
    t.mkdir('.', want=E.EEXIST)
    t.mkdir('slash/')
    t.symlink('nowhere', 'l')
    t.mkdir('l', want=E.EEXIST)
    t.mkdir('d/e')
    t.rmdir('d', want=E.ENOTEMPTY)
    t.rmdir('f', want=E.ENOTDIR)
    t.rmdir('l', want=E.ENOTDIR)
    t.rmdir('absent', want=E.ENOENT)
    t.rmdir('d/.', want=E.EINVAL)
    t.rmdir('d/e/..', want=E.ENOTEMPTY)
    t.rmdir('d/e')
    t.rmdir('d/')
    t.stat('d', want=E.ENOENT)
    t.symlink('slash', 'to-slash')
    t.rmdir('to-slash', want=E.ENOTDIR)
    t.rmdir('slash')
    t.listdir('.')


def links(t):
    t.mkdir('d')
    t.stat('d')
    for name in ('a', 'b', 'c'):
        t.mkdir(f'd/{name}')
        t.stat('d')
    t.make('d/file')
    t.stat('d')
    t.mkdir('e')
    t.rename('d/a', 'e/a')
    t.stat('d')
    t.stat('e')
    t.rename('d/b', 'e/a')
    t.stat('d')
    t.stat('e')
    t.rmdir('e/a')
    t.stat('e')
    t.stat('d/file')


def removed_directory(t):
    t.mkdir('gone')
    t.make('outside')
    fd = t.open('gone', O_RDONLY | O_DIRECTORY)
    t.chdir('gone')
    t.rmdir('../gone')
    t.getcwd_name(want=E.ENOENT)
    t.open('x', O_CREAT | O_RDWR, want=E.ENOENT)
    t.mkdir('x', want=E.ENOENT)
    t.symlink('x', 'y', want=E.ENOENT)
    t.mkfifo('p', want=E.ENOENT)
    t.rename('../outside', 'x', want=E.ENOENT)
    t.stat('x', want=E.ENOENT)
    t.open('x', O_CREAT | O_RDWR, 0o644, at=fd, want=E.ENOENT)
    t.listdir('.')
    t.note('fstat of a removed directory', lambda: modes.filemode(os.fstat(fd).st_mode), value='drwxr-xr-x')
    t.fsync(fd)
    t.chdir('..')
    t.mkdir('gone')
    t.listdir('gone')
    t.note('descriptor is of the old one',
           lambda: os.fstat(fd).st_ino != os.stat('gone').st_ino or os.fstat(fd).st_nlink == 0, value=True)


def _fill(t, path, count, prefix='entry'):
    def work():
        for i in range(count):
            os.close(os.open(f'{path}/{prefix}-{i:05d}', O_CREAT | O_RDWR, 0o644))
    t.mkdir(path)
    t.note(f'make {count} files in {path!r}', work)
    return {f'{prefix}-{i:05d}' for i in range(count)}


def _report(t, label, got, expected):
    """Which names are missing, come twice, or are of nowhere."""
    names = [name for name in got if name not in ('.', '..')]
    twice = sorted({name for name in names if names.count(name) > 1}) if len(names) != len(set(names)) else []
    t.check(f'{label}: missing', sorted(expected - set(names)), [])
    t.check(f'{label}: unknown', sorted(set(names) - expected), [])
    t.check(f'{label}: twice', twice, [])


def _rest(stream):
    names = []
    while stream and (entry := stream.next()):
        names.append(entry[0])
    return names


def _take(stream, count):
    names = []
    while stream and len(names) < count and (entry := stream.next()):
        names.append(entry[0])
    return names


def many_entries(t):
    names = _fill(t, 'd', 3000)
    _report(t, 'listed', os.listdir('d'), names)
    stream = t.opendir('d')
    first = _rest(stream)
    _report(t, 'read', first, names)
    t.check('has . and ..', sorted(set(first) & {'.', '..'}), ['.', '..'])
    if stream:
        stream.rewind()
    _report(t, 'read again', _rest(stream), names)
    t.rmdir('d', want=E.ENOTEMPTY)
    t.note('all can be looked up', lambda: sum(os.path.exists(f'd/{name}') for name in names), value=3000)


def kinds_of_entries(t):
    t.make('file')
    t.mkdir('directory')
    t.symlink('x', 'symlink')
    t.mkfifo('fifo')
    t.bind('socket')

    def entries():
        stream, found = t.raw.opendir('.'), []
        while entry := stream.next():
            found.append(entry)
        return sorted(found)
    t.note('kinds', lambda: [(name, kind) for name, kind, _ in entries()])
    t.note('inode numbers agree with lstat', lambda: [name for name, _, number in entries()
           if name != '..' and number != os.lstat(name).st_ino], value=[])
    t.note('inode numbers differ', lambda: len({number for name, _, number in entries() if name not in ('.', '..')}),
           value=5)


def positions(t):
    names = _fill(t, 'd', 1000)
    stream = t.opendir('d')
    places, got = [], []
    while stream:
        place = stream.tell()
        entry = stream.next()
        if entry is None:
            break
        places.append(place)
        got.append(entry[0])
    _report(t, 'read with telldir', got, names)
    for index in (0, 1, 2, 3, 500, 777, 1000, 1001):
        if index < len(places):
            stream.seek(places[index])
            t.check(f'from entry {index} on, the same follows', _rest(stream) == got[index:])
    if stream:
        stream.rewind()
        t.check('rewound, the same follows', _rest(stream) == got)


def removal_while_reading(t):
    names = _fill(t, 'd', 1500)
    stream, seen = t.opendir('d'), []
    while part := _take(stream, 40):
        seen += part
        for name in part:
            if name not in ('.', '..'):
                os.unlink(f'd/{name}')
    _report(t, 'seen while removing', seen, names)
    t.listdir('d', value=[])
    t.rmdir('d')


def positions_while_removing(t):
    """What is left after a position is seen once, whatever has been removed before it."""
    names = _fill(t, 'd', 1000)
    stream = t.opendir('d')
    seen = _take(stream, 500)
    place = stream.tell() if stream else None
    rest = _rest(stream)
    t.note('remove what was seen',
           lambda: [os.unlink(f'd/{name}') for name in seen if name not in ('.', '..')] and None)
    t.note('remove some of what follows', lambda: [os.unlink(f'd/{name}') for name in rest[::7]] and None)
    if stream:
        stream.seek(place)
    left = {name for name in rest if name not in rest[::7]}
    got = _rest(stream)
    t.check('missing after the position', sorted(left - set(got)), [])
    t.check('twice after the position', len(got) - len(set(got)), 0)
    t.check('back from before the position', sorted(set(got) & set(seen)), [])
    _report(t, 'listed', os.listdir('d'), (names - set(seen)) - set(rest[::7]))


def creation_while_reading(t):
    """New names may or may not be seen; what was there is seen once."""
    names = _fill(t, 'd', 600)
    stream = t.opendir('d')
    seen = _take(stream, 300)
    t.note('make 300 more', lambda: [os.close(os.open(f'd/new-{i}', O_CREAT | O_RDWR)) for i in range(300)] and None)
    seen += _rest(stream)
    _report(t, 'what was there', [name for name in seen if not name.startswith('new')], names)
    t.check('new ones twice', len(seen) - len(set(seen)), 0)
    if stream:
        stream.rewind()
    _report(t, 'rewound', _rest(stream), names | {f'new-{i}' for i in range(300)})


def rename_while_reading(t):
    names = _fill(t, 'd', 200)
    stream = t.opendir('d')
    part = [name for name in _take(stream, 100) if name not in ('.', '..')]
    t.note('rename what was seen', lambda: [os.rename(f'd/{name}', f'd/renamed-{name}') for name in part] and None)
    rest = [name for name in _rest(stream) if not name.startswith('renamed') and name not in ('.', '..')]
    t.check('the rest is complete', sorted(names - set(part)) == sorted(rest))
    _report(t, 'afterwards', os.listdir('d'), (names - set(part)) | {f'renamed-{name}' for name in part})


def nested(t):
    t.note('make a tree', lambda: os.makedirs('a/b/c/d/e/f/g'))
    for path in ('a', 'a/b', 'a/b/c', 'a/b/c/d/e/f'):
        t.listdir(path)
        t.note(f'.. of {path}', lambda: os.stat(f'{path}/..').st_ino == os.stat(os.path.dirname(path) or '.').st_ino,
               value=True)
    t.chdir('a/b/c')
    t.getcwd_name(value='c')
    t.stat('../../../a/b/../b/c/d')
    t.stat('absent/..', want=E.ENOENT)
    t.chdir('../../..')
    t.rename('a/b/c', 'c')
    t.listdir('c/d/e/f')
    t.note('walk', lambda: [path for path, _, _ in sorted(os.walk('.'))])
