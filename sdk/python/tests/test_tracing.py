"""Spans: their tree, their values, their limits, and the context that goes out."""

from __future__ import annotations

import json
import time

import pytest
from platform_double import FAILURE

from functionsplatform.sdk import tracing
from functionsplatform.testing import fake_context, invoke

RUN_SPAN = "cd" * 8
TRACE = "ab" * 16


def test_the_ancestors_handler_runs_unchanged(start):
    worker = start("""
        from functionsplatform.sdk import tracing

        def handler(message, context):
            tracer = context.get("tracer")
            arg = message["body"]["arg"]
            with tracing.span_from_context(tracer, context, name="print-headers") as span:
                tracing.set_attr(span, "special-attribute", "with-a-special-value")
                print(message["headers"])
            return {"result": arg * 2, "status": "noice"}
    """)
    before = time.monotonic_ns()
    outcome = worker.call_json({"arg": 21})
    assert outcome.json == {"result": 42, "status": "noice"}
    span = outcome.spans["print-headers"]
    assert span["a"] == [["special-attribute", '"with-a-special-value"']]
    assert "p" not in span
    assert before < span["b"] < time.monotonic_ns()  # the clock of both ends
    assert span["d"] > 0
    assert outcome.logs() == "{'content-type': 'application/json'}\n"


def test_nested_spans_and_events(start):
    worker = start("""
        from functionsplatform.sdk import tracing
        def handler(message, context):
            with tracing.start_span(context.tracer, "outer"):
                with tracing.start_span(None, "inner") as inner:
                    inner.add_event("ping", {"n": 1}).set_attribute("plain", "text")
                by_hand = tracing.start_span(context["tracer"], "by hand")
                by_hand.end()
            with tracing.start_span(context.tracer, "after"):
                pass
            tracing.start_span(context.tracer, "left open")
    """)
    spans = worker.call().spans
    assert set(spans) == {"outer", "inner", "by hand", "after", "left open"}
    assert spans["inner"]["p"] == spans["by hand"]["p"] == spans["outer"]["i"]
    assert "p" not in spans["after"]
    assert "p" not in spans["left open"]
    (event,) = spans["inner"]["e"]
    assert event[1:] == ["ping", [["n", 1]]]
    assert spans["inner"]["a"] == [["plain", "text"]]
    assert spans["outer"]["b"] <= spans["inner"]["b"] <= event[0]
    assert len({span["i"] for span in spans.values()}) == 5


def test_an_exception_marks_the_spans_that_it_leaves(start):
    worker = start("""
        from functionsplatform.sdk import tracing
        def handler(message, context):
            with tracing.start_span(context.tracer, "outer"):
                with tracing.start_span(context.tracer, "inner"):
                    raise ValueError("bad")
    """)
    outcome = worker.call()
    assert outcome.last.kind == FAILURE
    for name in ("outer", "inner"):
        span = outcome.spans[name]
        assert span["x"] == "ValueError: bad"
        assert span["e"][0][1] == "exception"
    assert outcome.head["frames"][-1][3] == 'raise ValueError("bad")'


def test_concurrent_tasks_do_not_mix(start):
    worker = start("""
        import asyncio
        from functionsplatform.sdk import tracing
        async def one(name):
            with tracing.start_span(None, name):
                await asyncio.sleep(0.001)
                with tracing.start_span(None, name + name):
                    await asyncio.sleep(0.001)
        async def handler(message, context):
            with tracing.start_span(None, "all"):
                await asyncio.gather(one("a"), one("b"))
    """)
    spans = worker.call().spans
    assert spans["a"]["p"] == spans["b"]["p"] == spans["all"]["i"]
    assert spans["aa"]["p"] == spans["a"]["i"]
    assert spans["bb"]["p"] == spans["b"]["i"]


def test_a_stream_sends_its_spans_at_the_end(start):
    worker = start("""
        from functionsplatform.sdk import tracing
        def handler(message, context):
            with tracing.start_span(context.tracer, "streaming"):
                yield "a"
                with tracing.start_span(context.tracer, "inside"):
                    yield "b"
    """)
    outcome = worker.call()
    assert outcome.spans["inside"]["p"] == outcome.spans["streaming"]["i"]


def test_a_span_left_current_is_not_the_parent_in_the_next_call(start):
    worker = start("""
        from functionsplatform.sdk import tracing
        def handler(message, context):
            tracing.start_span(context.tracer, "entered").__enter__()
    """)
    for _ in range(2):
        assert "p" not in worker.call().spans["entered"]


def test_spans_are_bounded(start):
    worker = start("""
        from functionsplatform.sdk import tracing
        def handler(message, context):
            for number in range(2000):
                with tracing.start_span(context.tracer, f"span {number}") as span:
                    if number % 20 == 0:
                        span.set_attribute("text", "\\u20ac" * 100_000)
                        for key in range(200):
                            span.set_attribute(f"key {key}", key)
                            span.add_event("e")
            return 1
    """)
    outcome = worker.call(d=60_000)
    assert not outcome.failed
    assert 0 < len(outcome.head["sp"]) <= 1000
    assert len(json.dumps(outcome.head, ensure_ascii=False).encode()) < 1 << 20
    span = outcome.spans["span 0"]
    assert (len(span["a"]), len(span["e"])) == (128, 128)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("text", '"text"'),
        ({"a": [1, None]}, '{"a": [1, null]}'),
        (1.5, "1.5"),
        (True, "true"),
        ("grüß", '"grüß"'),
        (float("nan"), "nan"),
        (1j, "1j"),
    ],
)
def test_set_attr_keeps_the_json_text(value, text):
    def handler(message, context):
        with tracing.start_span(context.tracer, "s") as span:
            tracing.set_attr(span, "k", value)

    assert invoke(handler).span("s").attributes == {"k": text}


