"""`functionsplatform.testing` gives what the platform would."""

from __future__ import annotations

import asyncio
import logging
import sys

import pytest

from functionsplatform import Cancelled, DeadlineExceeded, Interrupted
from functionsplatform._message import Headers, body_of
from functionsplatform.sdk import tracing
from functionsplatform.testing import fake_context, fake_message, invoke


def double(message, context):
    print("doubling")
    with tracing.span_from_context(context.get("tracer"), context, name="double") as span:
        tracing.set_attr(span, "number", message["body"]["arg"])
    return {"result": message["body"]["arg"] * 2, "status": "noice"}


def test_a_handler_is_run_with_a_body():
    result = invoke(double, {"arg": 21})
    assert (result.status, result.json) == (200, {"result": 42, "status": "noice"})
    assert result.headers["Content-Type"] == "application/json"
    assert result.logs == "doubling\n"
    assert result.span("double").attributes == {"number": "21"}
    with pytest.raises(KeyError, match="there are"):
        result.span("other")


@pytest.mark.parametrize(
    ("value", "status", "kind", "body"),
    [
        (None, 204, None, b""),
        ("x", 200, "text/plain; charset=utf-8", b"x"),
        (b"x", 200, "application/octet-stream", b"x"),
        ({"status_code": 418, "body": []}, 418, "application/json", b"[]"),
        (
            {"status_code": 200, "headers": {"content-type": "image/png"}, "body": b"x"},
            200,
            "image/png",
            b"x",
        ),
    ],
)
def test_answers_have_a_status_and_a_type(value, status, kind, body):
    result = invoke(lambda message, context: value)
    assert (result.status, result.headers.get("content-type"), result.body) == (status, kind, body)


def test_streams_and_coroutines_are_run_to_the_end():
    async def chunks(message, context):
        yield "a"
        await asyncio.sleep(0)
        yield "b"

    async def plain(message, context):
        await asyncio.sleep(0)
        return chunks(message, context)

    assert invoke(chunks).chunks == [b"a", b"b"]
    assert invoke(plain).text == "ab"
    assert invoke(lambda message, context: (n for n in [1, 2])).body == b"1\n2\n"


def test_it_works_inside_a_running_loop():
    async def handler(message, context):
        return "x"

    async def main():
        return invoke(handler).text

    assert asyncio.run(main()) == "x"


def test_exceptions_are_raised_or_told():
    def handler(message, context):
        print("before")
        raise ValueError("bad")

    with pytest.raises(ValueError, match="bad"):
        invoke(handler)
    result = invoke(handler, raise_errors=False)
    assert result.status == 500
    assert isinstance(result.error, ValueError)
    assert result.failure["exception_type"] == "ValueError"
    assert result.logs == "before\n"


def test_the_request_is_as_given():
    message = fake_message(
        "text",
        headers={"X-One": "1"},
        verb="put",
        path="/cats/7",
        query={"a": ["1", "2"]},
        path_params={"id": "7"},
    )
    assert message["verb"] == "PUT"
    assert message["body"] == "text"
    assert message["query_all"] == {"a": ["1", "2"]}
    assert message["headers"]["x-one"] == "1"
    assert message["path_params"] == {"id": "7"}


def test_the_context_is_as_given():
    context = fake_context(function_name="f", services={"sql_db": "u"}, timeout=2, version=4)
    assert 1500 < context.remaining_ms() <= 2000
    assert (context["function_name"], context["version"]) == ("f", 4)
    assert context.services == {"sql_db": "u"}
    assert context.get("unknown", 1) == 1
    assert isinstance(context.logger, logging.Logger)
    with pytest.raises(KeyError):
        context["unknown"]


def test_the_context_says_who_calls_where_that_is_asked():
    assert fake_context().auth is None
    assert "auth" in fake_context()
    claims = {"kind": "jwt", "claims": {"sub": "me"}}
    context = fake_context(auth=claims)
    assert context["auth"] == context.auth == claims


def test_logging_is_captured_and_left_as_it_was():
    root = logging.getLogger()
    before = (root.level, list(root.handlers))

    def handler(message, context):
        context.logger.info("informed")
        print("err", file=sys.stderr)

    assert invoke(handler).logs == "informed\nerr\n"
    assert (root.level, list(root.handlers)) == before


def test_interruptions_are_no_exceptions():
    for kind in (DeadlineExceeded, Cancelled):
        assert issubclass(kind, Interrupted)
        assert not issubclass(kind, Exception)


@pytest.mark.parametrize(
    ("raw", "kind", "body"),
    [
        (b'{"arg":21}', None, {"arg": 21}),
        (b'{"arg":21}', "application/x-www-form-urlencoded", {"arg": 21}),
        (b" [1]", "", [1]),
        (b"{not json", None, "{not json"),
        (b"7", None, "7"),
        (b"a=1&b=&a=2", "application/x-www-form-urlencoded", {"a": "2", "b": ""}),
        (b"{x=1", "application/x-www-form-urlencoded", {"{x": "1"}),
        (b"7", "application/json", 7),
        (b"7", "Application/JSON; charset=utf-8", 7),
        (b'{"a":1}', "application/vnd.api+json", {"a": 1}),
        (b'{"a":1}', "text/plain", '{"a":1}'),
        ("grüß".encode("latin-1"), 'text/plain; charset="latin-1"', "grüß"),
        (b"\xff", "text/plain", b"\xff"),
        (b"x", "text/plain; charset=none-such", b"x"),
        (b"xn--" + b"a" * 99, "text/plain; charset=idna", b"xn--" + b"a" * 99),
        (b"\xff\xfe", None, b"\xff\xfe"),
        (b"<a/>", "image/svg+xml", "<a/>"),
        (b"x", "application/octet-stream", b"x"),
        (b"x", "multipart/form-data; boundary=b", b"x"),
    ],
)
def test_bodies_are_what_their_type_says(raw, kind, body):
    assert body_of(raw, kind) == body


def test_headers_are_a_dict_in_any_case():
    headers = Headers.of([("X-A", "1"), ("x-a", "2"), ("B", "3")])
    assert headers == {"x-a": "1, 2", "b": "3"}
    headers["C"] = "4"
    headers.update({"D": "5"}, E="6")
    assert headers.setdefault("c", "no") == "4"
    assert headers.pop("D") == "5"
    assert headers.pop("none", None) is None
    del headers["e"]
    assert "X-a" in headers.copy()
    assert 5 not in headers
    assert dict(headers) == {"x-a": "1, 2", "b": "3", "c": "4"}
