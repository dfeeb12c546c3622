"""The loop in every Python of this machine that the platform supports."""

from __future__ import annotations

import glob
import os
import shutil
import subprocess

import pytest

HANDLER = """
    import asyncio, sys, time
    from functionsplatform.sdk import tracing
    def handler(message, context):
        with tracing.start_span(context.tracer, "s"):
            print("hi")
        match message["path"]:
            case "/version": return ".".join(map(str, sys.version_info[:2]))
            case "/stream": return (str(n) for n in range(3))
            case "/async": return work()
            case "/raise": raise ValueError("bad")
            case "/nan": return {"a": [float("nan")]}
            case "/sleep": time.sleep(30)
            case "/sleep-async": return asyncio.sleep(30)
            case "/large": return "x" * 300_000
    async def work():
        await asyncio.sleep(0.001)
        return {"async": True}
"""


def interpreters() -> dict[str, str]:
    found = {}
    for minor in range(10, 15):
        places = [
            *sorted(glob.glob(os.path.expanduser(f"~/.pyenv/versions/3.{minor}.*/bin/python3"))),
            shutil.which(f"python3.{minor}") or "",
            "/usr/bin/python3",
        ]
        for place in filter(os.path.exists, places):
            asked = subprocess.run(
                [place, "-c", "import sys; print(*sys.version_info[:2], sep='.')"],
                capture_output=True,
                text=True,
            )
            if asked.stdout.strip() == f"3.{minor}":
                found[f"3.{minor}"] = place
                break
    return found


@pytest.mark.parametrize(("version", "python"), interpreters().items())
def test_the_loop_works_in(start, version, python):
    worker = start(HANDLER, python=python)
    assert worker.call(p="/version").body.decode() == version
    assert b"".join(worker.call(p="/stream").chunks) == b"012"
    assert worker.call(p="/async").json == {"async": True}
    failure = worker.call(p="/raise")
    assert failure.head["frames"][-1][2:] == ["handler", 'case "/raise": raise ValueError("bad")']
    assert worker.call(p="/nan").head["message"].startswith('result["a"][0] is nan')
    assert worker.call(p="/sleep", d=50).head["kind"] == "deadline_exceeded"
    assert worker.call(p="/sleep-async", d=50).head["kind"] == "deadline_exceeded"
    assert worker.call(p="/large").last.flags == 1
    outcome = worker.call(p="/version")
    assert outcome.logs() == "hi\n"
    assert "s" in outcome.spans
    assert worker.end() == (0, "", "")
