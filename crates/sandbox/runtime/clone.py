"""A fork whose child is born in a control group of version 2.

Joining one is what `clone3` is for (CLONE_INTO_CGROUP): whoever writes to `cgroup.procs`, be it about
himself, waits for a grace period of the kernel (5-11 ms measured, up to 61), and all forks and exits
of the host with him. The C library has no such fork, so this is the system call, between what Python
does before and after its own. What the C library's would do beside it is done here, too: its idea of
the thread's id (CLONE_CHILD_SETTID), and the list of robust locks. Functions that libraries have
registered with `pthread_atfork` are not called, so a zygote that preloads does not use this.
"""

import ctypes
import errno
import os
import signal
import struct
import threading

SYS_CLONE3 = 435  # equal on every architecture
SYS_SET_ROBUST_LIST, SYS_GET_ROBUST_LIST = {"x86_64": (273, 274)}.get(os.uname().machine, (99, 100))
CLONE_CHILD_CLEARTID, CLONE_CHILD_SETTID, CLONE_INTO_CGROUP = 0x200000, 0x1000000, 1 << 33
PR_GET_TID_ADDRESS = 40
# A descriptor that the kernel takes for one and that nobody can have.
NO_GROUP = 0x7FFFFFFF

# These keep the interpreter's lock, as between the two halves of a fork they must.
_python = ctypes.pythonapi
_libc = ctypes.PyDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
for _half in (_python.PyOS_BeforeFork, _python.PyOS_AfterFork_Child, _python.PyOS_AfterFork_Parent):
    _half.argtypes, _half.restype = (), None


class Cloner:
    """Prepared once, in the thread that will fork."""

    def __init__(self):
        """Raises `OSError` where it cannot be done: by the kernel, a filter around us or the C library."""
        place = ctypes.c_void_p()
        if _libc.prctl(PR_GET_TID_ADDRESS, ctypes.byref(place), 0, 0, 0) < 0:
            raise OSError(ctypes.get_errno(), "the place of the thread's id is not known")
        if not place.value or ctypes.c_int.from_address(place.value).value != threading.get_native_id():
            raise OSError(errno.ENOTSUP, "the thread's id is not at its place")
        self._tid = place.value
        self._robust = ctypes.c_void_p(), ctypes.c_size_t()
        self._call(SYS_GET_ROBUST_LIST, 0, *map(ctypes.byref, self._robust))
        try:
            self._clone(NO_GROUP)
        except OSError as error:
            # Of a kernel that knows it all and was given no group.
            if error.errno != errno.EBADF:
                raise

    def fork(self, group):
        """As `os.fork`; the child is in the group whose directory is open as `group`."""
        _python.PyOS_BeforeFork()
        pid = -1
        try:
            pid = self._clone(group)
        finally:
            if pid == 0:
                _python.PyOS_AfterFork_Child()
            else:
                _python.PyOS_AfterFork_Parent()
        if pid == 0:
            self._call(SYS_SET_ROBUST_LIST, *self._robust)
        return pid

    def _clone(self, group):
        flags = CLONE_INTO_CGROUP | CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID
        # flags, pidfd, child_tid, parent_tid, exit_signal, stack, its size, tls, set_tid, its size, cgroup
        arguments = struct.pack(
            "=11Q", flags, 0, self._tid, 0, signal.SIGCHLD, 0, 0, 0, 0, 0, group
        )
        return self._call(SYS_CLONE3, arguments, ctypes.c_size_t(len(arguments)))

    def _call(self, *arguments):
        result = _libc.syscall(*arguments)
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return result
