"""A dummy call in the zygote, so that forked workers find their memory touched and code warm.

Measured: it cuts reading and compiling a handler in a new worker from 1.34 to 0.46 ms. The worker
used here is a real one on sockets of its own; it takes no signals, arms no timer, starts no
thread and replaces no standard stream.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import linecache  # noqa: F401 - what failures and tracebacks need, imported before the fork
import logging
import os
import random
import socket
import tempfile  # noqa: F401
import uuid  # noqa: F401
from typing import Any

from functionsplatform import _failure
from functionsplatform._context import Function
from functionsplatform_runtime import (  # noqa: F401
    concurrent,
    coroutines,
    fresh,
    load,
    records,
)
from functionsplatform_runtime.frames import Channel
from functionsplatform_runtime.worker import Worker

# Next to this one.
_HANDLER_FILE = "rehearsed.py"

_HEAD: dict[str, Any] = {
    "v": "POST",
    "p": "/rehearsal",
    "q": "a=1",
    "h": {"content-type": "application/json", "host": "localhost", "user-agent": "rehearsal"},
    "i": "0" * 26,
    "c": "0" * 26,
    "t": "0" * 32,
    "s": "0" * 16,
    "d": 60_000,
}


def rehearse() -> None:
    """Run the dummy calls, and what else a first call or failure needs."""
    _fail(rehearse_calls())
    logging.getLogger("rehearsal").debug("no handler takes this")
    random.random()  # noqa: S311
    asyncio.run(asyncio.sleep(0))


def rehearse_calls() -> load.Handler:
    """Loading and calls alone: a blank worker that waits runs them, too, to own the pages they write.

    Nothing here that only some workers need: each page that is written is memory of every one. The
    pages of `_fail`, for one, are a tenth of a worker.
    """
    fresh.make_unique()
    handler = load.rehearse(os.path.join(os.path.dirname(__file__), _HANDLER_FILE), "handler")
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    our_side, their_side = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, our_side:
        channel = Channel(theirs.detach(), their_side.detach())
        try:
            Worker(channel).rehearse(Function("rehearsal"), handler, _HEAD, b'{"arg": 1}')
            ours.recv(1 << 20)
        finally:
            channel.detach()
    return handler


def _fail(handler: load.Handler) -> None:
    """What handlers need that raise, and those whose arguments have to be looked at."""
    inspect.signature(handler).bind(None, None)
    try:
        handler({"body": None}, None)
    except ValueError as error:
        json.dumps(_failure.failure_of(error, os.sep + "rehearsal"))
