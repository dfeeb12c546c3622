"""The frame protocol, the worker's end. It mirrors `crates/sandbox/src/protocol.rs`.

A test compares the constants of the two. Only lengths are checked here, before memory is taken:
the platform is trusted by the worker, never the other way round.

    u32 LE length of the rest | u8 type | u8 flags | u16 0 | u64 LE serial | u32 LE head length
    head (JSON) | body (raw bytes)
"""

from __future__ import annotations

import os
import socket
from _thread import RLock
from array import array
from collections.abc import Callable
from io import BufferedReader, FileIO
from struct import Struct

VERSION = 1
PREFIX_LEN = 20
FLAG_MEMFD = 1
MEMFD_THRESHOLD = 256 * 1024
MAX_HEAD_LEN = 1024 * 1024

LOAD = 1
CALL = 2
EXIT = 3
PAUSE = 4
RESUME = 5
SECRET = 6
HELLO = 16
LOADED = 17
LOAD_FAILED = 18
LOG = 19
ANSWER = 20
STREAM_HEAD = 21
STREAM_CHUNK = 22
STREAM_END = 23
FAILURE = 24

# Names as in the Rust enum, for the test that compares the two ends.
FRAME_TYPES = {
    "Load": LOAD,
    "Call": CALL,
    "Exit": EXIT,
    "Pause": PAUSE,
    "Resume": RESUME,
    "Secret": SECRET,
    "Hello": HELLO,
    "Loaded": LOADED,
    "LoadFailed": LOAD_FAILED,
    "Log": LOG,
    "Answer": ANSWER,
    "StreamHead": STREAM_HEAD,
    "StreamChunk": STREAM_CHUNK,
    "StreamEnd": STREAM_END,
    "Failure": FAILURE,
}

# Most that a frame's length field may say: what follows the field, with the longest head and the
# longest body that travels inline.
MAX_FRAME_LEN = PREFIX_LEN - 4 + MAX_HEAD_LEN + MEMFD_THRESHOLD

# A sealed memfd cannot change under its reader.
_SEALS = 0x1 | 0x2 | 0x4 | 0x8  # F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE
_F_ADD_SEALS = 1033

_PREFIX = Struct("<IBBHQI")
_SERIAL = Struct("<Q")
_unpack = _PREFIX.unpack
_pack = _PREFIX.pack

# The reader's buffer: a call of ordinary size arrives in one system call.
_READ_BUFFER = 64 * 1024

CANCEL_NOTICE_LEN = 9
_CONTROL_LEN = socket.CMSG_SPACE(4 * 4)  # one descriptor is due; four fit
_RECEIVE = socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC

Frame = tuple[int, int, int, bytes, bytes]

# The same where other calls must not end with one: no body if that call is over.
SharedFrame = tuple[int, int, int, bytes, bytes | None]


class ProtocolError(Exception):
    """The platform sent what the protocol does not allow; the worker ends."""


