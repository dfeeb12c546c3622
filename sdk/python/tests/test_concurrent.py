"""Several calls at once in one worker."""

from __future__ import annotations

import json

import pytest
from platform_double import (
    ANSWER,
    EXIT,
    FAILURE,
    LOG,
    PAUSE,
    RESUME,
    STREAM_CHUNK,
    STREAM_END,
    STREAM_HEAD,
)

GATE = """
    import asyncio
    from functionsplatform.sdk import tracing
    gates = {}
    async def handler(message, context):
        path = message["path"]
        print("began", path)
        if path.startswith("/open/"):
            gates.setdefault(path[6:], asyncio.Event()).set()
            return "opened"
        with tracing.start_span(None, path):
            try:
                await gates.setdefault(path[1:], asyncio.Event()).wait()
            finally:
                print("ended", path)
        return {"path": path, "id": context.invocation_id}
"""


@pytest.fixture
def worker(start):
    return start(GATE, concurrency=8)


def by_serial(frames):
    grouped = {}
    for frame in frames:
        grouped.setdefault(frame.serial, []).append(frame)
    return grouped


def take(worker, ends):
    """Frames until so many calls have ended."""
    frames = []
    while sum(frame.kind in (ANSWER, FAILURE, STREAM_END) for frame in frames) < ends:
        frames.append(worker.receive())
    return frames


def test_answers_come_when_they_are_ready(worker):
    a = worker.begin(p="/a")
    b = worker.begin(p="/b")
    opener_b = worker.begin(p="/open/b")
    frames = take(worker, 2)
    assert [f.serial for f in frames if f.kind == ANSWER] == [opener_b, b]
    opener_a = worker.begin(p="/open/a")
    frames += take(worker, 2)
    assert [f.serial for f in frames if f.kind == ANSWER] == [opener_b, b, opener_a, a]
    calls = by_serial(frames)
    for serial, path in ((a, "/a"), (b, "/b")):
        logs = b"".join(f.body for f in calls[serial] if f.kind == LOG).decode()
        assert logs == f"began {path}\nended {path}\n"
        assert json.loads(calls[serial][-1].body) == {"path": path, "id": f"inv-{serial}"}
        (span,) = calls[serial][-1].head["sp"]
        assert span["n"] == path


def test_a_deadline_ends_one_call_only(worker):
    slow = worker.begin(p="/slow", d=300)
    other = worker.begin(p="/other")
    frames = take(worker, 1)
    assert frames[-1].serial == slow
    assert frames[-1].head["kind"] == "deadline_exceeded"
    assert b"ended /slow\n" in [f.body for f in frames if f.serial == slow]
    worker.begin(p="/open/other")
    assert other in [f.serial for f in take(worker, 2) if f.kind == ANSWER]


def test_a_cancel_notice_ends_one_call_only(worker):
    first = worker.begin(p="/first")
    second = worker.begin(p="/second")
    assert {worker.receive().serial, worker.receive().serial} == {first, second}
    worker.cancel(first)
    frames = take(worker, 1)
    assert (frames[-1].serial, frames[-1].head["kind"]) == (first, "cancelled")
    worker.begin(p="/open/second")
    assert second in [f.serial for f in take(worker, 2) if f.kind == ANSWER]


def test_an_early_cancel_notice_keeps_the_handler_from_running(worker):
    worker.cancel(77)
    worker.call(p="/open/x")
    worker.begin(serial=77)
    (frame,) = take(worker, 1)
    assert frame.head["kind"] == "cancelled"


def test_streams_interleave(start):
    worker = start(
        """
        import asyncio
        async def handler(message, context):
            for number in range(3):
                yield f"{message['path']}{number}"
                await asyncio.sleep(0)
        """,
        concurrency=4,
    )
    serials = [worker.begin(p=path) for path in "ab"]
    calls = by_serial(take(worker, 2))
    for serial, path in zip(serials, "ab", strict=True):
        kinds = [frame.kind for frame in calls[serial]]
        assert kinds == [STREAM_HEAD, STREAM_CHUNK, STREAM_CHUNK, STREAM_CHUNK, STREAM_END]
        chunks = [frame.body.decode() for frame in calls[serial] if frame.kind == STREAM_CHUNK]
        assert chunks == [f"{path}{number}" for number in range(3)]


def test_a_paused_stream_waits_and_the_others_go_on(start):
    worker = start(
        """
        async def handler(message, context):
            if message["path"] == "/other":
                yield "other"
            for number in range(2_000):
                yield b"%05d" % number
        """,
        concurrency=4,
    )
    slow = worker.begin(p="/slow")
    seen = [worker.receive()]
    worker.send(PAUSE, slow, {})
    other = worker.begin(p="/other")
    seen += take(worker, 1)
    assert (seen[-1].serial, seen[-1].kind) == (other, STREAM_END)
    worker.send(RESUME, slow, {})
    seen += take(worker, 1)
    assert (seen[-1].serial, seen[-1].kind) == (slow, STREAM_END)
    chunks = [f.body for f in seen if f.serial == slow and f.kind == STREAM_CHUNK]
    assert chunks == [b"%05d" % number for number in range(2_000)]


def test_a_paused_stream_can_be_cancelled(start):
    worker = start(
        """
        async def handler(message, context):
            while True:
                yield "more"
        """,
        concurrency=4,
    )
    serial = worker.begin()
    worker.receive()
    worker.send(PAUSE, serial, {})
    worker.cancel(serial)
    frames = take(worker, 1)
    assert (frames[-1].serial, frames[-1].head["kind"]) == (serial, "cancelled")


def test_failures_and_exits_end_their_call_only(start):
    worker = start(
        """
        import sys
        async def handler(message, context):
            match message["path"]:
                case "/raise": raise ValueError("bad")
                case "/exit": sys.exit(2)
                case "/nan": return [float("nan")]
                case "/large": return "x" * 300_000
            return message["body"]
        """,
        concurrency=4,
    )
    assert worker.call(p="/raise").head["exception_type"] == "ValueError"
    assert worker.call(p="/exit").head["exception_type"] == "SystemExit"
    assert "result[0] is nan" in worker.call(p="/nan").head["message"]
    assert worker.call(p="/large").last.flags == 1
    body = b"x" * 400_000
    assert worker.call(body).body == body


def test_exit_lets_calls_finish(worker):
    a = worker.begin(p="/a")
    worker.receive()
    worker.begin(p="/open/a")
    worker.send(EXIT, 0, {})
    assert a in [f.serial for f in take(worker, 2)]
    assert worker.process.wait(10) == 0


def test_hanging_up_ends_the_worker(worker):
    worker.begin(p="/a")
    worker.receive()
    assert worker.end()[0] == 0


def test_a_wrong_frame_ends_the_worker(worker):
    worker.send(ANSWER, 0, {})
    assert worker.process.wait(10) == 70
