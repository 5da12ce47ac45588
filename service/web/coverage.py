"""The coverage calendar: of each local day, whether a job's windows are all there, and if not, why not.

A day is one letter, so that a year of a job is a short string:

====  ==================================================================
C     complete
R     complete, and a figure was restated since
D     complete, and a later reading failed or is not believed
W     waiting: the day is not over, rests for its delay, or for the off-peak hours
A     being asked for now
L     late: due and entered in the ledger, and not there
N     never asked: due, and the ledger does not know it
F     failed
.     nothing is owed
====  ==================================================================

Of a day with several windows the worst one is told: F N L A D W R C.
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

from service.config import Job, Org
from service.model import Span
from service.plan import calendar as edges
from service.plan import windows
from service.plan.calendar import Step
from service.postgres.pool import Connection
from service.postgres.queries import dashboard as stored
from service.postgres.queries.dashboard import DayCount, DayWindow, Stream
from service.postgres.queries.status import snapshot
from service.postgres.windows import stream_of

_TICK = timedelta(microseconds=1)
_NOTED = {"F", "N", "L", "A", "D", "W"}


class JobDays(TypedDict):
    """One job: a letter a day, and of days that are not simply complete how many windows are in which state."""

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
    """The windows of one local day by how they stand."""

    complete: int = 0
    failed: int = 0
    never: int = 0
    late: int = 0
    asking: int = 0
    waiting: int = 0
    doubted: int = 0
    restated: bool = False

    @property
    def owed(self) -> int:
        """How many windows it has."""
        return self.complete + self.failed + self.never + self.late + self.asking + self.waiting

    @property
    def letter(self) -> str:
        """The worst that is to be told of it."""
        found = (
            (self.failed, "F"),
            (self.never, "N"),
            (self.late, "L"),
            (self.asking, "A"),
            (self.doubted, "D"),
            (self.waiting, "W"),
            (self.restated, "R"),
            (self.complete, "C"),
        )
        return next((letter for count, letter in found if count), ".")

    def note(self) -> str:
        """How many windows are in which state, in words."""
        words = (
            (self.complete, "complete"),
            (self.failed, "failed"),
            (self.never, "never asked"),
            (self.late, "late"),
            (self.asking, "being asked"),
            (self.waiting, "waiting"),
            (self.doubted, "in doubt"),
        )
        return ", ".join(f"{count} {word}" for count, word in words if count)

    def add(self, other: Day) -> None:
        """Take a window along that lasts longer than this day."""
        for name in ("complete", "failed", "never", "late", "asking", "waiting", "doubted"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.restated = self.restated or other.restated


@dataclass
class _Group:
    """The windows that begin on one local date."""

    spans: list[Span] = field(default_factory=list)
    edges: tuple[float, float] = (0.0, 0.0)


async def calendar(
    connection: Connection, org: Org, jobs: Sequence[Job], first: date, past: date, now: datetime
) -> Calendar:
    """The days from ``first`` to before ``past`` of these jobs of an org.

    Raises:
        DatabaseUnavailableError, SchemaError: as the connection says.
    """
    whole = windows.days(first - timedelta(days=31), past, org.tz)
    works = [Stream(stream_of(job.name), job.granularity) for job in jobs]
    counts: dict[str, dict[date, DayCount]] = {each.stream: {} for each in works}
    singly: dict[str, dict[Span, DayWindow]] = {each.stream: {} for each in works}
    groups = {job.name: grouped(job, org, whole, now) for job in jobs}
    async with snapshot(connection):
        for each in await stored.day_counts(connection, org.name, works, whole, org.timezone):
            counts[each.stream][each.day] = each
        asked_at = {
            work: {name for day in days.values() for name in day.granularities} for work, days in counts.items()
        }
        restated = await stored.restated_days(
            connection, org.name, set().union(*asked_at.values()), whole.start.date(), past, org.timezone
        )
        for job, work in zip(jobs, works, strict=True):
            known, owed = counts[work.stream], groups[job.name]
            if dates := [day for day, count in known.items() if day in owed and not _whole(owed[day], count)]:
                rows = await stored.day_windows(connection, org.name, work, dates, org.timezone)
                singly[work.stream] = {row.span: row for row in rows}
                for day in dates:
                    del known[day]
    told: dict[str, JobDays] = {}
    for job, work in zip(jobs, works, strict=True):
        dates_restated = set().union(*(restated[name] for name in asked_at[work.stream]))
        ledger = Ledger(counts[work.stream], singly[work.stream], dates_restated)
        told[job.name] = await asyncio.to_thread(_told, job, org, groups[job.name], ledger, first, past, now)
    return Calendar(
        org=org.name,
        timezone=org.timezone,
        first=first.isoformat(),
        today=now.astimezone(org.tz).date().isoformat(),
        jobs=told,
    )


@dataclass
class Ledger:
    """What the ledger says of one job: days that hold just the owed windows by count, others window by window."""

    counts: Mapping[date, DayCount]
    singly: Mapping[Span, DayWindow]
    restated: set[date]


def grouped(job: Job, org: Org, whole: Span, now: datetime) -> dict[date, _Group]:
    """A job's windows that begin within ``whole``, up to the one that holds ``now``, by the local date of it."""
    step = Step(job.window)
    since = edges.at_or_before(job.since.resolve(now, org.tz), step, org.tz)
    start = max(since, edges.at_or_after(whole.start, step, org.tz))
    end = min(edges.after(now, step, org.tz), edges.at_or_after(whole.end, step, org.tz))
    return _grouped(step, start, end, org.timezone) if start < end else {}


