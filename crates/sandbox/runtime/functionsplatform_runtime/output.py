"""What a handler prints, sent to the platform line by line as it happens.

`sys.stdout` and `sys.stderr` are replaced by writers that send a LOG frame per write that ends a
line, with the serial of the call, so that a print is in the logs even if the next statement is
`os._exit`. Descriptors 1 and 2 stay pipes that the platform reads as well: C code and child
processes write there.

A call's output is bounded: what is beyond the limit is counted, not sent.
"""

from __future__ import annotations

import io
import os
import sys
from _thread import get_ident
from contextvars import ContextVar
from json import dumps
from typing import Any

from functionsplatform_runtime import frames
from functionsplatform_runtime.frames import Channel
from functionsplatform_runtime.interrupts import Interrupts

STDOUT = "stdout"
STDERR = "stderr"
LOGGING = "logging"

# One frame's text; a longer line arrives in several.
MAX_PIECE = 8 * 1024

_HEADS = {
    STDOUT: b'{"o":"stdout"}',
    STDERR: b'{"o":"stderr"}',
}

# While loading: kept for the head of the answer, where an escaped byte takes up to six.
_MAX_LOAD_OUTPUT = 128 * 1024


class CallOutput:
    """The output of one call so far."""

    __slots__ = ("pending", "produced", "serial")

    def __init__(self, serial: int) -> None:
        """`pending` has the unfinished line of each source."""
        self.serial = serial
        self.produced = 0
        self.pending: dict[str, bytearray] = {}


# Which call's output it is, in a worker that serves several at once.
of_task: ContextVar[CallOutput | None] = ContextVar("functionsplatform_output", default=None)


class Output:
    """Takes what is written, cuts it into frames and sends them."""

    def __init__(self, channel: Channel, interrupts: Interrupts) -> None:
        """Outside of calls the serial is 0."""
        self._channel = channel
        self._lock = channel.lock
        self._interrupts = interrupts
        self._main = get_ident()
        self._limit = 0
        self._busy = False
        self._outside = CallOutput(0)
        self._loading: bytearray | None = None
        self._detached = False
        self.sole: CallOutput | None = None

    def set_limit(self, limit: int) -> None:
        """Bytes that are sent for a call."""
        self._limit = limit

    # Called by the writers, from any thread.

    def write(self, source: str, data: bytes) -> None:
        """Take `data`; send what ends in a line break."""
        if self._detached:
            _write_all(1 if source == STDOUT else 2, data)
            return
        hold = self._hold()
        try:
            with self._lock:
                call = self._call()
                pending = call.pending.get(source)
                if pending is None:
                    pending = call.pending[source] = bytearray()
                pending += data
                if not self._busy:  # a __del__ that prints while a line is being sent
                    end = pending.rfind(b"\n") + 1
                    if not end and len(pending) >= MAX_PIECE:
                        end = len(pending)
                    if end:
                        self._flush_others(call, source)
                        whole = bytes(pending[:end])
                        del pending[:end]
                        self._send(call, _HEADS[source], whole)
        finally:
            if hold:
                self._interrupts.release()

    def record(self, level: str, text: str) -> None:
        """Take one record of `logging`."""
        data = text.encode("utf-8", "backslashreplace") + b"\n"
        if self._detached:
            _write_all(2, data)
            return
        hold = self._hold()
        try:
            with self._lock:
                head = f'{{"o":"logging","l":{_json_text(level)}}}'
                call = self._call()
                self._flush_others(call, LOGGING)
                self._send(call, head.encode(), data)
        finally:
            if hold:
                self._interrupts.release()

    def flush(self, source: str | None = None) -> None:
        """Send the unfinished lines of the call that runs here."""
        hold = self._hold()
        try:
            with self._lock:
                self.flush_call(self._call(), source)
        finally:
            if hold:
                self._interrupts.release()

    # Called by the loop, with the channel's lock.

    def flush_call(self, call: CallOutput, source: str | None = None) -> None:
        """Send the unfinished lines of a call."""
        for name, pending in call.pending.items():
            if pending and (source is None or source == name):
                rest = bytes(pending)
                pending.clear()
                self._send(call, _HEADS[name], rest)

    def _flush_others(self, call: CallOutput, source: str) -> None:
        """Send what other sources began before this one's line: the log keeps their order."""
        for name, pending in list(call.pending.items()):
            if pending and name != source:
                rest = bytes(pending)
                pending.clear()
                self._send(call, _HEADS[name], rest)

    def note(self, call: CallOutput, source: str, text: str) -> None:
        """Add a line of the platform's own to a call's output."""
        self._send(call, _HEADS[source], text.encode())

    def begin_loading(self) -> None:
        """Keep output, for the answer to LOAD."""
        self._loading = bytearray()

    def end_loading(self) -> str:
        """What was written since."""
        self.flush()
        kept, self._loading = self._loading, None
        self._outside = CallOutput(0)
        return (kept or b"").decode("utf-8", "replace")

    def detach(self) -> None:
        """In a process that the handler forked off: write to the pipes instead."""
        self._detached = True

    def _hold(self) -> bool:
        """Keep interruptions out while a frame is sent; whether it was us who did."""
        interrupts = self._interrupts
        if interrupts.held or get_ident() != self._main:
            return False
        interrupts.held = True
        return True

    # With the lock.

    def _call(self) -> CallOutput:
        call = of_task.get()
        if call is None:
            call = self.sole
        return self._outside if call is None else call

    def _send(self, call: CallOutput, head: bytes, data: bytes) -> None:
        if self._loading is not None:
            room = min(self._limit, _MAX_LOAD_OUTPUT) - len(self._loading)
            self._loading += data[: max(0, room)]
            return
        room = self._limit - call.produced
        call.produced += len(data)
        if call is self._outside:  # no call to count it for; the platform bounds it
            call.produced = 0
        if room < len(data):
            data = data[: cut(data, max(0, room))]
        self._busy = True
        try:
            at = 0
            while at < len(data):
                end = len(data)
                if end - at > MAX_PIECE:
                    end = data.rfind(b"\n", at, at + MAX_PIECE) + 1
                    if end <= at:
                        end = at + cut(data[at : at + MAX_PIECE + 1], MAX_PIECE)
                self._channel.send(frames.LOG, call.serial, head, data[at:end])
                at = end
        finally:
            self._busy = False


