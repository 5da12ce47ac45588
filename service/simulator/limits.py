"""An org's rate limits, counted strictly, and a client's violations of them."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class RateLimit:
    """At most ``limit`` requests in any second, wherever it begins; None for no limit. Rejected requests count."""

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._recent: deque[float] = deque()

    def arrive(self, at: float) -> bool:
        """Count a request at ``at`` seconds of a monotonic clock; return whether it is within the limit."""
        if self._limit is None:
            return True
        recent = self._recent
        while recent and at - recent[0] >= 1.0:
            recent.popleft()
        recent.append(at)
        return len(recent) <= self._limit


class MinuteLimit:
    """At most ``allowed`` requests per minute (None for no limit); a minute begins with its first request."""

    def __init__(self, allowed: int | None) -> None:
        self.allowed = allowed
        self._count = 0
        self._until = float("-inf")

    def arrive(self, at: float) -> bool:
        """Count a request; return whether it is within the limit."""
        if at >= self._until:
            self._count, self._until = 0, at + 60.0
        self._count += 1
        return self.allowed is None or self._count <= self.allowed

    def headers(self, at: float) -> dict[str, str]:
        """Return the rate limit headers of a response."""
        if self.allowed is None:
            return {}
        return {
            "inin-ratelimit-allowed": str(self.allowed),
            "inin-ratelimit-count": str(self._count),
            "inin-ratelimit-reset": str(self.reset(at)),
        }

    def reset(self, at: float) -> int:
        """Return whole seconds until the next minute, at least 1."""
        return max(1, math.ceil(self._until - at))


class RetryAfterWatch:
    """Counts requests that arrive before the Retry-After of a 429 has passed.

    Args:
        grace: seconds after the 429 in which requests do not count: they were already sent.
    """

    def __init__(self, grace: float = 0.1) -> None:
        self._grace = grace
        self._since = 0.0
        self._until = 0.0
        self.violations = 0

    def start(self, at: float, seconds: float) -> None:
        """Record a 429 with this Retry-After."""
        if at + seconds > self._until:
            self._since, self._until = at, at + seconds

    def arrive(self, at: float) -> None:
        """Count a request if it is too early."""
        if self._since + self._grace < at < self._until:
            self.violations += 1


class SingleFlightWatch:
    """Counts queries that arrive while the same query is in flight."""

    def __init__(self) -> None:
        self._in_flight: dict[str, int] = {}
        self.violations = 0

    @contextmanager
    def track(self, digest: str) -> Iterator[None]:
        """Mark a query as in flight until it is answered or its client disconnects."""
        in_flight = self._in_flight.get(digest, 0)
        if in_flight:
            self.violations += 1
        self._in_flight[digest] = in_flight + 1
        try:
            yield
        finally:
            self._in_flight[digest] -= 1
            if not self._in_flight[digest]:
                del self._in_flight[digest]


def peak_per_second(arrivals: Iterable[float]) -> int:
    """Return the most arrivals in any second, wherever it begins; ``arrivals`` in seconds, ascending."""
    window: deque[float] = deque()
    peak = 0
    for at in arrivals:
        window.append(at)
        while at - window[0] >= 1.0:
            window.popleft()
        peak = max(peak, len(window))
    return peak