@lru_cache(maxsize=16)
def _grouped(step: Step, start: datetime, end: datetime, timezone: str) -> dict[date, _Group]:
    tz = ZoneInfo(timezone)
    found: dict[date, _Group] = {}
    for low, high in pairwise(edges.until(start, end, step, tz)):
        group = found.setdefault(low.astimezone(tz).date(), _Group())
        group.spans.append(Span(low, high))
        group.edges = group.edges[0] + low.timestamp(), group.edges[1] + high.timestamp()
    return found


def _whole(group: _Group, count: DayCount) -> bool:
    return count.listed == len(group.spans) and count.edges == group.edges


def _told(
    job: Job, org: Org, groups: Mapping[date, _Group], ledger: Ledger, first: date, past: date, now: datetime
) -> JobDays:
    tz, days = org.tz, {first + timedelta(days=place): Day() for place in range((past - first).days)}
    for begun, group in groups.items():
        due = bisect_right(group.spans, now, key=lambda span: windows.due_at(span, job.delay, job.off_peak))
        stood = _stood(begun, group, ledger, due)
        until = (group.spans[-1].end - _TICK).astimezone(tz).date()
        covered = [begun + timedelta(days=place) for place in range((until - begun).days + 1)]
        stood.restated = any(day in ledger.restated for day in covered)
        for day in covered:
            if day in days:
                days[day].add(stood)
    notes = {day.isoformat(): each.note() for day, each in days.items() if each.letter in _NOTED}
    return JobDays(window=job.window, days="".join(each.letter for each in days.values()), notes=notes)


def _stood(begun: date, group: _Group, ledger: Ledger, due: int) -> Day:
    """How the windows stand that begin on one date; the first ``due`` of them are due."""
    total, count = len(group.spans), ledger.counts.get(begun)
    if count is not None:
        day = Day(complete=count.complete, failed=count.failed, asking=count.running, doubted=count.doubted)
        rest = total - count.complete - count.failed - count.running
        day.late = min(rest, max(0, due - count.complete - count.failed - count.running))
        day.waiting = rest - day.late
        return day
    day = Day()
    for place, span in enumerate(group.spans):
        listed = ledger.singly.get(span)
        match None if listed is None else listed.state:
            case "complete":
                day.complete += 1
            case "failed":
                day.failed += 1
            case "running":
                day.asking += 1
            case state:
                day.waiting += place >= due
                day.late += place < due and state is not None
                day.never += place < due and state is None
        day.doubted += listed is not None and listed.doubted
    return day


def local_day(day: date, org: Org) -> Span:
    """A local date's span in UTC."""
    span = windows.days(day, day + timedelta(days=1), org.tz)
    return Span(span.start.astimezone(UTC), span.end.astimezone(UTC))
