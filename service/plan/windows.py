"""The windows that a job owes, aligned to the org's calendar, and when each is due."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from itertools import pairwise
from typing import Protocol

from service.model import Span
from service.plan import calendar
from service.plan.calendar import Step, Zone
from service.plan.granularity import WindowKind


class Hours(Protocol):
    """Hours of the day in which a job may ask."""

    def next_open(self, at: datetime) -> datetime:
        """The first instant at or after ``at`` within these hours."""


def owed(kind: WindowKind, since: datetime, now: datetime, delay: timedelta, tz: Zone) -> list[Span]:
    """Every window from the one that holds ``since`` to the last that has rested ``delay``, in order."""
    step, tz = Step(kind), calendar.zone(tz)
    settled = now - delay
    if since >= settled:
        return []
    return [
        Span(*ends) for ends in pairwise(calendar.until(calendar.at_or_before(since, step, tz), settled, step, tz))
    ]


def next_owed(kind: WindowKind, since: datetime, now: datetime, delay: timedelta, tz: Zone) -> Span:
    """The window that will be owed next: the first after ``since`` that has not yet rested ``delay``."""
    step, tz = Step(kind), calendar.zone(tz)
    start = calendar.at_or_before(max(since, now - delay), step, tz)
    return Span(start, calendar.after(start, step, tz))


def days(first: date, past: date, tz: Zone) -> Span:
    """The span of an ad hoc request: from the start of one local date to that of another, which is not in it."""
    tz = calendar.zone(tz)
    return Span(calendar.day_start(first, tz), calendar.day_start(past, tz))


def due_at(span: Span, delay: timedelta, off_peak: Hours | None) -> datetime:
    """The first moment at which a window may be asked for: rested, and within the off-peak hours."""
    rested = span.end + delay
    return rested if off_peak is None else off_peak.next_open(rested)
