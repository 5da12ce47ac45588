"""Clocks: which one decides, and when they are doubted."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from service.clock import TOLERANCE, ClockMonitor, trusted_time
from service.genesys.server_clock import MAX_AGE, ServerClock, server_date
from tests.support.fake_clock import FakeClock

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def test_the_api_decides_and_without_it_the_earlier_clock() -> None:
    """A clock that is ahead never decides."""
    assert trusted_time(NOW - HOUR, NOW, NOW + HOUR) == NOW - HOUR
    assert trusted_time(NOW + HOUR, NOW, NOW) == NOW + HOUR
    assert trusted_time(None, NOW + HOUR, NOW) == trusted_time(None, NOW, NOW + HOUR) == NOW


@pytest.mark.parametrize(
    ("header", "at"),
    [
        ("Sat, 28 Nov 2026 12:00:00 GMT", NOW),
        (" Sat, 28 Nov 2026 13:00:00 +0100 ", NOW),
        ("Saturday, 28-Nov-26 12:00:00 GMT", NOW),
        ("Sat, 28 Nov 2026 12:00:00 -0000", NOW),
        ("", None),
        ("yesterday", None),
        ("1795867200", None),
        ("Sat, 99 Nov 2026 12:00:00 GMT", None),
        ("Sat, 28 Nov 2026 99:99:99 GMT", None),
        ("Sat, 28 Nov 99999999999 12:00:00 GMT", None),
    ],
)
def test_a_date_header(header: str, at: datetime | None) -> None:
    """An invalid one counts as absent."""
    assert server_date({"Date": header}) == at
    assert server_date({}) is None


def test_an_estimate_lasts_a_minute(fake_clock: FakeClock) -> None:
    """By the monotonic clock, since the wall clock may be set meanwhile."""
    server = ServerClock(fake_clock)
    assert (server.now(), server.undated) == (None, False)
    server.observe(NOW)
    fake_clock.elapsed += MAX_AGE
    fake_clock.at -= 50 * HOUR
    assert server.now() == NOW + timedelta(seconds=MAX_AGE)
    fake_clock.elapsed += 1
    assert (server.now(), server.undated) == (None, False)
    server.observe(None)
    assert (server.now(), server.undated) == (None, True)
    server.observe(datetime.max.replace(tzinfo=UTC))
    fake_clock.elapsed += 1
    assert server.now() is None


def test_clocks_are_doubted_once(fake_clock: FakeClock) -> None:
    """And again after they agreed in between; a clock without a time is not compared."""
    events: list[tuple[str, dict[str, Any]]] = []
    monitor = ClockMonitor(fake_clock, lambda event, **context: events.append((event, context)))
    monitor.observe("acme", fake_clock.now() + TOLERANCE)
    assert [event for event, _ in events] == ["clocks_compared"]
    for _ in range(3):
        monitor.observe("database", fake_clock.now() - timedelta(seconds=1))
    doubted = [context for event, context in events if event == "clock_doubted"]
    assert [each["ahead_of_process"] for each in doubted] == [{"acme": 300, "database": -1}]
    fake_clock.advance(HOUR)  # all of them advance
    monitor.observe("database", fake_clock.now())
    assert events[-1] == ("clocks_compared", {"seconds": 300.0, "doubted": False})
    fake_clock.at += HOUR  # the process's clock was set
    monitor.observe("database", fake_clock.now())
    assert [event for event, _ in events[-2:]] == ["clocks_compared", "clock_doubted"]
    monitor.observe("acme", None)
    assert events[-1][1]["doubted"] is False


def test_a_time_is_compared_once_a_second(fake_clock: FakeClock) -> None:
    """A server whose ``Date`` stands still is noticed all the same."""
    events: list[tuple[str, dict[str, Any]]] = []
    monitor = ClockMonitor(fake_clock, lambda event, **context: events.append((event, context)))
    frozen = fake_clock.now()
    for _ in range(10):
        monitor.observe("acme", frozen)
        fake_clock.advance(timedelta(milliseconds=100))
    assert len(events) == 1
    for _ in range(10):
        monitor.observe("acme", frozen)
        fake_clock.advance(timedelta(minutes=1))
    assert [event for event, _ in events].count("clock_doubted") == 1
