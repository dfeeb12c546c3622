"""Requests to somewhere else that keep the call's deadline, are traced, and retry with a budget.

    from functionsplatform.sdk import http

    def handler(message, context):
        answer = http.get("http://127.0.0.1:5000/prices", timeout=0.5)
        return {"prices": answer.raise_for_status().json()}

Each attempt has a span of its own and carries `traceparent` and `X-Request-Timeout` with what is
left of the call's time, or of `timeout` where that is less; when nothing is left, nothing is sent.
What failed is sent again up to twice, after a random pause that doubles or what `Retry-After` says:

* when there was no connection, whatever the request;
* when the connection broke, or the answer was 429, 502, 503 or 504: where the method is idempotent,
  the request has an `Idempotency-Key`, or `idempotent=True` says so.

A budget bounds retries to a fifth of the requests to each server, and one a second. A retry that
could not end in time is not begun. In `async def` handlers: `await http.aget(…)` and its siblings.

    Exception
     └── RequestError           nothing usable came
          ├── NoTimeLeft        the time was up before anything was sent
          ├── TimedOut          the time was up before the whole answer was there
          ├── NotConnected      there was no connection; nothing was sent
          ├── ConnectionBroken  the connection ended in the middle
          └── AnswerTooLarge    the answer is over `limit` bytes
     └── StatusError            raise_for_status(): the answer's status is 400 or above

Redirects are answers like any other. Proxies of the environment are not used.
"""

from __future__ import annotations

import json as json_module
import random
import ssl
import time
from collections.abc import Callable, Mapping
from functools import partial
from http.client import HTTPMessage
from threading import Lock
from typing import Any
from urllib.parse import SplitResult, urlsplit

from functionsplatform._context import active, trace_headers
from functionsplatform._retry import (
    MAX_ATTEMPTS,
    RETRIED_STATUSES,
    RetryBudget,
    may_repeat,
    pause,
    retry_after,
)
from functionsplatform._trace import Span
from functionsplatform._wire import Abort, Broken, Late, TooLarge, exchange
from functionsplatform._wire import NotConnected as _NotConnected
from functionsplatform.sdk.tracing import start_span

__all__ = [
    "AnswerTooLarge",
    "Client",
    "ConnectionBroken",
    "NoTimeLeft",
    "NotConnected",
    "RequestError",
    "Response",
    "RetryBudget",
    "StatusError",
    "TimedOut",
    "adelete",
    "aget",
    "ahead",
    "apatch",
    "apost",
    "aput",
    "arequest",
    "delete",
    "get",
    "head",
    "patch",
    "post",
    "put",
    "request",
]

# What a request may take outside of a call, and where no timeout is given: what a function has.
DEFAULT_TIMEOUT = 60.0

# The largest answer that is taken by default: some times what a function may answer itself.
DEFAULT_LIMIT = 32 * 1024 * 1024

# Servers whose budgets are remembered; beyond, the one that was not asked for longest is forgotten.
_MAX_BUDGETS = 256

_STAMPED = frozenset({"traceparent", "tracestate", "x-request-timeout", "host", "content-length"})


class RequestError(Exception):
    """Nothing usable came; `attempts` says how often it was tried."""

    attempts: int = 0


class NoTimeLeft(RequestError, TimeoutError):
    """The time was up before anything was sent."""


class TimedOut(RequestError, TimeoutError):
    """The time was up before the whole answer was there."""


class NotConnected(RequestError, ConnectionError):
    """There was no connection: nothing was sent."""


class ConnectionBroken(RequestError, ConnectionError):
    """The connection ended in the middle; whether the request was carried out is not known."""


class AnswerTooLarge(RequestError):
    """The answer is larger than `limit`."""


class StatusError(Exception):
    """An answer with a status of 400 or above; `response` has it."""

    def __init__(self, response: Response) -> None:
        """See the class."""
        super().__init__(f"{response.url} answered {response.status}")
        self.response = response


class Response:
    """A whole answer."""

    __slots__ = ("attempts", "body", "headers", "status", "url")

    def __init__(
        self, url: str, status: int, headers: HTTPMessage, body: bytes, attempts: int
    ) -> None:
        """`headers` are found whatever their case; `attempts` says how often it was asked."""
        self.url = url
        self.status = status
        self.headers = headers
        self.body = body
        self.attempts = attempts

    @property
    def ok(self) -> bool:
        """Whether the status is below 400."""
        return self.status < 400

    @property
    def text(self) -> str:
        """The body as text, in the charset that it names, else UTF-8; what is bad is replaced."""
        charset = self.headers.get_content_charset() or "utf-8"
        try:
            return self.body.decode(charset, "replace")
        except LookupError:
            return self.body.decode("utf-8", "replace")

    def json(self) -> Any:
        """The body as JSON."""
        return json_module.loads(self.body)

    def raise_for_status(self) -> Response:
        """Itself, if the status is below 400; else raises `StatusError`."""
        if not self.ok:
            raise StatusError(self)
        return self

    def __repr__(self) -> str:
        return f"<Response {self.status} of {self.url}, {len(self.body)} bytes>"


