"""Faults: what a mount may do wrong, as changes to one call.

A change is a function of the original call and its arguments. For parity.py it replaces a call of the table for a whole
case; for storm.py it strikes every seventh time, as a killed worker would.
"""
import errno
import fcntl
import os
import stat

import calls
from calls import TABLE

# What does nothing cannot be seen to do nothing from outside: durability and advice need a crash, not a call.
INVISIBLE = {'fsync', 'fdatasync', 'syncfs', 'fadvise', 'msync', 'munmap', 'close'}
LENGTHS = {'write': 1, 'pwrite': 1, 'dwrite': 1}


def wrapped(name, change):
    """A table whose call of that name is change(original, *arguments)."""
    original = TABLE[name]
    return {**TABLE, name: lambda *args, **named: change(original, *args, **named)}


def failing(name):
    def change(original, *args, **named):
        raise OSError(errno.EIO, 'bent')
    return wrapped(name, change)


def idle(name, answers):
    """Does nothing, and answers what the call answers when it works."""
    def change(original, *args, **named):
        return len(args[LENGTHS[name]]) if name in LENGTHS else 0 if '0' in answers else None
    return wrapped(name, change)


def errno_becomes(name, number, other):
    def change(original, *args, **named):
        try:
            return original(*args, **named)
        except OSError as error:
            if error.errno != number:
                raise
            if other is None:
                return 0 if name != 'open' else calls.Fd(os.open('/dev/null', os.O_RDWR), calls.name_of(args[0]))
            raise OSError(other, 'bent') from error
    return wrapped(name, change)


def _without(flag):
    return lambda original, path, flags, *rest, **named: original(path, flags & ~flag, *rest, **named)


def _then(work):
    """Makes the call and then work(*arguments), which undoes a part of it."""
    def change(original, *args, **named):
        result = original(*args, **named)
        try:
            work(*args)
        except OSError:
            pass
        return result
    return change


def _stat_with(position, value):
    def change(original, *args, **named):
        full = original(*args, **named)
        got = list(full)
        got[position] = value(got)
        return os.stat_result(got, {name: getattr(full, name) for name in dir(full) if name.startswith('st_')})
    return change


def _keeps_time(original, fd, *args):
    before = os.fstat(fd)
    result = original(fd, *args)
    os.utime(fd, ns=(before.st_atime_ns, before.st_mtime_ns))
    return result


def _touches(original, path, *args):
    result = original(path, *args)
    os.utime(path)
    return result


