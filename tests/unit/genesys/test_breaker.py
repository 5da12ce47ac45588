"""When the breaker admits requests."""

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
    ConnectionFailedError,
    ExtractionError,
    ForbiddenError,
    InvalidResponseError,
    LeaseLostError,
    QueryTimeoutError,
    RateLimitedError,
    RequestRejectedError,
    ServerError,
)
from service.genesys.breaker import Breaker
from tests.support.fake_clock import FakeClock


class Events(list[str]):
    """The events, by name."""

    def __call__(self, event: str, **_context: object) -> None:
        self.append(event)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def events() -> Events:
    return Events()


@pytest.fixture
def breaker(clock: FakeClock, events: Events) -> Breaker:
    return Breaker(3, timedelta(seconds=30), clock, events)


def end_request(breaker: Breaker, error: BaseException | None) -> None:
    """Send one request that ends with this error."""
    if error is None:
        with breaker.guard():
            return
    with pytest.raises(type(error)), breaker.guard():
        raise error


def state_of(breaker: Breaker) -> str:
    """The state, read again: the type checker assumes that a property does not change."""
    return breaker.state


def open_up(breaker: Breaker) -> None:
    while breaker.state == "closed":
        end_request(breaker, ServerError("HTTP 503", status=503))


def test_consecutive_failures_open_it(breaker: Breaker, events: Events) -> None:
    """5xx, timeouts and broken connections count together."""
    end_request(breaker, ServerError("HTTP 500"))
    end_request(breaker, QueryTimeoutError("late"))
    assert state_of(breaker) == "closed"
    end_request(breaker, ConnectionFailedError("reset"))
    assert state_of(breaker) == "open"
    assert breaker.probe_in == 30
    with pytest.raises(CircuitOpenError, match="3 consecutive failures, the last: reset") as raised:
        breaker.check()
    assert raised.value.retry_after == 30
    assert events == ["circuit_opened"]


def broken_connection() -> ConnectionFailedError:
    """A connection that broke while the response was awaited."""
    error = ConnectionFailedError("reset")
    error.while_waiting = True
    return error


OF_GATEWAY = [ServerError("504", status=504), RequestRejectedError("413", status=413), broken_connection()]


@pytest.mark.parametrize("error", OF_GATEWAY, ids=str)
def test_what_a_gateway_may_cause_is_ignored_for_a_wide_query(breaker: Breaker, error: ExtractionError) -> None:
    """It is neither failure nor success; for one bucket it is a failure."""
    end_request(breaker, ServerError("HTTP 500"))
    end_request(breaker, ServerError("HTTP 500"))
    for _ in range(5):
        with pytest.raises(type(error)), breaker.guard(ignore_gateway=True):
            raise error
    assert state_of(breaker) == "closed"
    end_request(breaker, error)
    assert state_of(breaker) == "open"


def test_other_failures_of_a_wide_query_count(breaker: Breaker) -> None:
    """A 503, and a connection that was never established."""
    for error in (ServerError("503", status=503), ConnectionFailedError("refused"), QueryTimeoutError("late")):
        with pytest.raises(type(error)), breaker.guard(ignore_gateway=True):
            raise error
    assert state_of(breaker) == "open"


@pytest.mark.parametrize("response", [None, ForbiddenError("no"), InvalidResponseError("odd")])
def test_a_response_resets_the_count(breaker: Breaker, response: BaseException | None) -> None:
    """Also an error response."""
    for _ in range(5):
        end_request(breaker, ServerError("HTTP 500"))
        end_request(breaker, ServerError("HTTP 500"))
        end_request(breaker, response)
    assert state_of(breaker) == "closed"


@pytest.mark.parametrize(
    "end", [asyncio.CancelledError(), LeaseLostError(), RateLimitedError("429", retry_after=1)], ids=type
)
def test_results_that_do_not_show_the_servers_health_do_not_count(breaker: Breaker, end: BaseException) -> None:
    """A cancelled request, a lost lease, a 429."""
    end_request(breaker, ServerError("HTTP 500"))
    end_request(breaker, ServerError("HTTP 500"))
    for _ in range(5):
        end_request(breaker, end)
    assert state_of(breaker) == "closed"
    end_request(breaker, ServerError("HTTP 500"))
    assert state_of(breaker) == "open"


