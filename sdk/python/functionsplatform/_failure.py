"""What an exception looks like to the platform: kind, type, message, traceback, frames, line.

The author sees their own code: frames of the worker's loop and of this package are left out of
tracebacks, also of chained ones. Lengths are bounded here, because a frame's head is.
"""

from __future__ import annotations

import traceback
from os.path import dirname, join
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
    if isinstance(error, DeadlineExceeded):
        return DEADLINE_EXCEEDED
    if isinstance(error, Cancelled):
        return CANCELLED
    if isinstance(error, BadHandler):
        return BAD_HANDLER
    return EXCEPTION


def failure_of(
    error: BaseException, code_dir: str, file: str | None = None, kind: str | None = None
) -> dict[str, Any]:
    """The head of a failure: what happened, and where in the author's code.

    `code_dir` tells the author's files from others; `file` is the handler's, for `line`.
    """
    described = traceback.TracebackException(type(error), error, error.__traceback__)
    _hide_own_frames(described)
    kind = kind or kind_of(error)
    failure: dict[str, Any] = {
        "kind": kind,
        "exception_type": type(error).__qualname__,
        "message": _message(error)[:MAX_MESSAGE],
        "traceback": "" if kind == BAD_HANDLER else _text(described),
        "frames": _frames(described, code_dir),
    }
    line = _line(error, file)
    if line is not None:
        failure["line"] = line
    return {key: _sendable(value) for key, value in failure.items()}


def _message(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"the handler called sys.exit({'' if error.code is None else repr(error.code)})"
    try:
        return str(error)
    except BaseException as again:  # an author's __str__ that fails
        return f"<{type(error).__qualname__} whose text raised {type(again).__qualname__}>"


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


def _text(described: traceback.TracebackException) -> str:
    text = "".join(described.format())
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
            frame.filename[len(prefix) :],
            frame.lineno or 0,
            frame.name,
            (frame.line or "")[:MAX_SOURCE],
        )
        for frame in inside
    ]


def _line(error: BaseException, file: str | None) -> int | None:
    if isinstance(error, BadHandler):
        return error.line
    if file is None:
        return None
    if isinstance(error, SyntaxError) and error.filename == file:
        return error.lineno
    line = None
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == file:
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def _sendable(value: Any) -> Any:
    """Texts without halves of surrogate pairs, which UTF-8 cannot hold."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "replace").decode()
    if isinstance(value, list):
        return [tuple(_sendable(part) for part in frame) for frame in value]
    return value
