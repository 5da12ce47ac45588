"""A job's windows in the org's calendar, and when each is due."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from itertools import pairwise
from typing import Protocol

from service.model import Span
from service.plan import buckets, calendar
from service.plan.calendar import Step, Zone
from service.plan.granularity import WindowKind, for_window


class Hours(Protocol):
    """The hours of the day in which a job may send queries."""

    def next_open(self, at: datetime) -> datetime:
        """The first instant at or after ``at`` within these hours."""


def settled_spans(kind: WindowKind, since: datetime, now: datetime, delay: timedelta, tz: Zone) -> list[Span]:
    """Every window from the one that contains ``since`` to the last that has settled, in order.

    A window has settled when its end plus ``delay`` has passed.
    """
    step, tz = Step(kind), calendar.zone(tz)
    settled = now - delay
    if since >= settled:
        return []
    return [
        Span(*ends) for ends in pairwise(calendar.until(calendar.at_or_before(since, step, tz), settled, step, tz))
    ]


def first_bucket(kind: WindowKind, requested: str, pruned_before: datetime, tz: Zone) -> datetime:
    """The start of the first bucket at or after an org's prune date, in windows of this kind and granularity."""
    return buckets.ceil(pruned_before, for_window(kind, requested), tz)


def since_bucket(spans: Sequence[Span], first: datetime) -> list[Span]:
    """The spans from a bucket on: one that contains its start begins there."""
    return [span if span.start >= first else Span(first, span.end) for span in spans if span.end > first]


def next_span(kind: WindowKind, since: datetime, now: datetime, delay: timedelta, tz: Zone) -> Span:
    """The first window, from the one that contains ``since``, that has not settled."""
    step, tz = Step(kind), calendar.zone(tz)
    start = calendar.at_or_before(max(since, now - delay), step, tz)
    return Span(start, calendar.after(start, step, tz))


def days(first: date, end: date, tz: Zone) -> Span:
    """The span of the local dates from ``first`` up to ``end``, which is excluded."""
    tz = calendar.zone(tz)
    return Span(calendar.day_start(first, tz), calendar.day_start(end, tz))


def due_at(span: Span, delay: timedelta, off_peak: Hours | None) -> datetime:
    """The first instant at which a window may be queried: settled, and within the off-peak hours."""
    settles_at = span.end + delay
    return settles_at if off_peak is None else off_peak.next_open(settles_at)
