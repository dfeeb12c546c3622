"""Run a handler locally, with the message, context and answer that the platform would make.

    from functionsplatform.testing import invoke
    from handler import handler

    def test_doubles() -> None:
        result = invoke(handler, body={"arg": 21})
        assert result.status == 200
        assert result.json == {"result": 42, "status": "noice"}

The conversions are the worker's own code, so a test that passes here does not fail there for a
header's case or a value that JSON cannot hold. What needs a platform is not imitated: nothing is
sandboxed, and `timeout` sets `context.remaining_ms()` but ends nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import io
import json
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from os import urandom
from time import monotonic_ns
from typing import Any
from urllib.parse import urlencode

from functionsplatform import _secrets
from functionsplatform._answer import BYTES, JSON, NONE, TEXT, Answer, Chunks, answer_of, json_bytes
from functionsplatform._context import Context, Function, active
from functionsplatform._failure import failure_of
from functionsplatform._message import Headers, message_of

__all__ = ["Result", "Span", "fake_context", "fake_message", "invoke"]

_CONTENT_TYPES = {
    JSON: "application/json",
    TEXT: "text/plain; charset=utf-8",
    BYTES: "application/octet-stream",
}


@dataclass(frozen=True)
class Span:
    """A span that the handler made."""

    name: str
    span_id: str
    parent_span_id: str | None
    duration_ms: float
    attributes: dict[str, Any]
    events: list[tuple[str, dict[str, Any]]]
    error: str | None


@dataclass
class Result:
    """What a caller would get, and what the platform would record."""

    status: int
    headers: Headers
    body: bytes
    logs: str = ""
    spans: list[Span] = field(default_factory=list)
    chunks: list[bytes] = field(default_factory=list)
    error: BaseException | None = None
    failure: dict[str, Any] | None = None

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()

    def span(self, name: str) -> Span:
        """The span of that name; `KeyError` if there is none."""
        for span in self.spans:
            if span.name == name:
                return span
        raise KeyError(f"no span {name!r}; there are {[span.name for span in self.spans]}")


def invoke(
    handler: Callable[[Any, Any], Any],
    body: Any = None,
    *,
    headers: Mapping[str, str] | None = None,
    verb: str | None = None,
    path: str = "/",
    query: Mapping[str, Any] | str = "",
    path_params: Mapping[str, str] | None = None,
    context: Context | None = None,
    timeout: float = 60.0,
    secrets: Mapping[str, str | bytes] | None = None,
    raise_errors: bool = True,
) -> Result:
    """Call a handler as the platform would.

    `body` is sent as JSON if it is a dict or list, as it is if it is text or bytes. The verb is
    POST with a body and GET without. An exception of the handler is raised here, too, unless
    `raise_errors` is false; then the result has status 500, the exception as `error` and as
    `failure` what the platform would record. `async def` handlers and streams are run to the end.
    `secrets` are what `functionsplatform.secret` gives meanwhile, by name; without it, variables
    `FUNCTIONSPLATFORM_SECRET_…` of the environment are.
    """
    head, raw = _request(body, headers, verb, path, query, path_params)
    context = context or fake_context(timeout=timeout)
    before, active.sole = active.sole, context
    logs = io.StringIO()
    try:
        with _secrets.given(secrets), _captured(logs):
            result = _run(handler, head, raw, context)
    except BaseException as error:
        if raise_errors or not isinstance(error, (Exception, SystemExit)):
            raise
        result = Result(500, Headers(), b"", error=error, failure=failure_of(error, "."))
    finally:
        active.sole = before
    result.logs = logs.getvalue()
    result.spans = [_span(wire) for wire in context.recorder.finish()]
    return result


def fake_context(
    *,
    function_name: str = "function",
    version: int = 1,
    services: Mapping[str, str] | None = None,
    message_queue_uri: str = "",
    timeout: float = 60.0,
    invocation_id: str | None = None,
    correlation_id: str | None = None,
    traceparent: str | None = None,
    auth: Mapping[str, Any] | None = None,
) -> Context:
    """A context with `timeout` seconds left, for calling a handler by hand.

    `auth` is what the platform would say of the caller: `{"kind": "jwt", "claims": {…}}`.
    """
    trace_id, span_id, flags = urandom(16).hex(), urandom(8).hex(), "03"
    if traceparent is not None:
        _, trace_id, span_id, flags = traceparent.split("-", 3)
    invocation = invocation_id or urandom(13).hex()
    function = Function(
        function_name,
        version=version,
        services=dict(services or {}),
        message_queue_uri=message_queue_uri,
    )
    head: dict[str, Any] = {
        "i": invocation,
        "c": correlation_id or invocation,
        "t": trace_id,
        "s": span_id,
        "f": int(flags[:2], 16) & 3,
    }
    if auth is not None:
        head["a"] = dict(auth)
    start_ns = monotonic_ns()
    return Context(function, head, start_ns, start_ns + int(timeout * 1e9))


def fake_message(
    body: Any = None,
    *,
    headers: Mapping[str, str] | None = None,
    verb: str | None = None,
    path: str = "/",
    query: Mapping[str, Any] | str = "",
    path_params: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The message that a handler would get; arguments as in `invoke`."""
    return message_of(*_request(body, headers, verb, path, query, path_params))


