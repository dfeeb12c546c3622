"""What is printed and logged: whole, in order, bounded, and in time."""

from __future__ import annotations

from platform_double import FAILURE, LOG


def test_a_print_is_sent_before_the_process_dies(start):
    worker = start("import os\ndef handler(m, c):\n    print('last words')\n    os._exit(3)")
    worker.begin()
    frame = worker.receive()
    assert (frame.kind, frame.serial, frame.body) == (LOG, 1, b"last words\n")
    assert worker.process.wait(10) == 3


def test_a_crash_says_where(start):
    worker = start("import ctypes\ndef handler(m, c):\n    ctypes.string_at(0)")
    worker.begin()
    assert worker.process.wait(10) == -11
    _, _, err = worker.end()
    assert "Segmentation fault" in err
    assert "in handler" in err


def test_sources_and_levels(start):
    worker = start("""
        import logging, sys
        def handler(message, context):
            print("out", end="")
            print("err", file=sys.stderr)
            logging.debug("not this")
            logging.getLogger("x").warning("warned %d", 7)
            context.logger.info("informed")
            try:
                1 / 0
            except ZeroDivisionError:
                logging.exception("failed")
            sys.stdout.buffer.write(b" bytes\\n")
    """)
    frames = [frame for frame in worker.call().frames if frame.kind == LOG]
    assert [frame.head for frame in frames] == [
        {"o": "stdout"},
        {"o": "stderr"},
        {"o": "logging", "l": "WARNING"},
        {"o": "logging", "l": "INFO"},
        {"o": "logging", "l": "ERROR"},
        {"o": "stdout"},
    ]
    bodies = [frame.body for frame in frames]
    assert bodies[:4] == [b"out", b"err\n", b"warned 7\n", b"informed\n"]
    assert b"failed\nTraceback" in bodies[4]
    assert bodies[5] == b" bytes\n"


def test_the_log_has_the_order_of_a_terminal(start):
    worker = start("""
        import sys
        def handler(message, context):
            sys.stderr.write("A ")
            print("B")
            sys.stdout.write("C ")
            sys.stderr.write("D\\n")
    """)
    assert worker.call().logs() == "A B\nC D\n"


def test_a_handler_may_replace_json(start):
    worker = start("""
        import json
        json.dumps = json.loads = lambda *_, **__: "mine"
        def handler(message, context):
            return b"bytes"
    """)
    assert worker.call().body == b"bytes"


def test_an_unfinished_line_belongs_to_its_call(start):
    worker = start("def handler(m, c):\n    print(m['path'], end='')")
    assert worker.call(p="/one").logs() == "/one"
    assert worker.call(p="/two").logs() == "/two"


def test_output_of_a_failing_call_is_complete(start):
    outcome = start("def handler(m, c):\n    print('a', end='')\n    1 / 0").call()
    assert [frame.kind for frame in outcome.frames] == [LOG, FAILURE]
    assert outcome.head["u"]["l"] == 1


def test_beyond_the_limit_output_is_counted_only(start):
    worker = start(
        "def handler(m, c):\n    for _ in range(1000): print('\\u00e4' * 10)", log_limit=1000
    )
    for _ in range(2):
        outcome = worker.call()
        text = outcome.logs()
        assert 990 <= len(text.encode()) <= 1000
        assert outcome.head["u"]["l"] == 21_000
        assert outcome.last.kind != FAILURE


def test_long_texts_arrive_in_pieces_that_are_whole(start):
    worker = start("""
        def handler(message, context):
            print("\\u20ac" * 10_000)
            print("\\n".join("x" * 100 for _ in range(300)))
    """)
    outcome = worker.call()
    pieces = [frame.body for frame in outcome.frames if frame.kind == LOG]
    assert max(map(len, pieces)) <= 8192
    assert all(piece.decode() for piece in pieces), "no character is cut"
    assert outcome.logs() == "€" * 10_000 + "\n" + ("x" * 100 + "\n") * 300


def test_threads_print_whole_lines(start):
    worker = start("""
        import threading
        def handler(message, context):
            def work(letter):
                for _ in range(200):
                    print(letter * 20 + "\\n", end="")
            threads = [threading.Thread(target=work, args=(letter,)) for letter in "abcd"]
            for thread in threads: thread.start()
            for thread in threads: thread.join()
    """)
    lines = worker.call().logs().splitlines()
    assert sorted(lines) == sorted([letter * 20 for letter in "abcd"] * 200)


def test_the_streams_look_like_streams(start):
    worker = start("""
        import os, sys
        def handler(message, context):
            out, err = sys.stdout, sys.stderr
            print("\\ud800")
            out.reconfigure(line_buffering=True)
            out.writelines(["a\\n", "b\\n"])
            out.flush()
            out.close()
            os.write(out.fileno(), b"by descriptor")
            try:
                out.write(b"bytes")
            except TypeError as error:
                print(error)
            return [out.fileno(), err.fileno(), out.encoding, out.isatty(), out.closed,
                    out.writable(), out.name, out is sys.__stdout__]
    """)
    outcome = worker.call()
    assert outcome.json == [1, 2, "utf-8", False, False, True, "<stdout>", True]
    assert outcome.logs() == "\\ud800\na\nb\nwrite() argument must be str, not bytes\n"
    assert worker.end()[1] == "by descriptor"


def test_a_finalizer_that_prints_does_not_lock_up(start):
    worker = start("""
        import gc
        class Noisy:
            def __del__(self):
                print("deleted")
        def handler(message, context):
            gc.set_threshold(1)
            for _ in range(100):
                cycle = Noisy(); cycle.me = cycle
                print("line")
            cycle = None
            gc.collect()
    """)
    logs = worker.call().logs()
    assert logs.count("line") == 100
    assert logs.count("deleted") == 100


def test_basic_config_with_a_level_and_format(start):
    worker = start("""
        import logging
        logging.basicConfig(level=logging.DEBUG, format="%(name)s|%(message)s")
        def handler(message, context):
            logging.getLogger("x").debug("seen")
    """)
    frame = worker.call().frames[0]
    assert (frame.head, frame.body) == ({"o": "logging", "l": "DEBUG"}, b"x|seen\n")


def test_basic_config_with_a_stream_replaces_ours(start):
    worker = start("""
        import logging, sys
        logging.basicConfig(stream=sys.stdout, level="INFO", format="mine %(message)s")
        def handler(message, context):
            logging.info("seen")
    """)
    frame = worker.call().frames[0]
    assert (frame.head, frame.body) == ({"o": "stdout"}, b"mine seen\n")


def test_a_thread_that_prints_between_calls_disturbs_none(start):
    worker = start("""
        import threading, time
        go = threading.Event(); done = threading.Event()
        def later():
            go.wait(10)
            print("between")
            done.set()
        def handler(message, context):
            if message["path"] == "/first":
                threading.Thread(target=later, daemon=True).start()
                threading.Timer(0.02, go.set).start()
            else:
                done.wait(10)
            return 1
    """)
    assert worker.call(p="/first").json == 1
    between = worker.receive()
    assert (between.kind, between.serial, between.body) == (LOG, 0, b"between\n")
    assert worker.call().json == 1
