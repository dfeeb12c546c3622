"""The servers that are measured: how each is started, and stopped by its process id.

All of them answer `POST /noop` with the same JSON. A server is a context manager with a `url`
and, where it has such a thing, a number of workers.
"""

import os
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

BENCHES = Path(__file__).resolve().parent.parent
# FastAPI's imports take seconds on busy cores.
START_SECONDS = 30
STOP_SECONDS = 10
BODY = b'{"arg": 21}'
ANSWER = {"result": 42, "status": "noice"}


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Server:
    """A process that answers `POST /noop` on a free port."""

    name = ""

    def __init__(self, workers, log):
        self.workers = workers
        self.log = log
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/noop"

    def __enter__(self):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [str(part) for part in self.command()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=BENCHES / "peers",
                env={**os.environ, **self.environment()},
            )
        try:
            self.wait()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def environment(self):
        return {}

    def wait(self):
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end and self.process.poll() is None:
            try:
                answer = post(self.url)
            except OSError:
                time.sleep(0.05)
                continue
            if answer != ANSWER:
                raise RuntimeError(f"{self.name} answers {answer}")
            return
        raise RuntimeError(f"{self.name} did not start; its output is in {self.log}")


def post(url):
    import json

    request = urllib.request.Request(url, data=BODY, headers={"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


class Bare(Server):
    """benches/bare: the platform's HTTP server in front of Python loops."""

    name = "bare path"
    binary = python = None  # set by benches/run

    def command(self):
        return [self.binary, "--addr", f"127.0.0.1:{self.port}", "--workers", self.workers, "--python", self.python]


class BareFork(Bare):
    """The same in front of a Python that forks for each call, and loads the handler of `cold` in the child."""

    name = "a fork without isolation"

    def command(self):
        return [*super().command(), "--cold", BENCHES / "functions" / "cold" / "handler.py"]


class Peer(Server):
    """A server from the virtual environment of the peers."""

    programs = None  # set by benches/run


class Uvicorn(Peer):
    name = "uvicorn + FastAPI"

    def command(self):
        return [
            self.programs / "uvicorn",
            "asgi:app",
            "--host",
            "127.0.0.1",
            "--port",
            self.port,
            "--loop",
            "uvloop",
            "--http",
            "httptools",
            "--no-access-log",
            "--log-level",
            "warning",
        ]


class Waiting(Uvicorn):
    """Uvicorn again, for its function that two callers may use at once while all others wait."""

    name = "unbounded queue"

    @property
    def limited_url(self):
        return self.url.replace("/noop", "/limited")


class Gunicorn(Peer):
    name = "gunicorn + uvicorn workers + FastAPI"

    def command(self):
        return [
            self.programs / "gunicorn",
            "asgi:app",
            "--worker-class",
            "uvicorn_worker.UvicornWorker",
            "--workers",
            self.workers,
            "--bind",
            f"127.0.0.1:{self.port}",
            "--log-level",
            "warning",
        ]


class FunctionsFramework(Peer):
    name = "functions-framework"

    def command(self):
        return [
            self.programs / "functions-framework",
            "--source",
            "framework.py",
            "--target",
            "handler",
            "--signature-type",
            "http",
            "--host",
            "127.0.0.1",
            "--port",
            self.port,
        ]

    def environment(self):
        # Its number of threads is left at its default, four for each core.
        return {"WORKERS": str(self.workers)}
