"""Ending a call early: its own timer for the deadline, a signal for cancel notices.

Both arrive as signals in the main thread, between two bytecodes, and raise an exception there
that runs the handler's `finally` blocks. Three rules keep the worker's own code whole:

* Nothing is raised unless `armed`, which is set around the handler's code only. What comes
  outside of it is remembered and raised when a stream is armed again, or forgotten.
* Nothing is raised while `held`: a print that is being sent is sent to its end.
* A call is interrupted once.

The timer is left running over many calls: while it fires too early for the present deadline it is
set anew, so that calls with the same timeout cost one system call in that time, not two each.
"""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Callable
from time import monotonic_ns
from types import FrameType
from typing import Any

from functionsplatform._context import Context
from functionsplatform._errors import Cancelled, DeadlineExceeded, Interrupted
from functionsplatform_runtime.frames import Channel

_NEVER = 1 << 63

# Cancel notices for calls that have not been read yet; more than this many are a platform gone mad.
_MAX_EARLY = 1024


class Interrupts:
    """What may end the present call, and whether something did."""

    __slots__ = (
        "_channel",
        "_context",
        "_deadline_ns",
        "_early",
        "_held_back",
        "_last_serial",
        "_timer_ns",
        "armed",
        "fired",
        "held",
        "on_task",
        "serial",
    )

    def __init__(self, channel: Channel) -> None:
        """Nothing is armed until `install`."""
        self._channel = channel
        self._context: Context | None = None
        self._deadline_ns = _NEVER
        self._timer_ns = _NEVER
        self._early: set[int] = set()
        self._last_serial = 0
        self._held_back = False
        self.serial = 0
        self.armed = False
        self.held = False
        self.fired: Interrupted | None = None
        # Set while an event loop runs the handler: returns whether to raise here as well.
        self.on_task: Callable[[], bool] | None = None

    def install(self) -> None:
        """Take the two signals, and ask the kernel for one when the side channel has news."""
        side = self._channel.side.fileno()
        self._channel.on_cancel = self._on_cancel
        signal.signal(signal.SIGALRM, self._on_alarm)
        signal.signal(signal.SIGIO, self._on_side)
        fcntl.fcntl(side, fcntl.F_SETOWN, os.getpid())
        flags = fcntl.fcntl(side, fcntl.F_GETFL)
        fcntl.fcntl(side, fcntl.F_SETFL, flags | os.O_ASYNC)
        self._channel.drain_side()  # what came before the flag was set

    def hand_over(self, on_cancel: Callable[[int], None]) -> None:
        """Let somebody else have the cancel notices, those that came early first."""
        self._channel.on_cancel = on_cancel
        for serial in self._early:
            on_cancel(serial)

    def uninstall(self) -> None:
        """Nothing is sent from here on; the interpreter's end restores signals that kill."""
        side = self._channel.side.fileno()
        if side >= 0:
            flags = fcntl.fcntl(side, fcntl.F_GETFL)
            fcntl.fcntl(side, fcntl.F_SETFL, flags & ~os.O_ASYNC)
        signal.setitimer(signal.ITIMER_REAL, 0)

    def never_set_timer(self) -> None:
        """For the rehearsal in the zygote, which has no signal handlers."""
        self._timer_ns = 0

    def begin(self, serial: int, context: Context, deadline_ns: int) -> None:
        """A call begins; `armed` is still off."""
        self.serial = serial
        self._context = context
        self._deadline_ns = deadline_ns
        self.fired = None
        self._held_back = False
        if deadline_ns < self._timer_ns:
            self._set_timer(deadline_ns)
        if self._early and serial in self._early:
            self._early.discard(serial)
            self._fire(Cancelled("the caller left before the call began"))

    def end(self) -> None:
        """The call has ended."""
        self._last_serial = self.serial
        self.serial = 0
        self._context = None
        self._deadline_ns = _NEVER

    def arm(self) -> None:
        """Let exceptions through from here; raises what came meanwhile."""
        self.armed = True
        if self.fired is not None and self._held_back:
            self._raise()

    def without_deadline(self) -> None:
        """The first byte is out: the platform watches a stream's time from here."""
        self._deadline_ns = _NEVER

    def release(self) -> None:
        """End of a section that was `held`; raises what came meanwhile."""
        self.held = False
        if self._held_back and self.armed:
            self._raise()

    # In the signal handlers.

    def _on_alarm(self, _signal: int, _frame: FrameType | None) -> None:
        self._timer_ns = _NEVER
        if self._deadline_ns == _NEVER:
            return
        if monotonic_ns() < self._deadline_ns:
            self._set_timer(self._deadline_ns)
            return
        self._deadline_ns = _NEVER
        self._fire(DeadlineExceeded("the time of the call is up"))

    def _on_side(self, _signal: int, _frame: FrameType | None) -> None:
        self._channel.drain_side()

    def _on_cancel(self, serial: int) -> None:
        if serial == self.serial and serial:
            self._fire(Cancelled("the call was cancelled"))
        elif serial != self._last_serial and len(self._early) < _MAX_EARLY:
            self._early.add(serial)

    def _set_timer(self, deadline_ns: int) -> None:
        self._timer_ns = deadline_ns
        # Never 0, which would switch the timer off.
        signal.setitimer(signal.ITIMER_REAL, max(deadline_ns - monotonic_ns(), 1_000) / 1e9)

    def _fire(self, error: Interrupted) -> None:
        if self.fired is not None:
            return
        self.fired = error
        if self._context is not None:
            self._context._cancelled = True
        self._held_back = True
        if self.armed and not self.held:
            self._raise()

    def _raise(self) -> None:
        error = self.fired
        self._held_back = False
        if error is None or (self.on_task is not None and not self.on_task()):
            return
        raise error.with_traceback(None)


_restored = False


def restore_signals() -> None:
    """Python's defaults for every signal, whatever the parent had set.

    It takes half a millisecond, so the zygote does it and its workers find it done.
    """
    global _restored
    if _restored:
        return
    _restored = True
    signal.setitimer(signal.ITIMER_REAL, 0)
    for number in signal.valid_signals():
        if number in (signal.SIGKILL, signal.SIGSTOP):
            continue
        try:
            present = signal.getsignal(number)
            if number in (signal.SIGPIPE, signal.SIGXFSZ):
                signal.signal(number, signal.SIG_IGN)
            elif present not in (signal.SIG_DFL, None):
                signal.signal(number, signal.SIG_DFL)
        except (OSError, ValueError):
            continue  # the C library keeps a few for itself
    # A terminal sends Ctrl-C to the whole process group; the platform drains, workers go on.
    # A handler, not SIG_IGN: programs that a handler starts have the default again.
    signal.signal(signal.SIGINT, lambda _signal, _frame: None)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
