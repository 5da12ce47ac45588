"""Which failures are retried, when, and how often."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import (
    CircuitOpenError,
    ConnectionFailedError,
    ExtractionError,
    ForbiddenError,
    InvalidResponseError,
    QueryTimeoutError,
    QueryTooLargeError,
    RateLimitedError,
    RequestRejectedError,
    ServerError,
)
from service.genesys.retry import ATTEMPTS_MAX, RATE_LIMITED_MAX, Retries, RetryBudget

Run = Callable[..., Any]


class Failing:
    """A send that raises these errors, then succeeds."""

    def __init__(self, *errors: BaseException) -> None:
        self.errors = list(errors)
        self.sends = 0

    async def __call__(self) -> bytes:
        self.sends += 1
        if self.errors:
            raise self.errors.pop(0)
        return b"done"


class Events(list[dict[str, Any]]):
    def __call__(self, event: str, **context: object) -> None:
        self.append({"event": event, **context})


def test_each_retry_waits_longer(in_virtual_time: Run) -> None:
    """With jitter; each retry is an event."""
    events = Events()
    send = Failing(*[ServerError("HTTP 503")] * (ATTEMPTS_MAX - 1))

    async def main() -> float:
        began = asyncio.get_running_loop().time()
        assert await Retries(events, lambda: True).run(send, query_hash="abc") == b"done"
        return asyncio.get_running_loop().time() - began

    took = in_virtual_time(main())
    assert [each["attempt"] for each in events] == [2, 3, 4, 5]
    assert events[0] == {
        "event": "retry_scheduled",
        "delay": events[0]["delay"],
        "reason": "HTTP 503",
        "attempt": 2,
        "query_hash": "abc",
    }
    for each, base in zip(events, (0.5, 1, 2, 4), strict=True):
        assert base / 2 <= each["delay"] <= base * 1.5
    assert took == pytest.approx(sum(each["delay"] for each in events), abs=0.1)


def test_attempts_are_bounded(in_virtual_time: Run) -> None:
    """The last failure is raised, and no retry is scheduled after it."""
    events = Events()
    send = Failing(*[ConnectionFailedError("connection failed")] * 99)
    with pytest.raises(ConnectionFailedError):
        in_virtual_time(Retries(events, lambda: True).run(send))
    assert (send.sends, len(events)) == (ATTEMPTS_MAX, ATTEMPTS_MAX - 1)


@pytest.mark.parametrize(
    "error",
    [
        QueryTimeoutError("late"),
        ForbiddenError("no"),
        InvalidResponseError("odd"),
        CircuitOpenError("open", retry_after=1),
        RateLimitedError("pause too long", retry_after=900, status=None),
        asyncio.CancelledError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_no_other_failure_is_retried(in_virtual_time: Run, error: BaseException) -> None:
    """Among them a query that exceeded its time limit."""
    send = Failing(error)
    with pytest.raises(type(error)):
        in_virtual_time(Retries(Events(), lambda: True).run(send))
    assert send.sends == 1


@pytest.mark.parametrize(
    ("error", "sends"),
    [
        (ServerError("504", status=504), 2),
        (RequestRejectedError("413", status=413), 2),
        (ServerError("503", status=503), ATTEMPTS_MAX),
        (ConnectionFailedError("refused"), ATTEMPTS_MAX),
        (QueryTooLargeError("413", status=413), 1),
    ],
)
def test_what_a_gateway_may_cause_is_retried_once(in_virtual_time: Run, error: Exception, sends: int) -> None:
    """Where a narrower query can replace the query; otherwise a 504 is retried as any 5xx, a 413 not at all."""
    send = Failing(*[error] * 99)
    with pytest.raises(type(error)):
        in_virtual_time(Retries(Events(), lambda: True).run(send, narrowable=True))
    assert send.sends == sends
    send = Failing(*[error] * 99)
    with pytest.raises(type(error)):
        in_virtual_time(Retries(Events(), lambda: True).run(send))
    assert send.sends == (ATTEMPTS_MAX if isinstance(error, (ServerError, ConnectionFailedError)) else 1)


def test_an_open_breaker_ends_the_retries(in_virtual_time: Run) -> None:
    """A retry that could not be sent is not scheduled."""
    events = Events()
    send = Failing(ServerError("HTTP 503"))
    with pytest.raises(ServerError):
        in_virtual_time(Retries(events, lambda: False).run(send))
    assert (send.sends, events) == (1, [])


def test_rate_limited_responses_do_not_count_as_attempts(in_virtual_time: Run) -> None:
    """The limiter waits until they are over; they have a bound of their own."""
    limited = [RateLimitedError("429", retry_after=1) for _ in range(RATE_LIMITED_MAX - 1)]
    send = Failing(*limited, *[ServerError("HTTP 503")] * (ATTEMPTS_MAX - 1))
    assert in_virtual_time(Retries(Events(), lambda: True).run(send)) == b"done"
    send = Failing(*[RateLimitedError("429", retry_after=1)] * 99)
    with pytest.raises(RateLimitedError):
        in_virtual_time(Retries(Events(), lambda: True).run(send))
    assert send.sends == RATE_LIMITED_MAX


def test_a_failing_server_is_not_overloaded(in_virtual_time: Run) -> None:
    """Of many requests that all fail, fewer than three in ten sends are retries."""
    send = Failing(*[ServerError("HTTP 503")] * 99_999)

    async def main() -> None:
        retries = Retries(Events(), lambda: True)
        for _ in range(200):
            with pytest.raises(ExtractionError):
                await retries.run(send)

    in_virtual_time(main())
    assert 200 < send.sends <= 200 * 1.3


@given(st.lists(st.booleans(), max_size=400))
def test_the_budget_is_never_exceeded(steps: list[bool]) -> None:
    """At any moment, retries are at most the reserve and a quarter of the first attempts."""
    budget = RetryBudget()
    first = retries = 0
    for is_first in steps:
        if is_first:
            budget.add_attempt()
            first += 1
        else:
            retries += budget.take()
        assert retries <= budget.RESERVE + budget.SHARE * first
