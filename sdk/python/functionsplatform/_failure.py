"""What an exception looks like to the platform: kind, type, message, traceback, frames, line.

The author sees their own code: frames of the worker's loop and of this package are left out of
tracebacks, also of chained ones. Lengths are bounded here, because a frame's head is.

To look at an exception is to run its author's code (`__str__`, properties, loaders of source
text). That may fail in any way: then the exception is described by what the interpreter itself
knows of it. What leaves here is plain text and numbers, whatever the author's code gave.
"""

from __future__ import annotations

import traceback
from os.path import dirname, join
from types import TracebackType
from typing import Any

from functionsplatform._errors import BadHandler, Cancelled, DeadlineExceeded

EXCEPTION = "exception"
DEADLINE_EXCEEDED = "deadline_exceeded"
CANCELLED = "cancelled"
RESPONSE_TOO_LARGE = "response_too_large"
BAD_HANDLER = "bad_handler"

MAX_MESSAGE = 4 * 1024
MAX_TRACEBACK = 16 * 1024
MAX_FRAMES = 64
MAX_SOURCE = 200

# Directories whose frames are the platform's; the worker's runtime adds its own.
_own_directories = [dirname(__file__) + "/"]


def hide_frames_of(directory: str) -> None:
    """Leave frames of code in `directory` out of tracebacks."""
    prefix = join(directory, "")
    if prefix not in _own_directories:
        _own_directories.append(prefix)


def kind_of(error: BaseException) -> str:
    """Which kind of failure an exception is."""
    # Its true type: `isinstance` would ask the exception's own `__class__`.
    its = type(error)
    if issubclass(its, DeadlineExceeded):
        return DEADLINE_EXCEEDED
    if issubclass(its, Cancelled):
        return CANCELLED
    if issubclass(its, BadHandler):
        return BAD_HANDLER
    return EXCEPTION


def failure_of(
    error: BaseException, code_dir: str, file: str | None = None, kind: str | None = None
) -> dict[str, Any]:
    """The head of a failure: what happened, and where in the author's code.

    `code_dir` tells the author's files from others; `file` is the handler's, for `line`.
    """
    kind = kind or kind_of(error)
    failure: dict[str, Any] = {
        "kind": kind,
        "exception_type": _sendable(_type_name(error)),
        "message": _message(error),
    }
    try:
        described = traceback.TracebackException(type(error), error, _trace_of(error))
        _hide_own_frames(described)
        text = error.traceback if isinstance(error, BadHandler) else "".join(described.format())
        failure["traceback"] = _sendable(_end_of(text))
        failure["frames"] = _frames(described, code_dir)
    except BaseException as again:
        failure["traceback"] = _plain_traceback(error, again)
        failure["frames"] = []
    try:
        line = _line(error, file)
    except BaseException:
        line = None
    if line is not None:
        failure["line"] = line
    return failure


def _type_name(error: BaseException) -> str:
    # By the interpreter's own descriptor: a metaclass may have another.
    name: str = type.__dict__["__qualname__"].__get__(type(error))
    return name


def _trace_of(error: BaseException) -> TracebackType | None:
    # The same: a class may have a property of that name.
    trace: TracebackType | None = BaseException.__dict__["__traceback__"].__get__(error)
    return trace


def _message(error: BaseException) -> str:
    try:
        if issubclass(type(error), SystemExit):
            code = error.code  # type: ignore[attr-defined]
            text = f"the handler called sys.exit({'' if code is None else repr(code)})"
        else:
            text = str(error)
        return _sendable(text)[:MAX_MESSAGE]
    except BaseException as again:  # an author's __str__ that fails
        return _sendable(f"<{_type_name(error)} whose text raised {_type_name(again)}>")


def _plain_traceback(error: BaseException, again: BaseException) -> str:
    """Where it was raised, without a look at anything that an author can have made."""
    lines = ["Traceback (most recent call last):\n"]
    trace = _trace_of(error)
    while trace is not None and len(lines) < MAX_FRAMES:
        code = trace.tb_frame.f_code
        if not code.co_filename.startswith((*_own_directories, "<frozen importlib")):
            place = f'  File "{code.co_filename}", line {trace.tb_lineno}, in {code.co_name}\n'
            lines.append(place[:MAX_SOURCE])
        trace = trace.tb_next
    lines.append(f"{_type_name(error)} (its description raised {_type_name(again)})\n")
    return _sendable("".join(lines))


def _hide_own_frames(described: traceback.TracebackException) -> None:
    """Drop our frames here and in everything that is chained to it."""
    pending: list[Any] = [described]
    seen: set[int] = set()
    while pending:
        one = pending.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        one.stack = traceback.StackSummary.from_list(_without_own_frames(one.stack))
        pending += [one.__cause__, one.__context__, *(getattr(one, "exceptions", None) or ())]


def _without_own_frames(stack: list[traceback.FrameSummary]) -> list[traceback.FrameSummary]:
    kept = [frame for frame in stack if not _is_own(frame)]
    while kept and "/asyncio/" in kept[0].filename:  # the loop that ran the handler
        kept.pop(0)
    return kept


def _is_own(frame: traceback.FrameSummary) -> bool:
    return frame.filename.startswith((*_own_directories, "<frozen importlib"))


def _end_of(text: str) -> str:
    if len(text.encode("utf-8", "replace")) <= MAX_TRACEBACK:
        return text
    # The end says what happened; begin at a whole line.
    end = text.encode("utf-8", "replace")[-MAX_TRACEBACK + 4 :].decode("utf-8", "ignore")
    return "…\n" + end.partition("\n")[2]


def _frames(
    described: traceback.TracebackException, code_dir: str
) -> list[tuple[str, int, str, str]]:
    """The author's frames, outermost first, with paths as in their directory."""
    prefix = join(code_dir, "")
    inside = [frame for frame in described.stack if frame.filename.startswith(prefix)]
    if len(inside) > MAX_FRAMES:  # a runaway recursion: its ends say enough
        inside = inside[: MAX_FRAMES // 2] + inside[-MAX_FRAMES // 2 :]
    return [
        (
            _sendable(frame.filename[len(prefix) :]),
            _number(frame.lineno) or 0,
            _sendable(frame.name),
            _sendable(frame.line or "")[:MAX_SOURCE],
        )
        for frame in inside
    ]


def _line(error: BaseException, file: str | None) -> int | None:
    if isinstance(error, BadHandler):
        return _number(error.line)
    if file is None:
        return None
    if isinstance(error, SyntaxError) and error.filename == file:
        return _number(error.lineno)
    line = None
    trace = _trace_of(error)
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == file:
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def _sendable(text: str) -> str:
    """A plain string, no author's subclass of one, without halves of surrogate pairs, which
    UTF-8 cannot hold.
    """
    if type(text) is str and text.isascii():
        return text
    return str.encode(text, "utf-8", "replace").decode()


def _number(line: Any) -> int | None:
    """The number of a line, if it is one."""
    return line if type(line) is int and 0 <= line < 1 << 31 else None
