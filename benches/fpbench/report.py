"""From measurements to lines with targets, to JSON and to a table in Markdown."""

import contextlib
import json
import os
import platform as host
import statistics
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

from . import ballast
from .load import percentile
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
    found = []
    for part in (warm, throughput, cold, cold_preloaded, bursts, idle, many, overload):
        with contextlib.suppress(KeyError):  # a part that was not asked for
            found.extend(part(results))
    return [
        {
            "line": line,
            "value": value,
            "aim": f"{sign} {aim:g} {unit}".strip(),
            "unit": unit,
            "reached": reaches(value, sign, aim),
        }
        for line, value, sign, aim, unit in found
    ]


def warm(results):
    yield "Warm call, p50 ÷ bare path", ratio(results, "warm", "p50", Bare.name), "≤", 1.35, ""
    yield "Warm call, p50 ÷ uvicorn + FastAPI", ratio(results, "warm", "p50", Uvicorn.name), "≤", 0.7, ""
    yield "Warm call, p99 ÷ bare path", ratio(results, "warm", "p99", Bare.name), "≤", 2.0, ""


def throughput(results):
    yield "Throughput ÷ gunicorn + FastAPI", ratio(results, "throughput", "rate", Gunicorn.name), "≥", 2.0, ""
    peer = FunctionsFramework.name
    yield f"Throughput ÷ {peer}", ratio(results, "throughput", "rate", peer), "≥", 10.0, ""


def cold(results):
    calls = results["cold_calls"]
    yield "Cold start, p50", percentile(calls, 50), "≤", 5.0, "ms"
    yield "Cold start, p99", percentile(calls, 99), "≤", 20.0, "ms"


def cold_preloaded(results):
    calls = results[f"{ballast.NAME}_calls"]
    yield f"Cold start with {ballast.MEBIBYTES} MB preloaded, p50", percentile(calls, 50), "≤", 5.0, "ms"
    yield f"Cold start with {ballast.MEBIBYTES} MB preloaded, p99", percentile(calls, 99), "≤", 20.0, "ms"


def bursts(results):
    second, noop = results["burst-second"][PLATFORM], results["burst-noop"][PLATFORM]
    yield "Burst of cold calls of 1 s, p99", median(second, "p99"), "≤", 1300.0, "ms"
    spread = statistics.median(one["p99"] / one["p50"] for one in second)
    yield "Burst of cold calls of 1 s, p99 ÷ p50", spread, "≤", 1.2, ""
    yield "Burst of cold no-op calls, p99", median(noop, "p99"), "≤", 150.0, "ms"


def idle(results):
    yield "Idle platform, resident", results["idle_platform"]["resident"] / 2**20, "≤", 40.0, "MiB"
    yield "Idle worker, private memory", statistics.median(results["idle_worker"]) / 2**20, "≤", 4.0, "MiB"


def many(results):
    name = f"Warm call with {results['many_functions']['functions']:,} functions, p50 ÷ without"
    yield name, ratio(results, "warm", "p50", PLATFORM, mine=MANY), "≤", 1.05, ""


def overload(results):
    for factor, one in results["overload"].items():
        yield f"Goodput at {factor} × capacity ÷ peak", one["goodput"], "≥", 0.95, ""


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
        one, many = (results.get(part, {}).get(name) for part in ("warm", "throughput"))
        latency = [f"{median(one, key) * 1e3:.0f} µs" if one else "–" for key in ("p50", "p99")]
        rate = f"{median(many, 'rate'):,.0f} ({results['workers'][name]['best']})" if many else "–"
        rows.append(f"| {label} | {latency[0]} | {latency[1]} | {rate} |")
    rows += ["", "| | measured | aim |", "|---|--:|--:|"]
    for line in run["lines"]:
        mark = "" if line["reached"] else " (missed)"
        rows.append(f"| {line['line']} | {shown(line)} | {line['aim']}{mark} |")
    if zygote := results.get("preloading_zygote"):
        seconds, size = zygote["start_ms"] / 1e3, zygote["memory"] / 2**20
        rows.append(f"| Start of the zygote that preloads ({size:.0f} MiB), once per deploy | {seconds:.2f} s | – |")
    rows += [
        "",
        f"Medians of {run['rounds']} interleaved rounds of {run['seconds']} s; the load generator on the same "
        f"{where['cores']} cores ({where['cpu']}, Linux {where['kernel']}, commit {where['commit']}). "
        "`benches/run` repeats it. Trust the ratios more than the figures.",
    ]
    return "\n".join(rows) + "\n"


def reaches(value, sign, aim):
    return value <= aim if sign == "≤" else value >= aim


def shown(line):
    """With as many digits as it takes to see whether the aim was reached."""
    value = line["value"]
    sign, aim = line["aim"].split()[:2]
    aim = float(aim.replace(",", ""))
    digits = 2 if value < 10 else 1 if value < 100 else 0
    while digits < 6 and reaches(float(f"{value:.{digits}f}"), sign, aim) != line["reached"]:
        digits += 1
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
