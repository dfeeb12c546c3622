"""The Python end of the bare cold path: one fork for each frame, and nothing that keeps it in.

The child loads the handler's file, answers and is gone, as a worker that serves one call.
"""

import json
import os
import runpy
import signal
import socket
import struct
import sys

LENGTH = struct.Struct("<I")


def read(stream, count):
    data = b""
    # Not by a buffered reader, which the children would share.
    while len(data) < count and (piece := stream.recv(count - len(data))):
        data += piece
    return data


def serve(stream, path, body):
    handler = runpy.run_path(path)["handler"]
    answer = json.dumps(handler({"body": json.loads(body)}, None)).encode()
    stream.sendall(LENGTH.pack(len(answer)) + answer)


def main(path):
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    stream = socket.socket(fileno=0)
    while prefix := read(stream, LENGTH.size):
        body = read(stream, *LENGTH.unpack(prefix))
        if os.fork() == 0:
            serve(stream, path, body)
            os._exit(0)


main(sys.argv[1])
