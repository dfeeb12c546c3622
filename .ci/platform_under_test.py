"""Starts the platform for a check or a measurement, and stops it by its process id.

Every port is picked by the platform (port 0) and read from what it prints; all data is in a
directory of the caller's. Standard library only.
"""

import json
import os
import re
import signal
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

# Longest wait for a start. The first start on a slow machine compiles Python's library.
START_SECONDS = 60
# Longest wait for the end after SIGTERM: the drain limit of 10 s and room to clean up.
STOP_SECONDS = 20


class PlatformError(Exception):
    """The platform did not do what a check needs before it can begin."""


class Platform:
    """A running platform; a context manager."""

    def __init__(self, binary, directory, *, functions=(), config="", flags=(), env=None):
        self.binary = str(Path(binary).resolve())
        self.directory = Path(directory)
        self.functions = [str(path) for path in functions]
        self.config = config
        self.flags = list(flags)
        self.env = {**os.environ, **(env or {})}
        self.gateway = self.api = self.traces = None

    def __enter__(self):
        self.directory.mkdir(parents=True, exist_ok=True)
        configuration = self.directory / "functionsplatform.toml"
        configuration.write_text(self.config)
        self.output = self.directory / "up.out"
        command = [
            self.binary,
            "up",
            "--config",
            str(configuration),
            "--data-dir",
            str(self.directory / "data"),
            "--gateway-addr",
            "127.0.0.1:0",
            "--api-addr",
            "127.0.0.1:0",
            "--traces-addr",
            "127.0.0.1:0",
            *self.flags,
            *self.functions,
        ]
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=self.env
            )
        try:
            self.wait_until_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind, error, trace):
        code = self.stop()
        if kind is None and code != 0:
            raise PlatformError(f"the platform ended with {code}; its output:\n{self.text()}")

    def text(self):
        """What it has printed so far, without colours."""
        return re.sub(r"\x1b\[[0-9;]*m", "", self.output.read_text(errors="replace"))

    def wait_until_ready(self):
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise PlatformError(f"the platform ended with {self.process.returncode}:\n{self.text()}")
            if self.api is None:
                self.read_addresses()
            elif self.status("/readyz") == 200:
                return
            time.sleep(0.01)
        raise PlatformError(f"the platform was not ready after {START_SECONDS} s:\n{self.text()}")

    def read_addresses(self):
        found = {}
        for line in self.text().splitlines():
            if match := re.search(r"https?://[\w.\[\]:-]+:[1-9]\d*", line):
                for name in ("gateway", "api", "traces"):
                    if re.search(rf"\b{name}\b", line, re.IGNORECASE):
                        found.setdefault(name, match.group())
        if len(found) == 3:
            self.gateway, self.traces = found["gateway"], found["traces"]
            self.api = found["api"]

    def status(self, path):
        try:
            with urllib.request.urlopen(self.api + path, timeout=5) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return None

    def text_of(self, path):
        """Text from the management API."""
        with urllib.request.urlopen(self.api + path, timeout=30) as answer:
            return answer.read().decode()

    def get(self, path):
        """JSON from the management API."""
        with urllib.request.urlopen(self.api + path, timeout=30) as answer:
            return json.load(answer)

    def cli(self, *arguments, check=True):
        """Runs a command of the CLI against this platform and returns its standard output."""
        command = [self.binary, "--platform-uri", self.api, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=self.env)
        if check and done.returncode != 0:
            raise PlatformError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout

    def stop(self):
        """SIGTERM, then SIGKILL when that was not enough; returns the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        return self.process.returncode


def binary_of_this_clone(profile="release"):
    """The platform's binary, from `cargo build`'s target directory."""
    root = Path(__file__).resolve().parent.parent
    target = Path(os.environ.get("CARGO_TARGET_DIR", root / "target"))
    return target / profile / "functionsplatform"