def _microseconds(original, path, atime, mtime, flags=0):
    def cut(time):
        return time if time[1] >= calls.UTIME_OMIT or not 0 <= time[1] < 10**9 else (time[0], time[1] // 1000 * 1000)
    return original(path, atime and cut(atime), mtime and cut(mtime), flags)


def _omit_is_now(original, path, atime, mtime, flags=0):
    def now(time):
        return (0, calls.UTIME_NOW) if time[1] == calls.UTIME_OMIT else time
    return original(path, atime and now(atime), mtime and now(mtime), flags)


def _grows_with_old_bytes(original, fd, size):
    old = os.fstat(fd).st_size
    result = original(fd, size)
    if size > old:
        os.pwrite(fd, b'old', old)
    return result


def _punch_leaves(original, fd, mode, offset, length):
    return original(fd, mode, offset, length - 1 if mode & calls.PUNCH and length > 1 else length)


def _zero_keeps_size(original, fd, mode, offset, length):
    return original(fd, mode | calls.KEEP if mode & calls.ZERO else mode, offset, length)


def _keep_grows(original, fd, mode, offset, length):
    return original(fd, mode & ~calls.KEEP if mode == calls.KEEP else mode, offset, length)


def _misses_one(original, path):
    return original(path)[:-1]


def _posix_for_ofd(original, fd, command, *args):
    return original(fd, {calls.OFD_SETLK: fcntl.F_SETLK, calls.OFD_GETLK: fcntl.F_GETLK}.get(command, command), *args)


class _Forgetful(calls.Directory):
    """Positions are counts of entries, as in a server that lists anew at each position."""

    def __init__(self, path):
        super().__init__(calls.libc.opendir(os.fsencode(path)))
        self.path, self.at = path, 0

    def next(self):
        names = ['.', '..'] + sorted(os.listdir(self.path))
        self.at += 1
        return (names[self.at - 1], 8, 0) if self.at <= len(names) else None

    def tell(self):
        return self.at

    def seek(self, position):
        self.at = position

    def rewind(self):
        self.at = 0


def _short(original, fd, data, offset):
    return original(fd, data[:-1] or data, offset) and len(data)


def _late(original, fd, data, *rest):
    return original(fd, data[:1] + data[:-1], *rest)


def _zeroes_past_the_end(original, fd, count, *rest):
    return original(fd, count, *rest).ljust(count, b'\0')


def _executable(original, path, flags, mode=0o644, **named):
    return original(path, flags, mode | 1, **named)


def _drop_group_bit(path, *rest):
    os.chmod(path, stat.S_IMODE(os.lstat(path).st_mode) & ~0o2000)


def _set_id(got):
    return got[0] | 0o4000 if stat.S_IMODE(got[0]) == 0o777 else got[0]


def _replaces(original, old, new, flags):
    return original(old, new, flags & ~calls.NOREPLACE)


def _xattr_without(flag):
    def change(original, path, name, value, flags=0, **named):
        return original(path, name, value, flags & ~flag, **named)
    return change


def _cut_to_the_room(original, path, name, size=65536, **named):
    return original(path, name, 65536, **named)[:size] if size else original(path, name, 0, **named)


def _never_in_the_way(original, fd, command, *args):
    return 'free' if command == calls.OFD_GETLK else original(fd, command, *args)


def _shortened(original, path, *rest, **named):
    return original(path[:255], *rest, **named)


RULES = {
    'O_EXCL is ignored': ('open', _without(os.O_EXCL)),
    'O_TRUNC is ignored': ('open', _without(os.O_TRUNC)),
    'O_APPEND is ignored': ('open', _without(os.O_APPEND)),
    'O_NOFOLLOW is ignored': ('open', _without(os.O_NOFOLLOW)),
    'O_DIRECTORY is ignored': ('open', _without(os.O_DIRECTORY)),
    'a created file has the wrong mode': ('open', _executable),
    'mkdir passes no set-group-ID bit on': ('mkdir', _then(_drop_group_bit)),
    'an unlinked file has a link': ('fstat', _stat_with(3, lambda got: max(got[3], 1))),
    'a directory has one link': ('stat', _stat_with(3, lambda got: 1)),
    'the size is rounded up': ('fstat', _stat_with(6, lambda got: (got[6] + 511) // 512 * 512)),
    'the group is lost': ('lstat', _stat_with(5, lambda got: 0)),
    'a set-ID bit stays after a write': ('stat', _stat_with(0, _set_id)),
    'a write loses its last byte': ('pwrite', _short),
    'a write lands a byte late': ('dwrite', _late),
    'a read past the end gives zeroes': ('dread', _zeroes_past_the_end),
    'a write leaves the time': ('pwrite', _keeps_time),
    'a listing sets the time': ('listdir', _touches),
    'a chmod sets the time': ('chmod', _touches),
    'times have microseconds': ('utimensat', _microseconds),
    'UTIME_OMIT means now': ('utimensat', _omit_is_now),
    'growing shows old bytes': ('ftruncate', _grows_with_old_bytes),
    'a punch leaves a byte': ('fallocate', _punch_leaves),
    'zeroing does not grow': ('fallocate', _zero_keeps_size),
    'KEEP_SIZE grows': ('fallocate', _keep_grows),
    'NOREPLACE replaces': ('renameat2', _replaces),
    'a listing misses an entry': ('listdir', _misses_one),
    'a position counts entries': ('opendir', lambda original, path: _Forgetful(path)),
    'XATTR_CREATE replaces': ('setxattr', _xattr_without(calls.CREATE)),
    'XATTR_REPLACE creates': ('setxattr', _xattr_without(calls.REPLACE)),
    'an attribute is cut to the room': ('getxattr', _cut_to_the_room),
    'locks belong to the process': ('lock', _posix_for_ofd),
    'locks are never in the way': ('lock', _never_in_the_way),
    'a symlink is followed': ('lstat', lambda original, path: os.stat(path)),
    'a long symlink is cut': ('readlink', lambda original, path, *size: original(path, *size)[:255]),
    'a name that is too long is cut': ('mkdir', _shortened),
}

# Changes that change nothing: were these noticed, the wrapping itself would be what is noticed.
RIGHT = {'stat': _stat_with(0, lambda got: got[0]), 'open': _without(0), 'unlink': _then(lambda *args: None)}


def now_and_then(fault):
    """One call in seven goes wrong."""
    def bent(original):
        count = [0]

        def call(*args, **named):
            count[0] += 1
            return fault(original, *args, **named) if count[0] % 7 == 0 else original(*args, **named)
        return call
    return bent


def _twice(original, *args, **named):
    original(*args, **named)
    return original(*args, **named)


def _lost(original, *args, **named):
    return None


def _wrong_end(original, *args):
    return original(*args)[:-1] + b'?'


def _in_vain(original, *args, **named):
    original(*args, **named)
    raise OSError(errno.EIO, 'bent')


# What a mount does that answers, or forgets, or executes twice what was in flight when its worker was killed.
_NAMES = ('create', 'mkdir', 'rename', 'unlink', 'rmdir', 'symlink', 'mkfifo', 'removexattr')
STORM_FAULTS = ([(name, _twice) for name in _NAMES + ('setxattr', 'append')] +
                [(name, _lost) for name in _NAMES + ('setxattr', 'append', 'write', 'truncate', 'chmod')] +
                [(name, _in_vain) for name in _NAMES[:5] + ('read', 'lstat', 'listdir', 'getxattr', 'readlink')] +
                [('listdir', _misses_one), ('read', _wrong_end)])
ARENA_FAULTS = [('mkdir', _twice), ('mkdir', _lost), ('rmdir', _lost), ('unlink', _lost)]
