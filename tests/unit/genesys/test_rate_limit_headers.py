"""How the rate-limit headers change an org's limiter."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from service.genesys.limiter import OrgLimiter
from service.genesys.rate_limit_headers import RateLimitHeaders


class Org:
    """A limiter of 5 a second, its events and its pauses."""

    def __init__(self, ceiling: float | None = None) -> None:
        self.limiter = OrgLimiter(5, clock=lambda: 0.0, spent_ago=math.inf)
        self.events: list[str] = []
        self.pauses: list[float] = []
        self.headers = RateLimitHeaders(
            lambda: self.limiter, self.pauses.append, lambda event, **_: self.events.append(event), ceiling
        )

    def observe(self, allowed: object, count: object = None, reset: object = None, others: int = 0) -> None:
        values = {"allowed": allowed, "count": count, "reset": reset}
        headers = {f"inin-ratelimit-{key}": str(value) for key, value in values.items() if value is not None}
        enter: Callable[[], Any] = self.headers.count_in_flight
        managers = [enter() for _ in range(others + 1)]
        for each in managers:
            each.__enter__()
        self.headers.observe(headers)
        for each in managers:
            each.__exit__(None, None, None)


@pytest.mark.parametrize(("allowed", "rate"), [(300, 5.0), (60, 1.0), (30, 0.5), (3000, 50.0), (1, 1 / 60)])
def test_the_allowed_rate_replaces_the_limit(allowed: int, rate: float) -> None:
    """Spread evenly over the minute, above or below the configured limit; one event."""
    org = Org()
    org.observe(allowed)
    org.observe(allowed)
    assert org.limiter.requests_per_second == rate
    assert org.events == (["rate_limit_changed"] if rate != 5 else [])
    assert org.limiter.pause_left == 0


@pytest.mark.parametrize(("allowed", "rate"), [(300, 2.0), (60, 1.0), (120, 2.0), (3000, 2.0)])
def test_a_configured_limit_is_not_raised(allowed: int, rate: float) -> None:
    """The smaller of the two counts."""
    org = Org(ceiling=2.0)
    org.observe(allowed)
    assert org.limiter.requests_per_second == rate


@pytest.mark.parametrize(
    ("count", "others", "pause"),
    [(200, 0, 0), (299, 0, 0), (300, 0, 20), (301, 0, 20), (297, 3, 20), (296, 3, 0)],
)
def test_a_limit_that_is_used_up_pauses_the_org(count: int, others: int, pause: float) -> None:
    """Whichever client used it; requests in flight count as used."""
    org = Org()
    org.observe(300, count, 20, others)
    assert org.limiter.pause_left == pause
    assert org.pauses == ([pause] if pause else [])


def test_a_pause_is_reported_once() -> None:
    """Responses during the pause report the same limit."""
    org = Org()
    org.observe(300, 300, 20)
    org.observe(300, 301, 19)
    assert (org.events, org.pauses) == (["rate_limit_exhausted"], [20.0])


@pytest.mark.parametrize("allowed", ["", "x", "-1", "0", "1.5", "1e3", "60001", "9" * 30, "²", None])
def test_an_invalid_header_is_ignored(allowed: object) -> None:
    """As if it were absent."""
    org = Org()
    org.observe(allowed, 300, 20)
    assert (org.limiter.requests_per_second, org.limiter.pause_left, org.events) == (5, 0, [])


@pytest.mark.parametrize(
    ("count", "reset"), [(None, 20), ("x", 20), (-5, 20), (400, "x"), (400, 3601), (400, None)]
)
def test_an_invalid_count_or_reset_leaves_the_rate(count: object, reset: object) -> None:
    """The rate applies, and the org is not paused."""
    org = Org()
    org.observe(120, count, reset)
    assert (org.limiter.requests_per_second, org.limiter.pause_left) == (2, 0)