def cut(data: bytes, at: int) -> int:
    """The last place up to `at` that is not inside a UTF-8 character."""
    if at >= len(data):
        return len(data)
    for back in range(min(4, at + 1)):
        if data[at - back] & 0xC0 != 0x80:
            return at - back
    return at


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _json_text(text: str) -> str:
    return f'"{text}"' if text.isascii() and text.isalnum() else dumps(text[:64])


class _Bytes(io.BufferedIOBase):
    """`sys.stdout.buffer`."""

    def __init__(self, output: Output, source: str, fd: int) -> None:
        self._output = output
        self._source = source
        self._fd = fd

    def write(self, data: Any) -> int:
        raw = bytes(data)
        self._output.write(self._source, raw)
        return len(raw)

    def flush(self) -> None:
        self._output.flush(self._source)

    def fileno(self) -> int:
        return self._fd

    def writable(self) -> bool:
        return True

    def close(self) -> None:
        """Stays open: a handler that closes stdout must not silence the next call."""


class Writer(io.TextIOBase):
    """`sys.stdout` and `sys.stderr`: line-buffered text."""

    def __init__(self, output: Output, source: str, fd: int) -> None:
        """`fd` is what `fileno` says: the pipe that children write to."""
        self._output = output
        self._source = source
        self._fd = fd
        self._buffer = _Bytes(output, source, fd)
        self.mode = "w"

    @property
    def buffer(self) -> _Bytes:
        """For bytes."""
        return self._buffer

    @property
    def name(self) -> str:
        """As an ordinary stream has it."""
        return f"<{self._source}>"

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """UTF-8."""
        return "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]
        """Half of a surrogate pair prints as an escape."""
        return "backslashreplace"

    @property
    def line_buffering(self) -> bool:
        """A line is sent when it ends."""
        return True

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        self._output.write(self._source, text.encode("utf-8", "backslashreplace"))
        return len(text)

    def flush(self) -> None:
        self._output.flush(self._source)

    def reconfigure(self, **_settings: Any) -> None:
        """Accepted and without effect: output is UTF-8 and line-buffered here."""

    def fileno(self) -> int:
        return self._fd

    def isatty(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def close(self) -> None:
        """Stays open: a handler that closes stdout must not silence the next call."""


def replace_standard_streams(output: Output) -> None:
    """Put our writers where Python's were."""
    sys.stdout = sys.__stdout__ = Writer(output, STDOUT, 1)  # type: ignore[assignment,misc]
    sys.stderr = sys.__stderr__ = Writer(output, STDERR, 2)  # type: ignore[assignment,misc]
