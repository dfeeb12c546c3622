"""Which failed request is sent again, and when: pure, with the time as an argument.

A retry helps its own caller and costs everybody else, so there is a budget: over the last ten
seconds one retry for five requests, and one a second besides, so that a function that asks seldom
may try again at all. Where everything fails, that is what keeps retries from being the overload.
"""

from __future__ import annotations

from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from threading import Lock

# At most so many attempts of a request: with more, layers that all retry multiply (3 layers of 4
# are 64 requests for one).
MAX_ATTEMPTS = 3

# Pauses are drawn between nothing and this, doubled with each attempt: callers that failed together
# do not come back together. 50 ms is some round trips within a data centre.
FIRST_PAUSE = 0.05
LONGEST_PAUSE = 2.0

# What a request may do twice without harm (RFC 9110 section 9.2.2).
IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})

# The answers that say that somebody else, or a later moment, may do better.
RETRIED_STATUSES = frozenset({429, 502, 503, 504})


class RetryBudget:
    """So many retries for so many requests, counted over the last seconds."""

    __slots__ = ("_lock", "_reserve", "_share", "_slots", "_ttl")

    def __init__(self, share: float = 0.2, reserve: float = 1.0, ttl: int = 10) -> None:
        """`share` of the requests of `ttl` seconds, and `reserve` for each second besides."""
        self._share = share
        self._reserve = reserve
        self._ttl = ttl
        # Balance by second.
        self._slots: dict[int, float] = {}
        self._lock = Lock()

    def deposit(self, now: float) -> None:
        """A request was begun."""
        with self._lock:
            self._add(now, self._share)

    def withdraw(self, now: float) -> bool:
        """Whether a retry may be made; it is paid then."""
        with self._lock:
            second = int(now)
            for old in [slot for slot in self._slots if slot <= second - self._ttl]:
                del self._slots[old]
            if sum(self._slots.values()) + self._reserve * self._ttl < 1.0 - 1e-9:
                return False
            self._add(now, -1.0)
            return True

    def _add(self, now: float, amount: float) -> None:
        second = int(now)
        if second not in self._slots:
            for old in [slot for slot in self._slots if slot <= second - self._ttl]:
                del self._slots[old]
        self._slots[second] = self._slots.get(second, 0.0) + amount


def pause(attempt: int, draw: float, retry_after: float | None) -> float:
    """Seconds before the next attempt; `attempt` have been made, `draw` is a random 0..1.

    What the other side asks for is kept, and up to a tenth more, for all its callers were told the
    same.
    """
    backoff = draw * min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** (attempt - 1))
    if retry_after is None:
        return backoff
    return max(backoff, retry_after * (1.0 + draw / 10))


def may_repeat(method: str, headers: Mapping[str, str], idempotent: bool | None) -> bool:
    """Whether a request that may have been carried out can be sent again."""
    if idempotent is not None:
        return idempotent
    return method in IDEMPOTENT or any(name.lower() == "idempotency-key" for name in headers)


def retry_after(value: str | None, now: float) -> float | None:
    """The seconds that a `Retry-After` header asks for; `now` is the Unix time."""
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now)
    except (TypeError, ValueError, OverflowError):
        return None
