"""How a call ends on the wire: an answer, a stream, or a failure, each with what was used.

Every end flushes the call's unfinished lines first and is sent under the channel's lock, so that
no line of a thread of the handler follows its own call's end.
"""

from __future__ import annotations

import resource
from collections.abc import Callable
from json import dumps
from time import process_time_ns
from typing import Any

from functionsplatform import _failure
from functionsplatform._answer import Answer, Chunks
from functionsplatform._context import Context
from functionsplatform_runtime import frames, limits
from functionsplatform_runtime.frames import Channel
from functionsplatform_runtime.output import STDERR, CallOutput, Output

# The peak only grows; reading it costs more than the rest of an answer's head.
_MEMORY_EVERY = 32
_MEMORY_AFTER_CPU_NS = 1_000_000


class Replies:
    """Sends the ends of calls."""

    def __init__(self, channel: Channel, output: Output) -> None:
        """The limits and places of the function come with `become`."""
        self._channel = channel
        self._output = output
        self._response_limit = 0
        self._code_dir = ""
        self._file: str | None = None
        self._memory_kib = 0
        self._until_memory = 0

    def become(self, response_limit: int, code_dir: str, file: str | None) -> None:
        """Take over what LOAD said of the function."""
        self._response_limit = response_limit
        self._code_dir = code_dir
        self._file = file

    def answer(
        self, serial: int, answer: Answer, context: Context, output: CallOutput, cpu_ns: int
    ) -> None:
        """Send an answer that is no stream."""
        body = answer.body
        if len(body) > self._response_limit:
            self._too_large(serial, len(body), context, output, cpu_ns)
            return
        with self._channel.lock:
            recorder = context._recorder
            spans = None if recorder is None else self._spans(context, output)
            if output.pending:
                self._output.flush_call(output)
            used_ns = process_time_ns() - cpu_ns
            self._until_memory -= 1
            if self._until_memory < 0 or used_ns > _MEMORY_AFTER_CPU_NS:
                self._read_memory()
            head = b'"u":{"c":%d,"m":%d,"l":%d}}' % (
                used_ns // 1000,
                self._memory_kib,
                output.produced,
            )
            if spans or answer.kind != "json" or answer.status is not None:
                head = json_bytes({**_described(answer), **(spans or {})})[:-1] + b"," + head
            else:
                head = b"{" + head
            self._channel.send(frames.ANSWER, serial, head, body)
            self._output.sole = None

    def failure(
        self, serial: int, error: BaseException, context: Context, output: CallOutput, cpu_ns: int
    ) -> None:
        """Send what an exception says."""
        failure = _failure.failure_of(error, self._code_dir, self._file)
        limit = _limit_behind(error)
        if limit is not None:
            failure["limit_hit"] = limit
        # Its frames hold the handler's variables. Not by assignment, which a class may refuse.
        BaseException.with_traceback(error, None)
        self._failure(serial, failure, context, output, cpu_ns)

    def load_failure(self, error: BaseException) -> dict[str, Any]:
        """The head of LOAD_FAILED."""
        return _failure.failure_of(error, self._code_dir, self._file)

    def start_stream(self, serial: int, answer: Answer) -> None:
        """Send the head of a stream."""
        with self._channel.lock:
            self._channel.send(frames.STREAM_HEAD, serial, json_bytes(_described(answer)))

    def chunk(self, serial: int, data: bytes) -> None:
        """Send a piece of a stream; waits while the platform does not read."""
        # Pieces instead of memfds: the next may be sent before the platform took the last.
        for at in range(0, len(data), frames.MEMFD_THRESHOLD):
            piece = data[at : at + frames.MEMFD_THRESHOLD]
            with self._channel.lock:
                self._channel.send(frames.STREAM_CHUNK, serial, b"", piece)

    def end_stream(self, serial: int, context: Context, output: CallOutput, cpu_ns: int) -> None:
        """Send the end of a stream."""
        with self._channel.lock:
            end = self._spans(context, output)
            self._output.flush_call(output)
            end["u"] = self._usage(output, cpu_ns)
            self._channel.send(frames.STREAM_END, serial, json_bytes(end))
            self._output.sole = None

    def _too_large(
        self, serial: int, size: int, context: Context, output: CallOutput, cpu_ns: int
    ) -> None:
        failure: dict[str, Any] = {
            "kind": _failure.RESPONSE_TOO_LARGE,
            "message": f"the answer is {size} bytes, the limit is {self._response_limit}; "
            "raise limits.response in function.toml, or return a generator to stream it",
        }
        self._failure(serial, failure, context, output, cpu_ns)

    def _failure(
        self,
        serial: int,
        failure: dict[str, Any],
        context: Context,
        output: CallOutput,
        cpu_ns: int,
    ) -> None:
        with self._channel.lock:
            failure.update(self._spans(context, output))
            self._output.flush_call(output)
            failure["u"] = self._usage(output, cpu_ns)
            self._channel.send(frames.FAILURE, serial, json_bytes(failure))
            self._output.sole = None

    def _spans(self, context: Context, output: CallOutput) -> dict[str, Any]:
        recorder = context._recorder
        if recorder is None:
            return {}
        spans = recorder.finish()
        if recorder.dropped:
            note = f"functionsplatform: {recorder.dropped} spans of this call were dropped\n"
            self._output.note(output, STDERR, note)
        return {"sp": spans} if spans else {}

    def _usage(self, output: CallOutput, cpu_ns: int) -> dict[str, int]:
        self._read_memory()
        return {
            "c": (process_time_ns() - cpu_ns) // 1000,
            "m": self._memory_kib,
            "l": output.produced,
        }

    def _read_memory(self) -> None:
        self._until_memory = _MEMORY_EVERY
        self._memory_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


