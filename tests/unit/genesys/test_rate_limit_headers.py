"""What the API's answers say of its limit."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from service.genesys.limiter import OrgLimiter
from service.genesys.rate_limit_headers import RateLimitHeaders


class Org:
    """A limiter of 5 a second, what was told, and what was held."""

    def __init__(self) -> None:
        self.limiter = OrgLimiter(5, clock=lambda: 0.0, spent_ago=math.inf)
        self.told: list[str] = []
        self.held: list[float] = []
        self.allowance = RateLimitHeaders(
            lambda: self.limiter, self.held.append, lambda event, **_: self.told.append(event)
        )

    def observe(self, allowed: object, count: object = None, reset: object = None, others: int = 0) -> None:
        told = {"allowed": allowed, "count": count, "reset": reset}
        headers = {f"inin-ratelimit-{key}": str(value) for key, value in told.items() if value is not None}
        enter: Callable[[], Any] = self.allowance.one_more
        managers = [enter() for _ in range(others + 1)]
        for each in managers:
            each.__enter__()
        self.allowance.observe(headers)
        for each in managers:
            each.__exit__(None, None, None)


@pytest.mark.parametrize(("allowed", "rate"), [(300, 5.0), (60, 1.0), (30, 0.5), (3000, 50.0), (1, 1 / 60)])
def test_what_is_allowed_rules(allowed: int, rate: float) -> None:
    """Evenly over the minute, more or less than is configured; told once."""
    org = Org()
    org.observe(allowed)
    org.observe(allowed)
    assert org.limiter.requests_per_second == rate
    assert org.told == (["rate_limit_changed"] if rate != 5 else [])
    assert org.limiter.held_for == 0


@pytest.mark.parametrize(
    ("count", "others", "held"),
    [(200, 0, 0), (299, 0, 0), (300, 0, 20), (301, 0, 20), (297, 3, 20), (296, 3, 0)],
)
def test_what_is_used_up_holds_the_org_back(count: int, others: int, held: float) -> None:
    """Whoever used it; what is in flight counts as used."""
    org = Org()
    org.observe(300, count, 20, others)
    assert org.limiter.held_for == held
    assert org.held == ([held] if held else [])


def test_a_hold_is_told_once() -> None:
    """The answers that come meanwhile say the same."""
    org = Org()
    org.observe(300, 300, 20)
    org.observe(300, 301, 19)
    assert (org.told, org.held) == (["rate_limit_exhausted"], [20.0])


@pytest.mark.parametrize("allowed", ["", "x", "-1", "0", "1.5", "1e3", "60001", "9" * 30, "²", None])
def test_nonsense_is_ignored(allowed: object) -> None:
    """As if it had not come."""
    org = Org()
    org.observe(allowed, 300, 20)
    assert (org.limiter.requests_per_second, org.limiter.held_for, org.told) == (5, 0, [])


@pytest.mark.parametrize(
    ("count", "reset"), [(None, 20), ("x", 20), (-5, 20), (400, "x"), (400, 3601), (400, None)]
)
def test_nonsense_beside_it_leaves_the_rate(count: object, reset: object) -> None:
    """Nobody is held for it."""
    org = Org()
    org.observe(120, count, reset)
    assert (org.limiter.requests_per_second, org.limiter.held_for) == (2, 0)
