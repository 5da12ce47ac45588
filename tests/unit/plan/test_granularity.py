"""How wide a span may be: coarsening, widening and cutting."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.model import Granularity, Span
from service.plan.buckets import buckets, ceil, floor
from service.plan.granularity import Adjusted, WindowKind, adjust, coarser, fits, for_window, one_query, pieces

HOURLY, DAILY, MONTHLY = Granularity
DAY = timedelta(days=1)
LATER = datetime(2040, 1, 1, tzinfo=UTC)


def span(start: str, end: str, zone: str = "UTC") -> Span:
    first, last = (
        datetime.fromisoformat(at).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC) for at in (start, end)
    )
    return Span(first, last)


@pytest.mark.parametrize(
    ("start", "end", "zone", "fitting"),
    [
        ("2024-01-01", "2024-01-08", "UTC", HOURLY),
        ("2024-01-01", "2024-01-08T01:00", "UTC", DAILY),
        ("2024-10-21", "2024-10-28", "Europe/Berlin", HOURLY),  # 169 hours
        ("2023-01-01", "2024-01-01", "UTC", DAILY),
        ("2024-01-01", "2025-01-01", "UTC", MONTHLY),  # 366 days
        ("2017-01-01", "2024-01-01", "UTC", MONTHLY),
        ("2024-02-29", "2031-03-01", "UTC", MONTHLY),
    ],
)
def test_fits(start: str, end: str, zone: str, fitting: Granularity) -> None:
    """Seven days hourly, 365 days daily, seven years monthly, by wall-clock time."""
    assert next(each for each in Granularity if fits(span(start, end, zone), each, zone)) is fitting


def test_longer_than_seven_years_fits_nothing() -> None:
    """A longer span fits no single query."""
    assert not fits(span("2017-01-01", "2024-01-02"), MONTHLY, "UTC")


def test_coarser() -> None:
    """Hourly, daily, monthly, none."""
    assert [coarser(each) for each in Granularity] == [DAILY, MONTHLY, None]


@pytest.mark.parametrize(
    ("kind", "requested", "granularity"),
    [
        ("hour", "auto", HOURLY),
        ("day", "auto", HOURLY),
        ("week", "hourly", HOURLY),
        ("week", "daily", DAILY),
        ("month", "auto", DAILY),
        ("month", "hourly", DAILY),
        ("month", "monthly", MONTHLY),
    ],
)
def test_for_window(kind: WindowKind, requested: str, granularity: Granularity) -> None:
    """As requested, ``auto`` for the finest; a month is daily at finest."""
    assert for_window(kind, requested) is granularity


def test_adjust_keeps_a_span_that_fits() -> None:
    """A span on bucket edges that fits is not changed."""
    week = span("2024-01-01", "2024-01-08")
    assert adjust(week, "auto", "UTC", LATER) == Adjusted(week, HOURLY, coarsened=False, moved=False)
    assert adjust(week, "hourly", "UTC", LATER) == Adjusted(week, HOURLY, coarsened=False, moved=False)


def test_adjust_widens_and_coarsens() -> None:
    """Half a month is never stored as the month; the limits apply after widening."""
    requested = span("2022-01-15", "2024-03-10")
    wide = span("2022-01-01", "2024-04-01")
    assert adjust(requested, "hourly", "UTC", LATER) == Adjusted(wide, MONTHLY, coarsened=True, moved=True)
    assert adjust(requested, "auto", "UTC", LATER) == Adjusted(wide, MONTHLY, coarsened=False, moved=True)
    ragged = Span(requested.start + DAY / 2, requested.start + DAY * 365)
    assert adjust(ragged, "daily", "UTC", LATER) == Adjusted(
        span("2022-01-15", "2023-01-15"), DAILY, coarsened=False, moved=True
    )
    assert adjust(Span(ragged.start, ragged.end + DAY / 2), "daily", "UTC", LATER) == Adjusted(
        span("2022-01-01", "2023-02-01"), MONTHLY, coarsened=True, moved=True
    )


def test_adjust_cuts_back_to_what_settled() -> None:
    """Buckets that have not settled are left out; without any bucket there is no span."""
    requested = span("2024-01-01", "2024-01-03")
    noon = datetime(2024, 1, 2, 12, 30, tzinfo=UTC)
    cut = adjust(requested, "auto", "UTC", noon)
    assert cut == Adjusted(span("2024-01-01", "2024-01-02T12:00"), HOURLY, coarsened=False, moved=True)
    assert adjust(requested, "daily", "UTC", noon) == Adjusted(
        span("2024-01-01", "2024-01-02"), DAILY, coarsened=False, moved=True
    )
    assert adjust(requested, "monthly", "UTC", noon) is None
    assert adjust(requested, "auto", "UTC", requested.start) is None


def test_adjust_stops_at_the_coarsest() -> None:
    """The coarsest granularity is used whether the span fits or not."""
    year = span("2024-01-01", "2025-01-01")
    assert adjust(year, "auto", "UTC", LATER, coarsest=DAILY) == Adjusted(
        year, DAILY, coarsened=False, moved=False
    )


def test_pieces_of_a_local_week() -> None:
    """169 hours are two hourly queries, not one daily query."""
    week = span("2024-10-21", "2024-10-28", "Europe/Berlin")
    assert [piece.duration / timedelta(hours=1) for piece in pieces(week, HOURLY, "Europe/Berlin")] == [84, 85]


def test_pieces_of_eight_years() -> None:
    """Eight years of months are two queries of 48 buckets."""
    years = span("2016-01-01", "2024-01-01", "America/New_York")
    halves = pieces(years, MONTHLY, "America/New_York")
    assert halves == [
        span("2016-01-01", "2020-01-01", "America/New_York"),
        span("2020-01-01", "2024-01-01", "America/New_York"),
    ]


def test_pieces_leave_room_for_the_overhang() -> None:
    """Seven days and an hour exceed the hourly limit."""
    week = span("2024-01-01", "2024-01-08")
    assert pieces(week, HOURLY, "UTC") == [week]
    assert len(pieces(week, HOURLY, "UTC", timedelta(hours=1))) == 2
    # A single bucket without room for its overhang is not cut.
    assert len(pieces(span("2024-01-01", "2024-01-01T02:00"), HOURLY, "UTC", 8 * DAY)) == 2
    assert pieces(Span(week.start, week.start), HOURLY, "UTC") == []


@given(
    st.sampled_from(sorted(available_timezones())),
    st.datetimes(datetime(1990, 1, 1), datetime(2025, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    st.sampled_from(Granularity),
    st.floats(0.1, 3.5),
    st.sampled_from([timedelta(0), timedelta(hours=1), timedelta(hours=36)]),
)
@settings(deadline=None)
def test_pieces_tile(zone: str, at: datetime, granularity: Granularity, times: float, overhang: timedelta) -> None:
    """Pieces leave no gap, each is within the limit and on bucket edges, and there is no piece too many."""
    width = {HOURLY: 7 * DAY, DAILY: 365 * DAY, MONTHLY: 7 * 365 * DAY}[granularity] * times
    complete = Span(floor(at, granularity, zone), ceil(at + width, granularity, zone))
    cut = pieces(complete, granularity, zone, overhang)
    assert [cut[0].start, *(piece.end for piece in cut)] == [*(piece.start for piece in cut), complete.end]
    assert all(one_query(piece, granularity, zone, overhang) for piece in cut)
    sizes = [len(buckets(piece, granularity, zone)) for piece in cut]
    assert sum(sizes) == len(buckets(complete, granularity, zone))
    if len(cut) > 1:
        assert not one_query(complete, granularity, zone, overhang)
