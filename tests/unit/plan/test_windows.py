"""A job's windows, and when each is due."""

from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from time import perf_counter
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.config import OffPeak
from service.model import Span
from service.plan.granularity import WindowKind
from service.plan.windows import days, due_at, next_span, settled_spans

HOUR = timedelta(hours=1)

kinds: st.SearchStrategy[WindowKind] = st.sampled_from(["hour", "day", "week", "month"])


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[arg-type, misc]


@given(
    kinds,
    st.sampled_from(sorted(available_timezones())),
    st.datetimes(datetime(1990, 1, 1), datetime(2035, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    st.timedeltas(timedelta(0), timedelta(days=70)),
    st.timedeltas(HOUR, timedelta(days=2)),
)
@settings(deadline=None)
def test_settled_spans_are_contiguous(
    kind: WindowKind, zone: str, since: datetime, length: timedelta, delay: timedelta
) -> None:
    """Every settled window from the one that contains ``since``, without a gap."""
    now = since + length
    windows = settled_spans(kind, since, now, delay, zone)
    assert all(one.end == other.start for one, other in pairwise(windows))
    upcoming = next_span(kind, since, now, delay, zone)
    assert upcoming.end + delay > now
    assert upcoming.start <= max(since, now - delay) < upcoming.end
    if windows:
        assert windows[0].start <= since < windows[0].end
        assert windows[-1].end + delay <= now
        assert windows[-1].end == upcoming.start
    else:
        assert upcoming.start <= since


@pytest.mark.parametrize(
    ("kind", "first"),
    [
        ("hour", Span(utc(2024, 5, 15, 10), utc(2024, 5, 15, 11))),
        ("day", Span(utc(2024, 5, 14, 22), utc(2024, 5, 15, 22))),
        ("week", Span(utc(2024, 5, 12, 22), utc(2024, 5, 19, 22))),
        ("month", Span(utc(2024, 4, 30, 22), utc(2024, 5, 31, 22))),
    ],
)
def test_windows_are_aligned(kind: WindowKind, first: Span) -> None:
    """The first window contains ``since`` and begins on an edge of the org's calendar; weeks begin on Monday."""
    since = utc(2024, 5, 15, 10, 20)
    assert settled_spans(kind, since, utc(2024, 7, 1), HOUR, "Europe/Berlin")[0] == first


def test_a_window_settles_when_its_delay_is_over() -> None:
    """From that very instant on."""
    since, end = utc(2024, 1, 1), utc(2024, 1, 2)
    assert settled_spans("day", since, end + HOUR, HOUR, "UTC") == [Span(since, end)]
    assert settled_spans("day", since, end + HOUR - timedelta(microseconds=1), HOUR, "UTC") == []
    assert settled_spans("day", since, since - timedelta(days=9), HOUR, "UTC") == []


def test_three_years_of_hours_are_quick() -> None:
    """26,280 windows are computed in less than a second."""
    begun = perf_counter()
    windows = settled_spans("hour", utc(2021, 1, 1), utc(2024, 1, 1), HOUR, "Europe/Berlin")
    assert perf_counter() - begun < 1
    assert len(windows) == 3 * 365 * 24 - 1


def test_due_at() -> None:
    """A window is due once it has settled and the off-peak hours begin."""
    day = Span(utc(2024, 1, 1), utc(2024, 1, 2))
    assert due_at(day, HOUR, None) == utc(2024, 1, 2, 1)
    assert due_at(day, HOUR, OffPeak(time(2), time(5))) == utc(2024, 1, 2, 2)
    assert due_at(day, 6 * HOUR, OffPeak(time(2), time(5))) == utc(2024, 1, 3, 2)
    assert due_at(day, HOUR, OffPeak(time(22), time(5))) == utc(2024, 1, 2, 1)


def test_days_of_a_request() -> None:
    """Dates begin where the org's days do, also where midnight was skipped."""
    assert days(date(2018, 11, 4), date(2018, 11, 5), "America/Sao_Paulo") == Span(
        utc(2018, 11, 4, 3), utc(2018, 11, 5, 2)
    )


def test_zone_may_be_given_itself() -> None:
    """A zone and its name give the same windows."""
    arguments = ("day", utc(2024, 1, 1), utc(2024, 2, 1), HOUR)
    assert settled_spans(*arguments, ZoneInfo("Asia/Tokyo")) == settled_spans(*arguments, "Asia/Tokyo")  # type: ignore[arg-type]
