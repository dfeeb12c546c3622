"""The loop of a worker: say hello, become a function, answer calls.

It blocks on one socket and runs one handler at a time, because that costs half of what an event
loop costs; `async def` handlers get a loop that is made when the first one is loaded, and only a
function that asks for `concurrency` is served by `concurrent.py`.

What a warm call pays for is in `_serve_call` and what it calls; everything there counts.
"""

from __future__ import annotations

import faulthandler
import os
import sys
from collections.abc import AsyncIterator
from json import loads
from time import monotonic_ns, process_time_ns
from typing import TYPE_CHECKING, Any

from functionsplatform import _failure, _secrets
from functionsplatform._answer import Answer, answer_of
from functionsplatform._context import Context, Function, active
from functionsplatform._errors import BadHandler
from functionsplatform._message import message_of, parsed
from functionsplatform_runtime import frames, fresh, load, secrets
from functionsplatform_runtime.frames import Channel, ProtocolError
from functionsplatform_runtime.interrupts import Interrupts, restore_signals
from functionsplatform_runtime.output import CallOutput, Output, replace_standard_streams
from functionsplatform_runtime.reply import Emitter, Replies, close, interruption, json_bytes

if TYPE_CHECKING:
    from functionsplatform_runtime.coroutines import Coroutines

_failure.hide_frames_of(os.path.dirname(__file__))

# The exit code of a worker that met a protocol error.
PROTOCOL_ERROR = 70

_OPENTELEMETRY = "opentelemetry.trace"


def serve(request_fd: int, side_fd: int, answer_fd: int | None = None) -> int:
    """Be a worker until the platform closes the stream; returns the exit code.

    Without `answer_fd` the answers go where the requests come from, which is then a socket.
    """
    channel = Channel(request_fd, side_fd, answer_fd)
    try:
        return Worker(channel).run()
    except ProtocolError as error:
        os.write(2, f"functionsplatform worker: {error}\n".encode())
        return PROTOCOL_ERROR
    except (BrokenPipeError, ConnectionResetError):
        return 0  # the platform is gone


