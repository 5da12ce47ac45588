"""Buckets: hours, days and months of an org's reporting time zone.

Independent of the client's calendar on purpose: the tests compare the two.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Literal, TypeAlias
from zoneinfo import ZoneInfo

from service.simulator.instants import DAY, HOUR, to_datetime, to_milliseconds

TimeGroup: TypeAlias = Literal["hourly", "daily", "monthly"]
Interval: TypeAlias = tuple[int, int]
"""Half-open, in milliseconds since 1970."""


def split_buckets(start: int, end: int, step: TimeGroup, timezone: ZoneInfo) -> list[Interval]:
    """Split [start, end) into buckets; the first and the last are truncated to it."""
    edges = [start]
    while (edge := _next_edge(edges[-1], step, timezone)) < end:
        edges.append(edge)
    return list(zip(edges, [*edges[1:], end], strict=True))


def _next_edge(at: int, step: TimeGroup, timezone: ZoneInfo) -> int:
    """Return the first edge after ``at``."""
    local = to_datetime(at).astimezone(timezone)
    if step == "hourly":
        past = (local.minute * 60 + local.second) * 1000 + at % 1000
        return _first_out_of_phase(at, at + HOUR - past, timezone)
    if step == "daily":
        return _midnight(local + timedelta(days=1), timezone)
    return _midnight((local.replace(day=1, fold=0) + timedelta(days=32)).replace(day=1), timezone)


def _first_out_of_phase(start: int, end: int, timezone: ZoneInfo) -> int:
    """The first instant in (start, end] at which the clock shows other minutes than at ``start``; or ``end``."""
    while start < end and not _in_phase(start, end, timezone):
        middle = (start + end) // 2
        if middle == start:
            return end
        if _in_phase(start, middle, timezone):
            start = middle
        else:
            end = middle
    return end


def _in_phase(one: int, other: int, timezone: ZoneInfo) -> bool:
    offsets = [to_datetime(at).astimezone(timezone).utcoffset() or timedelta() for at in (one, other)]
    return (offsets[0] - offsets[1]) % timedelta(hours=1) == timedelta()


def _midnight(local: datetime, timezone: ZoneInfo) -> int:
    """Return the first instant of a local day; if a clock change skips midnight, the instant of the change."""
    return to_milliseconds(datetime(local.year, local.month, local.day, tzinfo=timezone).astimezone(UTC))


def exceeds_limit(start: int, end: int, step: TimeGroup, timezone: ZoneInfo, limits: tuple[int, int, int]) -> bool:
    """Return whether a span is longer than the API allows for a granularity.

    Args:
        start: start of the span, in milliseconds since 1970.
        end: end of the span, in milliseconds since 1970.
        step: the granularity.
        timezone: the time zone of calendar years.
        limits: elapsed days for hourly, elapsed days for daily, calendar years for monthly.
    """
    hourly, daily, years = limits
    if step == "hourly":
        return end - start > hourly * DAY
    if step == "daily":
        return end - start > daily * DAY
    local = to_datetime(start).astimezone(timezone)
    leap = (local.month, local.day) == (2, 29)
    last = local.replace(year=local.year + years, day=28 if leap and years % 4 else local.day, fold=0)
    return end > to_milliseconds(last.astimezone(UTC))
