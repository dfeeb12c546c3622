"""Deadlines and cancellation: where they are raised, and where they are not."""

from __future__ import annotations

import signal

import pytest
from platform_double import LOG, STREAM_CHUNK, STREAM_END, STREAM_HEAD

SLEEPER = """
    import time
    def handler(message, context):
        try:
            print("began")
            time.sleep(30)
        except Exception:
            print("swallowed")
        finally:
            print("cleaned up", context.cancelled)
"""

WAITERS = {
    "sleep": "import time\ndef wait(): time.sleep(30)",
    "loop": "def wait():\n    while True: pass",
    "lock": "import threading\nlock = threading.Lock(); lock.acquire()\ndef wait(): lock.acquire()",
    "read": "import os\nr, w = os.pipe()\ndef wait(): os.read(r, 1)",
    "child": "import subprocess\ndef wait(): subprocess.run(['sleep', '30'])",
    "pool": (
        "import concurrent.futures, threading\nstop = threading.Event()\n"
        "def wait():\n"
        "    with concurrent.futures.ThreadPoolExecutor(2) as pool:\n"
        "        try: pool.submit(stop.wait, 30).result()\n"
        "        finally: stop.set()"
    ),
}


def test_the_deadline_ends_the_handler_and_runs_its_finally(start):
    worker = start(SLEEPER)
    outcome = worker.call(d=300)
    assert outcome.failed
    assert outcome.head["kind"] == "deadline_exceeded"
    assert outcome.head["exception_type"] == "DeadlineExceeded"
    assert outcome.logs() == "began\ncleaned up True\n"
    assert outcome.head["frames"][-1][2] == "handler"


@pytest.mark.parametrize("how", WAITERS)
def test_the_deadline_interrupts_whatever_the_handler_does(start, how):
    worker = start(f"{WAITERS[how]}\ndef handler(m, c): wait()\n")
    assert worker.call(d=50).head["kind"] == "deadline_exceeded"


@pytest.mark.parametrize("how", WAITERS)
def test_a_cancel_notice_interrupts_whatever_the_handler_does(start, how):
    worker = start(f"{WAITERS[how]}\ndef handler(m, c):\n    print('began')\n    wait()\n")
    serial = worker.begin()
    assert worker.receive().kind == LOG
    worker.cancel(serial)
    assert worker.finish().head["kind"] == "cancelled"


@pytest.mark.parametrize(
    "wait",
    [
        "await asyncio.sleep(30)",
        "await asyncio.gather(asyncio.sleep(30), asyncio.sleep(29))",
        "time.sleep(30)",
        "await asyncio.gather(spin())",
    ],
)
@pytest.mark.parametrize("how", ["deadline", "cancel"])
def test_coroutines_are_interrupted_where_they_run_or_wait(start, wait, how):
    worker = start(f"""
        import asyncio, time
        async def spin():
            while True:
                pass
        async def handler(message, context):
            if message["path"] == "/quick":
                return 1
            try:
                print("began")
                {wait}
            finally:
                print("cleaned up")
    """)
    serial = worker.begin(d=500 if how == "deadline" else 10_000)
    assert worker.receive().body == b"began\n"
    if how == "cancel":
        worker.cancel(serial)
    outcome = worker.finish()
    assert outcome.head["kind"] == ("deadline_exceeded" if how == "deadline" else "cancelled")
    assert outcome.logs() == "cleaned up\n"
    assert worker.call(p="/quick").json == 1, "the loop is whole"


def test_the_next_call_is_whole_after_an_interruption(start):
    worker = start("""
        import time
        def handler(message, context):
            if message["path"] == "/slow":
                time.sleep(30)
            return context.remaining_ms() > 1000
    """)
    for _ in range(3):
        assert worker.call(p="/slow", d=30).failed
        assert worker.call().json is True


