"""Spans: a light tracer whose spans travel back with the answer.

An OpenTelemetry SDK in a worker costs 50 to 140 ms of start and megabytes of memory, so the
platform does the telemetry and a worker only notes its spans. A `Recorder` belongs to one call
and collects its finished spans; a `Tracer` is what authors hold, and finds the recorder of the
call that runs now. The current span is a context variable, so it follows `await`.

The wire form of a span (`Recorder.finish`) is that of the frame protocol: short keys, times in
nanoseconds of the monotonic clock, which is the platform's as well: when a worker came to read
its call is not when the call was sent.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextvars import ContextVar, Token
from os import urandom
from time import monotonic_ns
from types import TracebackType
from typing import Any

# A frame's head holds 1 MiB; the spans of a call share at most half of it.
MAX_SPANS = 1000
MAX_BYTES = 512 * 1024
MAX_ATTRIBUTES = 128
MAX_EVENTS = 128
MAX_TEXT = 8 * 1024
MAX_NAME = 256

NO_PARENT = "0000000000000000"


class Recorder:
    """The spans of one call, and the trace context that they belong to."""

    __slots__ = (
        "_bytes",
        "dropped",
        "finished",
        "flags",
        "open",
        "span_id",
        "start_ns",
        "trace_id",
        "trace_state",
    )

    def __init__(
        self, trace_id: str, span_id: str, trace_state: str, flags: int, start_ns: int
    ) -> None:
        """`span_id` is the run span's, the parent of the author's first spans. Of `flags`, 1 is
        sampled and 2 a random trace id (W3C trace context, level 2).
        """
        self.trace_id = trace_id
        self.span_id = span_id
        self.trace_state = trace_state
        self.flags = flags
        self.start_ns = start_ns
        self.finished: list[dict[str, Any]] = []
        self.open: dict[str, Span] = {}
        self.dropped = 0
        self._bytes = 0

    def traceparent(self, span_id: str | None = None) -> str:
        """The W3C header for work below `span_id`, or below the current span."""
        if span_id is None:
            span = current_span(self)
            span_id = self.span_id if span is None else span.span_id
        return f"00-{self.trace_id}-{span_id}-{self.flags:02x}"

    def add(self, span: Span) -> None:
        """Keep a span that has ended, if there is room for it."""
        self.open.pop(span.span_id, None)
        wire = span.wire()
        size = len(json.dumps(wire, ensure_ascii=False).encode("utf-8", "replace"))
        if len(self.finished) >= MAX_SPANS or self._bytes + size > MAX_BYTES:
            self.dropped += 1
            return
        self._bytes += size
        self.finished.append(wire)

    def finish(self) -> list[dict[str, Any]]:
        """End what is still open, and hand over the spans of the call in their wire form."""
        for span in list(self.open.values()):
            span.end()
        return self.finished


# The span that is current, and where a recorder comes from for a tracer that holds none.
_current: ContextVar[Span | None] = ContextVar("functionsplatform_span", default=None)
_foreign: Callable[[Recorder], Span | None] | None = None


def observe_foreign_spans(find: Callable[[Recorder], Span | None]) -> None:
    """Let another tracing library say which of our spans is current in its own context."""
    global _foreign
    _foreign = find


def current_span(recorder: Recorder) -> Span | None:
    """The innermost span of this call that is current here."""
    span = _current.get()
    if span is not None and span.recorder is not recorder:
        span = None  # of another call, left current by accident
    if _foreign is not None:
        other = _foreign(recorder)
        if other is not None and (span is None or other.start_ns > span.start_ns):
            return other
    return span


class Span:
    """A piece of work with a name, a time, attributes and events.

    Use it as a context manager: it is the current span inside, ends on leaving, and notes the
    exception that left it. Or call `end` yourself.
    """

    __slots__ = (
        "_token",
        "attributes",
        "end_ns",
        "error",
        "events",
        "name",
        "parent_id",
        "recorder",
        "span_id",
        "start_ns",
    )

    def __init__(self, recorder: Recorder, name: str, parent_id: str | None) -> None:
        """Begins now; `parent_id` is `None` below the run span."""
        self.recorder = recorder
        self.name = str(name)[:MAX_NAME]
        self.span_id = urandom(8).hex()
        self.parent_id = parent_id
        self.start_ns = monotonic_ns()
        self.end_ns = 0
        self.attributes: dict[str, Any] = {}
        self.events: list[tuple[int, str, dict[str, Any]]] = []
        self.error: str | None = None
        self._token: Token[Span | None] | None = None
        if len(recorder.open) < MAX_SPANS:
            recorder.open[self.span_id] = self

    @property
    def trace_id(self) -> str:
        """The trace of the call, 32 hexadecimal digits."""
        return self.recorder.trace_id

    @property
    def traceparent(self) -> str:
        """The W3C header for work below this span."""
        return self.recorder.traceparent(self.span_id)

    def set_attribute(self, key: str, value: Any) -> Span:
        """Set an attribute: a text, number, bool or a list of them; others as their text."""
        if key in self.attributes or len(self.attributes) < MAX_ATTRIBUTES:
            self.attributes[str(key)[:MAX_NAME]] = plain(value)
        return self

    def set_attributes(self, attributes: Mapping[str, Any]) -> Span:
        """Set several attributes."""
        for key, value in attributes.items():
            self.set_attribute(key, value)
        return self

    def add_event(self, name: str, attributes: Mapping[str, Any] | None = None) -> Span:
        """Note that something happened now."""
        if len(self.events) < MAX_EVENTS:
            values = {str(key)[:MAX_NAME]: plain(v) for key, v in (attributes or {}).items()}
            self.events.append((monotonic_ns(), str(name)[:MAX_NAME], values))
        return self

    def record_exception(
        self, error: BaseException, attributes: Mapping[str, Any] | None = None
    ) -> Span:
        """Note an exception as an event; the span is marked as failed."""
        kind = type(error).__qualname__
        values = {"exception.type": kind, "exception.message": str(error), **(attributes or {})}
        self.add_event("exception", values)
        self.error = f"{kind}: {error}"[:MAX_TEXT]
        return self

    def update_name(self, name: str) -> Span:
        """Give it another name."""
        self.name = str(name)[:MAX_NAME]
        return self

    def is_recording(self) -> bool:
        """Whether it still takes attributes and events."""
        return self.end_ns == 0

    def end(self) -> None:
        """End it now; a second end does nothing."""
        if self.end_ns == 0:
            self.end_ns = monotonic_ns()
            self.recorder.add(self)

    def wire(self) -> dict[str, Any]:
        """The span as the frame protocol wants it."""
        wire: dict[str, Any] = {
            "n": self.name,
            "i": self.span_id,
            "b": self.start_ns,
            "d": max(0, self.end_ns - self.start_ns),
        }
        if self.parent_id is not None:
            wire["p"] = self.parent_id
        if self.attributes:
            wire["a"] = list(self.attributes.items())
        if self.events:
            wire["e"] = [(at, name, list(values.items())) for at, name, values in self.events]
        if self.error is not None:
            wire["x"] = self.error
        return wire

    def __enter__(self) -> Span:
        self._token = _current.set(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        token, self._token = self._token, None
        if token is not None:
            try:
                _current.reset(token)
            except ValueError:  # entered in another task; nothing to restore here
                pass
        if error is not None and not isinstance(error, GeneratorExit):
            self.record_exception(error)
        self.end()


class Tracer:
    """Makes spans in the trace of the call that runs now."""

    __slots__ = ("_find", "name")

    def __init__(self, find: Callable[[], Recorder], name: str = "") -> None:
        """`find` gives the recorder of the present call."""
        self._find = find
        self.name = name

    @property
    def recorder(self) -> Recorder:
        """The recorder of the present call."""
        return self._find()

    def start_span(
        self, name: str, parent: Span | None = None, attributes: Mapping[str, Any] | None = None
    ) -> Span:
        """Begin a span below `parent`, or below the current span; it is not made current."""
        recorder = self._find()
        above = parent if parent is not None else current_span(recorder)
        span = Span(recorder, name, None if above is None else above.span_id)
        if attributes:
            span.set_attributes(attributes)
        return span

    def start_as_current_span(self, name: str, attributes: Mapping[str, Any] | None = None) -> Span:
        """Begin a span for a `with` statement."""
        return self.start_span(name, attributes=attributes)


def plain(value: Any) -> Any:
    """An attribute's value as JSON can hold it, bounded."""
    if isinstance(value, str):
        return _bounded(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        # JSON readers keep 64 bits; a larger number survives as text.
        return value if -(2**63) <= value < 2**64 else str(value)
    if isinstance(value, float):
        return value if value - value == 0 else str(value)
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value[:MAX_ATTRIBUTES]]
    try:
        return _bounded(json.dumps(value, ensure_ascii=False, default=str))
    except (TypeError, ValueError, RecursionError):
        return _bounded(repr(value))


def json_text(value: Any) -> str:
    """The JSON text of a value; its `repr` where JSON cannot hold it."""
    try:
        return _bounded(json.dumps(value, ensure_ascii=False, allow_nan=False))
    except (TypeError, ValueError, RecursionError):
        return _bounded(repr(value))


def _bounded(text: str) -> str:
    if len(text) > MAX_TEXT:
        text = text[: MAX_TEXT - 1] + "…"
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


_outside: Recorder | None = None


def outside_recorder() -> Recorder:
    """The recorder of code that runs in no call: a script, a module being loaded."""
    global _outside
    if _outside is None:
        _outside = Recorder(urandom(16).hex(), urandom(8).hex(), "", 3, monotonic_ns())
    return _outside
