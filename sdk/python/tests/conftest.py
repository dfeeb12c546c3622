"""A worker per test, ended and checked afterwards; and in CI, no test that is left out."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from platform_double import LOADED, Worker

Start = Callable[..., Worker]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a worker, and load a handler if its source is given."""
    workers: list[Worker] = []

    def start(source: str | None = None, *, python: str | None = None, **load: Any) -> Worker:
        code_dir = tmp_path / f"code{len(workers)}"
        code_dir.mkdir()
        worker = Worker(code_dir, **({"python": python} if python else {}))
        workers.append(worker)
        if source is not None:
            loaded = worker.load(source, **load)
            assert loaded.kind == LOADED, loaded
        return worker

    yield start
    for worker in workers:
        if worker.process.poll() is None:
            worker.end()
        elif not worker.process.stdout.closed:
            worker.process.communicate()
        worker.stream.close()
        worker.side.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and os.environ.get("CI") == "true":
        report.outcome = "failed"
        report.longrepr = f"in CI no test is left out: {report.longrepr}"
    return report
