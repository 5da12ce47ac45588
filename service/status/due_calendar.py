"""The windows that each job should have in each time zone, computed once for all the orgs that share it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple

from service.config import Config, Job, Org
from service.model import Span
from service.plan import calendar as edges
from service.plan import windows
from service.plan.calendar import Step
from service.plan.granularity import WindowKind
from service.postgres.queries.status import NO_SUMS, Sums

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class CalendarKey(NamedTuple):
    """What a job's windows depend on: orgs on one API, in one time zone, with one prune date have the same."""

    job: str
    timezone: str
    api: str
    pruned_before: datetime | None = None


@dataclass(frozen=True)
class DueCalendar:
    """The windows that a job should have in one time zone.

    Attributes:
        job: the job.
        spans: every window that has ended, plus the job's delay, in order.
        span_set: the same as a set.
        due: how many of them are due, from the first one on; the others wait for the off-peak hours.
        edges: the sum of their starts and the sum of their ends, in seconds since 1970.
        days: the number of windows and these sums, by the UTC date of the windows' start.
    """

    job: Job
    spans: Sequence[Span]
    span_set: frozenset[Span]
    due: int
    edges: tuple[float, float]
    days: Mapping[date, Sums]

    @property
    def span(self) -> Span:
        """From the first window's start to the last one's end; empty where there is none."""
        spans = self.spans or [Span(_EPOCH, _EPOCH)]
        return Span(spans[0].start, spans[-1].end)

    @property
    def last_due(self) -> Span | None:
        """The last window that is due; None where none is."""
        return self.spans[self.due - 1] if self.due else None


def due_calendars(config: Config, now: datetime, pruned: Mapping[str, datetime]) -> dict[CalendarKey, DueCalendar]:
    """The windows that every configured job should have by now; ``pruned`` has the orgs' prune dates."""
    calendars: dict[CalendarKey, DueCalendar] = {}
    for job in config.jobs.values():
        for org in config.orgs_of(job.name):
            key = CalendarKey(job.name, org.timezone, org.api, pruned.get(org.name))
            if key not in calendars:
                calendars[key] = _due_calendar(job.of(org), org, now, key.pruned_before)
    return calendars


def _due_calendar(job: Job, org: Org, now: datetime, pruned_before: datetime | None) -> DueCalendar:
    since, first = job.since.resolve(now, org.tz), None
    if pruned_before is not None:
        since = max(since, pruned_before)
        first = windows.first_bucket(job.window, job.granularity, pruned_before, org.tz)
    spans, span_set, days = _spans(
        job.window,
        edges.at_or_before(since, Step(job.window), org.tz),
        edges.at_or_before(now - job.delay, Step(job.window), org.tz),
        first,
        org.timezone,
    )
    due = bisect_right(spans, now, key=lambda span: windows.due_at(span, job.delay, job.off_peak))
    sums = sum(day.starts for day in days.values()), sum(day.ends for day in days.values())
    return DueCalendar(job, spans, span_set, due, sums, days)


@lru_cache(maxsize=16)
def _spans(
    kind: WindowKind, since: datetime, settled: datetime, first: datetime | None, timezone: str
) -> tuple[Sequence[Span], frozenset[Span], Mapping[date, Sums]]:
    """The windows between two edges, from ``first`` on; cached: years of hours are computed once an hour."""
    spans = windows.settled_spans(kind, since, settled, timedelta(0), timezone)
    if first is not None:
        spans = windows.since_bucket(spans, first)
    days: dict[date, Sums] = {}
    for span in spans:
        count, starts, ends = days.get(span.start.date(), NO_SUMS)
        days[span.start.date()] = Sums(count + 1, starts + span.start.timestamp(), ends + span.end.timestamp())
    return spans, frozenset(spans), days
