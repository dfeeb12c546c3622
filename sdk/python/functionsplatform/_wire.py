"""One HTTP/1.1 exchange on a connection of its own, every step of which ends by a deadline.

The timeouts of sockets are for each read, so that a server that sends a byte now and then is waited
for without end. Here each step gets what is left.
"""

from __future__ import annotations

import io
import socket
import ssl
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException, HTTPMessage, HTTPResponse
from time import monotonic
from typing import Any
from urllib.parse import SplitResult

_PIECE = 64 * 1024


class NotConnected(Exception):
    """Nothing was sent: there was no connection."""


class Broken(Exception):
    """The connection ended, or what came was no HTTP, after the request may have been sent."""


class Late(Exception):
    """The time was up; `sent` says whether the request may have been sent."""

    def __init__(self, sent: bool) -> None:
        """See the class."""
        super().__init__("the time is up")
        self.sent = sent


class TooLarge(Exception):
    """The answer is larger than its limit."""


class Abort:
    """Ends an exchange from another thread."""

    __slots__ = ("_sock", "set")

    def __init__(self) -> None:
        """Nothing to end yet."""
        self._sock: socket.socket | None = None
        self.set = False

    def watch(self, sock: socket.socket | None) -> None:
        """This is what to end."""
        self._sock = sock
        if self.set:
            self.now()

    def now(self) -> None:
        """End it: its reads and writes fail at once."""
        self.set = True
        if self._sock is not None:
            try:
                self._sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


class _TimedReader(io.RawIOBase):
    """What a response is read from."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._sock = sock
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._sock.settimeout(_left(self._deadline))
        return self._sock.recv_into(buffer)


class _TimedSocket:
    """As much of a socket as `http.client` asks for."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._sock = sock
        self._deadline = deadline

    def sendall(self, data: Any) -> None:
        # This timeout is for all of it.
        self._sock.settimeout(_left(self._deadline))
        self._sock.sendall(data)

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_TimedReader(self._sock, self._deadline))

    def close(self) -> None:
        """Nothing: the response is still read when `http.client` is done with the connection."""


def exchange(
    method: str,
    url: SplitResult,
    headers: Mapping[str, str],
    body: bytes | None,
    *,
    deadline: float,
    limit: int,
    tls: ssl.SSLContext | None,
    abort: Abort,
) -> tuple[int, HTTPMessage, bytes]:
    """Send a request and read the whole answer; `deadline` is of `time.monotonic()`."""
    host, port = url.hostname or "", url.port or (443 if url.scheme == "https" else 80)
    sock = _connect(host, port, deadline, tls if url.scheme == "https" else None)
    abort.watch(sock)
    try:
        connection = HTTPConnection(host, port)
        connection.sock = _TimedSocket(sock, deadline)
        target = (url.path or "/") + (f"?{url.query}" if url.query else "")
        connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders(body)
        response = connection.getresponse()
        return response.status, response.headers, _read(response, limit)
    except TimeoutError:
        raise Late(sent=True) from None
    except (OSError, HTTPException) as error:
        raise Broken(str(error) or type(error).__name__) from error
    finally:
        abort.watch(None)
        sock.close()


def _read(response: HTTPResponse, limit: int) -> bytes:
    announced = response.length
    if announced is not None and announced > limit:
        raise TooLarge
    pieces: list[bytes] = []
    size = 0
    while announced is None or size < announced:
        piece = response.read1(_PIECE)
        if not piece:
            break
        pieces.append(piece)
        size += len(piece)
        if size > limit:
            raise TooLarge
    if announced is not None and size < announced:
        message = f"the answer ended {announced - size} bytes too early"
        raise Broken(message)
    return b"".join(pieces)


def _connect(host: str, port: int, deadline: float, tls: ssl.SSLContext | None) -> socket.socket:
    """The first address that answers; what is left is divided among those that are to be tried."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise NotConnected(f"{host} has no address: {error}") from error
    failure: Exception = NotConnected(f"{host} has no address")
    for place, (family, kind, protocol, _, address) in enumerate(found):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(_left(deadline) / (len(found) - place))
            sock.connect(address)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if tls is None:
                return sock
            sock.settimeout(_left(deadline))
            return tls.wrap_socket(sock, server_hostname=host)
        except OSError as error:
            sock.close()
            failure = error
        except BaseException:
            sock.close()
            raise
    if monotonic() >= deadline:
        raise Late(sent=False)
    raise NotConnected(f"{host}:{port} cannot be reached: {failure}") from failure


def _left(deadline: float) -> float:
    left = deadline - monotonic()
    if left <= 0:
        raise TimeoutError
    return left
