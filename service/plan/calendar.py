"""Where hours, days, weeks and months begin in a time zone.

A day begins at the first instant whose local time is its midnight, or at the jump where its midnight was skipped:
a day of 23 or 25 hours is one day, a day that a zone left out is none. An hour begins where local time is a full
hour; where a zone jumps by half an hour, as Australia/Lord_Howe does, the hour before the jump takes the rest
along and lasts an hour and a half. So the edges of each step follow one another without a gap, and every day's
edge is an hour's edge, in each zone there is since 1999.

Instants come in aware and go out in UTC.
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
_TICK = timedelta(microseconds=1)


class Step(StrEnum):
    """What time can be cut into; a week begins on Monday."""

    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"


def zone(tz: Zone) -> ZoneInfo:
    """The zone itself, where only its IANA name is given."""
    return tz if isinstance(tz, ZoneInfo) else ZoneInfo(tz)


def at_or_before(at: datetime, step: Step, tz: Zone) -> datetime:
    """The last edge that is not after ``at``."""
    found = zone(tz)
    if step is Step.HOUR:
        return _hour_before(at.astimezone(UTC), found)
    return day_start(_dated(at, step, found), found)


def after(at: datetime, step: Step, tz: Zone) -> datetime:
    """The first edge after ``at``."""
    found = zone(tz)
    if step is Step.HOUR:
        return _hour_after(_hour_before(at.astimezone(UTC), found), found)
    first = _dated(at, step, found)
    following = _NEXT[step](first)
    # A day that was skipped begins where the next one does.
    while day_start(following, found) <= at:
        following = _NEXT[step](following)
    return day_start(following, found)


def at_or_after(at: datetime, step: Step, tz: Zone) -> datetime:
    """The first edge that is not before ``at``."""
    before = at_or_before(at, step, tz)
    return before if before == at else after(at, step, tz)


def until(start: datetime, end: datetime, step: Step, tz: Zone) -> list[datetime]:
    """Every edge from ``start``, itself an edge, to the last that is not after ``end``."""
    found = zone(tz)
    run = [start]
    while True:
        at = run[-1]
        next_day = at + _DAY
        if step is Step.HOUR and next_day <= end and _offset(at, found) == _offset(next_day, found):
            run += [at + _HOUR * count for count in range(1, 25)]
            continue
        following = after(at, step, found)
        if following > end:
            return run
        run.append(following)


def _offset(at: datetime, tz: ZoneInfo) -> timedelta | None:
    return at.astimezone(tz).utcoffset()


def _dated(at: datetime, step: Step, tz: ZoneInfo) -> date:
    """The local date of the last edge that is not after ``at``."""
    day = _FIRST[step](at.astimezone(tz).date())
    # Clocks set back over midnight show a date twice: the edge is where it was shown first.
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
    """The first instant of a local date; that of the next one, where the zone left this date out."""
    wall = datetime.combine(day, time())
    at = wall.replace(tzinfo=tz).astimezone(UTC)
    if at.astimezone(tz).replace(tzinfo=None) == wall:
        return at
    return _jump(wall.replace(tzinfo=tz, fold=1).astimezone(UTC), at, tz)


def _jump(before: datetime, at: datetime, tz: ZoneInfo) -> datetime:
    """The instant in (before, at] from which the zone's offset is no longer that of ``before``."""
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
    return timedelta(minutes=local.minute, seconds=local.second, microseconds=local.microsecond)


def _hour_before(at: datetime, tz: ZoneInfo) -> datetime:
    while True:
        local = at.astimezone(tz)
        hour = at - _past_hour(local)
        if _offset(hour, tz) == local.utcoffset():
            return hour
        jump = _jump(hour, at, tz)
        if not _past_hour(jump.astimezone(tz)):
            return jump
        at = jump - _TICK


def _hour_after(hour: datetime, tz: ZoneInfo) -> datetime:
    following = hour + _HOUR
    at = hour
    while _offset(at, tz) != _offset(following, tz):
        at = _jump(at, following, tz)
        past = _past_hour(at.astimezone(tz))
        if not past:
            return at
        following = at + _HOUR - past
    return following
