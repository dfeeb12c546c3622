"""The platform's end of a worker's sockets, for tests: frames out, frames in, nothing clever."""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import socket
import struct
import subprocess
import sys
import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PREFIX = struct.Struct("<IBBHQI")
PACKAGE = Path(__file__).resolve().parent.parent
RUNTIME = PACKAGE.parent.parent / "crates" / "sandbox" / "runtime"

LOAD, CALL, EXIT, PAUSE, RESUME = 1, 2, 3, 4, 5
HELLO, LOADED, LOAD_FAILED, LOG, ANSWER, STREAM_HEAD, STREAM_CHUNK, STREAM_END, FAILURE = range(
    16, 25
)
LAST = {ANSWER, STREAM_END, FAILURE}

# Long enough for a machine under load, short enough for a test that hangs.
PATIENCE_S = 20

SERVE = "import sys; sys.path[:0] = sys.argv[3:]; " + textwrap.dedent("""
    from functionsplatform_runtime.worker import serve
    raise SystemExit(serve(int(sys.argv[1]), int(sys.argv[2])))
""")
# As the zygote does it: warm first, then serve.
WARM_SERVE = "import sys; sys.path[:0] = sys.argv[3:]; " + textwrap.dedent("""
    from functionsplatform_runtime.worker import serve, warm
    warm()
    raise SystemExit(serve(int(sys.argv[1]), int(sys.argv[2])))
""")


@dataclass
class Frame:
    kind: int
    serial: int
    head: Any
    body: bytes
    flags: int = 0


@dataclass
class Outcome:
    """Everything that a call sent back."""

    frames: list[Frame] = field(default_factory=list)

    @property
    def last(self) -> Frame:
        return self.frames[-1]

    @property
    def failed(self) -> bool:
        return self.last.kind == FAILURE

    @property
    def head(self) -> Any:
        return self.last.head

    @property
    def body(self) -> bytes:
        return self.last.body

    @property
    def json(self) -> Any:
        assert self.last.kind == ANSWER, self.last
        return json.loads(self.last.body)

    @property
    def chunks(self) -> list[bytes]:
        return [frame.body for frame in self.frames if frame.kind == STREAM_CHUNK]

    @property
    def stream_head(self) -> Any:
        return next(frame.head for frame in self.frames if frame.kind == STREAM_HEAD)

    def logs(self, source: str | None = None) -> str:
        return b"".join(
            frame.body
            for frame in self.frames
            if frame.kind == LOG and source in (None, frame.head["o"])
        ).decode()

    @property
    def spans(self) -> dict[str, Any]:
        return {span["n"]: span for span in self.last.head.get("sp", [])}


class Worker:
    """A worker process, and how to talk to it."""

    def __init__(self, code_dir: Path, python: str = sys.executable, program: str = SERVE) -> None:
        self.code_dir = code_dir
        self.stream, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.side, their_side = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.stream.settimeout(PATIENCE_S)
        self.side.settimeout(PATIENCE_S)
        fds = (theirs.fileno(), their_side.fileno())
        self.process = subprocess.Popen(
            [python, "-I", "-c", program, *map(str, fds), str(PACKAGE), str(RUNTIME)],
            pass_fds=fds,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        theirs.close()
        their_side.close()
        self._reader = self.stream.makefile("rb")
        self._serial = 0
        self.hello = self.receive()
        assert self.hello.kind == HELLO

    def load(
        self,
        source: str | None = None,
        *,
        file: str = "handler.py",
        name: str = "handler",
        **more: Any,
    ) -> Frame:
        if source is not None:
            path = self.code_dir / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(source))
        head = {
            "code_dir": str(self.code_dir),
            "file": file,
            "callable": name,
            "path": [],
            "env": {},
            "function": "tester",
            "version": 3,
            "tenant": "default",
            "services": {},
            "message_queue_uri": "",
            "log_limit": 1 << 20,
            "response_limit": 6 << 20,
            "concurrency": 1,
            **more,
        }
        self.send(LOAD, 0, head)
        return self.receive()

    def begin(self, body: bytes = b"", *, serial: int | None = None, **head: Any) -> int:
        if serial is None:
            self._serial += 1
            serial = self._serial
        whole = {
            "v": "POST" if body else "GET",
            "p": "/",
            "h": {},
            "i": f"inv-{serial}",
            "c": f"corr-{serial}",
            "t": "ab" * 16,
            "s": "cd" * 8,
            "d": 10_000,
            **head,
        }
        if len(body) > 256 * 1024:
            self.send_memfd(serial, body)
            self.send(CALL, serial, whole, flags=1)
        else:
            self.send(CALL, serial, whole, body)
        return serial

    def call(self, body: bytes = b"", **head: Any) -> Outcome:
        serial = self.begin(body, **head)
        outcome = self.finish()
        assert all(frame.serial == serial for frame in outcome.frames), outcome
        return outcome

    def call_json(self, value: Any, **head: Any) -> Outcome:
        return self.call(json.dumps(value).encode(), h={"content-type": "application/json"}, **head)

    def finish(self) -> Outcome:
        outcome = Outcome()
        while not outcome.frames or outcome.last.kind not in LAST:
            outcome.frames.append(self.receive())
        return outcome

    def cancel(self, serial: int) -> None:
        self.side.send(struct.pack("<Q", serial) + b"C")

    def send(self, kind: int, serial: int, head: Any, body: bytes = b"", flags: int = 0) -> None:
        text = json.dumps(head).encode()
        self.stream.sendall(
            PREFIX.pack(16 + len(text) + len(body), kind, flags, 0, serial, len(text)) + text + body
        )

    def send_memfd(self, serial: int, body: bytes) -> None:
        fd = os.memfd_create("body", os.MFD_ALLOW_SEALING)
        view = memoryview(body)
        while view:
            view = view[os.write(fd, view) :]
        socket.send_fds(self.side, [struct.pack("<Q", serial)], [fd])
        os.close(fd)

    def receive(self) -> Frame:
        prefix = self._read(20)
        length, kind, flags, zero, serial, head_len = PREFIX.unpack(prefix)
        assert zero == 0
        head = self._read(head_len)
        body = self._read(length - 16 - head_len)
        if flags & 1:
            assert not body
            body = self._take_memfd(serial)
        return Frame(kind, serial, json.loads(head) if head else None, body, flags)

    def _read(self, size: int) -> bytes:
        data = self._reader.read(size)
        if len(data) != size:
            raise EOFError(f"the worker hung up: {self.end()}")
        return data

    def _take_memfd(self, serial: int) -> bytes:
        message, fds, _, _ = socket.recv_fds(self.side, 64, 1)
        assert message == struct.pack("<Q", serial)
        size = os.fstat(fds[0]).st_size
        with mmap.mmap(fds[0], size, mmap.MAP_SHARED, mmap.PROT_READ) as mapped:
            data = mapped[:]
        self.sealed = 0
        with contextlib.suppress(OSError):
            import fcntl

            self.sealed = fcntl.fcntl(fds[0], 1034)  # F_GET_SEALS
        os.close(fds[0])
        return data

    def end(self) -> tuple[int, str, str]:
        """Hang up; exit code, standard output and standard error of the process."""
        self._reader.close()
        self.stream.close()
        self.side.close()
        try:
            out, err = self.process.communicate(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            out, err = self.process.communicate()
        return self.process.returncode, out.decode(), err.decode()
