"""The exceptions of the package.

`Interrupted` and its children are raised *into* a handler by the platform. They derive from
`BaseException`, so that `except Exception` does not swallow them; `finally` blocks and context
managers run as usual, and have the platform's grace period (then the worker is killed).
The others describe what a handler was given or gave back, and never reach a handler.
"""

from __future__ import annotations


class Interrupted(BaseException):
    """The platform ended the call; raised in the handler's main thread."""


class DeadlineExceeded(Interrupted):
    """The time of the call is up: the function's timeout, or what its caller gave."""


class Cancelled(Interrupted):
    """Nobody waits for the answer any more, most often because the caller left."""


class SecretMissing(LookupError):
    """A secret that the function does not declare, or that was deleted; the message says which."""


class BadRequest(Exception):
    """The request body is not what its content type says."""


class InvalidResult(ValueError):
    """The handler returned something that cannot be sent; the message names the place."""


class BadHandler(Exception):
    """The handler's file, or the callable in it, is not usable."""

    def __init__(self, message: str, line: int | None = None, traceback: str = "") -> None:
        """`line` is the line in the handler's file, where one is to blame; `traceback` what Python
        says of it.
        """
        super().__init__(message)
        self.line = line
        self.traceback = traceback
