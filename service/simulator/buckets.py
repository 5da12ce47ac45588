"""Where the engine cuts time: hours, days and months of an org's reporting time zone.

Written apart from the client's own cutting on purpose: the two check each other.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Literal, TypeAlias
from zoneinfo import ZoneInfo

from service.simulator.instants import DAY, HOUR, milliseconds, moment

TimeGroup: TypeAlias = Literal["hourly", "daily", "monthly"]
Stretch: TypeAlias = tuple[int, int]
"""Half-open, in milliseconds since 1970."""


def cut(start: int, end: int, step: TimeGroup, timezone: ZoneInfo) -> list[Stretch]:
    """The buckets of [start, end), the first and the last one truncated to it."""
    edges = [start]
    while (edge := _next_edge(edges[-1], step, timezone)) < end:
        edges.append(edge)
    return list(zip(edges, [*edges[1:], end], strict=True))


def _next_edge(at: int, step: TimeGroup, timezone: ZoneInfo) -> int:
    """The first edge after ``at``."""
    local = moment(at).astimezone(timezone)
    if step == "hourly":
        return at + HOUR - (local.minute * 60 + local.second) * 1000 - at % 1000
    if step == "daily":
        return _midnight(local + timedelta(days=1), timezone)
    return _midnight((local.replace(day=1, fold=0) + timedelta(days=32)).replace(day=1), timezone)


def _midnight(local: datetime, timezone: ZoneInfo) -> int:
    """The first instant of a local day; where its midnight is skipped, the instant that skips it."""
    return milliseconds(datetime(local.year, local.month, local.day, tzinfo=timezone).astimezone(UTC))


def too_fine(start: int, end: int, step: TimeGroup, timezone: ZoneInfo, limits: tuple[int, int, int]) -> bool:
    """Whether a span is longer than the engine allows for the step.

    Args:
        start: of the asked span, in milliseconds.
        end: likewise.
        step: the granularity.
        timezone: where calendar years are counted.
        limits: days of elapsed time for hourly, days of elapsed time for daily, calendar years for monthly.
    """
    hourly, daily, years = limits
    if step == "hourly":
        return end - start > hourly * DAY
    if step == "daily":
        return end - start > daily * DAY
    local = moment(start).astimezone(timezone)
    leap = local.month == 2 and local.day == 29  # noqa: PLR2004
    last = local.replace(year=local.year + years, day=28 if leap and years % 4 else local.day, fold=0)
    return end > milliseconds(last.astimezone(UTC))
