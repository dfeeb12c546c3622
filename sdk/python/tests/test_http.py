"""Outbound requests: deadlines, retries and their budget, spans; against servers that misbehave."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from functionsplatform import _retry
from functionsplatform.sdk import http
from functionsplatform.testing import fake_context, invoke

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A: b\r\n\r\nok"
BUSY = b"HTTP/1.1 503 Busy\r\nRetry-After: 0\r\nContent-Length: 4\r\n\r\nbusy"


class Server:
    """Answers each connection with the next of its answers, the last for ever; None: nothing."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}/path?a=1"
        self.answers: list[bytes | None] = []
        self.requests: list[str] = []
        self.asked = threading.Event()
        self.left = threading.Event()
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with connection:
                request = b""
                while not _is_whole(request) and (piece := connection.recv(65536)):
                    request += piece
                self.requests.append(request.decode())
                answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                self.asked.set()
                if answer is None:
                    connection.recv(1)  # until the client goes
                    self.left.set()
                else:
                    connection.sendall(answer)

    def header(self, name: str, place: int = -1) -> str:
        lines = self.requests[place].split("\r\n")
        (value,) = [line.split(": ", 1)[1] for line in lines if line.lower().startswith(name + ":")]
        return value


def _is_whole(request: bytes) -> bool:
    head, found, body = request.partition(b"\r\n\r\n")
    announced = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
    return bool(found) and len(body) >= int(announced or 0)


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.listener.shutdown(socket.SHUT_RDWR)
    server.listener.close()
    server.thread.join()


def client(waits: list[float] | None = None, **options: object) -> http.Client:
    def wait(seconds: float) -> None:
        (waits if waits is not None else []).append(seconds)

    return http.Client(wait=wait, draw=lambda: 0.5, **options)  # type: ignore[arg-type]


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def test_an_answer_is_whole_and_carries_the_trace_and_the_time_that_is_left(server):
    server.answers = [OK]

    def handler(message, context):
        answer = http.post(server.url, json={"n": 1}, headers={"X-Own": "1", "TraceParent": "mine"})
        return {
            "text": answer.text,
            "ok": answer.ok,
            "a": answer.headers["x-a"],
            "tries": answer.attempts,
        }

    context = fake_context(timeout=5.0)
    result = invoke(handler, context=context)
    assert result.json == {"text": "ok", "ok": True, "a": "b", "tries": 1}
    request = server.requests[0]
    assert request.startswith("POST /path?a=1 HTTP/1.1\r\n")
    assert request.endswith('\r\n\r\n{"n": 1}')
    assert server.header("content-type") == "application/json"
    assert server.header("x-own") == "1"
    (span,) = result.spans
    assert server.header("traceparent").split("-")[2] == span.span_id
    left = int(server.header("x-request-timeout").removesuffix("ms"))
    assert 3000 < left <= 5000
    assert span.name == "POST 127.0.0.1"
    assert span.attributes["http.response.status_code"] == 200
    assert span.attributes["url.full"] == server.url


def test_a_timeout_is_for_all_of_it_and_never_more_than_the_call_has(server):
    server.answers = [OK]
    invoke(lambda m, c: http.get(server.url, timeout=1.0).text, context=fake_context(timeout=60.0))
    assert int(server.header("x-request-timeout").removesuffix("ms")) <= 1000
    invoke(lambda m, c: http.get(server.url, timeout=60.0).text, context=fake_context(timeout=2.0))
    assert int(server.header("x-request-timeout").removesuffix("ms")) <= 2000


def test_nothing_is_sent_when_no_time_is_left(server):
    server.answers = [OK]
    with pytest.raises(http.NoTimeLeft):
        invoke(lambda m, c: http.get(server.url), context=fake_context(timeout=0.0))
    with pytest.raises(TimeoutError):
        http.get(server.url, timeout=0.0)
    assert server.requests == []


def test_who_sends_a_byte_now_and_then_is_not_waited_for_without_end(server):
    server.answers = [None]
    began = time.monotonic()
    with pytest.raises(http.TimedOut, match="before the answer was there") as raised:
        client().request("GET", server.url, timeout=0.2)
    assert 0.15 < time.monotonic() - began < 2
    assert raised.value.attempts == 1  # a late answer is not asked for again
    assert server.left.wait(5)


def test_what_is_idempotent_is_asked_three_times_with_growing_pauses(server):
    server.answers = [b"", BUSY.replace(b"Retry-After: 0\r\n", b""), OK]
    waits: list[float] = []

    def handler(message, context):
        return client(waits).request("GET", server.url).text

    result = invoke(handler)
    assert result.text == "ok"
    assert waits == [0.025, 0.05]
    assert [span.attributes.get("http.request.resend_count") for span in result.spans] == [
        None,
        1,
        2,
    ]
    assert [span.attributes.get("error.type") for span in result.spans] == [
        "ConnectionBroken",
        "503",
        None,
    ]
    parents = {server.header("traceparent", place).split("-")[2] for place in range(3)}
    assert parents == {span.span_id for span in result.spans}

    server.answers = [BUSY]
    answer = client().request("GET", server.url)
    assert (answer.status, answer.attempts) == (503, 3)
    with pytest.raises(http.StatusError, match="answered 503"):
        answer.raise_for_status()


