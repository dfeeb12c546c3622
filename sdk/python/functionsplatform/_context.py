"""The `context` that a handler gets: a mapping whose keys are attributes too.

Making one costs a fraction of a microsecond, because a no-op handler looks at none of it: it
keeps the head of the call and computes what is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

from functionsplatform._trace import Recorder, Tracer

if TYPE_CHECKING:
    from logging import Logger

_KEYS = (
    "tracer",
    "tracing_context",
    "message_queue_uri",
    "services",
    "function_name",
    "version",
    "tenant",
    "invocation_id",
    "correlation_id",
    "auth",
    "deadline",
    "remaining_ms",
    "cancelled",
    "logger",
)


class Function:
    """What all calls of a worker have in common."""

    __slots__ = ("message_queue_uri", "name", "services", "tenant", "version")

    def __init__(
        self,
        name: str,
        version: int = 1,
        tenant: str = "default",
        services: dict[str, str] | None = None,
        message_queue_uri: str = "",
    ) -> None:
        """`services` has a URL by name."""
        self.name = name
        self.version = version
        self.tenant = tenant
        self.services = services or {}
        self.message_queue_uri = message_queue_uri


class Context(Mapping[str, Any]):
    """Facts and tools of one call: `context["services"]` and `context.services` are the same."""

    __slots__ = ("_cancelled", "_deadline_ns", "_function", "_head", "_recorder", "_start_ns")

    def __init__(
        self, function: Function, head: Mapping[str, Any], start_ns: int, deadline_ns: int
    ) -> None:
        """`head` has the short keys of a call's head; times are of the monotonic clock."""
        self._function = function
        self._head = head
        self._start_ns = start_ns
        self._deadline_ns = deadline_ns
        self._cancelled = False
        self._recorder: Recorder | None = None

    # The facts of the call.

    @property
    def function_name(self) -> str:
        """Name of the function."""
        return self._function.name

    @property
    def version(self) -> int:
        """Number of its version that runs."""
        return int(self._head.get("w", self._function.version))

    @property
    def tenant(self) -> str:
        """Whose function it is."""
        return self._function.tenant

    @property
    def invocation_id(self) -> str:
        """Id of this call, as in `X-Serverless-Instance-Id`."""
        return str(self._head["i"])

    @property
    def correlation_id(self) -> str:
        """The caller's `X-Correlation-Id`, or one made for it."""
        return str(self._head["c"])

    @property
    def auth(self) -> dict[str, Any] | None:
        """Who calls and how that was proven; None for a function that lets everybody in.

        `auth["kind"]` is `jwt` (with `claims`), `key` (with the key's `key` and `id`), `hmac`,
        `function` (with the calling `function`) or `api` (through the management API).
        """
        return self._head.get("a")

    @property
    def services(self) -> dict[str, str]:
        """URL of each data service that the platform was configured with."""
        return self._function.services

    @property
    def message_queue_uri(self) -> str:
        """Host of the message queue, or empty."""
        return self._function.message_queue_uri

    # Time.

    @property
    def deadline(self) -> float:
        """When the call's time is up, on the clock of `time.monotonic()`."""
        return self._deadline_ns / 1e9

    def remaining_ms(self) -> int:
        """Milliseconds left until then; 0 when there are none."""
        return max(0, (self._deadline_ns - monotonic_ns()) // 1_000_000)

    @property
    def cancelled(self) -> bool:
        """Whether the call was ended early: its time is up, or its caller left."""
        return self._cancelled

    # Tools.

    @property
    def recorder(self) -> Recorder:
        """Where the spans of this call are kept."""
        recorder = self._recorder
        if recorder is None:
            head = self._head
            recorder = Recorder(
                head["t"], head["s"], head.get("ts", ""), head.get("f", 1), self._start_ns
            )
            self._recorder = recorder
        return recorder

    @property
    def tracer(self) -> Tracer:
        """Makes spans below the run span of this call."""
        recorder = self.recorder
        return Tracer(lambda: recorder, self._function.name)

    @property
    def tracing_context(self) -> dict[str, str]:
        """The W3C headers that carry this trace to somewhere else."""
        return trace_headers(self.recorder)

    @property
    def logger(self) -> Logger:
        """A logger with the function's name; what it says is in the logs of the call."""
        from logging import getLogger

        return getLogger(self._function.name)

    # The mapping.

    def __getitem__(self, key: str) -> Any:
        if key in _KEYS:
            return getattr(self, key)
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        return iter(_KEYS)

    def __len__(self) -> int:
        return len(_KEYS)

    def __repr__(self) -> str:
        return f"<Context of {self.function_name} v{self.version}, invocation {self.invocation_id}>"

    # Mapping compares by value, which would make and run every tool.
    __eq__ = object.__eq__
    __hash__ = object.__hash__


def trace_headers(recorder: Recorder, span_id: str | None = None) -> dict[str, str]:
    """`traceparent`, and `tracestate` where the caller sent one."""
    headers = {"traceparent": recorder.traceparent(span_id)}
    if recorder.trace_state:
        headers["tracestate"] = recorder.trace_state
    return headers


class Active:
    """Which call runs here.

    A worker that serves one call at a time sets `sole`, so that threads of the handler find
    it, too; one that serves several keeps the context in `of_task`.
    """

    __slots__ = ("sole",)

    def __init__(self) -> None:
        """No call runs."""
        self.sole: Context | None = None

    def context(self) -> Context | None:
        """The context of the call that runs here, if one does."""
        context = of_task.get()
        return self.sole if context is None else context


of_task: ContextVar[Context | None] = ContextVar("functionsplatform_call", default=None)
active = Active()
