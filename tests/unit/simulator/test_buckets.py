"""Where the engine cuts time."""

from __future__ import annotations

from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from service.simulator.buckets import TimeGroup, cut, too_fine
from service.simulator.instants import DAY, HOUR, parse_instant, parse_period, spelled

LIMITS = (7, 365, 7)


def starts(start: str, end: str, step: TimeGroup, zone: str) -> list[str]:
    buckets = cut(parse_instant(start), parse_instant(end), step, ZoneInfo(zone))
    assert buckets[0][0] == parse_instant(start)
    assert buckets[-1][1] == parse_instant(end)
    assert all(one[1] == other[0] for one, other in pairwise(buckets))
    return [spelled(low)[:16] for low, _ in buckets]


def test_days_begin_where_the_zone_says() -> None:
    """Around a change of the clocks a local day has 23 or 25 hours."""
    assert starts("2024-03-29T23:00Z", "2024-04-01T22:00Z", "daily", "Europe/Berlin") == [
        "2024-03-29T23:00",
        "2024-03-30T23:00",
        "2024-03-31T22:00",
    ]


def test_a_partial_bucket_is_cut_to_the_span() -> None:
    """The first and the last bucket end where the query does."""
    assert starts("2024-01-01T10:30Z", "2024-01-02T03:00Z", "daily", "UTC") == [
        "2024-01-01T10:30",
        "2024-01-02T00:00",
    ]
    assert starts("2024-01-01T10:30Z", "2024-01-01T12:10Z", "hourly", "UTC") == [
        "2024-01-01T10:30",
        "2024-01-01T11:00",
        "2024-01-01T12:00",
    ]


def test_hours_begin_where_the_zone_says() -> None:
    """Where the offset is no whole hour, hours begin at half past in UTC."""
    assert starts("2024-01-01T18:30Z", "2024-01-01T21:00Z", "hourly", "Asia/Kolkata") == [
        "2024-01-01T18:30",
        "2024-01-01T19:30",
        "2024-01-01T20:30",
    ]


def test_a_midnight_that_is_skipped() -> None:
    """Where the clocks skip midnight the day begins with the instant that skips it."""
    assert starts("2024-04-25T00:00Z", "2024-04-27T00:00Z", "daily", "Africa/Cairo") == [
        "2024-04-25T00:00",
        "2024-04-25T22:00",
        "2024-04-26T21:00",
    ]


def test_months() -> None:
    """Months begin at local midnight of the first."""
    assert starts("2024-01-31T23:00Z", "2024-04-30T22:00Z", "monthly", "Europe/Berlin") == [
        "2024-01-31T23:00",
        "2024-02-29T23:00",
        "2024-03-31T22:00",
    ]


@pytest.mark.parametrize(
    ("step", "length", "refused"),
    [
        ("hourly", 168 * HOUR, False),
        ("hourly", 168 * HOUR + 1, True),
        ("daily", 365 * DAY, False),
        ("daily", 365 * DAY + 1, True),
    ],
)
def test_elapsed_limits(step: TimeGroup, length: int, *, refused: bool) -> None:
    """Hourly and daily spans are limited by elapsed time."""
    start = parse_instant("2024-01-01T00:00Z")
    assert too_fine(start, start + length, step, ZoneInfo("UTC"), LIMITS) is refused


@pytest.mark.parametrize(
    ("start", "end", "zone", "refused"),
    [
        ("2017-01-01T00:00Z", "2024-01-01T00:00Z", "UTC", False),
        ("2017-01-01T00:00Z", "2024-01-01T00:00:00.001Z", "UTC", True),
        ("2016-12-31T23:00Z", "2023-12-31T23:00Z", "Europe/Berlin", False),
        ("2016-02-29T00:00Z", "2023-02-28T00:00Z", "UTC", False),
        ("2016-02-29T00:00Z", "2023-03-01T00:00Z", "UTC", True),
    ],
)
def test_calendar_limit(start: str, end: str, zone: str, *, refused: bool) -> None:
    """Monthly spans are limited by calendar years."""
    span = parse_instant(start), parse_instant(end)
    assert too_fine(*span, "monthly", ZoneInfo(zone), LIMITS) is refused


@pytest.mark.parametrize("text", ["2024-01-01", "2024-01-01T00:00:00", "2024-01-01T00:00:00+00:00", "now", ""])
def test_what_is_no_instant(text: str) -> None:
    """An instant ends in Z, and has a time."""
    with pytest.raises(ValueError, match="instant"):
        parse_instant(text)


def test_periods() -> None:
    """Periods of weeks to seconds are understood, nothing else."""
    assert parse_period("PT1H") == HOUR
    assert parse_period("P1DT2H") == DAY + 2 * HOUR
    for text in ("", "P", "PT", "1H", "P1M", "-PT1H", "PT1.5H"):
        with pytest.raises(ValueError, match="period"):
            parse_period(text)
