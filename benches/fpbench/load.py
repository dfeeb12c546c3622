"""Load: closed loops by wrk, open loops by the platform's own `bench`, and calls one by one.

The last are on bare sockets, because a Python HTTP client would cost more than what is measured.
"""

import json
import re
import select
import socket
import subprocess
import time
from urllib.parse import urlsplit

UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}


class LoadError(Exception):
    """What was measured is not what was meant to be."""


def wrk(url, connections, seconds, script, *, refused=False):
    """A closed loop; latencies in milliseconds. Any answer but 2xx makes it invalid, or, where calls
    are to be refused, any answer of 2xx."""
    done = subprocess.run(
        ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "--timeout", "10s", "-s", str(script), url],
        capture_output=True,
        text=True,
        timeout=seconds + 30,
    )
    count = int(re.search(r"^\s+(\d+) requests in", done.stdout, re.MULTILINE).group(1)) if done.returncode == 0 else 0
    other = re.search(r"Non-2xx or 3xx responses: (\d+)", done.stdout)
    if count == 0 or "Socket errors" in done.stdout or (int(other.group(1)) if other else 0) != refused * count:
        raise LoadError(f"wrk on {url}:\n{done.stdout}{done.stderr}")
    percentiles = {
        name: float(number) * UNITS[unit]
        for name, number, unit in re.findall(r"^\s+(\d+)%\s+([\d.]+)(us|ms|s|m)$", done.stdout, re.MULTILINE)
    }
    rate = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    return {"p50": percentiles["50"], "p99": percentiles["99"], "rate": float(rate.group(1)), "count": count}


def open_loop(binary, url, rate, seconds, *, timeout="10s", headers=()):
    """`functionsplatform bench`: each latency counts from when its request was meant to be sent."""
    done = subprocess.run(
        [
            binary,
            "bench",
            url,
            "--rate",
            str(rate),
            "--duration",
            f"{seconds}s",
            "--timeout",
            timeout,
            "-d",
            '{"arg": 21}',
            "-H",
            "content-type: application/json",
            *(part for header in headers for part in ("-H", header)),
            "--output",
            "json",
        ],
        capture_output=True,
        text=True,
        timeout=seconds + 60,
    )
    if done.returncode != 0:
        raise LoadError(f"bench on {url}:\n{done.stdout}{done.stderr}")
    return json.loads(done.stdout)


class Connection:
    """One keep-alive connection that sends one request after the other."""

    def __init__(self, url, body=None, headers=None):
        where = urlsplit(url)
        verb = "GET" if body is None else "POST"
        content = "" if body is None else f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        content += "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
        self.request = f"{verb} {where.path} HTTP/1.1\r\nHost: {where.netloc}\r\n{content}\r\n".encode() + (body or b"")
        self.stream = socket.create_connection((where.hostname, where.port), 10)
        self.stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.stream.settimeout(30)

    def call(self):
        """Milliseconds to the first byte, and the answer."""
        begin = time.perf_counter()
        self.stream.sendall(self.request)
        data = self.stream.recv(65536)
        latency = (time.perf_counter() - begin) * 1e3
        return latency, self.finish(data)

    def size_of_call(self):
        """Bytes of an answer, head and body."""
        self.stream.sendall(self.request)
        data = self.more()
        while b"\r\n\r\n" not in data:
            data += self.more()
        head = data.partition(b"\r\n\r\n")[0]
        return len(head) + 4 + len(self.finish(data)[2])

    def finish(self, data):
        """Reads the rest of an answer of which some bytes are there: status, headers, body."""
        while b"\r\n\r\n" not in data:
            data += self.more()
        head, _, body = data.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
        while len(body) < int(headers.get("content-length", 0)):
            body += self.more()
        return int(lines[0].split()[1]), headers, body

    def more(self):
        data = self.stream.recv(65536)
        if not data:
            raise LoadError("the connection was closed in the middle of an answer")
        return data

    def close(self):
        self.stream.close()


def burst(url, count):
    """Sends `count` calls at once, each on a connection of its own; latencies in ms, answers."""
    connections = [Connection(url) for _ in range(count)]
    poll = select.epoll()
    waiting = {}
    for connection in connections:
        poll.register(connection.stream.fileno(), select.EPOLLIN)
    for connection in connections:
        waiting[connection.stream.fileno()] = (time.perf_counter(), connection)
        connection.stream.sendall(connection.request)
    latencies, answers = [], []
    while waiting:
        events = poll.poll(30)
        if not events:
            raise LoadError(f"{len(waiting)} of {count} calls to {url} got no answer in 30 s")
        now = time.perf_counter()
        for descriptor, _ in events:
            begin, connection = waiting.pop(descriptor)
            poll.unregister(descriptor)
            latencies.append((now - begin) * 1e3)
            answers.append(connection.finish(connection.more()))
    poll.close()
    for connection in connections:
        connection.close()
    return latencies, answers


def percentile(values, percent):
    """The smallest value that `percent` of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]
