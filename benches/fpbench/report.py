"""From measurements to lines with targets, to JSON and to a table in Markdown."""

import json
import os
import platform as host
import statistics
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

from .plan import PLATFORM
from .servers import Bare, FunctionsFramework, Gunicorn, Uvicorn

MANY = f"{PLATFORM}, many functions"


def median(rounds, key):
    return statistics.median(one[key] for one in rounds)


def ratio(results, name, key, other, *, mine=PLATFORM):
    """The median over rounds of mine ÷ the other's."""
    pairs = zip(results[name][mine], results[name][other], strict=True)
    return statistics.median(one[key] / two[key] for one, two in pairs)


def lines(results):
    """Each aim with what was measured: what, value, aim, whether it was reached."""
    cold = sorted(results["cold_calls"])
    at = lambda percent: cold[max(0, -(-len(cold) * percent // 100) - 1)]  # noqa: E731
    second, noop = results["burst-second"][PLATFORM], results["burst-noop"][PLATFORM]
    below, above = (lambda value, aim: value <= aim), (lambda value, aim: value >= aim)
    found = [
        ("Warm call, p50 ÷ bare path", ratio(results, "warm", "p50", Bare.name), "≤", 1.35, ""),
        ("Warm call, p50 ÷ uvicorn + FastAPI", ratio(results, "warm", "p50", Uvicorn.name), "≤", 0.7, ""),
        ("Warm call, p99 ÷ bare path", ratio(results, "warm", "p99", Bare.name), "≤", 2.0, ""),
        ("Throughput ÷ gunicorn + FastAPI", ratio(results, "throughput", "rate", Gunicorn.name), "≥", 2.0, ""),
        (
            "Throughput ÷ functions-framework",
            ratio(results, "throughput", "rate", FunctionsFramework.name),
            "≥",
            10.0,
            "",
        ),
        ("Cold start, p50", at(50), "≤", 5.0, "ms"),
        ("Cold start, p99", at(99), "≤", 20.0, "ms"),
        ("Burst of cold calls of 1 s, p99", median(second, "p99"), "≤", 1300.0, "ms"),
        (
            "Burst of cold calls of 1 s, p99 ÷ p50",
            statistics.median(one["p99"] / one["p50"] for one in second),
            "≤",
            1.2,
            "",
        ),
        ("Burst of cold no-op calls, p99", median(noop, "p99"), "≤", 150.0, "ms"),
        ("Idle platform, resident", results["idle_platform"]["resident"] / 2**20, "≤", 40.0, "MiB"),
        ("Idle worker, private memory", statistics.median(results["idle_worker"]) / 2**20, "≤", 4.0, "MiB"),
        (
            f"Warm call with {results['many_functions']['functions']} functions, p50 ÷ without",
            ratio(results, "warm", "p50", PLATFORM, mine=MANY),
            "≤",
            1.05,
            "",
        ),
        *(
            (f"Goodput at {factor} × capacity ÷ peak", one["goodput"], "≥", 0.95, "")
            for factor, one in results["overload"].items()
        ),
    ]
    return [
        {
            "line": line,
            "value": value,
            "aim": f"{sign} {aim:g} {unit}".strip(),
            "unit": unit,
            "reached": (below if sign == "≤" else above)(value, aim),
        }
        for line, value, sign, aim, unit in found
    ]


def machine():
    """Where and with what it was measured."""
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "kernel": host.release(),
        "python": ".".join(map(str, sys.version_info[:3])),
        "rustc": said("rustc", "--version"),
        "commit": said("git", "rev-parse", "--short", "HEAD"),
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def said(*command):
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def document(results, settings):
    """The whole run, for programs."""
    return {
        "machine": machine(),
        "rounds": settings.rounds,
        "seconds": settings.seconds,
        "lines": lines(results),
        "results": results,
    }


def comparison(run):
    """The table that the README embeds."""
    results, where = run["results"], run["machine"]
    rows = [
        "| no-op JSON call | p50, 1 connection | p99, 1 connection | calls/s, 32 connections (workers) |",
        "|---|--:|--:|--:|",
    ]
    for name, label in [
        (PLATFORM, "**functionsplatform** (sandboxed, traced, with objective)"),
        (Bare.name, "bare path (the same HTTP server, Python loops, nothing else)"),
        (Uvicorn.name, Uvicorn.name),
        (Gunicorn.name, Gunicorn.name),
        (FunctionsFramework.name, FunctionsFramework.name),
    ]:
        warm, many = results["warm"].get(name), results["throughput"].get(name)
        latency = [f"{median(warm, key) * 1e3:.0f} µs" if warm else "–" for key in ("p50", "p99")]
        rate = f"{median(many, 'rate'):,.0f} ({results['workers'][name]['best']})" if many else "–"
        rows.append(f"| {label} | {latency[0]} | {latency[1]} | {rate} |")
    rows += ["", "| | measured | aim |", "|---|--:|--:|"]
    for line in run["lines"]:
        mark = "" if line["reached"] else " (missed)"
        rows.append(f"| {line['line']} | {shown(line)} | {line['aim']}{mark} |")
    rows += [
        "",
        f"Medians of {run['rounds']} interleaved rounds of {run['seconds']} s; the load generator on the same "
        f"{where['cores']} cores ({where['cpu']}, Linux {where['kernel']}, commit {where['commit']}). "
        "`benches/run` repeats it. Trust the ratios more than the figures.",
    ]
    return "\n".join(rows) + "\n"


def shown(line):
    value = line["value"]
    digits = 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:.{digits}f} {line['unit']}".strip()


def embed(file, text):
    """Puts the table between the markers of a document."""
    begin, end = "<!-- bench:begin -->\n", "<!-- bench:end -->"
    before, _, rest = Path(file).read_text().partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise ValueError(f"{file} has no place for the bench: {begin.strip()} … {end}")
    Path(file).write_text(before + begin + text + end + after)


def save(file, run):
    Path(file).write_text(json.dumps(run, indent=1, ensure_ascii=False) + "\n")
