"""The starts of hours, days, weeks and months in a time zone, called edges.

A day begins at the first instant whose local time is midnight, or at the offset change that skips midnight. So a
day of 23 or 25 hours is one day, and a date that a zone skipped is none. An hour begins where local time is a full
hour, and where the offset changes by other than whole hours, as in Australia/Lord_Howe: no hour is longer than an
hour. The edges of a step leave no gap, and every day's edge is an hour's edge in every zone.

Arguments are aware instants of any zone; results are in UTC.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from functools import lru_cache
from zoneinfo import ZoneInfo

Zone = str | ZoneInfo

_HOUR = timedelta(hours=1)
_DAY = timedelta(days=1)


class Step(StrEnum):
    """A unit of the calendar; a week begins on Monday."""

    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"


def zone(tz: Zone) -> ZoneInfo:
    """The zone of an IANA name; a zone is returned as it is."""
    return tz if isinstance(tz, ZoneInfo) else ZoneInfo(tz)


def at_or_before(at: datetime, step: Step, tz: Zone) -> datetime:
    """The last edge at or before ``at``."""
    tz = zone(tz)
    if step is Step.HOUR:
        return _hour_before(at.astimezone(UTC), tz)
    return day_start(_edge_date(at, step, tz), tz)


def after(at: datetime, step: Step, tz: Zone) -> datetime:
    """The first edge after ``at``."""
    tz = zone(tz)
    if step is Step.HOUR:
        return _hour_after(_hour_before(at.astimezone(UTC), tz), tz)
    first = _edge_date(at, step, tz)
    following = _NEXT[step](first)
    # A skipped day begins where the next one does.
    while day_start(following, tz) <= at:
        following = _NEXT[step](following)
    return day_start(following, tz)


def at_or_after(at: datetime, step: Step, tz: Zone) -> datetime:
    """The first edge at or after ``at``."""
    before = at_or_before(at, step, tz)
    return before if before == at else after(at, step, tz)


def until(start: datetime, end: datetime, step: Step, tz: Zone) -> list[datetime]:
    """Every edge from ``start``, which must be one, to the last at or before ``end``."""
    tz = zone(tz)
    edges = [start]
    while True:
        at = edges[-1]
        next_day = at + _DAY
        whole_day = step is Step.HOUR and next_day <= end and _offset(at, tz) == _offset(next_day, tz)
        if whole_day and not _past_hour(at.astimezone(tz)):
            edges += [at + _HOUR * count for count in range(1, 25)]
            continue
        following = after(at, step, tz)
        if following > end:
            return edges
        edges.append(following)


def _offset(at: datetime, tz: ZoneInfo) -> timedelta:
    return at.astimezone(tz).utcoffset() or timedelta()


def _edge_date(at: datetime, step: Step, tz: ZoneInfo) -> date:
    """The local date of the last edge at or before ``at``."""
    day = _FIRST[step](at.astimezone(tz).date())
    # Clocks set back over midnight repeat a date; its edge is the first occurrence.
    while day_start(day, tz) > at:
        day = _FIRST[step](day - timedelta(days=1))
    while day_start(_NEXT[step](day), tz) <= at:
        day = _NEXT[step](day)
    return day


_FIRST: dict[Step, Callable[[date], date]] = {
    Step.DAY: lambda day: day,
    Step.WEEK: lambda day: day - timedelta(days=day.weekday()),
    Step.MONTH: lambda day: day.replace(day=1),
}
_NEXT: dict[Step, Callable[[date], date]] = {
    Step.DAY: lambda day: day + timedelta(days=1),
    Step.WEEK: lambda day: day + timedelta(days=7),
    Step.MONTH: lambda day: (day.replace(day=1) + timedelta(days=31)).replace(day=1),
}


@lru_cache(maxsize=16384)
def day_start(day: date, tz: ZoneInfo) -> datetime:
    """The first instant of a local date; of the next date where the zone skipped this one."""
    wall = datetime.combine(day, time())
    at = wall.replace(tzinfo=tz).astimezone(UTC)
    if at.astimezone(tz).replace(tzinfo=None) == wall:
        return at
    return _transition(wall.replace(tzinfo=tz, fold=1).astimezone(UTC), at, tz)


def _transition(before: datetime, at: datetime, tz: ZoneInfo) -> datetime:
    """The first instant in (before, at] whose offset differs from that of ``before``."""
    offset = _offset(before, tz)
    low, high = before.replace(microsecond=0), at
    while high - low > timedelta(seconds=1):
        middle = (low + (high - low) / 2).replace(microsecond=0)
        if _offset(middle, tz) == offset:
            low = middle
        else:
            high = middle
    return high.replace(microsecond=0)


def _past_hour(local: datetime) -> timedelta:
    """The time since the last full hour."""
    return timedelta(minutes=local.minute, seconds=local.second, microseconds=local.microsecond)


def _hour_before(at: datetime, tz: ZoneInfo) -> datetime:
    """The last hour's edge at or before ``at``."""
    hour = at - _past_hour(at.astimezone(tz))
    return hour if _is_in_phase(hour, at, tz) else _transition(hour, at, tz)


def _hour_after(hour: datetime, tz: ZoneInfo) -> datetime:
    """The first hour's edge after ``hour``, itself an edge."""
    following = hour + _HOUR - _past_hour(hour.astimezone(tz))
    return following if _is_in_phase(hour, following, tz) else _transition(hour, following, tz)


def _is_in_phase(one: datetime, other: datetime, tz: ZoneInfo) -> bool:
    """Whether the offsets at two instants differ by whole hours, or not at all."""
    return not (_offset(one, tz) - _offset(other, tz)) % _HOUR
