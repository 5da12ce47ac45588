"""An org's rate, counted strictly, and what a client did against it."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class Rate:
    """At most ``limit`` arrivals in any second, wherever it begins; None is no limit. Refused ones count too."""

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._recent: deque[float] = deque()

    def arrive(self, at: float) -> bool:
        """Count an arrival (seconds of a monotonic clock); whether it is within the rate."""
        if self._limit is None:
            return True
        recent = self._recent
        while recent and at - recent[0] >= 1.0:
            recent.popleft()
        recent.append(at)
        return len(recent) <= self._limit


class Minute:
    """At most ``allowed`` arrivals a minute (None is no limit); a minute begins with the first arrival in it."""

    def __init__(self, allowed: int | None) -> None:
        self.allowed = allowed
        self._count = 0
        self._until = float("-inf")

    def arrive(self, at: float) -> bool:
        """Count an arrival; whether it is within the limit."""
        if at >= self._until:
            self._count, self._until = 0, at + 60.0
        self._count += 1
        return self.allowed is None or self._count <= self.allowed

    def headers(self, at: float) -> dict[str, str]:
        """What an answer tells of it."""
        if self.allowed is None:
            return {}
        return {
            "inin-ratelimit-allowed": str(self.allowed),
            "inin-ratelimit-count": str(self._count),
            "inin-ratelimit-reset": str(self.reset(at)),
        }

    def reset(self, at: float) -> int:
        """Whole seconds until the next minute."""
        return max(1, math.ceil(self._until - at))


class Hold:
    """Whether a client keeps away for as long as a 429 told it to.

    What was on its way when the 429 went out is not held against it: that is what ``grace`` seconds are for.
    """

    def __init__(self, grace: float = 0.1) -> None:
        self._grace = grace
        self._since = 0.0
        self._until = 0.0
        self.violations = 0

    def tell(self, at: float, seconds: float) -> None:
        """A 429 with this Retry-After went out."""
        if at + seconds > self._until:
            self._since, self._until = at, at + seconds

    def arrive(self, at: float) -> None:
        """Count an arrival that came too early."""
        if self._since + self._grace < at < self._until:
            self.violations += 1


class Flight:
    """Single-flight evidence: how often a query was asked while the same query was still being answered."""

    def __init__(self) -> None:
        self._flying: dict[str, int] = {}
        self.violations = 0

    @contextmanager
    def of(self, digest: str) -> Iterator[None]:
        """While a request for this query is being answered; over when it is, or when its client is gone."""
        flying = self._flying.get(digest, 0)
        if flying:
            self.violations += 1
        self._flying[digest] = flying + 1
        try:
            yield
        finally:
            self._flying[digest] -= 1
            if not self._flying[digest]:
                del self._flying[digest]


def peak_per_second(arrivals: Iterable[float]) -> int:
    """The most arrivals in any second, wherever it begins; ``arrivals`` in seconds, ascending."""
    window: deque[float] = deque()
    peak = 0
    for at in arrivals:
        window.append(at)
        while at - window[0] >= 1.0:
            window.popleft()
        peak = max(peak, len(window))
    return peak
