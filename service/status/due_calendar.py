"""What each job owes in each time zone, reckoned once for all the orgs that share it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple

from service.config import Config, Job, Org
from service.model import Span
from service.plan import calendar as edges
from service.plan import windows
from service.plan.calendar import Step
from service.plan.granularity import WindowKind
from service.postgres.queries.status import NO_SUMS, Sums


class Key(NamedTuple):
    """What a job's windows depend on, beside the job: orgs of one time zone owe the same."""

    job: str
    timezone: str


@dataclass(frozen=True)
class Due:
    """What a job owes in one time zone.

    Attributes:
        spans: every window that has rested.
        due: how many of them are due: the first so many.
        known: the same, to look one up.
        edges: the sums of their starts and ends, as the ledger's are summed.
        days: by the UTC date of their start how many there are, and these sums.
    """

    job: Job
    spans: Sequence[Span]
    known: frozenset[Span]
    due: int
    edges: tuple[float, float]
    days: Mapping[date, Sums]


def dues(config: Config, now: datetime) -> dict[Key, Due]:
    """What every configured job owes by now."""
    found: dict[Key, Due] = {}
    for job in config.jobs.values():
        for org in config.orgs_of(job.name):
            key = Key(job.name, org.timezone)
            if key not in found:
                found[key] = _due(job, org, now)
    return found


def _due(job: Job, org: Org, now: datetime) -> Due:
    spans, known, days = _owed(
        job.window,
        edges.at_or_before(job.since.resolve(now, org.tz), Step(job.window), org.tz),
        edges.at_or_before(now - job.delay, Step(job.window), org.tz),
        org.timezone,
    )
    due = bisect_right(spans, now, key=lambda span: windows.due_at(span, job.delay, job.off_peak))
    sums = sum(day.starts for day in days.values()), sum(day.ends for day in days.values())
    return Due(job, spans, known, due, sums, days)


@lru_cache(maxsize=16)
def _owed(
    kind: WindowKind, since: datetime, settled: datetime, timezone: str
) -> tuple[Sequence[Span], frozenset[Span], Mapping[date, Sums]]:
    """Every window between two of its edges; three years of hours are reckoned once an hour, not at each look."""
    spans = windows.settled_spans(kind, since, settled, timedelta(0), timezone)
    days: dict[date, Sums] = {}
    for span in spans:
        count, starts, ends = days.get(span.start.date(), NO_SUMS)
        days[span.start.date()] = Sums(count + 1, starts + span.start.timestamp(), ends + span.end.timestamp())
    return spans, frozenset(spans), days