def test_after_the_open_time_one_probe_passes(breaker: Breaker, clock: FakeClock, events: Events) -> None:
    """Other requests are rejected until it has ended."""
    open_up(breaker)
    clock.advance(timedelta(seconds=30))
    with breaker.guard():
        assert state_of(breaker) == "half-open"
        for _ in range(5):
            with pytest.raises(CircuitOpenError), breaker.guard():
                raise AssertionError
    assert state_of(breaker) == "closed"
    assert events == ["circuit_opened", "circuit_half_open", "circuit_closed"]


def test_a_cancelled_probe_admits_the_next(breaker: Breaker, clock: FakeClock) -> None:
    """Otherwise no request would ever be sent again."""
    open_up(breaker)
    clock.advance(timedelta(seconds=30))
    end_request(breaker, asyncio.CancelledError())
    assert state_of(breaker) == "half-open"
    end_request(breaker, None)
    assert state_of(breaker) == "closed"


def test_the_open_time_doubles_up_to_ten_minutes(breaker: Breaker, clock: FakeClock) -> None:
    """After the breaker has closed, it starts at the configured time again."""
    open_up(breaker)
    times = []
    for _ in range(1200):
        times.append(breaker.probe_in)
        clock.advance(timedelta(seconds=breaker.probe_in))
        end_request(breaker, ServerError("HTTP 500"))
    assert times[:7] == [30, 60, 120, 240, 480, 600, 600]
    assert set(times[7:]) == {600}
    clock.advance(timedelta(minutes=10))
    end_request(breaker, None)
    open_up(breaker)
    assert breaker.probe_in == 30


def test_requests_sent_before_it_opened_do_not_count(breaker: Breaker, clock: FakeClock) -> None:
    """Their failures do not extend the open time, and their successes do not close it."""
    late_failure, late_success = breaker.guard(), breaker.guard()
    late_failure.__enter__()
    late_success.__enter__()
    open_up(breaker)
    clock.advance(timedelta(seconds=10))
    _leave(late_failure, ServerError("HTTP 500"))
    _leave(late_success, None)
    assert state_of(breaker) == "open"
    assert breaker.probe_in == 20


def test_each_change_of_state_is_reported(clock: FakeClock, events: Events) -> None:
    """The callback receives the state, and the open time with ``open``."""
    changes: list[tuple[str, float | None]] = []
    breaker = Breaker(
        1, timedelta(seconds=30), clock, events, lambda state, open_for: changes.append((state, open_for))
    )
    end_request(breaker, ServerError("HTTP 500"))
    clock.advance(timedelta(seconds=30))
    end_request(breaker, ServerError("HTTP 500"))
    clock.advance(timedelta(seconds=60))
    end_request(breaker, None)
    assert changes == [("open", 30), ("half-open", None), ("open", 60), ("half-open", None), ("closed", None)]


def _leave(guard: AbstractContextManager[None], error: BaseException | None) -> None:
    assert not guard.__exit__(type(error) if error else None, error, None)


@given(st.lists(st.one_of(st.sampled_from(["start", "fail", "succeed", "cancel"]), st.floats(0, 100))))
def test_open_admits_nothing_and_half_open_one_request(steps: list[str | float]) -> None:
    """For any order of starts, ends and waits."""
    clock, events = FakeClock(), Events()
    breaker = Breaker(2, timedelta(seconds=30), clock, events)
    guard: AbstractContextManager[None]
    out: list[tuple[AbstractContextManager[None], bool]] = []
    for step in steps:
        if isinstance(step, float):
            clock.advance(timedelta(seconds=step))
        elif step == "start":
            guard, wait = breaker.guard(), breaker.probe_in
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
    moves = [event for event in events if event != "circuit_half_open"]
    assert all(a != "circuit_closed" or b == "circuit_opened" for a, b in pairwise(moves))