class Emitter:
    """Sends what a stream yields, its head before the first chunk."""

    __slots__ = ("_answer", "_chunks", "_on_start", "_replies", "_serial", "_started")

    def __init__(
        self, replies: Replies, serial: int, answer: Answer, on_start: Callable[[], None]
    ) -> None:
        """`on_start` is called when the first byte goes out."""
        self._replies = replies
        self._serial = serial
        self._answer = answer
        self._chunks = Chunks(answer.headers)
        self._on_start = on_start
        self._started = False

    def encode(self, chunk: Any) -> bytes:
        """The bytes of a chunk; the handler's fault where there are none."""
        return (
            self._chunks.next(chunk) if self._started else self._chunks.first(self._answer, chunk)
        )

    def send(self, data: bytes) -> None:
        """Send the bytes of a chunk."""
        self.start()
        self._replies.chunk(self._serial, data)

    def start(self) -> None:
        """Send the head, unless it was sent."""
        if not self._started:
            self._started = True
            self._on_start()
            self._replies.start_stream(self._serial, self._answer)


def close(stream: Any) -> None:
    """Run the `finally` blocks of a generator that is left early."""
    try:
        method = getattr(stream, "close", None)
        if method is not None:
            method()
    except BaseException:  # noqa: S110 - the first failure is the one that is told
        pass


def _limit_behind(error: BaseException) -> str | None:
    try:
        return limits.hit_by(error)
    except BaseException:  # it has properties of its own where others have numbers
        return None


def interruption(fired: BaseException, raised: BaseException | None) -> BaseException:
    """What ended the call, with the place where the handler was (for a task, as it was told)."""
    if raised is not None and raised is not fired:
        fired.with_traceback(raised.__traceback__)
    return fired


def json_bytes(value: Any) -> bytes:
    """A head, as short as JSON is."""
    return dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def _described(answer: Answer) -> dict[str, Any]:
    head: dict[str, Any] = {}
    if answer.kind != "json":
        head["k"] = answer.kind
    if answer.status is not None:
        head["s"] = answer.status
    if answer.headers:
        head["h"] = answer.headers
    return head
