"""What is measured, and in which order.

Everything that is compared is measured in rounds: in each round every server has its turn, and
each round begins with another one, so that what disturbs the machine disturbs all alike. The
result of a round is kept; ratios are taken within a round, and their median is what counts.
"""

import contextlib
import json
import shutil
import statistics
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from platform_under_test import Platform

from . import ballast, load, memory
from .servers import BENCHES, BODY, Bare, FunctionsFramework, Gunicorn, Uvicorn

ROOT = BENCHES.parent
SCRIPT = BENCHES / "noop.lua"
CONNECTIONS = 32
PLATFORM = "platform"
# Between two cold calls: time for the platform to have a blank worker ready again. What is
# measured is one cold start, not a queue of them; bursts are measured apart.
COLD_PAUSE_SECONDS = 0.03
# What callers of an overloaded function are ready to wait.
OVERLOAD_DEADLINE_SECONDS = 0.5


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
        if self.wants("memory"):
            self.idle_platform()
        with contextlib.ExitStack() as stack:
            # The base of a platform that is put under load here and of one with many functions.
            functions, config = [*self.worker_variants(), BENCHES / "functions"], ""
            if self.wants("cold"):
                layer, preloading = ballast.write(self.directory)
                functions, config = [*functions, preloading], f"layers = [{json.dumps(str(layer))}]\n"
            self.platform = stack.enter_context(self.new_platform("platform", functions, config=config))
            one = {
                PLATFORM: self.platform.gateway + "/noop",
                Bare.name: stack.enter_context(Bare(1, self.log("bare"))).url,
                Uvicorn.name: stack.enter_context(Uvicorn(1, self.log("uvicorn"))).url,
            }
            if self.wants("many"):
                many = stack.enter_context(self.platform_with_many_functions())
                one[f"{PLATFORM}, many functions"] = many.gateway + "/noop"
            best = self.best_worker_counts(stack) if self.wants("throughput") else {}
            for number in range(self.settings.rounds):
                self.say(f"round {number + 1} of {self.settings.rounds}")
                if self.wants("warm"):
                    self.round(number, "warm", one, 1)
                if self.wants("throughput"):
                    self.round(number, "throughput", best, CONNECTIONS)
                if self.wants("cold"):
                    self.cold("cold")
                    self.cold(ballast.NAME)
                if self.wants("burst"):
                    self.burst("burst-second")
                    self.burst("burst-noop")
            if self.wants("memory"):
                self.idle_workers()
            if self.wants("cold"):
                self.preloading_zygote()
            if self.wants("warm"):
                self.open_loop(one)
            if self.wants("overload"):
                self.overload()
        return self.results

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

    def round(self, number, name, urls, connections):
        order = list(urls.items())
        first = number % len(order)
        for key, url in order[first:] + order[:first]:
            self.keep(name, key, load.wrk(url, connections, self.settings.seconds, SCRIPT))

    def worker_variants(self):
        """Copies of `noop` that may have exactly N workers."""
        root = self.directory / "variants"
        for count in self.settings.worker_counts:
            variant = root / f"noop-{count}"
            shutil.copytree(BENCHES / "functions" / "noop", variant)
            manifest = (variant / "function.toml").read_text()
            manifest = manifest.replace('"noop"', f'"noop-{count}"').replace("|/noop", f"|/noop-{count}")
            manifest = manifest.replace("min = 1", f"min = {count}\nmax = {count}")
            (variant / "function.toml").write_text(manifest)
        return [root]

    def best_worker_counts(self, stack):
        """Each server's URL at the number of workers with which it answers most calls a second."""
        counts = {PLATFORM: lambda count: contextlib.nullcontext(self.platform.gateway + f"/noop-{count}")}
        for kind in (Bare, Gunicorn, FunctionsFramework):
            counts[kind.name] = lambda count, kind=kind: self.opened(kind, count)
        urls = {}
        for name, opened in counts.items():
            rates = {}
            for count in self.settings.worker_counts:
                with opened(count) as url:
                    load.wrk(url, CONNECTIONS, 1, SCRIPT)
                    rates[count] = load.wrk(url, CONNECTIONS, self.settings.seconds, SCRIPT)["rate"]
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
        connection = load.Connection(f"{self.platform.gateway}/{name}", BODY)
        latencies, ids = [], []
        for _ in range(self.settings.cold_calls):
            time.sleep(COLD_PAUSE_SECONDS)
            latency, (status, headers, body) = connection.call()
            if status != 200:
                raise load.LoadError(f"a cold call was answered {status}: {body[:500]!r}")
            latencies.append(latency)
            ids.append(headers["x-serverless-instance-id"])
        connection.close()
        self.assert_cold(ids)
        self.keep(name, PLATFORM, {"p50": statistics.median(latencies), "p99": load.percentile(latencies, 99)})
        self.results.setdefault(f"{name}_calls", []).extend(latencies)

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
            self.results["idle_platform"] = memory.of_platform(platform.process.pid)

    def idle_workers(self):
        time.sleep(self.settings.settle)
        self.results["idle_worker"] = [
            memory.private_of_tree(worker["host_pid"])
            for worker in self.platform.get("/workers")["items"]
            if worker["function"].startswith("noop") and worker["state"] == "idle"
        ]

    @contextlib.contextmanager
    def platform_with_many_functions(self):
        with self.new_platform("many", [BENCHES / "functions" / "noop"]) as platform:
            before = memory.resident(platform.process.pid)
            begin = time.monotonic()
            with ThreadPoolExecutor(4) as pool:
                list(pool.map(lambda number: deploy(platform.api, number), range(self.settings.functions)))
            seconds = time.monotonic() - begin
            self.say(f"deployed {self.settings.functions} functions in {seconds:.1f} s")
            self.results["many_functions"] = {
                "functions": self.settings.functions,
                "deploy_ms": seconds * 1e3 / self.settings.functions,
                "memory_kib_each": (memory.resident(platform.process.pid) - before) / 1024 / self.settings.functions,
            }
            yield platform

    # At a rate of the callers' choosing.

    def open_loop(self, urls):
        for key in (PLATFORM, Bare.name, Uvicorn.name):
            report = load.open_loop(self.binary, urls[key], self.settings.rate, self.settings.open_seconds)
            self.results.setdefault("open_loop", {})[key] = report

    def overload(self):
        """A function whose capacity is exactly 100 calls a second, offered more than that.

        Callers have a deadline, so that good answers are those in time; the last of them may come
        that much after the last call was sent, which is part of the time that counts.
        """
        url = self.platform.gateway + "/limited"
        seconds, patience = self.settings.open_seconds, OVERLOAD_DEADLINE_SECONDS
        peak = load.wrk(url, 8, seconds, SCRIPT)["rate"]
        for factor in self.settings.overload:
            deadline = f"x-request-timeout: {patience}"
            report = load.open_loop(self.binary, url, peak * factor, seconds, timeout="5s", headers=[deadline])
            good = report["by_status"].get("200", 0) / (seconds + patience)
            self.results.setdefault("overload", {})[str(factor)] = {
                "peak": peak,
                "goodput": good / peak,
                "by_status": report["by_status"],
                "valid": report["valid"],
            }


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
