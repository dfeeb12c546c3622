"""What is measured, and in which order.

Everything that is compared is measured in rounds: in each round every server has its turn, and
each round begins with another one, so that what disturbs the machine disturbs all alike. The
result of a round is kept; ratios are taken within a round, and their median is what counts.
"""

import contextlib
import json
import re
import shutil
import statistics
import time
from pathlib import Path

from platform_under_test import Platform

from . import ballast, load, many, memory, overload, probe, refusals, tail
from .servers import BENCHES, BODY, Bare, BareFork, FunctionsFramework, Gunicorn, Uvicorn

ROOT = BENCHES.parent
SCRIPT = BENCHES / "noop.lua"
CONNECTIONS = 32
PLATFORM = "platform"
# Between two cold calls: time for the platform to have a blank worker ready again. What is
# measured is one cold start, not a queue of them; bursts are measured apart.
COLD_PAUSE_SECONDS = 0.03
# What `network` may be, besides the default, `full`, which is that of `cold` itself.
NETWORKS = ("none", "internal")


class Plan:
    """One run: `settings` has what differs between a full and a quick one."""

    def __init__(self, settings, directory, binary, say):
        self.settings = settings
        self.directory = Path(directory)
        self.binary = binary
        self.say = say
        self.results = {}

    def run(self):
        """Measures everything and returns it by name."""
        if self.wants("tracing"):
            self.results["tracing"] = probe.tracing(self)
        if self.wants("history"):
            self.results["history"] = probe.history(self)
        if self.wants("memory"):
            self.idle_platform()
        with contextlib.ExitStack() as stack:
            # The base of a platform that is put under load here and of one with many functions.
            functions, config = [*self.variants(), BENCHES / "functions"], ""
            if self.wants("cold"):
                layer, preloading = ballast.write(self.directory)
                functions, config = [*functions, preloading], f"layers = [{json.dumps(str(layer))}]\n"
            self.platform = stack.enter_context(self.new_platform("platform", functions, config=config))
            self.bare = stack.enter_context(Bare(1, self.log("bare")))
            one = {
                PLATFORM: self.platform.gateway + "/noop",
                Bare.name: self.bare.url,
                Uvicorn.name: stack.enter_context(Uvicorn(1, self.log("uvicorn"))).url,
            }
            if self.wants("cold"):
                self.fork = stack.enter_context(BareFork(1, self.log("fork")))
            if self.wants("many"):
                one[many.NAME] = stack.enter_context(many.platform(self)).gateway + "/noop"
            best = self.best_worker_counts(stack) if self.wants("throughput") else {}
            for number in range(self.settings.rounds):
                self.say(f"round {number + 1} of {self.settings.rounds}")
                self.measure_round(number, one, best)
            if self.wants("memory"):
                self.idle_workers()
            if self.wants("cold"):
                self.preloading_zygote()
            if self.wants("warm"):
                self.open_loop(one)
            if self.wants("overload"):
                overload.measure(self)
            if self.wants("tail"):
                tail.measure(self)
        return self.results

    def measure_round(self, number, one, best):
        """Everything that is measured in rounds, once."""
        if self.wants("warm"):
            # Short and many: where the scheduler puts processes changes from window to window, and
            # a ratio is taken of neighbours.
            for window in range(self.settings.windows):
                self.round(number * self.settings.windows + window, "warm", one, 1, seconds=1)
        if self.wants("throughput"):
            self.round(number, "throughput", best, CONNECTIONS, seconds=self.settings.seconds)
        if self.wants("refusals"):
            refusals.measure(self)
        if self.wants("cold"):
            for name in ("cold", *map(networked, NETWORKS), ballast.NAME):
                self.cold(name)
            self.keep("cold", BareFork.name, self.cold_calls(self.fork.url)[0])
        if self.wants("burst"):
            self.burst("burst-second")
            self.burst("burst-noop")

    def wants(self, part):
        return part in self.settings.only

    def new_platform(self, name, functions, **options):
        directory = self.directory / name
        # The same Python as the bare path and the peers have: versions differ by more than servers do.
        flags = ["--python", str(Bare.python)]
        return Platform(self.binary, directory, functions=functions, flags=flags, **options)

    def log(self, name):
        return self.directory / f"{name}.log"

    def keep(self, name, key, value):
        self.results.setdefault(name, {}).setdefault(key, []).append(value)

    # One after the other.

    def round(self, number, name, urls, connections, *, seconds):
        order = list(urls.items())
        first = number % len(order)
        for key, url in order[first:] + order[:first]:
            self.keep(name, key, load.wrk(url, connections, seconds, SCRIPT))

    def variants(self):
        """Copies of `noop` that may have exactly N workers, and of `cold` with other networks."""
        root = self.directory / "variants"
        for count in self.settings.worker_counts:
            manifest = variant(root, "noop", f"noop-{count}")
            manifest.write_text(manifest.read_text().replace("min = 1", f"min = {count}\nmax = {count}"))
        for network in NETWORKS:
            manifest = variant(root, "cold", networked(network))
            manifest.write_text(f'network = "{network}"\n' + manifest.read_text())
        return [root]

    def best_worker_counts(self, stack):
        """Each server's URL at the number of workers with which it answers most calls a second."""
        counts = {PLATFORM: lambda count: contextlib.nullcontext(self.platform.gateway + f"/noop-{count}")}
        for kind in (Bare, Gunicorn, FunctionsFramework):
            counts[kind.name] = lambda count, kind=kind: self.opened(kind, count)
        urls = {}
        for name, opened in counts.items():
            tries = {count: [] for count in self.settings.worker_counts}
            # In turns: what else the machine does in a second must not choose for one of them.
            for _ in range(self.settings.tries):
                for count, rates in tries.items():
                    with opened(count) as url:
                        load.wrk(url, CONNECTIONS, 1, SCRIPT)
                        rates.append(load.wrk(url, CONNECTIONS, self.settings.seconds, SCRIPT)["rate"])
            rates = {count: statistics.median(found) for count, found in tries.items()}
            best = max(rates, key=rates.get)
            self.say(f"{name}: best with {best} workers of {json.dumps({k: round(v) for k, v in rates.items()})}")
            self.results.setdefault("workers", {})[name] = {"best": best, "rates": rates}
            urls[name] = stack.enter_context(opened(best))
        return urls

    @contextlib.contextmanager
    def opened(self, kind, count):
        with kind(count, self.log(f"{kind.__name__.lower()}-{count}")) as server:
            yield server.url

    # Cold starts.

    def cold(self, name):
        found, latencies, ids = self.cold_calls(f"{self.platform.gateway}/{name}")
        self.assert_cold(ids)
        self.keep(name, PLATFORM, found)
        self.results.setdefault(f"{name}_calls", []).extend(latencies)

    def cold_calls(self, url):
        """One after the other: percentiles, all latencies and the instances that answered."""
        connection = load.Connection(url, BODY)
        latencies, ids = [], []
        for _ in range(self.settings.cold_calls):
            time.sleep(COLD_PAUSE_SECONDS)
            latency, (status, headers, body) = connection.call()
            if status != 200:
                raise load.LoadError(f"a cold call was answered {status}: {body[:500]!r}")
            latencies.append(latency)
            ids.append(headers.get("x-serverless-instance-id"))
        connection.close()
        found = {"p50": statistics.median(latencies), "p99": load.percentile(latencies, 99)}
        return found, latencies, ids

    def preloading_zygote(self):
        """How long the imports took that no cold start pays for, and the memory that they are in."""
        zygotes = self.platform.get("/host")["zygotes"]
        (zygote,) = (zygote for zygote in zygotes if zygote["preload"] and zygote["state"] == "ready")
        if zygote["memory"] < ballast.MEBIBYTES * 2**20:
            raise load.LoadError(f"the zygote has preloaded {zygote['memory']} bytes only")
        self.results["preloading_zygote"] = {key: zygote[key] for key in ("start_ms", "memory")}

    def assert_cold(self, ids):
        warm = [number for number in ids if self.platform.get(f"/invocations/{number}")["cold"] is not True]
        if warm:
            raise load.LoadError(f"{len(warm)} of {len(ids)} calls were not cold, for example {warm[0]}")

    def burst(self, name):
        self.wait_until_cold(name)
        latencies, answers = load.burst(f"{self.platform.gateway}/{name}", self.settings.burst)
        workers = len(self.workers(name))
        bad = [answer for answer in answers if answer[0] != 200]
        if bad:
            raise load.LoadError(
                f"{len(bad)} of {len(answers)} calls of a burst failed: {bad[0][0]} {bad[0][2][:500]!r}"
            )
        p50, p99 = statistics.median(latencies), load.percentile(latencies, 99)
        self.keep(name, PLATFORM, {"p50": p50, "p99": p99, "workers": workers})

    def workers(self, name):
        items = self.platform.get("/workers")["items"]
        return [worker for worker in items if worker["function"] == name]

    def wait_until_cold(self, name):
        end = time.monotonic() + 15
        while self.workers(name):
            if time.monotonic() > end:
                raise load.LoadError(f"{name} still has workers 15 s after its last call, with idle = 200ms")
            time.sleep(0.1)
        # Blank workers are refilled in the meantime.
        time.sleep(0.5)

    # What it costs to have it.

    def idle_platform(self):
        """Memory of a platform that has deployed the examples and done nothing else."""
        with self.new_platform("idle", [ROOT / "examples"]) as platform:
            time.sleep(self.settings.settle)
            ring = re.search(r"^\w*history_ring_bytes (\d+)$", platform.text_of("/metrics"), re.MULTILINE)
            used = memory.of_platform(platform.process.pid)
            self.results["idle_platform"] = {**used, "ring": int(ring.group(1))}

    def idle_workers(self):
        time.sleep(self.settings.settle)
        self.results["idle_worker"] = [
            memory.private_of_tree(worker["host_pid"])
            for worker in self.platform.get("/workers")["items"]
            if worker["function"].startswith("noop") and worker["state"] == "idle"
        ]

    # At a rate of the callers' choosing.

    def open_loop(self, urls):
        for key in (PLATFORM, Bare.name, Uvicorn.name):
            report = load.open_loop(self.binary, urls[key], self.settings.rate, self.settings.open_seconds)
            self.results.setdefault("open_loop", {})[key] = report


def networked(network):
    return f"cold-{network}"


def variant(root, name, copy):
    """Copies a function under another name; returns the copy's manifest."""
    shutil.copytree(BENCHES / "functions" / name, root / copy)
    manifest = root / copy / "function.toml"
    text = manifest.read_text().replace(f'"{name}"', f'"{copy}"').replace(f"|/{name}", f"|/{copy}")
    manifest.write_text(text)
    return manifest
