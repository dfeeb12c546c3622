"""Several calls at once in one worker, for `async def` handlers of functions that ask for it.

One event loop reads the frames; each call is a task, its answer goes out when it is ready. The
context of a call and where its output belongs are context variables of its task. A deadline or a
cancel notice cancels the task: nothing can be raised into the middle of code here, because it
might be another call's. So a call that ends by either has ended in order, and the worker serves
on. Sending blocks the loop while the platform does not read: the platform reads all of a worker's
frames as they come, and asks for a pause of the one stream whose caller is slow.

CPU time is the process's, so calls that overlap each show the sum.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from json import loads
from time import monotonic_ns, process_time_ns
from typing import Any

from functionsplatform import _context
from functionsplatform._answer import Answer, answer_of
from functionsplatform._context import Context, Function
from functionsplatform._errors import Cancelled, DeadlineExceeded, Interrupted
from functionsplatform._message import message_of
from functionsplatform_runtime import frames, output, secrets
from functionsplatform_runtime.frames import Channel, ProtocolError
from functionsplatform_runtime.interrupts import Interrupts
from functionsplatform_runtime.load import Handler
from functionsplatform_runtime.output import CallOutput
from functionsplatform_runtime.reply import Emitter, Replies, close, interruption

# Cancel notices for calls that have not been read yet.
_MAX_EARLY = 1024


class _Call:
    """One call in progress."""

    __slots__ = ("context", "fired", "paused", "serial", "task", "timer")

    def __init__(self, serial: int, context: Context) -> None:
        self.serial = serial
        self.context = context
        self.fired: Interrupted | None = None
        self.paused: asyncio.Event | None = None  # set when the stream may go on
        self.task: asyncio.Task[None] | None = None
        self.timer: asyncio.TimerHandle | None = None

    def interrupt(self, error: Interrupted) -> None:
        if self.fired is None and self.task is not None:
            self.fired = error
            self.context._cancelled = True
            self.task.cancel()

    def pause(self) -> None:
        if self.paused is None:
            self.paused = asyncio.Event()

    def resume(self) -> None:
        if self.paused is not None:
            self.paused.set()
            self.paused = None

    def stop_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()


class Concurrent:
    """Reads calls and runs them side by side."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        channel: Channel,
        interrupts: Interrupts,
        replies: Replies,
        handler: Handler,
        function: Function,
    ) -> None:
        """The handler is loaded."""
        self._loop = loop
        self._channel = channel
        self._interrupts = interrupts
        self._replies = replies
        self._handler = handler
        self._function = function
        self._calls: dict[int, _Call] = {}
        self._early: dict[int, None] = {}
        self._buffer = bytearray()
        self._failed: BaseException | None = None
        self._leaving = False

    def run(self) -> None:
        """Serve until the stream ends, or until EXIT and the end of what runs."""
        channel = self._channel
        self._interrupts.hand_over(self._on_cancel)
        self._buffer += channel.buffered()
        self._loop.add_reader(channel.stream_fd, self._on_readable)
        self._loop.call_soon(self._take_frames)
        self._loop.run_forever()
        if self._failed is not None:
            raise self._failed

    # Reading.

    def _on_readable(self) -> None:
        try:
            data = self._channel.read_some()
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._loop.stop()
            return
        self._buffer += data
        self._take_frames()

    def _take_frames(self) -> None:
        try:
            while (frame := self._channel.split(self._buffer)) is not None:
                kind, _, serial, head, body = frame
                if kind == frames.CALL:
                    self._begin(serial, loads(head), body)
                elif kind in (frames.PAUSE, frames.RESUME):
                    call = self._calls.get(serial)
                    if call is not None:  # else it has just ended
                        call.pause() if kind == frames.PAUSE else call.resume()
                elif kind == frames.SECRET:
                    secrets.take(head, body or b"")
                elif kind == frames.EXIT:
                    self._leaving = True
                    self._stop_if_done()
                else:
                    raise ProtocolError(f"frame type {kind} where CALL was due")
        except BaseException as error:
            self._failed = error
            self._loop.stop()

    def _on_cancel(self, serial: int) -> None:
        # In a signal handler: leave the work to the loop, which this wakes.
        self._loop.call_soon_threadsafe(self._cancel, serial)

    def _cancel(self, serial: int) -> None:
        call = self._calls.get(serial)
        if call is not None:
            call.interrupt(Cancelled("the call was cancelled"))
        else:
            # A notice that met the end of its call stays here, so the oldest must go.
            self._early[serial] = None
            if len(self._early) > _MAX_EARLY:
                del self._early[next(iter(self._early))]

    # Calls.

    def _begin(self, serial: int, head: dict[str, Any], body: bytes | None) -> None:
        start_ns = monotonic_ns()
        left_ns = head["d"] * 1_000_000
        context = Context(self._function, head, start_ns, start_ns + left_ns)
        call = self._calls[serial] = _Call(serial, context)
        call.task = self._loop.create_task(self._serve(call, head, body or b""))
        call.timer = self._loop.call_later(
            left_ns / 1e9, call.interrupt, DeadlineExceeded("the time of the call is up")
        )
        if serial in self._early:
            del self._early[serial]
            body = None
        if body is None:
            call.fired = Cancelled("the caller left before the call began")

    async def _serve(self, call: _Call, head: dict[str, Any], body: bytes) -> None:
        cpu_ns = process_time_ns()
        captured = CallOutput(call.serial)
        _context.of_task.set(call.context)
        output.of_task.set(captured)
        error: BaseException | None = None
        answer: Answer | None = None
        try:
            if call.fired is not None:
                raise call.fired
            result = self._handler(message_of(head, body), call.context)
            if hasattr(result, "__await__"):
                result = await result
            answer = answer_of(result)
            if answer.stream is not None:
                await self._stream(call, answer)
        except BaseException as raised:
            error = raised
        call.stop_timer()
        if call.fired is not None:
            error = interruption(call.fired, error)
        self._end(call, answer, error, captured, cpu_ns)

    async def _stream(self, call: _Call, answer: Answer) -> None:
        emitter = Emitter(self._replies, call.serial, answer, call.stop_timer)
        stream = answer.stream
        try:
            if isinstance(stream, AsyncIterator):
                async for chunk in stream:
                    await self._send(call, emitter, emitter.encode(chunk))
            else:
                for chunk in stream or ():
                    await self._send(call, emitter, emitter.encode(chunk))
        finally:
            ending = getattr(stream, "aclose", None)
            if ending is not None:
                await ending()
            else:
                close(stream)
        emitter.start()

    async def _send(self, call: _Call, emitter: Emitter, data: bytes) -> None:
        """Send a chunk in pieces, between which the others have their turn and notices arrive."""
        for at in range(0, len(data) or 1, frames.MEMFD_THRESHOLD):
            emitter.send(data[at : at + frames.MEMFD_THRESHOLD])
            await asyncio.sleep(0)
            if call.paused is not None:
                await call.paused.wait()

    def _end(
        self,
        call: _Call,
        answer: Answer | None,
        error: BaseException | None,
        captured: CallOutput,
        cpu_ns: int,
    ) -> None:
        try:
            if error is not None or answer is None:
                failed = error or Cancelled("the call was cancelled")
                self._replies.failure(call.serial, failed, call.context, captured, cpu_ns)
            elif answer.stream is None:
                self._replies.answer(call.serial, answer, call.context, captured, cpu_ns)
            else:
                self._replies.end_stream(call.serial, call.context, captured, cpu_ns)
        except BaseException as broken:  # the platform is gone
            self._failed = broken
            self._loop.stop()
        # What a thread of the handler prints from here on belongs to no call.
        captured.serial = 0
        del self._calls[call.serial]
        self._stop_if_done()

    def _stop_if_done(self) -> None:
        if self._leaving and not self._calls:
            self._loop.stop()
