"""Spans of your own in the trace of the call.

    from functionsplatform.sdk import tracing

    def handler(message, context):
        tracer = context.get("tracer")
        with tracing.span_from_context(tracer, context, name="resize") as span:
            tracing.set_attr(span, "width", 640)
        ...

A span that is entered with `with` is current inside: spans made there are its children, an
exception that leaves it is recorded, and `outbound_trace` names it as the parent of the call that
it prepares. Spans travel with the answer; nothing is exported while the handler runs.

Every function takes `None` as the tracer and then uses that of the call that runs. Outside of the
platform spans are kept in memory, so code that is instrumented runs anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from functionsplatform._context import Context, active, trace_headers
from functionsplatform._trace import Recorder, Span, Tracer, json_text, outside_recorder

__all__ = [
    "OutboundTrace",
    "Span",
    "Tracer",
    "current_tracer",
    "inbound_trace",
    "init_tracer",
    "outbound_trace",
    "set_attr",
    "span_from_context",
    "start_span",
]


def span_from_context(
    tracer: Tracer | None, context: Mapping[str, Any] | None, *, name: str
) -> Span:
    """A span below the run span of the call, for a `with` statement.

    Where another span of the call is current, it is a child of that one. Without a tracer, that
    of `context` is used.
    """
    if tracer is None and context is not None:
        tracer = context.get("tracer")
    return start_span(tracer, name)


def start_span(tracer: Tracer | None, name: str) -> Span:
    """A span below the current one. Use it with `with`, or call its `end`."""
    return (tracer or current_tracer()).start_span(name)


def set_attr(span: Span, key: str, value: Any) -> None:
    """Set an attribute to the JSON text of `value`; to its `repr` where JSON cannot hold it."""
    span.set_attribute(key, json_text(value))


def current_tracer(name: str = "") -> Tracer:
    """The tracer of whatever call runs when it is used; can be kept in a module."""
    return Tracer(_present_recorder, name)


def init_tracer(service_name: str, *_args: Any, **_settings: Any) -> Tracer:
    """A tracer for code that sets one up itself, as it does outside of the platform.

    Exporters and endpoints that are given are not needed here and ignored: spans travel with the
    answer of the call.
    """
    return current_tracer(service_name)


# Headers that a stamp replaces, in whatever case they are given.
_STAMPED = frozenset({"traceparent", "tracestate", "x-request-timeout"})


class OutboundTrace(dict[str, str]):
    """Headers for a call to somewhere else; with `with`, a span of that call too.

    A plain use stamps the headers below the current span:

        requests.get(url, headers=tracing.outbound_trace(url, {"accept": "*/*"}))

    In a `with` statement the call has a span of its own, and the headers name it as the parent:

        with tracing.outbound_trace(url, headers) as headers:
            requests.get(url, headers=headers)
    """

    def __init__(self, url: str, headers: MutableMapping[str, str] | None) -> None:
        """Stamps `headers` too, so that the caller's own dict can be used."""
        super().__init__(headers or {})
        self._url = url
        self._given = headers
        self._span: Span | None = None
        self._stamp(None)

    @property
    def span(self) -> Span | None:
        """The span of the call, inside of the `with` statement."""
        return self._span

    def _stamp(self, span_id: str | None) -> None:
        stamps = trace_headers(_present_recorder(), span_id)
        context = active.context()
        if context is not None:
            stamps["X-Request-Timeout"] = f"{context.remaining_ms()}ms"
        for target in (self, self._given):
            if target is None:
                continue
            for name in [name for name in target if name.lower() in _STAMPED]:
                del target[name]
            target.update(stamps)

    def __enter__(self) -> OutboundTrace:
        url = _without_credentials(self._url)
        span = start_span(None, f"call {urlsplit(url).netloc or url}")
        span.set_attribute("url.full", url)
        self._span = span.__enter__()
        self._stamp(span.span_id)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._span is not None:
            self._span.__exit__(kind, error, traceback)


def outbound_trace(url: str, headers: MutableMapping[str, str] | None = None) -> OutboundTrace:
    """Stamp the headers of a call to `url` with the trace and the time that is left.

    Sets `traceparent`, `tracestate` where the caller sent one, and `X-Request-Timeout` with the
    milliseconds left, in `headers` itself and in what is returned: a dict of headers that is also
    a context manager, see `OutboundTrace`.
    """
    return OutboundTrace(url, headers)


def inbound_trace(tracer: Tracer | None, headers: Mapping[str, str] | None, name: str) -> Span:
    """A span for work that a caller's headers asked for.

    The platform has already continued the trace of the request, so the span is part of it. Where
    the headers carry another trace (a message from a queue, say), the span keeps that
    `traceparent` as the attribute `link.traceparent`.
    """
    span = start_span(tracer, name)
    given = _find(headers or {}, "traceparent")
    if given is not None and span.trace_id not in given:
        span.set_attribute("link.traceparent", given)
    return span


def _present_recorder() -> Recorder:
    context: Context | None = active.context()
    return outside_recorder() if context is None else context.recorder


def _find(headers: Mapping[str, str], name: str) -> str | None:
    for key, value in headers.items():
        if key.lower() == name:
            return value
    return None


def _without_credentials(url: str) -> str:
    parts = urlsplit(url)
    if "@" not in parts.netloc:
        return url
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
