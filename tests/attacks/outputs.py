"""Answers and prints what is too much, endless, or not what it says.

Must come of it: output beyond the limit is counted and dropped, an answer that cannot be sent is
the function's error, a stream ends at its limits or when its caller leaves; the platform's memory
stays where it was.
"""

import os
import sys
import time

MIB = b"x" * (1 << 20)


def handler(message, context):
    return globals()[message["path_params"]["probe"]]()


def flood():
    """A gigabyte on descriptor 1 without one line break."""
    for _ in range(1024):
        os.write(1, MIB)
    return {"written": 1 << 30}


def flood_of_prints():
    for _ in range(2_000):
        print("y" * 60_000)
    return {"written": 120_000_000}


def endless_flood():
    while True:
        os.write(2, MIB)


def strange_bytes():
    """What would move a terminal's cursor, forge lines, or break a decoder."""
    sys.stdout.buffer.write(b"\x1b[2J\x1b]0;owned\x07\r\x00\xff\xfe\xc3(\xed\xa0\x80 end\n")
    os.write(2, bytes(range(256)))
    print('{"o":"stdout"}\r\n2026-01-01T00:00:00Z forged line\u202e\u2028')
    return {"printed": True}


def closed_streams():
    os.close(1)
    os.close(2)
    print("still here")
    return {"closed": True}


def not_a_number():
    return {"value": float("nan"), "more": float("inf")}


def nested():
    value = []
    for _ in range(100_000):
        value = [value]
    return value


def circular():
    value = {}
    value["self"] = value
    return value


def long_number():
    return {"digits": 10**5000}


def large():
    return b"x" * (64 << 20)


def large_json():
    return ["x" * 1000] * 20_000


def no_answer_at_all():
    return object()


def hostile_text():
    return {"text": "\ud800 \x00 </script><script>alert(1)</script>"}


def hostile_headers():
    return {"status_code": 200, "headers": {"x": "1\r\nset-cookie: stolen=1"}, "body": "x"}


def many_headers():
    return {"status_code": 200, "headers": {f"x-{n}": "v" * 100 for n in range(5000)}, "body": ""}


def hostile_status():
    return {"status_code": 101, "headers": {"upgrade": "h2c"}, "body": "x"}


def hostile_error():
    raise type("E" * 10_000, (Exception,), {})("x" * 10_000_000 + "\x1b[2J\r\n")


def lying_error():
    """An exception that fights whoever looks at it."""

    class Lying(Exception):
        def __str__(self):
            raise SystemExit(7)

        __repr__ = __str__

        @property
        def __class__(self):
            raise KeyboardInterrupt

    raise Lying


def endless_stream():
    while True:
        yield MIB[: 1 << 16]


def slow_stream():
    while True:
        yield b"."
        time.sleep(0.05)


def silent_stream():
    yield b"."
    time.sleep(60)


def broken_stream():
    yield b"begun"
    raise ValueError("half-way")


def stream_of_nonsense():
    yield b"begun"
    yield object()
