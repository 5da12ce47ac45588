"""Buckets and instants."""

from __future__ import annotations

from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from service.simulator.buckets import TimeGroup, exceeds_limit, split_buckets
from service.simulator.instants import DAY, HOUR, format_instant, parse_instant, parse_period

LIMITS = (7, 365, 7)


def starts(start: str, end: str, step: TimeGroup, zone: str) -> list[str]:
    buckets = split_buckets(parse_instant(start), parse_instant(end), step, ZoneInfo(zone))
    assert buckets[0][0] == parse_instant(start)
    assert buckets[-1][1] == parse_instant(end)
    assert all(one[1] == other[0] for one, other in pairwise(buckets))
    return [format_instant(low)[:16] for low, _ in buckets]


def test_days_begin_at_local_midnight() -> None:
    """A local day with a clock change has 23 or 25 hours."""
    assert starts("2024-03-29T23:00Z", "2024-04-01T22:00Z", "daily", "Europe/Berlin") == [
        "2024-03-29T23:00",
        "2024-03-30T23:00",
        "2024-03-31T22:00",
    ]


def test_partial_buckets_are_truncated() -> None:
    """The first and the last bucket are truncated to the query's span."""
    assert starts("2024-01-01T10:30Z", "2024-01-02T03:00Z", "daily", "UTC") == [
        "2024-01-01T10:30",
        "2024-01-02T00:00",
    ]
    assert starts("2024-01-01T10:30Z", "2024-01-01T12:10Z", "hourly", "UTC") == [
        "2024-01-01T10:30",
        "2024-01-01T11:00",
        "2024-01-01T12:00",
    ]


def test_hours_begin_at_local_hours() -> None:
    """With an offset of half an hour, hours begin at half past in UTC."""
    assert starts("2024-01-01T18:30Z", "2024-01-01T21:00Z", "hourly", "Asia/Kolkata") == [
        "2024-01-01T18:30",
        "2024-01-01T19:30",
        "2024-01-01T20:30",
    ]


def test_a_skipped_midnight() -> None:
    """A day whose midnight is skipped begins at the instant of the clock change."""
    assert starts("2024-04-25T00:00Z", "2024-04-27T00:00Z", "daily", "Africa/Cairo") == [
        "2024-04-25T00:00",
        "2024-04-25T22:00",
        "2024-04-26T21:00",
    ]


def test_months_begin_at_local_midnight() -> None:
    """A month begins at local midnight of its first day."""
    assert starts("2024-01-31T23:00Z", "2024-04-30T22:00Z", "monthly", "Europe/Berlin") == [
        "2024-01-31T23:00",
        "2024-02-29T23:00",
        "2024-03-31T22:00",
    ]


@pytest.mark.parametrize(
    ("step", "length", "rejected"),
    [
        ("hourly", 168 * HOUR, False),
        ("hourly", 168 * HOUR + 1, True),
        ("daily", 365 * DAY, False),
        ("daily", 365 * DAY + 1, True),
    ],
)
def test_limits_in_elapsed_time(step: TimeGroup, length: int, *, rejected: bool) -> None:
    """Hourly and daily spans are limited by elapsed time."""
    start = parse_instant("2024-01-01T00:00Z")
    assert exceeds_limit(start, start + length, step, ZoneInfo("UTC"), LIMITS) is rejected


@pytest.mark.parametrize(
    ("start", "end", "zone", "rejected"),
    [
        ("2017-01-01T00:00Z", "2024-01-01T00:00Z", "UTC", False),
        ("2017-01-01T00:00Z", "2024-01-01T00:00:00.001Z", "UTC", True),
        ("2016-12-31T23:00Z", "2023-12-31T23:00Z", "Europe/Berlin", False),
        ("2016-02-29T00:00Z", "2023-02-28T00:00Z", "UTC", False),
        ("2016-02-29T00:00Z", "2023-03-01T00:00Z", "UTC", True),
    ],
)
def test_limit_in_calendar_years(start: str, end: str, zone: str, *, rejected: bool) -> None:
    """Monthly spans are limited by calendar years."""
    span = parse_instant(start), parse_instant(end)
    assert exceeds_limit(*span, "monthly", ZoneInfo(zone), LIMITS) is rejected


@pytest.mark.parametrize("text", ["2024-01-01", "2024-01-01T00:00:00", "2024-01-01T00:00:00+00:00", "now", ""])
def test_invalid_instants(text: str) -> None:
    """An instant has a time and ends in Z."""
    with pytest.raises(ValueError, match="instant"):
        parse_instant(text)


def test_periods() -> None:
    """Periods of weeks to seconds are parsed; anything else raises ValueError."""
    assert parse_period("PT1H") == HOUR
    assert parse_period("P1DT2H") == DAY + 2 * HOUR
    for text in ("", "P", "PT", "1H", "P1M", "-PT1H", "PT1.5H"):
        with pytest.raises(ValueError, match="period"):
            parse_period(text)
