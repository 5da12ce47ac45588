"""Bucket edges in every zone, across every change of offset."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.model import Granularity, Span
from service.plan import buckets as b
from service.plan import calendar
from service.plan.calendar import Step

HOURLY, DAILY, MONTHLY = Granularity
HOUR, DAY = timedelta(hours=1), timedelta(days=1)

zones = st.sampled_from(sorted(available_timezones()))
instants = st.datetimes(datetime(1990, 1, 1), datetime(2035, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001
lengths = {HOURLY: timedelta(days=4), DAILY: timedelta(days=90), MONTHLY: timedelta(days=900)}


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[arg-type, misc]


def local(zone: str, *parts: int) -> datetime:
    return datetime(*parts, tzinfo=ZoneInfo(zone)).astimezone(UTC)  # type: ignore[arg-type, misc]


@given(zones, instants, st.sampled_from(Granularity), st.floats(0, 1))
@settings(deadline=None)
def test_buckets_tile(zone: str, at: datetime, granularity: Granularity, part: float) -> None:
    """The buckets of a span leave no gap from its first edge to its last."""
    span = Span(b.floor(at, granularity, zone), b.ceil(at + lengths[granularity] * part, granularity, zone))
    steps = b.buckets(span, granularity, zone)
    edge = span.start
    for step in steps:
        assert step.start == edge < step.end
        assert step.end == b.following(step.start, granularity, zone)
        edge = step.end
    assert edge == span.end


@given(zones, instants, st.sampled_from(Granularity))
@settings(deadline=None)
def test_floor_and_following_enclose(zone: str, at: datetime, granularity: Granularity) -> None:
    """An instant lies in the bucket from its floor to the following edge, without an edge between."""
    start, end = b.floor(at, granularity, zone), b.following(at, granularity, zone)
    assert start <= at < end
    assert b.ceil(at, granularity, zone) in ({start} if start == at else {end})
    assert b.is_edge(start, granularity, zone)
    for inside in (start, start + (end - start) / 3, end - timedelta(microseconds=1)):
        assert (b.floor(inside, granularity, zone), b.following(inside, granularity, zone)) == (start, end)


@given(zones, instants, st.sampled_from(Step))
@settings(deadline=None)
def test_edges_until(zone: str, at: datetime, step: Step) -> None:
    """``until`` returns the same edges as repeated calls of ``after``."""
    start = calendar.at_or_before(at, step, zone)
    run = calendar.until(start, at + 5 * DAY, step, zone)
    one_by_one = [start]
    while (following := calendar.after(one_by_one[-1], step, zone)) <= at + 5 * DAY:
        one_by_one.append(following)
    assert run == one_by_one


@given(zones, st.datetimes(datetime(1999, 1, 1), datetime(2035, 12, 31), timezones=st.just(UTC)))  # noqa: DTZ001
@settings(deadline=None)
def test_edges_nest(zone: str, at: datetime) -> None:
    """Months and weeks begin with a day, days with an hour."""
    assert b.is_edge(b.floor(at, MONTHLY, zone), DAILY, zone)
    assert b.is_edge(calendar.at_or_before(at, Step.WEEK, zone), DAILY, zone)
    assert b.is_edge(b.floor(at, DAILY, zone), HOURLY, zone)


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("Europe/Berlin", (2024, 3, 31), 23),
        ("Europe/Berlin", (2024, 10, 27), 25),
        ("America/Sao_Paulo", (2018, 11, 4), 23),  # midnight was skipped
        ("America/Havana", (2024, 11, 3), 25),
        ("America/St_Johns", (2010, 11, 7), 25),  # set back at 00:01: its first minute occurred twice
        ("Asia/Kolkata", (2024, 3, 31), 24),
    ],
)
def test_days_of_other_lengths(zone: str, day: tuple[int, int, int], hours: int) -> None:
    """A day of 23 or 25 hours is one daily bucket, and as many hourly ones."""
    noon = local(zone, *day, 12)
    span = Span(b.floor(noon, DAILY, zone), b.following(noon, DAILY, zone))
    assert span.duration / HOUR == hours
    assert len(b.buckets(span, HOURLY, zone)) == hours


def test_a_date_that_a_zone_skipped() -> None:
    """Samoa skipped 30 December 2011: the day before ends where the day after begins."""
    before = local("Pacific/Apia", 2011, 12, 29, 12)
    end = b.following(before, DAILY, "Pacific/Apia")
    assert end == local("Pacific/Apia", 2011, 12, 31)
    assert b.following(end, DAILY, "Pacific/Apia") == local("Pacific/Apia", 2012, 1, 1)
    assert b.floor(end, DAILY, "Pacific/Apia") == end


def test_hours_of_a_half_hour_zone() -> None:
    """In Kolkata an hour begins at the local full hour, which is half past in UTC."""
    assert b.floor(utc(2024, 1, 1, 12, 15), HOURLY, "Asia/Kolkata") == utc(2024, 1, 1, 11, 30)
    assert b.ceil(utc(2024, 1, 1, 12, 45), HOURLY, ZoneInfo("Asia/Kolkata")) == utc(2024, 1, 1, 13, 30)


@pytest.mark.parametrize("day", [(2024, 4, 7), (2024, 10, 6)])
def test_an_offset_change_of_half_an_hour(day: tuple[int, int, int]) -> None:
    """At Lord Howe the hour before the change lasts an hour and a half; all begin at a local full hour."""
    noon = local("Australia/Lord_Howe", *day, 12)
    span = Span(b.floor(noon, DAILY, "Australia/Lord_Howe"), b.following(noon, DAILY, "Australia/Lord_Howe"))
    hours = b.buckets(span, HOURLY, "Australia/Lord_Howe")
    assert {hour.start.astimezone(ZoneInfo("Australia/Lord_Howe")).minute for hour in hours} == {0}
    assert sorted({hour.duration for hour in hours}) == [HOUR, 1.5 * HOUR]
    assert [hour.duration for hour in hours].count(1.5 * HOUR) == 1


def test_buckets_reject_a_span_off_their_edges() -> None:
    """Half a bucket is not a bucket."""
    with pytest.raises(ValueError, match="edges of daily buckets in UTC"):
        b.buckets(Span(utc(2024, 1, 1), utc(2024, 1, 2, 12)), DAILY, "UTC")


def test_months() -> None:
    """Months are those of the org's calendar."""
    start = local("America/New_York", 2024, 1, 1)
    months = b.buckets(Span(start, local("America/New_York", 2024, 4, 1)), MONTHLY, "America/New_York")
    assert [month.duration / HOUR for month in months] == [31 * 24, 29 * 24, 31 * 24 - 1]