class Client:
    """Sends requests, with a retry budget for each server.

    The module's own functions share one.
    """

    def __init__(
        self,
        *,
        attempts: int = MAX_ATTEMPTS,
        budget: Callable[[], RetryBudget] = RetryBudget,
        tls: ssl.SSLContext | None = None,
        wait: Callable[[float], None] = time.sleep,
        draw: Callable[[], float] = random.random,
    ) -> None:
        """At most `attempts` of a request (1: no retries), with a `budget` for each server.

        `wait` and `draw` (a random number of 0..1) are there for tests.
        """
        self._attempts = max(1, min(attempts, MAX_ATTEMPTS))
        self._budget = budget
        self._tls = tls
        self._wait = wait
        self._draw = draw
        self._budgets: dict[str, RetryBudget] = {}
        self._lock = Lock()

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | str | None = None,
        json: Any = None,
        timeout: float | None = None,
        idempotent: bool | None = None,
        limit: int = DEFAULT_LIMIT,
    ) -> Response:
        """Ask, and wait for the whole answer, of whatever status.

        `timeout` is for all attempts together, in seconds, and never more than the call has left.
        `json` is sent as such. `idempotent` says whether the request may be carried out twice,
        where its method and headers do not. Raises `RequestError`.
        """
        sending = _Sending(method, url, headers, body, json, timeout, idempotent, limit)
        return self._send(sending, Abort(), self._wait)

    async def arequest(self, method: str, url: str, **options: Any) -> Response:
        """As `request`, in a thread. When its task is cancelled, so is the request."""
        # Handlers that do not await need none of it, and it is slow to import.
        import asyncio

        sending = _Sending.of(method, url, options)
        abort = Abort()

        def wait(seconds: float) -> None:
            # In steps, so that who cancels does not leave a thread that waits for nothing.
            end = time.monotonic() + seconds
            while not abort.set and (left := end - time.monotonic()) > 0:
                self._wait(min(left, 0.05))

        try:
            return await asyncio.to_thread(self._send, sending, abort, wait)
        except asyncio.CancelledError:
            abort.now()
            raise

    def _send(self, sending: _Sending, abort: Abort, wait: Callable[[float], None]) -> Response:
        budget = self._budget_of(sending.url)
        budget.deposit(time.monotonic())
        attempt = 0
        while True:
            attempt += 1
            answer = self._attempt(sending, attempt, abort)
            if isinstance(answer, Response):
                retriable = sending.may_repeat and answer.status in RETRIED_STATUSES
                asked = retry_after(answer.headers.get("retry-after"), time.time())
            else:
                retriable = isinstance(answer, NotConnected) or (
                    sending.may_repeat and isinstance(answer, ConnectionBroken)
                )
                asked = None
            if retriable and attempt < self._attempts and not abort.set:
                seconds = pause(attempt, self._draw(), asked)
                # Before the budget is asked: what cannot be in time costs nothing.
                now = time.monotonic()
                if now + seconds < sending.deadline and budget.withdraw(now):
                    wait(seconds)
                    continue
            if isinstance(answer, Response):
                return answer
            answer.attempts = attempt
            raise answer

    def _attempt(self, sending: _Sending, attempt: int, abort: Abort) -> Response | RequestError:
        """The answer, or what is wrong; its span says the same."""
        url = sending.url
        left = sending.deadline - time.monotonic()
        if left < 0.001:
            return NoTimeLeft(f"no time is left for {sending.method} {sending.shown}")
        with start_span(None, f"{sending.method} {url.hostname}") as span:
            _describe(span, sending, attempt)
            headers = sending.stamped(span, left)
            try:
                status, received, body = exchange(
                    sending.method,
                    url,
                    headers,
                    sending.body,
                    deadline=sending.deadline,
                    limit=sending.limit,
                    tls=self._tls_context(url),
                    abort=abort,
                )
            except (Late, Broken, TooLarge, _NotConnected) as error:
                failure = _failure(error, sending)
                span.set_attribute("error.type", type(failure).__name__)
                span.error = str(failure)
                return failure
            span.set_attribute("http.response.status_code", status)
            if status >= 400:
                span.set_attribute("error.type", str(status))
                span.error = f"answered {status}"
            return Response(sending.shown, status, received, body, attempt)

    def _tls_context(self, url: SplitResult) -> ssl.SSLContext | None:
        if url.scheme != "https":
            return None
        with self._lock:
            if self._tls is None:
                self._tls = ssl.create_default_context()
            return self._tls

    def _budget_of(self, url: SplitResult) -> RetryBudget:
        server = f"{url.scheme}://{url.netloc.rpartition('@')[2]}"
        with self._lock:
            budget = self._budgets.pop(server, None) or self._budget()
            self._budgets[server] = budget
            if len(self._budgets) > _MAX_BUDGETS:
                del self._budgets[next(iter(self._budgets))]
            return budget


