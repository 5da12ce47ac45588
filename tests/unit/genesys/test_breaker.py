"""When the breaker lets requests pass."""

from __future__ import annotations

import asyncio
from contextlib import AbstractContextManager
from datetime import timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import (
    CircuitOpenError,
    ForbiddenError,
    LeaseLostError,
    PageError,
    QueryTimeoutError,
    RateLimitedError,
    ServerError,
)
from service.genesys.breaker import Breaker
from tests.support.fake_clock import FakeClock


class Told(list[str]):
    """The events, by name."""

    def __call__(self, event: str, **_context: object) -> None:
        self.append(event)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def breaker(clock: FakeClock, told: Told) -> Breaker:
    return Breaker(3, timedelta(seconds=30), clock, told)


def meet(breaker: Breaker, error: BaseException | None) -> None:
    """Send one request that ends so."""
    if error is None:
        with breaker.guard():
            return
    with pytest.raises(type(error)), breaker.guard():
        raise error


def state_of(breaker: Breaker) -> str:
    """Read anew each time, which a type checker does not expect of a property."""
    return breaker.state


def open_up(breaker: Breaker) -> None:
    while breaker.state == "closed":
        meet(breaker, ServerError("HTTP 503", status=503))


def test_failures_in_a_row_open_it(breaker: Breaker, told: Told) -> None:
    """Of whatever kind among 5xx, timeouts and broken connections."""
    meet(breaker, ServerError("HTTP 500"))
    meet(breaker, QueryTimeoutError("late"))
    assert state_of(breaker) == "closed"
    meet(breaker, ServerError("reset"))
    assert state_of(breaker) == "open"
    assert breaker.opens_in == 30
    with pytest.raises(CircuitOpenError, match="3 failures in a row, the last: reset") as raised:
        breaker.check()
    assert raised.value.retry_after == 30
    assert told == ["circuit_opened"]


@pytest.mark.parametrize("answer", [None, ForbiddenError("no"), PageError("odd")])
def test_an_answer_ends_a_row_of_failures(breaker: Breaker, answer: BaseException | None) -> None:
    """Whether it pleases or not."""
    for _ in range(5):
        meet(breaker, ServerError("HTTP 500"))
        meet(breaker, ServerError("HTTP 500"))
        meet(breaker, answer)
    assert state_of(breaker) == "closed"


@pytest.mark.parametrize(
    "end", [asyncio.CancelledError(), LeaseLostError(), RateLimitedError("429", retry_after=1)], ids=type
)
def test_what_says_nothing_of_the_server_changes_nothing(breaker: Breaker, end: BaseException) -> None:
    """Cancelled, forbidden by the lease, or held back."""
    meet(breaker, ServerError("HTTP 500"))
    meet(breaker, ServerError("HTTP 500"))
    for _ in range(5):
        meet(breaker, end)
    assert state_of(breaker) == "closed"
    meet(breaker, ServerError("HTTP 500"))
    assert state_of(breaker) == "open"


def test_its_time_over_one_probe_passes(breaker: Breaker, clock: FakeClock, told: Told) -> None:
    """The others are refused until it is back."""
    open_up(breaker)
    clock.advance(timedelta(seconds=30))
    with breaker.guard():
        assert state_of(breaker) == "half-open"
        for _ in range(5):
            with pytest.raises(CircuitOpenError), breaker.guard():
                raise AssertionError
    assert state_of(breaker) == "closed"
    assert told == ["circuit_opened", "circuit_half_open", "circuit_closed"]


def test_a_cancelled_probe_makes_room_for_the_next(breaker: Breaker, clock: FakeClock) -> None:
    """Or nothing would ever be asked again."""
    open_up(breaker)
    clock.advance(timedelta(seconds=30))
    meet(breaker, asyncio.CancelledError())
    assert state_of(breaker) == "half-open"
    meet(breaker, None)
    assert state_of(breaker) == "closed"


def test_the_open_time_doubles_up_to_ten_minutes(breaker: Breaker, clock: FakeClock) -> None:
    """And is the first one again after it has closed."""
    open_up(breaker)
    times = []
    for _ in range(1200):
        times.append(breaker.opens_in)
        clock.advance(timedelta(seconds=breaker.opens_in))
        meet(breaker, ServerError("HTTP 500"))
    assert times[:7] == [30, 60, 120, 240, 480, 600, 600]
    assert set(times[7:]) == {600}
    clock.advance(timedelta(minutes=10))
    meet(breaker, None)
    open_up(breaker)
    assert breaker.opens_in == 30


def test_what_was_sent_before_it_opened_is_judged_already(breaker: Breaker, clock: FakeClock) -> None:
    """Neither does its failure prolong the time, nor its success close it."""
    late_failure, late_success = breaker.guard(), breaker.guard()
    late_failure.__enter__()
    late_success.__enter__()
    open_up(breaker)
    clock.advance(timedelta(seconds=10))
    _leave(late_failure, ServerError("HTTP 500"))
    _leave(late_success, None)
    assert state_of(breaker) == "open"
    assert breaker.opens_in == 20


def _leave(guard: AbstractContextManager[None], error: BaseException | None) -> None:
    assert not guard.__exit__(type(error) if error else None, error, None)


@given(st.lists(st.one_of(st.sampled_from(["begin", "fail", "succeed", "cancel"]), st.floats(0, 100))))
def test_open_nothing_passes_and_half_open_one_at_a_time(steps: list[str | float]) -> None:
    """Whatever is begun, ended and waited for, in whatever order."""
    clock, told = FakeClock(), Told()
    breaker = Breaker(2, timedelta(seconds=30), clock, told)
    guard: AbstractContextManager[None]
    out: list[tuple[AbstractContextManager[None], bool]] = []
    for step in steps:
        if isinstance(step, float):
            clock.advance(timedelta(seconds=step))
        elif step == "begin":
            guard, wait = breaker.guard(), breaker.opens_in
            probing = any(probe for _, probe in out)
            if wait > 0 or probing:
                with pytest.raises(CircuitOpenError) as raised:
                    guard.__enter__()
                assert raised.value.retry_after > 0
            else:
                guard.__enter__()
                out.append((guard, breaker.state == "half-open"))
        elif out:
            guard, _ = out.pop(0)
            ends: dict[str, BaseException | None] = {
                "fail": ServerError("HTTP 500"),
                "succeed": None,
                "cancel": asyncio.CancelledError(),
            }
            _leave(guard, ends[step])
        assert breaker.state in ("closed", "half-open", "open")
    moves = [event for event in told if event != "circuit_half_open"]
    assert all(a != "circuit_closed" or b == "circuit_opened" for a, b in pairwise(moves))
