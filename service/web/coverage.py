"""The coverage calendar: for each local day of a job one letter, so that a year is a short string.

====  ===================================================================================
C     complete
R     complete, and a figure was restated since
D     complete, and a later extraction failed or is unconfirmed
W     waiting: the day is not over, or waits for its delay or the off-peak hours
A     active: being extracted now
L     late: due and listed in the ledger, but not stored
N     not requested: due, but not listed in the ledger
F     failed
.     no window
====  ===================================================================================

A day with several windows shows the worst of them, in the order F N L A D W R C.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from itertools import pairwise
from typing import TypedDict
from zoneinfo import ZoneInfo

from service.config import Config, Job, Org
from service.model import Span
from service.plan import calendar as edges
from service.plan import windows
from service.plan.calendar import Step
from service.postgres.pool import Connection
from service.postgres.prune_dates import prune_date
from service.postgres.queries import dashboard
from service.postgres.queries.dashboard import DayCount, DayWindow, Stream
from service.postgres.queries.status import snapshot
from service.postgres.windows import stream_of

_TICK = timedelta(microseconds=1)
_WITH_NOTE = {"F", "N", "L", "A", "D", "W"}
_LONGEST_WINDOW = timedelta(days=31)
STRIP_DAYS = 90
STRIPS_PER_BATCH = 25
"""Orgs in one response."""


class JobDays(TypedDict):
    """One job: a letter for each day, and for days that are not simply complete the number of windows by state."""

    window: str
    days: str
    notes: dict[str, str]


class Calendar(TypedDict):
    """One org's calendar from the local date ``first`` on."""

    org: str
    timezone: str
    first: str
    today: str
    jobs: dict[str, JobDays]


