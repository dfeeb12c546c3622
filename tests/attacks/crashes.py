"""Ends its own process in the ways that a process can end.

Must come of it: `crashed` for its own caller (a Python-level recursion is only a
`function_error`), no core file, a new worker for the next call.
"""

import ctypes
import os
import resource
import signal
import sys


def handler(message, context):
    return globals()[message["path_params"]["probe"]]()


def well():
    # Zero would let a helper that the host's core_pattern names have the memory.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    return {"core": resource.getrlimit(resource.RLIMIT_CORE)}


def deep_recursion():
    return deep_recursion()


def no_stack():
    """Overflows the stack of C: each level of Python code called from C takes some of it."""
    sys.setrecursionlimit(1 << 30)

    class Deep:
        def __getattr__(self, name):
            return getattr(self, name)

    return Deep().bottom


def segmentation_fault():
    ctypes.string_at(0)


def abort():
    os.abort()


def leave():
    os._exit(0)


def kill_self():
    """The first process of a pid namespace does not die of its own signal."""
    os.kill(os.getpid(), signal.SIGKILL)
    return {"survived": True}


def close_everything():
    os.closerange(0, 1024)
    return {}


def other_program():
    """Becomes another program, which keeps the worker's descriptors if they let it."""
    for number in (3, 4, 5):
        os.set_inheritable(number, True)
    os.execv("/bin/sh", ["sh", "-c", "exit 3"])


def overwrite_self():
    """Writes over its own code, and the file that it came from stays as it is."""
    code = ctypes.cast(ctypes.pythonapi.PyObject_Repr, ctypes.c_void_p).value
    with open("/proc/self/mem", "wb", buffering=0) as memory:
        memory.seek(code)
        memory.write(b"\xcc" * 64)
    # By its address: a Python may have taken the function in elsewhere.
    return ctypes.pythonapi.PyObject_Repr(ctypes.py_object(None))
