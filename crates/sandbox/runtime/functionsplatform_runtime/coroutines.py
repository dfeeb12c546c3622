"""One event loop for the `async def` handlers of a worker that serves one call at a time.

The loop is made once and stands still between calls, as the worker does. An interruption is
raised inside the coroutine where its code is running, and cancels its task where it waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from functionsplatform_runtime.interrupts import Interrupts


class Coroutines:
    """Runs awaitables to their end."""

    def __init__(self, interrupts: Interrupts) -> None:
        """Makes the loop."""
        self._interrupts = interrupts
        self.loop = asyncio.new_event_loop()
        self._task: asyncio.Task[Any] | None = None
        asyncio.set_event_loop(self.loop)

    def run(self, awaitable: Awaitable[Any]) -> Any:
        """The result of an awaitable; raises what it raises."""
        coroutine = awaitable if asyncio.iscoroutine(awaitable) else _waited(awaitable)
        self._task = self.loop.create_task(coroutine)
        self._interrupts.on_task = self._on_interrupt
        try:
            return self.loop.run_until_complete(self._task)
        finally:
            self._interrupts.on_task = None

    def drain(self, stream: AsyncIterator[Any], emit: Callable[[Any], None]) -> None:
        """Hand everything that a stream yields to `emit`, in one task: context variables last."""
        self.run(_drained(stream, emit))

    def _on_interrupt(self) -> bool:
        task = self._task
        running = asyncio.current_task(self.loop)
        if running is not task and task is not None:
            self.loop.call_soon_threadsafe(task.cancel)
        return running is not None


async def _waited(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


async def _drained(stream: AsyncIterator[Any], emit: Callable[[Any], None]) -> None:
    try:
        async for chunk in stream:
            emit(chunk)
    finally:
        close = getattr(stream, "aclose", None)
        if close is not None:
            await close()