def test_outbound_headers_carry_trace_and_time(start):
    worker = start("""
        from functionsplatform.sdk import tracing
        def handler(message, context):
            own = {"Accept": "*/*", "Traceparent": "old"}
            plain = tracing.outbound_trace("http://b/x", own)
            with tracing.start_span(context.tracer, "outer"):
                inside = tracing.outbound_trace("http://b/x", {})
                with tracing.outbound_trace("http://u:p@b/x") as call:
                    return [plain, own, inside, call, isinstance(call, dict)]
    """)
    outcome = worker.call(d=5000, ts="v=1")
    plain, own, inside, call, is_dict = outcome.json
    assert is_dict is True
    assert plain == own
    assert plain["traceparent"] == f"00-{TRACE}-{RUN_SPAN}-01"
    assert plain["tracestate"] == "v=1"
    assert plain["Accept"] == "*/*"
    assert "Traceparent" not in plain
    left = plain["X-Request-Timeout"]
    assert left.endswith("ms")
    assert 4000 < int(left[:-2]) <= 5000
    spans = outcome.spans
    assert inside["traceparent"] == f"00-{TRACE}-{spans['outer']['i']}-01"
    outgoing = spans["call b"]
    assert call["traceparent"].split("-")[2] == outgoing["i"]
    assert outgoing["p"] == spans["outer"]["i"]
    assert "p@" not in json.dumps(outgoing)


def test_a_trace_keeps_its_flags(start):
    worker = start("""
        from functionsplatform.sdk import tracing
        def handler(message, context):
            return tracing.outbound_trace("http://b/")
    """)
    for flags in range(4):
        assert worker.call(f=flags).json["traceparent"].endswith(f"-0{flags}")


def test_two_functions_make_one_trace():
    def back(message, context):
        with tracing.inbound_trace(context.tracer, message["headers"], "back") as span:
            return span.traceparent

    def front(message, context):
        with tracing.outbound_trace("http://gateway/back", {}) as headers:
            # The gateway continues the trace: the run span is below the caller's.
            inner = fake_context(traceparent=headers["traceparent"])
            return [headers["traceparent"], invoke(back, headers=headers, context=inner).text]

    result = invoke(front)
    sent, seen = result.json
    assert sent.split("-")[1] == seen.split("-")[1]
    assert sent.split("-")[2] == result.spans[0].span_id


def test_another_trace_is_kept_as_a_link():
    other = f"00-{'12' * 16}-{'34' * 8}-01"

    def handler(message, context):
        with tracing.inbound_trace(None, {"TraceParent": other}, "consume"):
            pass

    assert invoke(handler).span("consume").attributes == {"link.traceparent": other}


def test_a_tracer_made_at_import_joins_the_call(start):
    worker = start("""
        from functionsplatform.sdk import tracing
        tracer = tracing.init_tracer("my-service", endpoint="http://collector:4318")
        def handler(message, context):
            with tracer.start_as_current_span("mine", attributes={"a": 1}):
                pass
    """)
    for _ in range(2):
        assert worker.call().spans["mine"]["a"] == [["a", 1]]


def test_spans_in_threads_join_the_call(start):
    worker = start("""
        import threading
        from functionsplatform.sdk import tracing
        def work():
            with tracing.start_span(None, "in a thread"):
                pass
        def handler(message, context):
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
    """)
    assert "in a thread" in worker.call().spans


@pytest.mark.parametrize("where", ["module", "handler"])
def test_opentelemetry_spans_join_the_trace(start, where):
    api = pytest.importorskip("opentelemetry.trace", reason="opentelemetry-api is not installed")
    from pathlib import Path

    site = str(Path(api.__file__).parents[2])
    imports = "from opentelemetry import trace, propagate"
    worker = start(
        f"""
        from functionsplatform.sdk import tracing
        {imports if where == "module" else ""}
        def handler(message, context):
            {imports}
            otel = trace.get_tracer("x")
            with tracing.start_span(context.tracer, "ours"):
                with otel.start_as_current_span("theirs", attributes={{"k": "v"}}) as span:
                    with tracing.start_span(context.tracer, "ours below"):
                        pass
                    carrier = {{}}
                    propagate.inject(carrier)
            try:
                with otel.start_as_current_span("failing"):
                    raise ValueError("bad")
            except ValueError:
                pass
            return carrier
        """,
        path=[site],
    )
    if where == "handler":
        worker.call()  # the first call is the one that imports it
    outcome = worker.call()
    spans = outcome.spans
    assert spans["theirs"]["p"] == spans["ours"]["i"]
    assert spans["ours below"]["p"] == spans["theirs"]["i"]
    assert spans["theirs"]["a"] == [["k", "v"]]
    assert "bad" in spans["failing"]["x"]
    assert "p" not in spans["failing"]
    assert outcome.json["traceparent"] == f"00-{TRACE}-{spans['theirs']['i']}-01"
