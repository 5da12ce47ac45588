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
from service.simulator.buckets import split_buckets

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


@pytest.mark.parametrize(
    ("zone", "day", "shorter"),
    [
        ("Australia/Lord_Howe", (2024, 4, 7), "01:30"),
        ("Australia/Lord_Howe", (2024, 10, 6), "02:30"),
        ("America/Caracas", (2007, 12, 9), "02:30"),
        ("Asia/Kathmandu", (1986, 1, 1), "00:15"),
    ],
)
def test_an_offset_change_of_no_whole_hours(zone: str, day: tuple[int, int, int], shorter: str) -> None:
    """An hour begins at the change, and at every full hour: none is longer than an hour."""
    noon = local(zone, *day, 12)
    span = Span(b.floor(noon, DAILY, zone), b.following(noon, DAILY, zone))
    hours = b.buckets(span, HOURLY, zone)
    odd = [hour for hour in hours if hour.start.astimezone(ZoneInfo(zone)).minute]
    assert [f"{hour.start.astimezone(ZoneInfo(zone)):%H:%M}" for hour in odd] == [shorter]
    assert odd[0].duration < HOUR
    assert {hour.duration for hour in hours if hour not in odd} == {HOUR}
    assert all(b.floor(hour.end - timedelta(microseconds=1), HOURLY, zone) == hour.start for hour in hours)


CHANGES = {
    "Africa/Cairo": 2024,
    "Africa/Casablanca": 2024,
    "Africa/Monrovia": 1972,
    "America/Caracas": 2007,
    "America/Sao_Paulo": 2018,
    "America/St_Johns": 2010,
    "Antarctica/Casey": 2018,
    "Antarctica/Troll": 2024,
    "Asia/Beirut": 2023,
    "Asia/Gaza": 2024,
    "Asia/Kathmandu": 1986,
    "Asia/Pyongyang": 2015,
    "Australia/Lord_Howe": 2024,
    "Pacific/Apia": 2011,
    "Pacific/Chatham": 2024,
    "Pacific/Kwajalein": 1993,
}


@pytest.mark.parametrize("granularity", Granularity)
@pytest.mark.parametrize("zone", CHANGES)
def test_the_plan_and_the_simulator_cut_at_the_same_instants(zone: str, granularity: Granularity) -> None:
    """Through a year of each zone that changes by half an hour, at midnight, or by days."""
    year = CHANGES[zone]
    span = Span(b.floor(utc(year - 1, 12, 15), MONTHLY, zone), b.floor(utc(year + 1, 1, 20), MONTHLY, zone))
    planned = [int(each.start.timestamp() * 1000) for each in b.buckets(span, granularity, zone)]
    start, end = (int(at.timestamp() * 1000) for at in span)
    assert planned == [low for low, _ in split_buckets(start, end, granularity.value, ZoneInfo(zone))]


def test_buckets_reject_a_span_off_their_edges() -> None:
    """Half a bucket is not a bucket."""
    with pytest.raises(ValueError, match="edges of daily buckets in UTC"):
        b.buckets(Span(utc(2024, 1, 1), utc(2024, 1, 2, 12)), DAILY, "UTC")


def test_months() -> None:
    """Months are those of the org's calendar."""
    start = local("America/New_York", 2024, 1, 1)
    months = b.buckets(Span(start, local("America/New_York", 2024, 4, 1)), MONTHLY, "America/New_York")
    assert [month.duration / HOUR for month in months] == [31 * 24, 29 * 24, 31 * 24 - 1]
