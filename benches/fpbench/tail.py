"""What the platform does for the slowest calls: with hedging and without, and when too many come.

Two pairs in turns. Two functions that are alike but for `hedge`; and a function that is limited to
two calls at once beside a server that lets the others wait in one queue, as servers do, without a bound.
"""

import re
import statistics

from . import load
from .servers import Waiting

PLAIN, HEDGED = "tail-plain", "tail-hedged"
# Of both functions: a third of what their four workers can do.
RATE = 100
QUANTILES = ("p50", "p90", "p95", "p99", "p99_9")

LIMITED = "limited"
# 20 ms on two workers.
CAPACITY = 100
FACTORS = (0.5, 0.8, 1, 1.5, 2, 5, 10)
# What callers are ready to wait.
PATIENCE = "250ms"


def measure(plan):
    hedging(plan)
    overload(plan)


def hedging(plan):
    plan.say("hedging")
    seconds = 2 * plan.settings.open_seconds
    found = {PLAIN: [], HEDGED: []}
    for _ in range(plan.settings.tail_turns):
        for name, runs in found.items():
            report = load.open_loop(plan.binary, f"{plan.platform.gateway}/{name}", RATE, seconds)
            if set(report["by_status"]) != {"200"}:
                raise load.LoadError(f"{name} answered {report['by_status']}")
            runs.append({**report["latency_ms"], "calls": report["sent"]})
    plan.results["hedging"] = {
        name: {quantile: statistics.median(run[quantile] for run in runs) for quantile in QUANTILES}
        for name, runs in found.items()
    }
    calls = sum(run["calls"] for run in found[HEDGED])
    plan.results["hedging"]["more_calls"] = hedges(plan) / calls


def hedges(plan):
    """Second attempts of the hedged function."""
    pattern = rf'^\w*hedges_total\{{[^}}]*function="{HEDGED}"[^}}]*\}} (\d+)'
    return sum(map(int, re.findall(pattern, plan.platform.text_of("/metrics"), re.MULTILINE)))


def overload(plan):
    plan.say("overload, beside a queue without a bound")
    seconds = max(2, plan.settings.open_seconds // 2)
    found = {LIMITED: {}, Waiting.name: {}}
    for factor in FACTORS if len(plan.settings.overload) > 1 else FACTORS[::4]:
        # Anew each time: nobody waits any more, but it would go on with what it took.
        with Waiting(1, plan.log("waiting")) as waiting:
            urls = {LIMITED: f"{plan.platform.gateway}/{LIMITED}", Waiting.name: waiting.limited_url}
            for name, url in urls.items():
                report = load.open_loop(plan.binary, url, CAPACITY * factor, seconds, timeout=PATIENCE)
                good = report["by_status"].get("200", 0) / report["duration_s"]
                found[name][str(factor)] = good / CAPACITY
    plan.results["tail_overload"] = found
