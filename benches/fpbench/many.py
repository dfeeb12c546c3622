"""A platform with many functions: what they cost it at rest, on a warm call and at a restart."""

import contextlib
import json
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

from . import memory
from .servers import BENCHES, BODY

NAME = "platform, many functions"


@contextlib.contextmanager
def platform(plan):
    """Deploys them; when the others are done with it, stops it and starts it again."""
    count = plan.settings.functions
    with plan.new_platform("many", [BENCHES / "functions" / "noop"]) as platform:
        before = memory.resident(platform.process.pid)
        begin = time.monotonic()
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda number: deploy(platform.api, number), range(count)))
        seconds = time.monotonic() - begin
        plan.say(f"deployed {count} functions in {seconds:.1f} s")
        found = plan.results["many_functions"] = {
            "functions": count,
            "deploy_ms": seconds * 1e3 / count,
            "memory_kib_each": (memory.resident(platform.process.pid) - before) / 1024 / count,
        }
        yield platform
    found["restart_s"] = restart(plan, count)


def restart(plan, count):
    """Seconds from the start of the process to an answer of a function, with all of them there."""
    begin = time.monotonic()
    with plan.new_platform("many", []) as platform:
        request = urllib.request.Request(
            platform.gateway + "/noop", data=BODY, headers={"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            answer.read()
        seconds = time.monotonic() - begin
        with urllib.request.urlopen(f"{platform.gateway}/many/{count - 1}", timeout=60) as answer:
            answer.read()
    return seconds


def deploy(api, number):
    """Creates one more function, cold, so that it costs no worker."""
    document = {
        "function_name": f"many-{number}",
        "event_type": f"http|GET|/many/{number}",
        "function_code": "def handler(message, context):\n    return {}\n",
        "settings": {"scaling": {"idle": "0s"}},
    }
    request = urllib.request.Request(
        api + "/functions", data=json.dumps(document).encode(), headers={"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        answer.read()