class Worker:
    """One process of one version of a function."""

    def __init__(self, channel: Channel) -> None:
        """Blank: it has no handler yet."""
        self._channel = channel
        self._interrupts = Interrupts(channel)
        self._output = Output(channel, self._interrupts)
        self._function = Function("")
        self._handler: load.Handler = _no_handler
        self._replies = Replies(channel, self._output)
        self._is_async = False
        self._loop: Coroutines | None = None
        self._telemetry: Any = None

    def run(self) -> int:
        """Hello, load, calls."""
        restore_signals()
        self._interrupts.install()
        try:
            return self._converse()
        finally:
            self._interrupts.uninstall()

    def _converse(self) -> int:
        faulthandler.enable(2)
        os.register_at_fork(after_in_child=self._leave_child_alone)
        self._send(frames.HELLO, 0, {"protocol": frames.VERSION, "python": _python_version()})
        frame = self._channel.receive()
        while frame is not None and frame[0] == frames.SECRET:
            secrets.take(frame[3], frame[4])
            frame = self._channel.receive()
        if frame is None or frame[0] == frames.EXIT:
            return 0
        if frame[0] != frames.LOAD:
            raise ProtocolError(f"frame type {frame[0]} where LOAD was due")
        head = loads(frame[3])
        if not self._load(head):
            return 0
        if self._is_async and head["concurrency"] > 1:
            self._serve_concurrently()
        else:
            self._serve()
        return 0

    def rehearse(
        self, function: Function, handler: load.Handler, head: dict[str, Any], body: bytes
    ) -> None:
        """Answer the same call a few times, without what `run` does to the process."""
        self._function = function
        self._handler = handler
        self._replies.become(4096, "/rehearsal", None)
        self._interrupts.never_set_timer()
        for serial in range(1, 4):
            self._serve_call(serial, head, body)

    # Loading.

    def _load(self, head: dict[str, Any]) -> bool:
        """Become a worker of a version; whether that worked."""
        code_dir = head["code_dir"]
        file = os.path.join(code_dir, os.path.normpath(head["file"]))
        self._replies.become(head["response_limit"], code_dir, file)
        self._function = Function(
            head["function"],
            head["version"],
            head["tenant"],
            head["services"],
            head["message_queue_uri"],
        )
        self._output.set_limit(head["log_limit"])
        self._output.begin_loading()
        _secrets.close()
        replace_standard_streams(self._output)
        _send_log_records_to(self._output)
        fresh.make_unique()
        fresh.settle(code_dir, head["env"])
        try:
            self._handler = load.load_handler(
                code_dir, head["file"], head["callable"], head["path"]
            )
            if _OPENTELEMETRY in sys.modules:
                self._join_opentelemetry()
        except BaseException as error:
            failure = self._replies.load_failure(error)
            failure["output"] = self._output.end_loading()
            self._send(frames.LOAD_FAILED, 0, failure)
            return False
        self._is_async = load.is_async(self._handler)
        if self._is_async:
            self._coroutines()  # made now, not in the first call
        loaded = {"is_async": self._is_async, "output": self._output.end_loading()}
        self._send(frames.LOADED, 0, loaded)
        return True

    # Calls.

    def _serve(self) -> None:
        receive = self._channel.receive
        while True:
            frame = receive()
            if frame is None:
                return
            kind, _, serial, head, body = frame
            if kind == frames.CALL:
                self._serve_call(serial, parsed(head), body)
            elif kind == frames.EXIT:
                return
            elif kind == frames.SECRET:
                secrets.take(head, body)
            else:
                raise ProtocolError(f"frame type {kind} where CALL was due")

    def _serve_concurrently(self) -> None:
        from functionsplatform_runtime.concurrent import Concurrent

        loop = self._coroutines().loop
        Concurrent(
            loop, self._channel, self._interrupts, self._replies, self._handler, self._function
        ).run()

    def _serve_call(self, serial: int, head: dict[str, Any], body: bytes) -> None:
        start_ns = monotonic_ns()
        cpu_ns = process_time_ns()
        deadline_ns = start_ns + head["d"] * 1_000_000
        context = Context(self._function, head, start_ns, deadline_ns)
        interrupts = self._interrupts
        output = self._output
        call_output = output.sole = CallOutput(serial)
        active.sole = context
        error: BaseException | None = None
        answer: Answer | None = None
        token = None if self._telemetry is None else self._telemetry.enter(context)
        interrupts.begin(serial, context, deadline_ns)
        try:
            try:
                interrupts.arm()
                result = self._handler(message_of(head, body), context)
                if type(result) is not dict and hasattr(result, "__await__"):
                    result = self._coroutines().run(result)
                answer = answer_of(result)
            finally:
                interrupts.armed = False
        except BaseException as raised:
            error = raised
        if interrupts.fired is not None:
            error = interruption(interrupts.fired, error)
        if error is None and answer is not None and answer.stream is not None:
            error = self._stream(serial, answer)
        if error is not None:
            self._replies.failure(serial, error, context, call_output, cpu_ns)
        elif answer is not None and answer.stream is None:
            self._replies.answer(serial, answer, context, call_output, cpu_ns)
        else:
            self._replies.end_stream(serial, context, call_output, cpu_ns)
        output.sole = None
        active.sole = None
        interrupts.end()
        if self._telemetry is not None:
            if token is not None:
                self._telemetry.leave(token)
        elif _OPENTELEMETRY in sys.modules:
            self._join_opentelemetry()

    def _stream(self, serial: int, answer: Answer) -> BaseException | None:
        """Send what the handler yields; what went wrong, if something did."""
        interrupts = self._interrupts
        stream = answer.stream
        emitter = Emitter(self._replies, serial, answer, interrupts.without_deadline)

        def emit(chunk: Any) -> None:
            data = emitter.encode(chunk)
            interrupts.held = True
            try:
                emitter.send(data)
            finally:
                interrupts.release()

        try:
            try:
                interrupts.arm()
                if isinstance(stream, AsyncIterator):
                    self._coroutines().drain(stream, emit)
                else:
                    for chunk in stream or ():
                        emit(chunk)
            finally:
                interrupts.armed = False
            emitter.start()
        except BaseException as error:
            close(stream)
            return error if interrupts.fired is None else interruption(interrupts.fired, error)
        return interrupts.fired

    # Coroutines.

    def _coroutines(self) -> Coroutines:
        if self._loop is None:
            from functionsplatform_runtime.coroutines import Coroutines

            self._loop = Coroutines(self._interrupts)
        return self._loop

    def _join_opentelemetry(self) -> None:
        """Take in the spans of `opentelemetry-api`, which the handler has imported."""
        from functionsplatform import _opentelemetry

        _opentelemetry.install()
        self._telemetry = _opentelemetry

    def _send(self, kind: int, serial: int, head: dict[str, Any]) -> None:
        with self._channel.lock:
            self._channel.send(kind, serial, json_bytes(head))

    def _leave_child_alone(self) -> None:
        """After a fork in a handler: the child has no part in the conversation."""
        self._output.detach()
        self._channel.detach()
        self._interrupts.armed = False


def prepare() -> None:
    """Do in the zygote what every worker would do alike: a third of a start, measured."""
    from functionsplatform_runtime import records

    restore_signals()
    records.prepare()


def warm() -> None:
    """Run a call in the zygote, so that what a worker touches first is touched before the fork.

    To be called before `gc.freeze()`. Starts no thread, leaves no state: the call goes through a
    pair of sockets of its own and the process is as before, apart from imported modules.
    """
    from functionsplatform_runtime.rehearsal import rehearse

    rehearse()


def _no_handler(_message: Any, _context: Any) -> Any:
    raise BadHandler("no handler is loaded")


def _python_version() -> str:
    return ".".join(str(part) for part in sys.version_info[:3])


def _send_log_records_to(output: Output) -> None:
    from functionsplatform_runtime.records import install

    install(output)
