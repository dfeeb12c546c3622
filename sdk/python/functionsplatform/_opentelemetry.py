"""Spans made through `opentelemetry-api`, in the same trace as ours.

Imported only where the function's own environment has `opentelemetry` and the handler imported
it: the API's tracer provider becomes a thin one that makes our spans. An author who has set up a
provider of their own keeps it; its spans then still carry the trace id of the call, because the
run span is the current one when the handler starts.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry import trace as otel

from functionsplatform._context import Context, active
from functionsplatform._trace import (
    Recorder,
    Span,
    current_span,
    observe_foreign_spans,
    outside_recorder,
)


def install() -> None:
    """Become the tracer provider, unless the author chose one."""
    if getattr(otel, "_TRACER_PROVIDER", None) is None:
        otel.set_tracer_provider(_Provider())
        observe_foreign_spans(_current)


def enter(context: Context) -> Any:
    """Make the run span the current one; returns what `leave` takes."""
    span = otel.NonRecordingSpan(_span_context(context.recorder, context.recorder.span_id, True))
    return otel_context.attach(otel.set_span_in_context(span))


def leave(token: Any) -> None:
    """Undo `enter`."""
    otel_context.detach(token)


def _current(recorder: Recorder) -> Span | None:
    span = otel.get_current_span()
    return span.inner if isinstance(span, _Span) and span.inner.recorder is recorder else None


def _span_context(recorder: Recorder, span_id: str, remote: bool) -> Any:
    return otel.SpanContext(
        int(recorder.trace_id, 16),
        int(span_id, 16),
        is_remote=remote,
        trace_flags=otel.TraceFlags(recorder.flags),
        trace_state=otel.TraceState.from_header([recorder.trace_state])
        if recorder.trace_state
        else None,
    )


def _present_recorder() -> Recorder:
    context = active.context()
    return outside_recorder() if context is None else context.recorder


def _monotonic(epoch_ns: int | None) -> int | None:
    return None if epoch_ns is None else time.monotonic_ns() - (time.time_ns() - epoch_ns)


class _Provider(otel.TracerProvider):
    def get_tracer(self, *args: Any, **_settings: Any) -> _Tracer:
        return _Tracer()


class _Tracer(otel.Tracer):
    def start_span(
        self,
        name: str,
        context: Any = None,
        kind: Any = None,
        attributes: Mapping[str, Any] | None = None,
        links: Any = None,
        start_time: int | None = None,
        record_exception: bool = True,
        set_status_on_exception: bool = True,
    ) -> _Span:
        recorder = _present_recorder()
        given = otel.get_current_span(context)
        if isinstance(given, _Span) and given.inner.recorder is recorder and context is not None:
            above: Span | None = given.inner
        else:
            above = current_span(recorder)
        inner = Span(recorder, name, None if above is None else above.span_id)
        inner.start_ns = _monotonic(start_time) or inner.start_ns
        if kind is not None and kind is not otel.SpanKind.INTERNAL:
            inner.set_attribute("span.kind", kind.name.lower())
        inner.set_attributes(attributes or {})
        return _Span(inner)

    @contextmanager
    def start_as_current_span(
        self,
        name: str,
        context: Any = None,
        kind: Any = None,
        attributes: Mapping[str, Any] | None = None,
        links: Any = None,
        start_time: int | None = None,
        record_exception: bool = True,
        set_status_on_exception: bool = True,
        end_on_exit: bool = True,
    ) -> Iterator[_Span]:
        span = self.start_span(name, context, kind, attributes, links, start_time)
        with otel.use_span(
            span,
            end_on_exit=end_on_exit,
            record_exception=record_exception,
            set_status_on_exception=set_status_on_exception,
        ):
            yield span


class _Span(otel.Span):
    def __init__(self, inner: Span) -> None:
        self.inner = inner

    def get_span_context(self) -> Any:
        return _span_context(self.inner.recorder, self.inner.span_id, False)

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        self.inner.set_attributes(attributes)

    def set_attribute(self, key: str, value: Any) -> None:
        self.inner.set_attribute(key, value)

    def add_event(
        self, name: str, attributes: Mapping[str, Any] | None = None, timestamp: int | None = None
    ) -> None:
        self.inner.add_event(name, attributes)

    def update_name(self, name: str) -> None:
        self.inner.update_name(name)

    def is_recording(self) -> bool:
        return self.inner.is_recording()

    def set_status(self, status: Any, description: str | None = None) -> None:
        code = getattr(status, "status_code", status)
        if code is otel.StatusCode.ERROR:
            text = description or getattr(status, "description", None)
            self.inner.error = self.inner.error or text or "error"
        elif code is otel.StatusCode.OK:
            self.inner.error = None

    def record_exception(
        self,
        exception: BaseException,
        attributes: Mapping[str, Any] | None = None,
        timestamp: int | None = None,
        escaped: bool = False,
    ) -> None:
        before = self.inner.error
        self.inner.record_exception(exception, attributes)
        if before is not None or not escaped:
            self.inner.error = before  # in OpenTelemetry only a status makes a failure

    def end(self, end_time: int | None = None) -> None:
        self.inner.end()

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if error is not None:
            self.inner.record_exception(error)
        self.end()
