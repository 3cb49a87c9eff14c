"""The model of a storm: what a tree must hold, and the exact answer that Linux gives to each call on it.

A tree is nested nodes. Every method of Tree named after a call predicts that call: it returns its value and, when it
works, applies it, or raises Errno with the errno that the call must give. Symlinks point at names that never exist, so
a path through one ends in ENOENT.
"""
import errno as E


class Errno(Exception):
    def __init__(self, number, other=None):
        super().__init__(E.errorcode[number])
        self.number, self.other = number, other


class Node:
    def __init__(self, kind, mode=0o644, target=None):
        self.kind, self.mode, self.target = kind, mode, target
        self.children = {} if kind == 'directory' else None
        self.data = bytearray()
        self.attributes = {}
        self.named = True

    def __str__(self):
        if self.kind == 'directory':
            return f'directory {self.mode:o} with {sorted(self.children)}'
        detail = {'file': f' of {len(self.data)} bytes', 'symlink': f' to {self.target!r}'}.get(self.kind, '')
        return f'{self.kind} {self.mode:o}{detail}' + (f' attributes {sorted(self.attributes)}'
                                                       if self.attributes else '')


def _fail(number, other=None):
    """other is a second answer that filesystems give too."""
    raise Errno(number, other)


class Tree:
    def __init__(self, root=None):
        self.root = root or Node('directory', 0o755)

    def _parent(self, path):
        """The directory that holds the path's last part, and that part."""
        *way, name = path.split('/')
        node = self.root
        for part in way:
            node = self._enter(node).get(part)
        return self._enter(node), name

    @staticmethod
    def _enter(node):
        if node is None or node.kind == 'symlink':
            _fail(E.ENOENT)
        if node.kind != 'directory':
            _fail(E.ENOTDIR)
        return node.children

    def find(self, path):
        """The node of the path or None; a way that is not there is None too."""
        try:
            siblings, name = self._parent(path)
        except Errno:
            return None
        return siblings.get(name)

    def _existing(self, path, follow=True):
        siblings, name = self._parent(path)
        node = siblings.get(name)
        if node is None or follow and node.kind == 'symlink':
            _fail(E.ENOENT)
        return node

    def _make(self, path, node):
        siblings, name = self._parent(path)
        if name in siblings:
            _fail(E.EEXIST)
        siblings[name] = node
        return node

    def create(self, path, mode):
        """open(O_CREAT | O_EXCL)"""
        self._make(path, Node('file', mode))

    def mkdir(self, path, mode):
        self._make(path, Node('directory', mode))

    def symlink(self, target, path):
        self._make(path, Node('symlink', 0o777, target))

    def mkfifo(self, path, mode):
        self._make(path, Node('fifo', mode))

    def _opened(self, path, create):
        siblings, name = self._parent(path)
        node = siblings.get(name)
        if node is None:
            if not create:
                _fail(E.ENOENT)
            node = siblings[name] = Node('file', 0o644)
        if node.kind == 'symlink':
            _fail(E.ENOENT)
        if node.kind == 'directory':
            _fail(E.EISDIR)
        return node

    def hold(self, path):
        """open(O_RDWR), kept open: returns the node, which lives on without its name."""
        node = self._opened(path, False)
        return node

    def write(self, path, offset, data, truncate):
        """open(O_CREAT | O_WRONLY | O_NONBLOCK, perhaps O_TRUNC), pwrite, close"""
        node = self._opened(path, True)
        if node.kind == 'fifo':
            _fail(E.ENXIO)
        if truncate:
            node.data.clear()
        put(node, offset, data)

    def append(self, path, data):
        node = self._opened(path, False)
        if node.kind == 'fifo':
            _fail(E.ENXIO)
        node.data += data

    def read(self, path):
        node = self._existing(path)
        if node.kind == 'directory':
            _fail(E.EISDIR)
        return bytes(node.data)

    def truncate(self, path, size):
        node = self._existing(path)
        if node.kind != 'file':
            _fail(E.EISDIR if node.kind == 'directory' else E.EINVAL)
        resize(node, size)

    def unlink(self, path):
        siblings, name = self._parent(path)
        node = siblings.get(name) or _fail(E.ENOENT)
        if node.kind == 'directory':
            _fail(E.EISDIR)
        del siblings[name]
        node.named = False

    def rmdir(self, path):
        siblings, name = self._parent(path)
        node = siblings.get(name) or _fail(E.ENOENT)
        if node.kind != 'directory':
            _fail(E.ENOTDIR)
        if node.children:
            _fail(E.ENOTEMPTY)
        del siblings[name]

    def rename(self, old, new, replace=True):
        siblings, name = self._parent(old)
        others, other = self._parent(new)
        node = siblings.get(name) or _fail(E.ENOENT)
        there = others.get(other)
        if there is not None and not replace:
            _fail(E.EEXIST)
        if (new + '/').startswith(old + '/') and new != old:
            _fail(E.EINVAL)
        if (old + '/').startswith(new + '/') and new != old:
            _fail(E.ENOTEMPTY)
        if there is node:
            return
        if there is not None:
            self._replaceable(node, there)
            there.named = False
        del siblings[name]
        others[other] = node

    @staticmethod
    def _replaceable(node, there):
        if node.kind == 'directory' and there.kind != 'directory':
            _fail(E.ENOTDIR)
        if node.kind != 'directory' and there.kind == 'directory':
            _fail(E.EISDIR)
        if there.children:
            _fail(E.ENOTEMPTY, E.EEXIST)

    def chmod(self, path, mode):
        self._existing(path).mode = mode

    def readlink(self, path):
        node = self._existing(path, follow=False)
        return node.target if node.kind == 'symlink' else _fail(E.EINVAL)

    def lstat(self, path):
        node = self._existing(path, follow=False)
        links = 2 + sum(child.kind == 'directory'
                        for child in node.children.values()) if node.kind == 'directory' else 1
        return node.kind, node.mode, links, len(node.data) if node.kind == 'file' else None

    def listdir(self, path):
        return sorted(self._enter(self._existing(path)))

    def setxattr(self, path, name, value, flags):
        node = self._existing(path)
        if node.kind == 'fifo':
            _fail(E.EPERM)
        if flags == 1 and name in node.attributes:
            _fail(E.EEXIST)
        if flags == 2 and name not in node.attributes:
            _fail(E.ENODATA)
        node.attributes[name] = value

    def getxattr(self, path, name):
        node = self._existing(path)
        return node.attributes[name] if name in node.attributes else _fail(E.ENODATA)

    def removexattr(self, path, name):
        node = self._existing(path)
        if node.kind == 'fifo':
            _fail(E.EPERM)
        if name not in node.attributes:
            _fail(E.ENODATA)
        del node.attributes[name]

    def listxattr(self, path):
        return sorted(self._existing(path).attributes)


def put(node, offset, data):
    if data and len(node.data) < offset:
        node.data.extend(bytes(offset - len(node.data)))
    node.data[offset:offset + len(data)] = data


def resize(node, size):
    del node.data[size:]
    node.data.extend(bytes(size - len(node.data)))