class Channel:
    """The descriptors of a worker: requests, answers and the side channel. Sending is safe from any thread, receiving has one reader."""

    def __init__(self, request_fd: int, side_fd: int, answer_fd: int | None = None) -> None:
        """Takes over all descriptors."""
        self._fd = request_fd
        self._answer_fd = request_fd if answer_fd is None else answer_fd
        self._reader = BufferedReader(FileIO(request_fd, "rb", closefd=False), _READ_BUFFER)
        self._read = self._reader.read
        self.side = socket.socket(fileno=side_fd)
        self.lock = RLock()
        self._memfds: dict[int, int] = {}
        self.on_cancel: Callable[[int], None] | None = None
        os.set_inheritable(request_fd, False)
        os.set_inheritable(self._answer_fd, False)
        self.side.set_inheritable(False)

    # Receiving.

    def receive(self) -> Frame | None:
        """The next frame as (type, flags, serial, head, body); `None` at the end."""
        prefix = self._read(PREFIX_LEN)
        if len(prefix) != PREFIX_LEN:
            if prefix:
                raise ProtocolError("the stream ended inside a frame")
            return None
        length, kind, flags, _, serial, head_len = _unpack(prefix)
        if length > MAX_FRAME_LEN or head_len > MAX_HEAD_LEN or head_len + 16 > length:
            raise ProtocolError(f"a frame of {length} bytes with a head of {head_len}")
        rest = self._read(length - 16) if length > 16 else b""
        if len(rest) != length - 16:
            raise ProtocolError("the stream ended inside a frame")
        if flags & FLAG_MEMFD:
            body = self._take_memfd(serial)
            if body is None:
                raise ProtocolError("a body was taken back before it was read")
            return kind, flags, serial, rest[:head_len], body
        return kind, flags, serial, rest[:head_len], rest[head_len:]

    def buffered(self) -> bytes:
        """What the reader has taken in beyond the last frame; it is not used after this."""
        os.set_blocking(self._fd, False)
        try:
            return self._reader.read1(_READ_BUFFER) or b""
        finally:
            os.set_blocking(self._fd, True)

    def read_some(self) -> bytes:
        """What has arrived on the stream, without the reader; empty at the end."""
        return os.read(self._fd, _READ_BUFFER)

    def split(self, buffer: bytearray) -> SharedFrame | None:
        """Take the first frame off a buffer, if it is there in whole."""
        if len(buffer) < PREFIX_LEN:
            return None
        length, kind, flags, _, serial, head_len = _PREFIX.unpack_from(buffer)
        if length > MAX_FRAME_LEN or head_len > MAX_HEAD_LEN or head_len + 16 > length:
            raise ProtocolError(f"a frame of {length} bytes with a head of {head_len}")
        if len(buffer) < length + 4:
            return None
        head = bytes(buffer[PREFIX_LEN : PREFIX_LEN + head_len])
        body = bytes(buffer[PREFIX_LEN + head_len : length + 4])
        del buffer[: length + 4]
        return kind, flags, serial, head, self._take_memfd(serial) if flags & FLAG_MEMFD else body

    @property
    def stream_fd(self) -> int:
        """For waiting until something arrives."""
        return self._fd

    def drain_side(self) -> None:
        """Take every message that waits on the side channel: descriptors and cancel notices."""
        while True:
            try:
                # Not `recv_fds`: it forgets its flags before Python 3.12 and would block.
                message, control, _, _ = self.side.recvmsg(64, _CONTROL_LEN, _RECEIVE)
            except OSError:
                return  # nothing there; or the platform is gone, and the stream says so, too
            if not message and not control:
                return
            fds = array("i")
            for level, kind, data in control:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
            if len(message) == _SERIAL.size and len(fds) == 1:
                self._memfds[_SERIAL.unpack(message)[0]] = fds[0]
                continue
            for fd in fds:
                os.close(fd)
            if len(message) == CANCEL_NOTICE_LEN and message[8:] == b"C" and self.on_cancel:
                self.on_cancel(_SERIAL.unpack(message[:8])[0])

    def _take_memfd(self, serial: int) -> bytes | None:
        """The body that came as a memfd; it was sent before the frame, so it is there.

        `None` if the platform has emptied it, which it does when the call is over.
        """
        if serial not in self._memfds:
            self.drain_side()
        fd = self._memfds.pop(serial, -1)
        if fd < 0:
            raise ProtocolError("a frame refers to a memfd that did not come")
        try:
            size = os.fstat(fd).st_size
            parts = []
            at = 0
            while at < size and (part := os.pread(fd, size - at, at)):
                parts.append(part)
                at += len(part)
            if at < size or size <= MEMFD_THRESHOLD:
                return None
            # The platform keeps a descriptor, so that closing ours would not free the memory.
            os.ftruncate(fd, 0)
            return parts[0] if len(parts) == 1 else b"".join(parts)
        finally:
            os.close(fd)

    # Sending. The callers hold `lock`: what must be decided with the send is decided under it.

    def send(self, kind: int, serial: int, head: bytes, body: bytes = b"") -> None:
        """Send a frame; blocks while the platform does not read, which is the back-pressure."""
        if len(body) > MEMFD_THRESHOLD:
            self._send_memfd(serial, body)
            self._write(_pack(16 + len(head), kind, FLAG_MEMFD, 0, serial, len(head)) + head)
            return
        head_len = len(head)
        self._write(_pack(16 + head_len + len(body), kind, 0, 0, serial, head_len) + head + body)

    def _write(self, data: bytes) -> None:
        sent = os.write(self._answer_fd, data)
        if sent != len(data):
            view = memoryview(data)
            while sent < len(data):
                sent += os.write(self._answer_fd, view[sent:])

    def _send_memfd(self, serial: int, body: bytes) -> None:
        import fcntl

        fd = os.memfd_create("answer", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            view = memoryview(body)
            while view:
                view = view[os.write(fd, view) :]
            fcntl.fcntl(fd, _F_ADD_SEALS, _SEALS)
            socket.send_fds(self.side, [_SERIAL.pack(serial)], [fd])
        finally:
            os.close(fd)

    def detach(self) -> None:
        """Give up all of it, in a process that the handler forked off."""
        for fd in {self._fd, self._answer_fd}:
            os.close(fd)
        self._fd = self._answer_fd = -1
        self.side.close()
