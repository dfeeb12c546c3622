"""A function with `concurrency` that talks to the platform past the runtime.

Must come of it: what one call sends and its caller does not take stays bounded, whatever size its
pieces have; who does not keep to that ends its worker.
"""

import asyncio
import os
import struct
import sys

STREAM_HEAD, STREAM_CHUNK = 21, 22
serial = 0


async def handler(message, context):
    global serial
    # The number of this call, which the runtime has and does not show.
    serial = sys._getframe(1).f_locals["call"].serial
    result = await globals()[message["path_params"]["probe"]]()
    if result is None:
        await asyncio.sleep(60)
    return result


def frame(kind, head=b"", body=b""):
    length = 16 + len(head) + len(body)
    return struct.pack("<IBBHQI", length, kind, 0, 0, serial, len(head)) + head + body


def whole(data):
    while data:
        data = data[os.write(5, data) :]


async def well():
    return {"shared": "well"}


async def stream_of_nothing():
    """To a caller who does not read: what fills its connection, then pieces without a byte."""
    whole(frame(STREAM_HEAD, head=b"{}"))
    for _ in range(3 << 6):
        whole(frame(STREAM_CHUNK, body=b"x" * (16 << 10)))
        await asyncio.sleep(0.005)
    nothing = frame(STREAM_CHUNK) * 1000
    for _ in range(1500):
        whole(nothing)
