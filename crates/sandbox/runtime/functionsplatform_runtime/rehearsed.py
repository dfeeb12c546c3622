"""What a dummy call runs: loaded from this file as a function's handler is from its own."""

from __future__ import annotations

from typing import Any

from functionsplatform.sdk import tracing


def handler(message: dict[str, Any], context: Any) -> dict[str, Any]:
    """Trace a little and answer; fail where there is no body."""
    if message["body"] is None:
        raise ValueError("rehearsal")
    with tracing.start_span(context.tracer, "rehearsal") as span:
        tracing.set_attr(span, "k", "v")
    return {"result": message["body"]["arg"], "status": "ok"}
