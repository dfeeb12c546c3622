"""What is left of a function's capacity when callers ask for more than it, and after that.

Callers have a deadline, so that good answers are those in time; refusals are all the others. The
load generator is on the same processors: what it takes to send ten times as many calls is taken
from the function too, and where it cannot send as many, the lines say how many it sent.
"""

from . import load
from .servers import BENCHES

SCRIPT = BENCHES / "noop.lua"
# What callers of an overloaded function are ready to wait.
DEADLINE_SECONDS = 0.5
# 20 ms of sleep on two workers; 6 ms of processor time; nothing at all. With the connections that
# it takes to keep each busy, which find its peak.
FUNCTIONS = {"limited": 8, "computing": 8, "noop": 32}
# A no-op is only offered twice its capacity: the generator has no more to give.
MOST = {"noop": 2}


def measure(plan):
    for name, connections in FUNCTIONS.items():
        plan.say(f"overload of {name}")
        factors = [factor for factor in plan.settings.overload if factor <= MOST.get(name, factor)]
        plan.results.setdefault("overload", {})[name] = of_function(plan, name, connections, factors)


def of_function(plan, name, connections, factors):
    url, seconds = f"{plan.platform.gateway}/{name}", plan.settings.open_seconds
    load.wrk(url, connections, 1, SCRIPT)
    peak = load.wrk(url, connections, seconds, SCRIPT)["rate"]
    found = {"peak": peak, "factors": {}}
    for factor in factors:
        report = at(plan, url, peak * factor, seconds)
        found["factors"][str(factor)] = {
            "sent": report["rate_achieved"] / peak,
            "goodput": report["by_status"].get("200", 0) / report["duration_s"] / peak,
            "refusals_p99": worst_refusal(report),
            "by_status": report["by_status"],
            "valid": report["valid"],
        }
    # Begins when the last call of the overload has ended, at the latest half a second after it.
    after = at(plan, url, peak / 2, max(1, seconds // 4))
    found["after"] = {
        "good": after["by_status"].get("200", 0) / max(1, after["sent"]),
        "p99": after["latency_ms"]["p99"],
        "by_status": after["by_status"],
    }
    return found


def at(plan, url, rate, seconds):
    deadline = f"x-request-timeout: {DEADLINE_SECONDS}"
    return load.open_loop(plan.binary, url, rate, seconds, timeout="5s", headers=[deadline])


def worst_refusal(report):
    """The p99 of the status whose p99 is the longest, in ms; none if nothing was refused."""
    latencies = report["latency_by_status_ms"]
    return max((one["p99"] for status, one in latencies.items() if status != "200"), default=None)
