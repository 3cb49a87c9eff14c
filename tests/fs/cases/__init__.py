"""The cases of the parity suite, one module per noun. A case is a function of a Trace whose name has no underscore
before it.
"""
import inspect

from . import attributes, data, directories, handles, locks, memory, names, nodes, rights, sizes, times, xattrs

ALL = [case for module in (handles, data, memory, sizes, names, directories, nodes, attributes, times, rights, xattrs,
                           locks)
       for name, case in vars(module).items()
       if inspect.isfunction(case) and case.__module__ == module.__name__ and not name.startswith('_')]
