"""What a refusal costs, against an answer of the same size of the bare HTTP server.

One call keeps the only worker of a function busy, longer than other callers are ready to wait; so
all of them are refused at the door, and nothing else goes on while they are counted. Processor time
is that of the platform's process, by the kernel's own account in nanoseconds.
"""

import threading
import time

from . import load, memory
from .servers import BENCHES, Bare

SCRIPT = BENCHES / "refused.lua"
# Between these two lies the patience of refused callers, which is in the script and here.
PATIENCE = "0.02"
USUAL_SECONDS = 0.05
# As many calls as the platform wants to have seen before it judges others by them, and some more.
LESSONS = 25
STATUS = 504


def measure(plan):
    """One round: each server under the same load, one connection and then many."""
    url, seconds = f"{plan.platform.gateway}/occupied", plan.settings.refusal_seconds
    if "refusals" not in plan.results:
        teach(url)
    with_occupant = Occupant(url, seconds * 2 + 3)
    with with_occupant:
        size = with_occupant.wait_until_refused()
        bare = f"{plan.bare.url.rpartition('/')[0]}/refusal/{size - bare_overhead(plan.bare)}"
        for connections in (1, 8):
            for name, target, pid in (
                ("platform", url, plan.platform.process.pid),
                (Bare.name, bare, plan.bare.process.pid),
            ):
                before = memory.processor_seconds(pid)
                found = load.wrk(target, connections, seconds, SCRIPT, refused=True)
                spent = memory.processor_seconds(pid) - before
                found["processor_us"] = spent * 1e6 / found["count"]
                plan.keep("refusals", f"{name}, {connections}", found)


def teach(url):
    connection = load.Connection(url, body(USUAL_SECONDS))
    for _ in range(LESSONS):
        _, (status, _, answer) = connection.call()
        if status != 200:
            raise load.LoadError(f"{url} answers {status}: {answer[:500]!r}")
    connection.close()


def body(seconds):
    return b'{"arg": %g}' % seconds


def bare_overhead(bare):
    """Bytes of the bare path's refusal besides its body."""
    connection = load.Connection(f"{bare.url.rpartition('/')[0]}/refusal/100", b"{}")
    total = connection.size_of_call()
    connection.close()
    return total - 100


class Occupant:
    """A call that keeps the worker busy for some seconds; leaving waits for its end."""

    def __init__(self, url, seconds):
        self.url = url
        self.thread = threading.Thread(target=self.occupy, args=(seconds,), daemon=True)

    def occupy(self, seconds):
        connection = load.Connection(self.url, body(seconds))
        connection.call()
        connection.close()

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.thread.join(60)

    def wait_until_refused(self):
        """The size of a refusal, head and body."""
        connection = load.Connection(self.url, body(USUAL_SECONDS), {"X-Request-Timeout": PATIENCE})
        end = time.monotonic() + 5
        while time.monotonic() < end:
            latency, (status, _, _) = connection.call()
            # One that was queued and gave up has waited for its patience.
            if status == STATUS and latency < float(PATIENCE) * 500:
                return connection.size_of_call()
        raise load.LoadError(f"{self.url} refuses nothing while its worker is busy")