@dataclass
class Day:
    """The windows of one local day by state."""

    complete: int = 0
    failed: int = 0
    not_requested: int = 0
    late: int = 0
    running: int = 0
    waiting: int = 0
    doubted: int = 0
    restated: bool = False

    @property
    def letter(self) -> str:
        """The letter of the worst state."""
        counts = (
            (self.failed, "F"),
            (self.not_requested, "N"),
            (self.late, "L"),
            (self.running, "A"),
            (self.doubted, "D"),
            (self.waiting, "W"),
            (self.restated, "R"),
            (self.complete, "C"),
        )
        return next((letter for count, letter in counts if count), ".")

    def note(self) -> str:
        """The number of windows by state, in words."""
        counts = (
            (self.complete, "complete"),
            (self.failed, "failed"),
            (self.not_requested, "not requested"),
            (self.late, "late"),
            (self.running, "running"),
            (self.waiting, "waiting"),
            (self.doubted, "unconfirmed"),
        )
        return ", ".join(f"{count} {state}" for count, state in counts if count)

    def add(self, other: Day) -> None:
        """Add the windows of another date that extend into this day."""
        for name in ("complete", "failed", "not_requested", "late", "running", "waiting", "doubted"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.restated = self.restated or other.restated


@dataclass
class DayWindows:
    """The windows of a job that begin on one local date.

    Attributes:
        spans: their spans in order.
        edges: the sums of their starts and of their ends, in seconds since the epoch: windows that are counted
            in the database are these exactly where both sums agree.
    """

    spans: list[Span] = field(default_factory=list)
    edges: tuple[float, float] = (0.0, 0.0)


@dataclass
class StoredDays:
    """What the ledger holds of one job.

    Attributes:
        counts: days that hold exactly the job's windows, as counts.
        listed: the windows of all other days, one by one.
        restated: days with a restated figure.
    """

    counts: Mapping[date, DayCount]
    listed: Mapping[Span, DayWindow]
    restated: set[date]


async def calendar(
    connection: Connection, org: Org, jobs: Sequence[Job], first: date, end: date, now: datetime
) -> Calendar:
    """The calendar of some of an org's jobs, from ``first`` to before ``end``.

    Raises:
        DatabaseUnavailableError, SchemaError: as the connection.
    """
    within = windows.days(first - _LONGEST_WINDOW, end, org.tz)
    streams = [Stream(stream_of(job.name, job.measure), job.granularity) for job in jobs]
    counts: dict[str, dict[date, DayCount]] = {stream.stream: {} for stream in streams}
    listed: dict[str, dict[Span, DayWindow]] = {stream.stream: {} for stream in streams}
    async with snapshot(connection):
        pruned_before = await prune_date(connection, org.name)
        planned = {job.name: windows_by_day(job, org, within, now, pruned_before) for job in jobs}
        for each in await dashboard.day_counts(connection, org.name, streams, within, org.timezone):
            counts[each.stream][each.day] = each
        granularities = {
            stream: {name for count in days.values() for name in count.granularities}
            for stream, days in counts.items()
        }
        restated = await dashboard.restated_days(
            connection, org.name, set().union(*granularities.values()), within.start.date(), end, org.timezone
        )
        for job, stream in zip(jobs, streams, strict=True):
            known, expected = counts[stream.stream], planned[job.name]
            if odd := [
                day for day, count in known.items() if day in expected and not _agree(expected[day], count)
            ]:
                rows = await dashboard.day_windows(connection, org.name, stream, odd, org.timezone)
                listed[stream.stream] = {row.span: row for row in rows}
                for day in odd:
                    del known[day]
    jobs_days: dict[str, JobDays] = {}
    for job, stream in zip(jobs, streams, strict=True):
        restated_days = set().union(*(restated[name] for name in granularities[stream.stream]))
        stored = StoredDays(counts[stream.stream], listed[stream.stream], restated_days)
        jobs_days[job.name] = await asyncio.to_thread(
            _job_days, job, org, planned[job.name], stored, first, end, now
        )
    return Calendar(
        org=org.name,
        timezone=org.timezone,
        first=first.isoformat(),
        today=now.astimezone(org.tz).date().isoformat(),
        jobs=jobs_days,
    )


async def strips(connection: Connection, config: Config, batch: int, now: datetime) -> dict[str, object]:
    """The last 90 days of each job, for a batch of orgs in the order of the configuration.

    Raises:
        DatabaseUnavailableError, SchemaError: as the connection.
    """
    orgs = list(config.orgs.values())
    shown: list[Calendar] = []
    for org in orgs[batch * STRIPS_PER_BATCH : (batch + 1) * STRIPS_PER_BATCH]:
        end = now.astimezone(org.tz).date() + timedelta(days=1)
        jobs = list(config.jobs_of(org).values())
        shown.append(await calendar(connection, org, jobs, end - timedelta(days=STRIP_DAYS), end, now))
    return {"strips": shown, "batches": -(-len(orgs) // STRIPS_PER_BATCH)}


def windows_by_day(
    job: Job, org: Org, within: Span, now: datetime, pruned_before: datetime | None = None
) -> dict[date, DayWindows]:
    """A job's windows that start within a span, up to the one that contains ``now``, by local date."""
    step, first = Step(job.window), None
    begins = job.since.resolve(now, org.tz)
    if pruned_before is not None:
        begins = max(begins, pruned_before)
        first = windows.first_bucket(job.window, job.granularity, pruned_before, org.tz)
    since = edges.at_or_before(begins, step, org.tz)
    start = max(since, edges.at_or_after(within.start, step, org.tz))
    end = min(edges.after(now, step, org.tz), edges.at_or_after(within.end, step, org.tz))
    return _windows_by_day(step, start, end, first, org.timezone) if start < end else {}


@lru_cache(maxsize=16)
def _windows_by_day(
    step: Step, start: datetime, end: datetime, first: datetime | None, timezone: str
) -> dict[date, DayWindows]:
    tz = ZoneInfo(timezone)
    days: dict[date, DayWindows] = {}
    spans = [Span(*ends) for ends in pairwise(edges.until(start, end, step, tz))]
    for low, high in spans if first is None else windows.since_bucket(spans, first):
        day = days.setdefault(low.astimezone(tz).date(), DayWindows())
        day.spans.append(Span(low, high))
        day.edges = day.edges[0] + low.timestamp(), day.edges[1] + high.timestamp()
    return days


def _agree(day: DayWindows, count: DayCount) -> bool:
    return count.listed == len(day.spans) and count.edges == day.edges


def _job_days(
    job: Job,
    org: Org,
    planned: Mapping[date, DayWindows],
    stored: StoredDays,
    first: date,
    end: date,
    now: datetime,
) -> JobDays:
    tz, days = org.tz, {first + timedelta(days=offset): Day() for offset in range((end - first).days)}
    for begins, group in planned.items():
        due = bisect_right(group.spans, now, key=lambda span: windows.due_at(span, job.delay, job.off_peak))
        states = _states(begins, group, stored, due)
        last = (group.spans[-1].end - _TICK).astimezone(tz).date()
        covered = [begins + timedelta(days=offset) for offset in range((last - begins).days + 1)]
        states.restated = any(day in stored.restated for day in covered)
        for day in covered:
            if day in days:
                days[day].add(states)
    notes = {day.isoformat(): each.note() for day, each in days.items() if each.letter in _WITH_NOTE}
    return JobDays(window=job.window, days="".join(each.letter for each in days.values()), notes=notes)


def _states(begins: date, group: DayWindows, stored: StoredDays, due: int) -> Day:
    """The states of the windows that begin on one date; the first ``due`` of them are due."""
    total, count = len(group.spans), stored.counts.get(begins)
    if count is not None:
        day = Day(complete=count.complete, failed=count.failed, running=count.running, doubted=count.doubted)
        rest = total - count.complete - count.failed - count.running
        day.late = min(rest, max(0, due - count.complete - count.failed - count.running))
        day.waiting = rest - day.late
        return day
    day = Day()
    for place, span in enumerate(group.spans):
        listed = stored.listed.get(span)
        match None if listed is None else listed.state:
            case "complete":
                day.complete += 1
            case "failed":
                day.failed += 1
            case "running":
                day.running += 1
            case state:
                day.waiting += place >= due
                day.late += place < due and state is not None
                day.not_requested += place < due and state is None
        day.doubted += listed is not None and listed.doubted
    return day


def local_day(day: date, org: Org) -> Span:
    """The span of a local date, in UTC."""
    span = windows.days(day, day + timedelta(days=1), org.tz)
    return Span(span.start.astimezone(UTC), span.end.astimezone(UTC))