class _Sending:
    """A request as it was asked for, with its deadline."""

    __slots__ = (
        "body",
        "deadline",
        "headers",
        "limit",
        "may_repeat",
        "method",
        "shown",
        "url",
    )

    def __init__(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | str | None = None,
        json: Any = None,
        timeout: float | None = None,
        idempotent: bool | None = None,
        limit: int = DEFAULT_LIMIT,
    ) -> None:
        """See `Client.request`. Raises `ValueError` for what is no request."""
        self.method = method.upper()
        self.url = urlsplit(url)
        if self.url.scheme not in ("http", "https") or not self.url.hostname:
            message = f"{url!r} is not an http or https URL"
            raise ValueError(message)
        # Without what only the other side should see.
        host = self.url.netloc.rpartition("@")[2]
        self.shown = self.url._replace(netloc=host, fragment="").geturl()
        if body is not None and json is not None:
            message = "give body or json, not both"
            raise ValueError(message)
        self.headers = dict(headers or {})
        if json is not None:
            body = json_module.dumps(json, allow_nan=False)
            if not any(name.lower() == "content-type" for name in self.headers):
                self.headers["Content-Type"] = "application/json"
        self.body = body.encode() if isinstance(body, str) else body
        self.may_repeat = may_repeat(self.method, self.headers, idempotent)
        self.limit = limit
        self.deadline = time.monotonic() + (DEFAULT_TIMEOUT if timeout is None else timeout)
        context = active.context()
        if context is not None:
            # Without a timeout of its own, all that the call has.
            left = context.deadline
            self.deadline = left if timeout is None else min(left, self.deadline)

    @classmethod
    def of(cls, method: str, url: str, options: Mapping[str, Any]) -> _Sending:
        """Of keyword arguments, so that what is wrong is raised where it was written."""
        return cls(method, url, **options)

    def stamped(self, span: Span, left: float) -> dict[str, str]:
        """Its headers, with the trace below the attempt's span and the time that is left."""
        own = {name: value for name, value in self.headers.items() if name.lower() not in _STAMPED}
        given_host = next((v for n, v in self.headers.items() if n.lower() == "host"), None)
        headers = {"Host": given_host or self.url.netloc.rpartition("@")[2], **own}
        headers.update(trace_headers(span.recorder, span.span_id))
        headers["X-Request-Timeout"] = f"{int(left * 1000)}ms"
        headers["Connection"] = "close"
        if self.body is not None or self.method in ("POST", "PUT", "PATCH"):
            headers["Content-Length"] = str(len(self.body or b""))
        return headers


def _describe(span: Span, sending: _Sending, attempt: int) -> None:
    """The attributes that OpenTelemetry names for HTTP clients."""
    url = sending.url
    span.set_attribute("http.request.method", sending.method)
    span.set_attribute("url.full", sending.shown)
    span.set_attribute("server.address", url.hostname)
    span.set_attribute("server.port", url.port or (443 if url.scheme == "https" else 80))
    if attempt > 1:
        span.set_attribute("http.request.resend_count", attempt - 1)


def _failure(error: Exception, sending: _Sending) -> RequestError:
    what = f"{sending.method} {sending.shown}"
    if isinstance(error, Late):
        where = "the answer was there" if error.sent else "there was a connection"
        return TimedOut(f"{what}: the time was up before {where}")
    if isinstance(error, TooLarge):
        return AnswerTooLarge(f"{what}: the answer is over {sending.limit} bytes; raise limit")
    if isinstance(error, _NotConnected):
        return NotConnected(f"{what}: {error}")
    return ConnectionBroken(f"{what}: {error}")


_client = Client()

request = _client.request
arequest = _client.arequest
get = partial(request, "GET")
head = partial(request, "HEAD")
post = partial(request, "POST")
put = partial(request, "PUT")
patch = partial(request, "PATCH")
delete = partial(request, "DELETE")
aget = partial(arequest, "GET")
ahead = partial(arequest, "HEAD")
apost = partial(arequest, "POST")
aput = partial(arequest, "PUT")
apatch = partial(arequest, "PATCH")
adelete = partial(arequest, "DELETE")