@pytest.mark.parametrize(
    ("method", "options", "attempts"),
    [
        ("POST", {}, 1),
        ("PATCH", {}, 1),
        ("POST", {"idempotent": True}, 3),
        ("POST", {"headers": {"idempotency-key": "k"}}, 3),
        ("PUT", {}, 3),
        ("DELETE", {"idempotent": False}, 1),
    ],
)
def test_only_what_may_be_carried_out_twice_is_sent_again(server, method, options, attempts):
    server.answers = [BUSY]
    assert client().request(method, server.url, **options).attempts == attempts
    server.answers = [b""]
    with pytest.raises(http.ConnectionBroken) as raised:
        client().request(method, server.url, **options)
    assert raised.value.attempts == attempts


def test_without_a_connection_nothing_was_sent_so_anything_is_tried_again():
    with pytest.raises(http.NotConnected, match="cannot be reached") as raised:
        client().request("POST", f"http://127.0.0.1:{closed_port()}/")
    assert raised.value.attempts == 3
    assert isinstance(raised.value, ConnectionError)


def test_retry_after_is_kept_and_what_cannot_be_in_time_is_not_waited_for(server):
    waits: list[float] = []
    server.answers = [BUSY.replace(b"Retry-After: 0", b"Retry-After: 7"), OK]
    assert client(waits).request("GET", server.url).status == 200
    assert waits == [pytest.approx(7 * 1.05)]
    server.answers = [BUSY.replace(b"Retry-After: 0", b"Retry-After: 7")]
    waits.clear()
    answer = client(waits).request("GET", server.url, timeout=5.0)
    assert (answer.status, answer.attempts, waits) == (503, 1, [])


def test_a_server_that_always_fails_is_not_asked_more_by_retrying(server):
    server.answers = [BUSY]
    one = client(budget=lambda: http.RetryBudget(share=0.2, reserve=0.0))
    attempts = sum(one.request("GET", server.url).attempts for _ in range(50))
    assert attempts in (59, 60), attempts


def test_the_budget_forgets_after_ten_seconds():
    budget = _retry.RetryBudget(share=0.5, reserve=0.1)
    assert budget.withdraw(100.0)
    assert not budget.withdraw(100.0)
    budget.deposit(101.0)
    budget.deposit(102.0)
    assert budget.withdraw(103.0)
    assert not budget.withdraw(109.9)
    assert budget.withdraw(113.0)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("3", 3.0),
        (" 0 ", 0.0),
        ("Thu, 01 Jan 1970 00:01:40 GMT", 90.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("soon", None),
        ("-1", None),
        ("1.5", None),
    ],
)
def test_retry_after_is_read_in_both_forms(value, seconds):
    assert _retry.retry_after(value, 10.0) == seconds


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"no HTTP at all\r\n\r\n",
    ],
)
def test_half_an_answer_is_none(server, answer):
    server.answers = [answer]
    with pytest.raises(http.ConnectionBroken):
        client(attempts=1).request("GET", server.url)


def test_bodies_of_all_framings_and_no_more_than_the_limit(server):
    server.answers = [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"
    ]
    assert client().request("GET", server.url).body == b"abc"
    server.answers = [b"HTTP/1.1 200 OK\r\n\r\nto the end"]
    assert client().request("GET", server.url).body == b"to the end"
    with pytest.raises(http.AnswerTooLarge):
        client().request("GET", server.url, limit=5)
    server.answers = [b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"]
    assert client().request("HEAD", server.url).body == b""
    with pytest.raises(http.AnswerTooLarge):
        client().request("GET", server.url, limit=5)


def test_what_is_no_request_is_said_at_once():
    for url in ["ftp://a/", "http:///x", "nothing"]:
        with pytest.raises(ValueError, match="not an http or https URL"):
            http.get(url)
    with pytest.raises(ValueError, match="not both"):
        http.post("http://a/", json=1, body=b"x")


def test_credentials_of_a_url_are_in_no_span_and_no_error():
    url = f"http://user:secret@127.0.0.1:{closed_port()}/"

    def handler(message, context):
        with pytest.raises(http.NotConnected) as raised:
            client(attempts=1).request("GET", url)
        return str(raised.value)

    result = invoke(handler)
    assert "secret" not in result.text
    assert "secret" not in repr([span.attributes for span in result.spans])


def test_async_handlers_ask_side_by_side(server):
    server.answers = [OK]

    async def handler(message, context):
        answers = await asyncio.gather(*(http.aget(server.url) for _ in range(3)))
        return [answer.text for answer in answers]

    result = invoke(handler)
    assert result.json == ["ok"] * 3
    assert len({span.span_id for span in result.spans}) == 3


def test_a_cancelled_task_ends_its_request(server):
    server.answers = [None]

    async def ask() -> None:
        task = asyncio.ensure_future(http.aget(server.url))
        await asyncio.to_thread(server.asked.wait, 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(ask())
    assert server.left.wait(5)
