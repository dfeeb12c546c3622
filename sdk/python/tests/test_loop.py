"""The worker's loop: loading, calls, failures, streams, limits, the end."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from platform_double import (
    ANSWER,
    EXIT,
    LOAD_FAILED,
    LOADED,
    LOG,
    RUNTIME,
    STREAM_CHUNK,
    STREAM_END,
    STREAM_HEAD,
    WARM_SERVE,
    Worker,
)

ECHO = """
    def handler(message, context):
        return {key: value for key, value in message.items() if key != "raw_body"}
"""


def returning(expression: str) -> str:
    return f"""
        def handler(message, context):
            return {expression}
    """


# ---- hello and load -------------------------------------------------------------------------


def test_hello_says_protocol_and_python(start):
    worker = start()
    assert worker.hello.head["protocol"] == 1
    assert worker.hello.head["python"].startswith("3.")
    assert worker.hello.serial == 0


def test_a_blank_worker_ends_quietly(start):
    assert start().end() == (0, "", "")


def test_exit_ends_a_loaded_worker(start):
    worker = start(ECHO)
    worker.send(EXIT, 0, {})
    assert worker.process.wait(10) == 0


def test_a_frame_out_of_place_is_a_protocol_error(start):
    worker = start()
    worker.send(ANSWER, 0, {})
    assert worker.process.wait(10) == 70


def test_an_oversized_frame_is_refused_before_it_is_read(start):
    worker = start(ECHO)
    worker.stream.sendall(b"\xff\xff\xff\x7f" + b"\x02" + b"\0" * 15)
    assert worker.process.wait(10) == 70


def test_output_while_loading_is_in_loaded(start):
    worker = start()
    loaded = worker.load("print('hello from the top')\ndef handler(m, c): return 1\n")
    assert loaded.kind == LOADED
    assert loaded.head == {"is_async": False, "output": "hello from the top\n"}


@pytest.mark.parametrize(
    "source",
    [
        "async def handler(m, c): return 1",
        "async def handler(m, c): yield 1",
        "class H:\n    async def __call__(self, m, c): return 1\nhandler = H()",
        "import functools\nasync def h(x, m, c): return 1\nhandler = functools.partial(h, 1)",
    ],
)
def test_async_handlers_are_told(start, source):
    assert start().load(source).head["is_async"] is True


@pytest.mark.parametrize(
    ("source", "message", "line"),
    [
        ("x = 1\ndef handler(m, c)\n    return 1\n", "SyntaxError: expected ':'", 2),
        ("def handler(m, c):\nreturn 1\n", "IndentationError", 2),
        ("def other(m, c): pass\n", "handler.py has no handler; it has other", None),
        ("handler = 3\n", "handler in handler.py is not callable, it is of type int", None),
        ("\ndef handler(m): pass\n", "must take two arguments", 2),
        ("def handler(): pass\n", "handler(message, context)", 1),
    ],
)
def test_a_bad_handler_is_refused_with_its_line(start, source, message, line):
    failed = start().load(source)
    assert failed.kind == LOAD_FAILED
    assert failed.head["kind"] == "bad_handler"
    assert message in failed.head["message"]
    assert failed.head.get("line") == line
    if "Error" in message:
        place, *_, last = failed.head["traceback"].splitlines()
        assert place.endswith(f'handler.py", line {line}')
        assert last.startswith(message)
    else:
        assert failed.head["traceback"] == ""


def test_a_module_that_raises_fails_with_its_traceback(start):
    failed = start().load("print('before')\nimport does_not_exist\ndef handler(m, c): pass\n")
    assert failed.kind == LOAD_FAILED
    assert failed.head["kind"] == "exception"
    assert failed.head["exception_type"] == "ModuleNotFoundError"
    assert failed.head["line"] == 2
    assert "functionsplatform_runtime" not in failed.head["traceback"]
    assert failed.head["frames"] == [["handler.py", 2, "<module>", "import does_not_exist"]]
    assert failed.head["output"] == "before\n"


def test_output_while_loading_is_bounded_in_the_head(start):
    loaded = start().load("print('\\0' * 1_000_000)\ndef handler(m, c): return 1\n")
    assert loaded.kind == LOADED
    assert len(loaded.head["output"]) == 128 * 1024


def test_sys_exit_while_loading_is_an_exception(start):
    failed = start().load("import sys\nsys.exit(3)\n")
    assert (failed.head["kind"], failed.head["exception_type"]) == ("exception", "SystemExit")


def test_a_missing_file_names_those_that_are_there(start):
    worker = start()
    (worker.code_dir / "main.py").write_text("")
    failed = worker.load(file="handler.py")
    assert failed.head["kind"] == "bad_handler"
    assert "no file handler.py" in failed.head["message"]
    assert "main.py" in failed.head["message"]


def test_the_module_finds_itself_its_neighbours_and_its_path(start):
    worker = start()
    (worker.code_dir / "lib").mkdir()
    (worker.code_dir / "lib" / "vendored.py").write_text("WHAT = 'vendored'")
    (worker.code_dir / "near.py").write_text("WHAT = 'near'")
    loaded = worker.load(
        """
        import os, near, vendored
        def handler(message, context):
            return [near.WHAT, vendored.WHAT, os.path.basename(__file__), __name__,
                    os.getcwd() == os.path.dirname(__file__), os.environ["LEVEL"]]
        """,
        path=["lib"],
        env={"LEVEL": "high"},
    )
    assert loaded.kind == LOADED, loaded
    assert worker.call().json == ["near", "vendored", "handler.py", "handler", True, "high"]


def test_a_file_in_a_package_can_import_relatively(start):
    worker = start()
    (worker.code_dir / "app").mkdir()
    (worker.code_dir / "app" / "near.py").write_text("WHAT = 'near'")
    loaded = worker.load(
        "from .near import WHAT\ndef run(m, c): return [WHAT, __name__]",
        file="app/main.py",
        name="run",
    )
    assert loaded.kind == LOADED, loaded
    assert worker.call().json == ["near", "app.main"]


def test_a_handler_named_like_a_standard_module_leaves_that_alone(start):
    worker = start("import json\ndef handler(m, c): return json.loads('1')", file="queue.py")
    assert worker.call().json == 1


# ---- message --------------------------------------------------------------------------------


def test_the_message_has_the_whole_request(start):
    worker = start(ECHO)
    head = {
        "v": "PUT",
        "p": "/cats/7",
        "q": "a=1&b=%20x&a=2&empty=",
        "h": {"content-type": "application/json", "x-one": "1"},
        "pp": {"id": "7"},
    }
    assert worker.call(b'{"name": "Tom"}', **head).json == {
        "headers": head["h"],
        "body": {"name": "Tom"},
        "path": "/cats/7",
        "verb": "PUT",
        "message_type": "http",
        "query": {"a": "2", "b": " x", "empty": ""},
        "query_all": {"a": ["1", "2"], "b": [" x"], "empty": [""]},
        "path_params": {"id": "7"},
    }


def test_header_names_are_found_in_any_case(start):
    worker = start("""
        def handler(message, context):
            h = message["headers"]
            return [h["X-One"], h.get("x-ONE"), "X-ONE" in h, h.get("none", 5), isinstance(h, dict)]
    """)
    assert worker.call(h={"x-one": "1"}).json == ["1", "1", True, 5, True]


def test_invalid_json_under_a_json_type_is_a_bad_request(start):
    worker = start(ECHO)
    outcome = worker.call(b"{", h={"content-type": "application/json"})
    assert outcome.failed
    assert outcome.head["exception_type"] == "BadRequest"


def test_large_bodies_come_and_go_by_memfd(start):
    worker = start(returning("message['raw_body']"))
    body = os.urandom(3 << 20)
    for _ in range(2):
        outcome = worker.call(body)
        assert outcome.body == body
        assert outcome.last.flags == 1
        assert outcome.head["k"] == "bytes"
        assert worker.sealed == 0xF


# ---- answers --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "head", "body"),
    [
        ("{'result': 4, 'status': 'noice'}", {}, b'{"result": 4, "status": "noice"}'),
        ("[1, 2.5, True, None]", {}, b"[1, 2.5, true, null]"),
        ("(1, 2)", {}, b"[1, 2]"),
        ("7", {}, b"7"),
        ("True", {}, b"true"),
        ("'gr\\u00fc\\u00df'", {"k": "text"}, "grüß".encode()),
        ("b'\\x00\\x01'", {"k": "bytes"}, b"\0\1"),
        ("bytearray(b'x')", {"k": "bytes"}, b"x"),
        ("None", {"k": "none"}, b""),
        ("{'status_code': 201, 'body': {'a': 1}}", {"s": 201}, b'{"a": 1}'),
        ("{'statusCode': 404, 'body': 'no'}", {"s": 404, "k": "text"}, b"no"),
        ("{'status_code': 204}", {"s": 204, "k": "none"}, b""),
        ("{'status_code': __import__('http').HTTPStatus.NOT_FOUND}", {"s": 404, "k": "none"}, b""),
        ("{'status_code': 200.0}", {}, b'{"status_code": 200.0}'),
        ("__import__('collections').OrderedDict(status_code=204)", {"s": 204, "k": "none"}, b""),
        ("{'status_code': 200, 'other': 1}", {}, b'{"status_code": 200, "other": 1}'),
        ("{'status_code': 99}", {}, b'{"status_code": 99}'),
        ("{'status_code': True}", {}, b'{"status_code": true}'),
        ("{'status_code': '200'}", {}, b'{"status_code": "200"}'),
        (
            "{'statusCode': 200, 'body': 'AAE=', 'isBase64Encoded': True}",
            {"s": 200, "k": "bytes"},
            b"\0\1",
        ),
        (
            "{'status_code': 302, 'headers': {'Location': '/x', 'N': 5, 'Via': ['a', 'b']},"
            " 'cookies': ['a=1', 'b=2']}",
            {
                "s": 302,
                "k": "none",
                "h": [
                    ["Location", "/x"],
                    ["N", "5"],
                    ["Via", "a"],
                    ["Via", "b"],
                    ["set-cookie", "a=1"],
                    ["set-cookie", "b=2"],
                ],
            },
            b"",
        ),
    ],
)
def test_return_values(start, expression, head, body):
    outcome = start(returning(expression)).call()
    assert outcome.last.kind == ANSWER, outcome
    assert outcome.body == body
    assert {key: value for key, value in outcome.head.items() if key != "u"} == head


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("{'a': [1, 2, float('nan')]}", 'result["a"][2] is nan'),
        ("[float('inf')]", "result[0] is inf"),
        ("{'when': {1, 2}}", 'result["when"] is of type set'),
        ("{'a': {(1, 2): 3}}", 'result["a"] has a key of type tuple'),
        ("object()", "result is of type object"),
        ("{'status_code': 200, 'body': {'x': 1j}}", 'result["body"]["x"] is of type complex'),
        ("{'status_code': 200, 'headers': {'a b': '1'}}", "'a b' is not a header name"),
        ("{'status_code': 200, 'headers': {'a': '1\\r\\nx: y'}}", "contains a line break"),
        ("{'status_code': 200, 'headers': 5}", "must be a dict or a list of pairs"),
        ("{'status_code': 200, 'cookies': [1]}", 'result["cookies"][0] must be a string'),
        ("{'status_code': 200, 'headers': {'a': 'x' * 70_000}}", "the limit is 65536"),
        ("{'status_code': 200, 'isBase64Encoded': True, 'body': '!'}", "is not base64"),
    ],
)
def test_what_cannot_be_sent_names_its_place(start, expression, message):
    worker = start(returning(expression))
    for _ in range(2):  # the encoder is whole after a failure
        outcome = worker.call()
        assert outcome.failed
        assert outcome.head["kind"] == "exception"
        assert message in outcome.head["message"]


def test_a_value_that_contains_itself_is_refused(start):
    outcome = start("def handler(m, c):\n    a = []\n    a.append(a)\n    return {'a': a}").call()
    assert outcome.head["message"] == 'result["a"][0] contains itself, which JSON cannot hold'


def test_an_answer_over_the_limit_is_not_sent(start):
    worker = start(returning("'x' * 1001"), response_limit=1000)
    outcome = worker.call()
    assert outcome.head["kind"] == "response_too_large"
    assert "1001 bytes, the limit is 1000" in outcome.head["message"]


def test_usage_is_told(start):
    usage = start(returning("sum(range(200_000)) and print('hi')")).call().head["u"]
    assert usage["c"] > 100
    assert usage["m"] > 4096
    assert usage["l"] == 3


# ---- failures -------------------------------------------------------------------------------


def test_an_exception_shows_the_authors_code_only(start):
    worker = start("""
        def handler(message, context):
            return helper(message)

        def helper(message):
            try:
                return message["none"]
            except KeyError as error:
                raise ValueError("no order id") from error
    """)
    outcome = worker.call()
    assert outcome.failed
    head = outcome.head
    assert (head["kind"], head["exception_type"]) == ("exception", "ValueError")
    assert head["message"] == "no order id"
    assert "runtime" not in head["traceback"]
    assert "KeyError: 'none'" in head["traceback"]
    assert head["frames"] == [
        ["handler.py", 3, "handler", "return helper(message)"],
        ["handler.py", 9, "helper", 'raise ValueError("no order id") from error'],
    ]
    assert worker.call().failed, "the worker goes on"


@pytest.mark.parametrize(
    ("statement", "kind", "message"),
    [
        ("sys.exit(3)", "SystemExit", "the handler called sys.exit(3)"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt", ""),
        ("raise Odd", "Odd", "<Odd whose text raised ZeroDivisionError>"),
        ("raise ValueError('x' * 10_000)", "ValueError", "x" * 4096),
        ("raise ValueError('\\ud800')", "ValueError", "?"),
    ],
)
def test_odd_exceptions_are_failures_too(start, statement, kind, message):
    worker = start(f"""
        import sys
        class Odd(Exception):
            def __str__(self):
                return str(1 / 0)
        def handler(message, context):
            {statement}
    """)
    outcome = worker.call()
    assert outcome.failed
    assert outcome.head["exception_type"] == kind
    assert outcome.head["message"] == message
    assert worker.call().failed


def test_a_runaway_recursion_is_bounded(start):
    outcome = start("def handler(m, c):\n    return handler(m, c)\n").call()
    assert outcome.head["exception_type"] == "RecursionError"
    assert len(outcome.head["traceback"].encode()) <= 16 * 1024
    assert len(outcome.head["frames"]) <= 64


# ---- streams --------------------------------------------------------------------------------


def test_a_generator_streams(start):
    worker = start("""
        def handler(message, context):
            print("before")
            yield "one "
            yield b"two"
            print("after")
    """)
    outcome = worker.call()
    kinds = [frame.kind for frame in outcome.frames]
    assert kinds == [LOG, STREAM_HEAD, STREAM_CHUNK, STREAM_CHUNK, LOG, STREAM_END]
    assert outcome.chunks == [b"one ", b"two"]
    assert outcome.stream_head == {"k": "text"}
    assert outcome.head["u"]["l"] == 13


def test_an_async_generator_streams_in_one_context(start):
    worker = start("""
        import asyncio, contextvars
        var = contextvars.ContextVar("v", default=0)
        async def handler(message, context):
            for number in range(3):
                await asyncio.sleep(0)
                yield {"n": number, "v": var.get()}
                var.set(number + 1)
    """)
    outcome = worker.call()
    assert [json.loads(chunk) for chunk in outcome.chunks] == [
        {"n": 0, "v": 0},
        {"n": 1, "v": 1},
        {"n": 2, "v": 2},
    ]
    assert outcome.stream_head == {"h": [["content-type", "application/x-ndjson"]]}


def test_events_are_framed_where_the_function_says_so(start):
    worker = start("""
        def handler(message, context):
            return {"status_code": 200, "headers": {"Content-Type": "text/event-stream"},
                    "body": events()}
        def events():
            yield {"n": 1}
            yield "two\\nlines"
            yield {"event": "tick", "data": {"n": 3}}
            yield "event: own\\ndata: 4\\n\\n"
    """)
    outcome = worker.call()
    assert outcome.chunks == [
        b'data: {"n": 1}\n\n',
        b"data: two\ndata: lines\n\n",
        b'event: tick\ndata: {"n": 3}\n\n',
        b"event: own\ndata: 4\n\n",
    ]
    assert outcome.stream_head["s"] == 200


def test_an_exception_before_the_first_chunk_is_an_ordinary_failure(start):
    outcome = start("def handler(m, c):\n    raise ValueError(1)\n    yield 1").call()
    assert [frame.kind for frame in outcome.frames] == [24]


def test_an_exception_in_a_stream_ends_it(start):
    outcome = start("def handler(m, c):\n    yield 'a'\n    raise ValueError('late')").call()
    assert [frame.kind for frame in outcome.frames] == [STREAM_HEAD, STREAM_CHUNK, 24]
    assert outcome.head["message"] == "late"


def test_an_empty_stream_has_a_head(start):
    outcome = start("def handler(m, c):\n    return iter(())").call()
    assert [frame.kind for frame in outcome.frames] == [STREAM_HEAD, STREAM_END]


def test_a_large_chunk_is_sent_in_pieces(start):
    outcome = start("def handler(m, c):\n    yield b'x' * 600_000").call()
    assert b"".join(outcome.chunks) == b"x" * 600_000
    assert len(outcome.chunks) == 3


def test_a_stream_waits_for_its_reader(start):
    worker = start("""
        import os
        def handler(message, context):
            for number in range(200):
                os.write(1, b".")
                yield b"x" * 65536
    """)
    worker.begin()
    worker.receive()
    # The pipe has as many dots as chunks were made: a few sockets full, not all 200.
    for _ in range(3):
        worker.receive()
    os.set_blocking(worker.process.stdout.fileno(), False)
    made = len(os.read(worker.process.stdout.fileno(), 1000))
    assert 3 <= made < 100
    assert worker.finish().last.kind == STREAM_END


# ---- coroutines -----------------------------------------------------------------------------


def test_an_async_handler_keeps_its_loop(start):
    worker = start("""
        import asyncio
        queue = asyncio.Queue()
        loops = set()
        async def handler(message, context):
            loops.add(asyncio.get_running_loop())
            queue.put_nowait(1)
            await asyncio.sleep(0.001)
            return [await queue.get(), len(loops)]
    """)
    assert worker.call().json == [1, 1]
    assert worker.call().json == [1, 1]


def test_a_handler_may_return_an_awaitable(start):
    worker = start("""
        async def work():
            return "done"
        def handler(message, context):
            return work()
    """)
    assert worker.call().body == b"done"


def test_async_failures_have_the_authors_frames(start):
    worker = start("async def handler(m, c):\n    raise ValueError('x')\n")
    head = worker.call().head
    assert head["frames"] == [["handler.py", 2, "handler", "raise ValueError('x')"]]
    assert "asyncio" not in head["traceback"]


# ---- the process ----------------------------------------------------------------------------


def test_context_is_a_mapping_with_attributes(start):
    worker = start(
        """
        def handler(message, context):
            return {
                "function_name": context["function_name"], "version": context.version,
                "id": context.invocation_id, "correlation": context.get("correlation_id"),
                "sql": context["services"]["sql_db"], "queue": context["message_queue_uri"],
                "left": 4000 < context.remaining_ms() <= 5000, "cancelled": context.cancelled,
                "tracing": context.tracing_context, "none": context.get("nothing"),
                "keys": sorted(context), "logger": context.logger.name,
            }
        """,
        services={"sql_db": "postgresql://db/x"},
        message_queue_uri="mq",
    )
    result = worker.call(d=5000, ts="a=b").json
    keys = result.pop("keys")
    assert {"tracer", "services", "deadline", "remaining_ms", "cancelled"} <= set(keys)
    assert result == {
        "function_name": "tester",
        "version": 3,
        "id": "inv-1",
        "correlation": "corr-1",
        "sql": "postgresql://db/x",
        "queue": "mq",
        "left": True,
        "cancelled": False,
        "tracing": {"traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01", "tracestate": "a=b"},
        "none": None,
        "logger": "tester",
    }


def test_a_child_of_the_handler_has_no_part_in_the_conversation(start):
    worker = start("""
        import os
        def handler(message, context):
            pid = os.fork()
            if pid == 0:
                print("from the child")
                return "the child's answer"
            os.waitpid(pid, 0)
            return "the parent's answer"
    """)
    assert worker.call().body == b"the parent's answer"
    assert worker.call().body == b"the parent's answer"
    _, out, _ = worker.end()
    assert out == "from the child\n" * 2


def test_a_process_pool_works(start):
    worker = start("""
        import concurrent.futures, multiprocessing
        def double(x):
            return 2 * x
        def handler(message, context):
            method = multiprocessing.get_context("fork")
            with concurrent.futures.ProcessPoolExecutor(2, method) as pool:
                return list(pool.map(double, [1, 2, 3]))
    """)
    assert worker.call().json == [2, 4, 6]


def test_ctrl_c_in_the_terminal_leaves_workers_alone(start):
    worker = start(
        "import time\ndef handler(m, c):\n    print('x')\n    time.sleep(0.2)\n    return 1"
    )
    worker.begin()
    worker.receive()
    worker.process.send_signal(signal.SIGINT)
    assert worker.finish().json == 1


def test_a_hello_after_a_warm_start(tmp_path):
    worker = Worker(tmp_path, program=WARM_SERVE)
    try:
        worker.load("import threading\ndef handler(m, c): return threading.active_count()")
        assert worker.call().json == 1
    finally:
        assert worker.end()[0] == 0


def test_random_states_differ_between_workers(tmp_path):
    # Two workers whose parent had the same seed, as forks of one zygote have.
    seeded = WARM_SERVE.replace("warm()", "warm(); import random, uuid; random.seed(1)")
    values = []
    for number in range(2):
        (tmp_path / str(number)).mkdir()
        worker = Worker(tmp_path / str(number), program=seeded)
        worker.load("import random\ndef handler(m, c): return random.random()")
        values.append(worker.call().body)
        worker.end()
    assert values[0] != values[1]


def test_numpys_generator_differs_between_workers(tmp_path):
    site = str(Path(pytest.importorskip("numpy").__file__).parents[1])
    imports = f"sys.path.append({site!r}); import numpy.random; numpy.random.seed(1); "
    seeded = WARM_SERVE.replace("raise", imports + "raise")
    values = []
    for number in range(2):
        (tmp_path / str(number)).mkdir()
        worker = Worker(tmp_path / str(number), program=seeded)
        worker.load("import numpy\ndef handler(m, c): return numpy.random.random()")
        values.append(worker.call().body)
        worker.end()
    assert values[0] != values[1]


def test_the_two_ends_of_the_protocol_agree():
    import re

    from functionsplatform_runtime import frames

    rust = (RUNTIME.parent / "src" / "protocol.rs").read_text()
    body = rust[rust.index("pub enum FrameType") :]
    pairs = re.findall(r"^    (\w+) = (\d+),", body[: body.index("\n}")], re.MULTILINE)
    assert {name: int(number) for name, number in pairs} == frames.FRAME_TYPES
    for name in ("VERSION", "PREFIX_LEN", "FLAG_MEMFD", "MEMFD_THRESHOLD", "MAX_HEAD_LEN"):
        (text,) = re.findall(rf"pub const {name}: \w+ = ([\d *]+);", rust)
        assert eval(text) == getattr(frames, name), name


def test_the_example_handlers_load(start):
    examples = Path(RUNTIME).parents[2] / "examples"
    handlers = sorted(examples.glob("*/handler.py"))
    assert handlers
    for handler in handlers:
        worker = start()
        assert worker.load(handler.read_text()).kind == LOADED, handler
        worker.end()


@pytest.mark.parametrize(
    ("raised", "limit"),
    [
        ("MemoryError()", "memory"),
        ("OSError(errno.EMFILE, 'Too many open files')", "files"),
        ("OSError(errno.ENOSPC, 'No space left on device')", "disk"),
        ("OSError(errno.EFBIG, 'File too large')", "disk"),
        ('RuntimeError("can\'t start new thread")', "tasks"),
        ("BlockingIOError(errno.EAGAIN, 'a socket without data')", None),
        ("FileNotFoundError(errno.ENOENT, 'nope')", None),
        ("ValueError('x')", None),
    ],
)
def test_a_failure_names_the_limit_behind_it(start, raised, limit):
    worker = start(f"""
        import errno
        def handler(message, context):
            raise {raised}
    """)
    head = worker.call().last.head
    assert head["kind"] == "exception"
    assert head.get("limit_hit") == limit


@pytest.mark.parametrize(
    ("expression", "place"),
    [
        ("'ab\\ud800'", "result has '\\ud800' at character 2"),
        ("{'status_code': 200, 'body': '\\udfff'}", 'result["body"] has'),
        ("{'status_code': 200, 'headers': {'X-A': '\\ud800'}}", 'result["headers"]["X-A"] has'),
        ("iter(['\\ud800'])", "chunk[0] has"),
    ],
)
def test_half_of_a_surrogate_pair_is_refused_by_its_place(start, expression, place):
    head = start(returning(expression)).call().last.head
    assert head["exception_type"] == "InvalidResult"
    assert place.encode("unicode_escape").decode() in head["message"] or place in head["message"]
