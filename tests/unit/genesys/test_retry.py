"""Which failures are tried again, when, and how often."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import (
    CircuitOpenError,
    ExtractionError,
    ForbiddenError,
    PageError,
    QueryTimeoutError,
    RateLimitedError,
    ServerError,
)
from service.genesys.retry import REFUSALS, TRIES, Retries, RetryBudget

Run = Callable[..., Any]


class Failing:
    """A send that meets these errors, then succeeds."""

    def __init__(self, *errors: BaseException) -> None:
        self.errors = list(errors)
        self.sends = 0

    async def __call__(self) -> bytes:
        self.sends += 1
        if self.errors:
            raise self.errors.pop(0)
        return b"done"


class Told(list[dict[str, Any]]):
    def __call__(self, event: str, **context: object) -> None:
        self.append({"event": event, **context})


def test_a_broken_server_is_asked_again_later_each_time(in_virtual_time: Run) -> None:
    """With jitter, and the tries told."""
    told = Told()
    send = Failing(*[ServerError("HTTP 503")] * (TRIES - 1))

    async def main() -> float:
        began = asyncio.get_running_loop().time()
        assert await Retries(told, lambda: True).run(send, query_hash="abc") == b"done"
        return asyncio.get_running_loop().time() - began

    took = in_virtual_time(main())
    assert [each["attempt"] for each in told] == [2, 3, 4, 5]
    assert told[0] == {
        "event": "retry_scheduled",
        "delay": told[0]["delay"],
        "reason": "HTTP 503",
        "attempt": 2,
        "query_hash": "abc",
    }
    for each, base in zip(told, (0.5, 1, 2, 4), strict=True):
        assert base / 2 <= each["delay"] <= base * 1.5
    assert took == pytest.approx(sum(each["delay"] for each in told), abs=0.1)


def test_tries_are_bounded(in_virtual_time: Run) -> None:
    """The last failure is the one told, and no retry after it."""
    told = Told()
    send = Failing(*[ServerError("HTTP 503")] * 99)
    with pytest.raises(ServerError):
        in_virtual_time(Retries(told, lambda: True).run(send))
    assert (send.sends, len(told)) == (TRIES, TRIES - 1)


@pytest.mark.parametrize(
    "error",
    [
        QueryTimeoutError("late"),
        ForbiddenError("no"),
        PageError("odd"),
        CircuitOpenError("open", retry_after=1),
        RateLimitedError("held too long", retry_after=900, status=None),
        asyncio.CancelledError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_nothing_else_is_tried_again(in_virtual_time: Run, error: BaseException) -> None:
    """A query that was late least of all."""
    send = Failing(error)
    with pytest.raises(type(error)):
        in_virtual_time(Retries(Told(), lambda: True).run(send))
    assert send.sends == 1


def test_an_open_breaker_ends_the_tries(in_virtual_time: Run) -> None:
    """What could not be sent is not scheduled."""
    told = Told()
    send = Failing(ServerError("HTTP 503"))
    with pytest.raises(ServerError):
        in_virtual_time(Retries(told, lambda: False).run(send))
    assert (send.sends, told) == (1, [])


def test_refusals_for_the_rate_do_not_use_up_the_tries(in_virtual_time: Run) -> None:
    """They are waited out by the limiter, and bounded by themselves."""
    limited = [RateLimitedError("429", retry_after=1) for _ in range(REFUSALS - 1)]
    send = Failing(*limited, *[ServerError("HTTP 503")] * (TRIES - 1))
    assert in_virtual_time(Retries(Told(), lambda: True).run(send)) == b"done"
    send = Failing(*[RateLimitedError("429", retry_after=1)] * 99)
    with pytest.raises(RateLimitedError):
        in_virtual_time(Retries(Told(), lambda: True).run(send))
    assert send.sends == REFUSALS


def test_a_broken_server_is_not_buried(in_virtual_time: Run) -> None:
    """Of many requests that all fail, fewer than three in ten sends are retries."""
    send = Failing(*[ServerError("HTTP 503")] * 99_999)

    async def main() -> None:
        retries = Retries(Told(), lambda: True)
        for _ in range(200):
            with pytest.raises(ExtractionError):
                await retries.run(send)

    in_virtual_time(main())
    assert 200 < send.sends <= 200 * 1.3


@given(st.lists(st.booleans(), max_size=400))
def test_the_budget_is_never_overdrawn(steps: list[bool]) -> None:
    """At any moment: the reserve and a quarter of the first attempts."""
    budget = RetryBudget()
    first = retries = 0
    for is_first in steps:
        if is_first:
            budget.first_attempt()
            first += 1
        else:
            retries += budget.take()
        assert retries <= budget.RESERVE + budget.SHARE * first
