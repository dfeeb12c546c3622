"""The Python end of the bare path: frames of a u32 length and JSON, answered one by one."""

import json
import socket
import struct

LENGTH = struct.Struct("<I")


def handler(message):
    return {"result": message["arg"] * 2, "status": "noice"}


def main():
    stream = socket.socket(fileno=0)
    reader = stream.makefile("rb")
    while True:
        prefix = reader.read(LENGTH.size)
        if len(prefix) < LENGTH.size:
            return
        (length,) = LENGTH.unpack(prefix)
        answer = json.dumps(handler(json.loads(reader.read(length)))).encode()
        stream.sendall(LENGTH.pack(len(answer)) + answer)


main()