def test_a_shorter_deadline_after_a_longer_one_counts(start):
    worker = start("import time\ndef handler(m, c): time.sleep(float(m['query']['s'])) or 1")
    assert not worker.call(q="s=0", d=60_000).failed
    assert worker.call(q="s=30", d=50).head["kind"] == "deadline_exceeded"
    # The timer was for an earlier deadline than this one; it must be set anew.
    assert not worker.call(q="s=0", d=3000).failed
    assert worker.call(q="s=30", d=200).head["kind"] == "deadline_exceeded"


def test_a_swallowed_interruption_is_still_the_outcome(start):
    worker = start("""
        import time
        def handler(message, context):
            try:
                time.sleep(30)
            except BaseException:
                return "fine"
    """)
    assert worker.call(d=50).head["kind"] == "deadline_exceeded"


def test_a_deadline_between_calls_is_nobodys(start):
    worker = start("def handler(m, c): return 1")
    for _ in range(5):
        assert worker.call().json == 1
        worker.process.send_signal(signal.SIGALRM)
        worker.process.send_signal(signal.SIGIO)
    assert worker.call().json == 1


def test_a_cancel_notice_for_another_call_does_nothing(start):
    worker = start("def handler(m, c):\n    print('x')\n    return input and 1")
    first = worker.begin()
    assert worker.finish().json == 1
    worker.cancel(first)  # late
    assert worker.call().json == 1
    worker.cancel(999)  # of no call yet
    assert worker.call().json == 1
    worker.begin(serial=999)
    outcome = worker.finish()
    assert outcome.head["kind"] == "cancelled"
    assert not outcome.logs(), "the handler never ran"


def test_cancelling_while_lines_are_printed_never_breaks_a_frame(start):
    worker = start(
        """
        def handler(message, context):
            if message["path"] == "/quick":
                return 1
            while True:
                print("x" * 100)
    """,
        log_limit=1 << 30,
    )
    for _ in range(20):
        serial = worker.begin()
        for _ in range(20):
            assert worker.receive().kind == LOG
        worker.cancel(serial)
        outcome = worker.finish()
        assert outcome.head["kind"] == "cancelled"
        assert set(outcome.logs()) <= {"x", "\n"}
    assert worker.call(p="/quick").json == 1


def test_a_stream_is_cancelled_and_closed(start):
    worker = start("""
        import itertools, time
        def handler(message, context):
            try:
                for number in itertools.count():
                    yield str(number)
                    time.sleep(0.001)
            finally:
                print("closed")
    """)
    serial = worker.begin(d=400)
    assert worker.receive().kind == STREAM_HEAD
    for _ in range(500):  # beyond the deadline, which ended with the first byte
        assert worker.receive().kind == STREAM_CHUNK
    worker.cancel(serial)
    outcome = worker.finish()
    assert outcome.head["kind"] == "cancelled"
    assert outcome.logs() == "closed\n"


def test_an_async_stream_is_cancelled_and_closed(start):
    worker = start("""
        import asyncio
        async def handler(message, context):
            try:
                while True:
                    yield "x"
                    await asyncio.sleep(0.001)
            finally:
                print("closed")
    """)
    serial = worker.begin()
    for _ in range(20):
        worker.receive()
    worker.cancel(serial)
    outcome = worker.finish()
    assert outcome.head["kind"] == "cancelled"
    assert outcome.logs() == "closed\n"


def test_the_deadline_counts_until_the_first_byte_of_a_stream(start):
    worker = start("import time\ndef handler(m, c):\n    time.sleep(30)\n    yield 1")
    assert worker.call(d=50).head["kind"] == "deadline_exceeded"


def test_threads_can_look(start):
    worker = start("""
        import threading, time
        def handler(message, context):
            seen = threading.Event()
            def look():
                while not context.cancelled:
                    time.sleep(0.001)
                seen.set()
            threading.Thread(target=look).start()
            try:
                time.sleep(30)
            finally:
                print(seen.wait(5))
    """)
    assert worker.call(d=300).logs() == "True\n"


def test_thousands_of_calls_cost_few_timers(start):
    worker = start("def handler(m, c): return 1")
    for _ in range(2000):
        worker.begin(d=1000)
        assert worker.finish().last.kind != STREAM_END
