"""Which limit of the sandbox is behind an exception that a handler did not catch.

The kernel says no with an error number, and most numbers mean one limit. EAGAIN means many
things, so there it is tried whether another task can still be had.
"""

from __future__ import annotations

import errno
from _thread import start_new_thread

_BY_NUMBER = {
    errno.EMFILE: "files",
    errno.ENFILE: "files",
    errno.ENOSPC: "disk",
    errno.EFBIG: "disk",
    errno.EDQUOT: "disk",
    errno.ENOMEM: "memory",
}

# What the interpreter says when the kernel gives it no thread.
_NO_THREAD = "can't start new thread"


def hit_by(error: BaseException) -> str | None:
    """`memory`, `tasks`, `files` or `disk`; `None` where it was no limit, or is not known."""
    if isinstance(error, MemoryError):
        return "memory"
    if isinstance(error, RuntimeError):
        return "tasks" if error.args == (_NO_THREAD,) else None
    if not isinstance(error, OSError):
        return None
    if error.errno == errno.EAGAIN:
        return "tasks" if _no_task_is_left() else None
    return _BY_NUMBER.get(error.errno or 0)


def _no_task_is_left() -> bool:
    try:
        start_new_thread(_nothing, ())
    except RuntimeError:
        return True
    return False


def _nothing() -> None:
    pass
