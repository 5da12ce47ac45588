"""An org's flows of the last seven whole days beside the seven before: the document of the overview."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from functools import cached_property
from typing import Any

from service.config import Config, Org
from service.model import Granularity, Span
from service.plan import windows
from service.plan.calendar import day_start
from service.postgres.pool import Connection
from service.postgres.queries import week
from service.postgres.queries.status import snapshot
from service.postgres.queries.week import FlowDays, LargestOutcomes

DAYS = 28
"""Days of a sparkline."""
WEEK = 7
_DIGITS = 4  # of a share in a sparkline
_LOOKED_BACK = 60  # days in which the last whole day is sought
_DAY_HOURS = 23  # the covered hours from which a day counts as whole: that of the change to summer time

_NONE = (None,) * DAYS

Document = dict[str, Any]


class Measure(StrEnum):
    """What the overview compares."""

    COUNT = "count"
    SHARE = "share"
    RATE = "rate"
    DURATION = "duration"


@dataclass(frozen=True)
class Weeks:
    """The days of the overview.

    Attributes:
        granularity: of the figures.
        edges: the starts of the 28 days and the end of the last one.
        dates: the local dates of the 28 days.
        covered: whether a complete scan has covered each of them.
    """

    granularity: str
    edges: list[datetime]
    dates: list[date]
    covered: list[bool]

    @cached_property
    def this(self) -> list[int]:
        """The numbers of this week's days, from 1, that have a counterpart a week before."""
        return [day for day in range(DAYS - WEEK + 1, DAYS + 1) if self._paired(day)]

    @cached_property
    def before(self) -> list[int]:
        """Their counterparts."""
        return [day - WEEK for day in self.this]

    def _paired(self, day: int) -> bool:
        return self.covered[day - 1] and self.covered[day - WEEK - 1]


async def document(
    connection: Connection,
    config: Config,
    org: Org,
    now: datetime,
    measure: Measure | None,
    pruned_before: datetime | None = None,
) -> Document:
    """Every flow with a figure in the last 28 days, and the sums of all.

    Args:
        connection: the database.
        config: the jobs, which say at which granularity there are figures.
        org: the org.
        now: decides which days are whole.
        measure: None for the usual one of the org's API.
        pruned_before: figures before it are being removed.

    Raises:
        DatabaseUnavailableError, SchemaError: as the connection.
    """
    split = org.api == "flow-aggregates"
    measure = measure or (Measure.RATE if split else Measure.SHARE)
    async with snapshot(connection):
        weeks = await _weeks(connection, config, org, now)
        if weeks is None:
            return {"org": org.name, "timezone": org.timezone, "measure": measure, "days": [], "flows": []}
        edges, within = weeks.edges, Span(weeks.edges[-WEEK - 1], weeks.edges[-1])
        largest: dict[str, LargestOutcomes] = {}
        if measure is Measure.SHARE:
            largest = await week.largest_outcomes(
                connection,
                org.name,
                weeks.granularity,
                edges[DAYS - 2 * WEEK :],
                [day - DAYS + 2 * WEEK for day in weeks.this],
                [day - DAYS + 2 * WEEK for day in weeks.before],
            )
        numbers = [number for each in largest.values() for number in each.numbers]
        flows = await week.flow_days(
            connection, org.name, weeks.granularity, edges, numbers, split=split, since=pruned_before
        )
        restated = await week.restated_flows(connection, org.name, weeks.granularity, within)
        today = now.astimezone(org.tz).date()
        until_today = [day_start(today - timedelta(days=back), org.tz) for back in range(DAYS - 1, -2, -1)]
        by_day = await week.restated_by_day(connection, org.name, weeks.granularity, until_today)
    return await asyncio.to_thread(_compose, org, measure, weeks, flows, largest, restated, by_day)


async def _weeks(connection: Connection, config: Config, org: Org, now: datetime) -> Weeks | None:
    """The 28 days up to the last one that a complete scan has covered; None where none was in two months."""
    today = now.astimezone(org.tz).date()
    span = windows.days(today - timedelta(days=_LOOKED_BACK), today, org.tz)
    for granularity in _granularities(config, org):
        buckets = await week.covered_buckets(connection, org.name, granularity, span)
        covered: dict[date, int] = {}
        for bucket in buckets:
            day = bucket.astimezone(org.tz).date()
            covered[day] = covered.get(day, 0) + 1
        least = _DAY_HOURS if granularity == Granularity.HOURLY else 1
        whole = {day for day, count in covered.items() if count >= least}
        if whole:
            last = max(whole)
            dates = [last - timedelta(days=back) for back in range(DAYS - 1, -1, -1)]
            edges = [day_start(day, org.tz) for day in (*dates, last + timedelta(days=1))]
            return Weeks(granularity, edges, dates, [day in whole for day in dates])
    return None


def _granularities(config: Config, org: Org) -> list[str]:
    """Daily before hourly, of the org's jobs or of anything that was extracted once."""
    jobs = {job.granularity for job in config.jobs_of(org).values() if job.measure == "outcomes"}
    found: list[str] = [Granularity.DAILY, Granularity.HOURLY]
    return sorted(found, key=lambda each: each not in jobs)


