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

from . import ballast, tail
from .load import percentile
from .many import NAME as MANY
from .plan import NETWORKS, PLATFORM, networked
from .servers import Bare, BareFork, FunctionsFramework, Gunicorn, Uvicorn

# What the functions of benches/functions that are overloaded do.
OVERLOADED = {"limited": "20 ms of sleep", "computing": "6 ms of CPU", "noop": "a no-op"}


def median(rounds, key):
    return statistics.median(one[key] for one in rounds)


def ratio(results, name, key, other, *, mine=PLATFORM):
    """The median over rounds of mine ÷ the other's."""
    pairs = zip(results[name][mine], results[name][other], strict=True)
    return statistics.median(one[key] / two[key] for one, two in pairs)


def lines(results):
    """Each aim with what was measured: what, value, aim, whether it was reached."""
    found = []
    for part in (warm, tracing, throughput, cold, bursts, idle, many, history, overload, refusals, hedging):
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


def tracing(results):
    found = results["tracing"]
    yield "Tracing, processor time of a call", found["us_per_call"], "≤", 5.0, "µs"


def cold(results):
    kinds = {
        "cold": "Cold start",
        **{networked(network): f'Cold start, network = "{network}"' for network in NETWORKS},
        ballast.NAME: f"Cold start with {ballast.MEBIBYTES} MB preloaded",
    }
    for name, line in kinds.items():
        calls = results[f"{name}_calls"]
        yield f"{line}, p50", percentile(calls, 50), "≤", 5.0, "ms"
        yield f"{line}, p99", percentile(calls, 99), "≤", 20.0, "ms"


def bursts(results):
    second, noop = results["burst-second"][PLATFORM], results["burst-noop"][PLATFORM]
    yield "Burst of cold calls of 1 s, p99", median(second, "p99"), "≤", 1300.0, "ms"
    spread = statistics.median(one["p99"] / one["p50"] for one in second)
    yield "Burst of cold calls of 1 s, p99 ÷ p50", spread, "≤", 1.2, ""
    yield "Burst of cold no-op calls, p99", median(noop, "p99"), "≤", 150.0, "ms"


def idle(results):
    platform = results["idle_platform"]
    beside = (platform["resident"] - platform["ring"]) / 2**20
    yield "Idle platform, resident besides the ring", beside, "≤", 40.0, "MiB"
    yield "Idle worker, private memory", statistics.median(results["idle_worker"]) / 2**20, "≤", 4.0, "MiB"


def many(results):
    found = results["many_functions"]
    count = f"{found['functions']:,} functions"
    yield f"Restart with {count}, until one answers", found["restart_s"], "≤", 1.0, "s"
    yield f"Warm call with {count}, p50 ÷ without", ratio(results, "warm", "p50", PLATFORM, mine=MANY), "≤", 1.05, ""


def history(results):
    found = results["history"]
    whole, hour = found["whole_way"], found["hour"]
    yield "History, a wide event on disk once compacted", whole["bytes_per_event"], "≤", 120.0, "B"
    million = f"hour of {hour['calls'] / 1e6:g} M events"
    yield (
        f"History, slowest of {len(hour['queries_ms'])} lists over an {million}",
        max(hour["queries_ms"].values()) / 1e3,
        "≤",
        1.0,
        "s",
    )
    yield (
        f"History, slowest of {len(hour['questions_ms'])} questions about an {million}",
        max(hour["questions_ms"].values()) / 1e3,
        "≤",
        1.0,
        "s",
    )
    traces = hour["lookups"]["trace_ms"]
    yield f"History, a trace by id in an {million}, p99", percentile(traces, 99), "≤", 10.0, "ms"


def overload(results):
    for name, found in results["overload"].items():
        what = OVERLOADED[name]
        for factor, one in found["factors"].items():
            sent = "" if one["valid"] else f" ({one['sent']:.1f} × sent)"
            yield f"Goodput of {what} at {factor} × capacity{sent} ÷ peak", one["goodput"], "≥", 0.95, ""
        worst = list(found["factors"].values())[-1]["refusals_p99"]
        if worst is not None:
            yield f"Refusals of {what} at {factor} × capacity, p99", worst, "≤", 5.0, "ms"
        yield f"Good answers of {what} at half its capacity right after", found["after"]["good"], "≥", 0.99, ""


def refusals(results):
    found = results["refusals"]
    for connections, key, what in ((8, "processor_us", "processor time"), (1, "p50", "latency, p50")):
        pairs = zip(found[f"{PLATFORM}, {connections}"], found[f"{Bare.name}, {connections}"], strict=True)
        value = statistics.median(mine[key] / bare[key] for mine, bare in pairs)
        yield f"Refusal ÷ bare answer of its size, {what}", value, "≤", 1.5, ""


def hedging(results):
    found = results["hedging"]
    yield "A tail of 200 ms in 2 % of calls, hedged, p99", found[tail.HEDGED]["p99"], "≤", 60.0, "ms"
    yield "The same without hedging ÷ with, p99", found[tail.PLAIN]["p99"] / found[tail.HEDGED]["p99"], "≥", 3.0, ""
    yield "More calls by hedging, in percent", found["more_calls"] * 100, "≤", 3.0, "%"


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
        "windows": settings.windows,
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
    rows += extras(results)
    rows += [
        "",
        f"Medians of {run['rounds']} interleaved rounds (one connection: {run['windows']} windows of 1 s in each); the load generator on the same "
        f"{where['cores']} cores ({where['cpu']}, Linux {where['kernel']}, commit {where['commit']}). "
        "`benches/run` repeats it. Trust the ratios more than the figures.",
    ]
    return "\n".join(rows) + "\n"


def extras(results):
    """Lines that have no aim, and say what stands behind those that have one."""
    if cold := results.get("cold"):
        for key in ("p50", "p99"):
            pair = f"{median(cold[PLATFORM], key):.2f} and {median(cold[BareFork.name], key):.2f} ms"
            yield f"| Cold start, {key}, with all isolation and of {BareFork.name} | {pair} | – |"
    if many := results.get("many_functions"):
        each = many["memory_kib_each"] * 1000 / 1024
        yield f"| Memory of 1,000 functions that nobody calls | {each:.1f} MiB | – |"
    if found := results.get("history"):
        whole = found["whole_way"]
        yield f"| History, a row on disk before it is compacted | {whole['bytes_per_row']:.0f} B | – |"
        yield f"| History, compacting, for a call | {whole['us_to_compact']:.1f} µs | – |"


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