def _request(
    body: Any,
    headers: Mapping[str, str] | None,
    verb: str | None,
    path: str,
    query: Mapping[str, Any] | str,
    path_params: Mapping[str, str] | None,
) -> tuple[dict[str, Any], bytes]:
    sent = Headers.of(headers or {})
    if body is None:
        raw = b""
    elif isinstance(body, (bytes, bytearray)):
        raw = bytes(body)
    elif isinstance(body, str):
        raw = body.encode()
    else:
        raw = json_bytes(body, "body")
        sent.setdefault("content-type", "application/json")
    head = {
        "v": (verb or ("GET" if body is None else "POST")).upper(),
        "p": path,
        "q": query if isinstance(query, str) else urlencode(query, doseq=True),
        "h": dict(sent),
        "pp": dict(path_params or {}),
    }
    return head, raw


def _run(
    handler: Callable[[Any, Any], Any], head: dict[str, Any], raw: bytes, context: Context
) -> Result:
    returned = handler(message_of(head, raw), context)
    if hasattr(returned, "__await__"):
        returned = _finished(_awaited(returned))
    answer = answer_of(returned)
    chunks = _chunks(answer)
    headers = Headers.of(answer.headers or [])
    if answer.kind in _CONTENT_TYPES:
        headers.setdefault("content-type", _CONTENT_TYPES[answer.kind])
    status = answer.status or (204 if answer.kind == NONE else 200)
    return Result(status, headers, b"".join(chunks) or answer.body, chunks=chunks)


def _chunks(answer: Answer) -> list[bytes]:
    stream = answer.stream
    if stream is None:
        return []
    if isinstance(stream, AsyncIterator):
        stream = iter(_finished(_drained(stream)))
    chunks = Chunks(answer.headers)
    sent: list[bytes] = []
    for chunk in stream:
        sent.append(chunks.next(chunk) if sent else chunks.first(answer, chunk))
    return sent


async def _awaited(awaitable: Any) -> Any:
    return await awaitable


async def _drained(stream: AsyncIterator[Any]) -> list[Any]:
    return [chunk async for chunk in stream]


def _finished(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine; in a thread if this one has a running loop already."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    here = contextvars.copy_context()
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(here.run, asyncio.run, coroutine).result()


@contextlib.contextmanager
def _captured(logs: io.StringIO) -> Iterator[None]:
    """Everything that is printed or logged, in order."""
    records = logging.StreamHandler(logs)
    root = logging.getLogger()
    level = root.level
    root.addHandler(records)
    root.setLevel(min(level, logging.INFO) if level else logging.INFO)
    try:
        with contextlib.redirect_stdout(logs), contextlib.redirect_stderr(logs):
            yield
    finally:
        root.removeHandler(records)
        root.setLevel(level)


def _span(wire: dict[str, Any]) -> Span:
    return Span(
        name=wire["n"],
        span_id=wire["i"],
        parent_span_id=wire.get("p"),
        duration_ms=wire["d"] / 1e6,
        attributes=dict(wire.get("a", ())),
        events=[(name, dict(values)) for _, name, values in wire.get("e", ())],
        error=wire.get("x"),
    )