def _compose(
    org: Org,
    measure: Measure,
    weeks: Weeks,
    flows: Sequence[FlowDays],
    largest: dict[str, LargestOutcomes],
    restated: dict[str, int],
    by_day: dict[int, int],
) -> Document:
    rows = [
        _flow(each, measure, weeks, largest.get(each.flow_id), restated.get(each.flow_id, 0)) for each in flows
    ]
    sums = {
        name: _added(flows, name) for name in ("totals", "split", "successes", "duration_counts", "duration_sums")
    }
    known = sum(len(each.days) for each in flows)
    return {
        "org": org.name,
        "timezone": org.timezone,
        "granularity": weeks.granularity,
        "measure": measure,
        "days": [each.isoformat() for each in weeks.dates],
        "missing": [
            day.isoformat() for day, covered in zip(weeks.dates, weeks.covered, strict=True) if not covered
        ],
        "compared": len(weeks.this),
        "flows": rows,
        "totals": _measures(sums, weeks),
        "restated": {
            "figures": sum(restated.values()),
            "days": [by_day.get(day, 0) for day in range(1, DAYS + 1)],
        },
        "known": known,
    }


def _added(flows: Sequence[FlowDays], name: str) -> list[int | None]:
    """The sums of all flows, by day."""
    days: list[int | None] = [None] * DAYS
    for each in flows:
        for day, value in zip(each.days, getattr(each, name) or (), strict=False):
            if value is not None:
                days[day - 1] = (days[day - 1] or 0) + value
    return days


def _spread(each: FlowDays, values: Sequence[int | None] | None) -> Sequence[int | None]:
    if values is None:
        return _NONE
    days: list[int | None] = [None] * DAYS
    for day, value in zip(each.days, values, strict=True):
        days[day - 1] = value
    return days


def _flow(
    each: FlowDays, measure: Measure, weeks: Weeks, largest: LargestOutcomes | None, restated: int
) -> Document:
    sums = {
        name: _spread(each, getattr(each, name))
        for name in ("totals", "largest", "split", "successes", "duration_counts", "duration_sums")
    }
    row = {"id": each.flow_id, "name": each.name, **_measures(sums, weeks), "restated": restated}
    row["nulls"] = each.nulls
    for name, shown in (("days", Measure.COUNT), ("rate_days", Measure.RATE), ("duration_days", Measure.DURATION)):
        if measure is not shown:
            row.pop(name, None)  # one sparkline is drawn
    if each.deleted:
        row["deleted"] = True
    if largest is not None:
        total, before = _sum(sums["totals"], weeks.this), _sum(sums["totals"], weeks.before)
        row["shares"] = [
            [name, _ratio(now, total), _ratio(then, before)]
            for name, now, then in zip(largest.names, largest.this, largest.before, strict=True)
        ]
    if sums["largest"] is not _NONE and any(value is not None for value in sums["largest"]):
        row["share_days"] = _ratios(sums["largest"], sums["totals"], _DIGITS)
    known = [place for place, total in enumerate(sums["totals"]) if total is not None]
    if known and known[-1] < DAYS - 1 and each.ends_null:
        row["no_data_since"] = weeks.dates[known[-1] + 1].isoformat()
    return row


def _measures(sums: Mapping[str, Sequence[int | None]], weeks: Weeks) -> Document:
    """The total of the week, the two totals that are compared, and each further measure that there is."""
    week_days = list(range(DAYS - WEEK + 1, DAYS + 1))
    found: Document = {
        "total": _sum(sums["totals"], week_days),
        "now": _sum(sums["totals"], weeks.this),
        "before": _sum(sums["totals"], weeks.before),
        "days": sums["totals"],
    }
    for name, part, base, digits in (
        ("rate", "successes", "split", 6),
        ("duration", "duration_sums", "duration_counts", 0),
    ):
        if sums[part] is _NONE or sums[base] is _NONE:
            continue
        days = _ratios(sums[part], sums[base], min(digits, _DIGITS))
        if any(day is not None for day in days):
            found[name] = _ratio(_sum(sums[part], week_days), _sum(sums[base], week_days), digits)
            found[f"{name}_now"] = _ratio(_sum(sums[part], weeks.this), _sum(sums[base], weeks.this), digits)
            found[f"{name}_before"] = _ratio(
                _sum(sums[part], weeks.before), _sum(sums[base], weeks.before), digits
            )
            found[f"{name}_days"] = days
    return found


def _sum(values: Sequence[int | None], days: Sequence[int]) -> int | None:
    known = [value for day in days if (value := values[day - 1]) is not None]
    return sum(known) if known else None


def _ratios(parts: Sequence[int | None], totals: Sequence[int | None], digits: int) -> list[float | None]:
    """``_ratio`` of each day, without a call for each: there are thirty thousand."""
    return [
        None if part is None or not total else round(part / total, digits)
        for part, total in zip(parts, totals, strict=True)
    ]


def _ratio(part: int | None, total: int | None, digits: int = 6) -> float | None:
    return None if part is None or not total else round(part / total, digits)
