"""The buckets of a granularity: hours, days or months of the org's time zone."""

from __future__ import annotations

from datetime import datetime
from itertools import pairwise

from service.model import Granularity, Span
from service.plan import calendar
from service.plan.calendar import Step, Zone

_STEPS = {Granularity.HOURLY: Step.HOUR, Granularity.DAILY: Step.DAY, Granularity.MONTHLY: Step.MONTH}


def floor(at: datetime, granularity: Granularity, tz: Zone) -> datetime:
    """The start of the bucket that contains ``at``, in UTC."""
    return calendar.at_or_before(at, _STEPS[granularity], tz)


def ceil(at: datetime, granularity: Granularity, tz: Zone) -> datetime:
    """The first bucket edge at or after ``at``, in UTC."""
    return calendar.at_or_after(at, _STEPS[granularity], tz)


def following(at: datetime, granularity: Granularity, tz: Zone) -> datetime:
    """The end of the bucket that contains ``at``, in UTC."""
    return calendar.after(at, _STEPS[granularity], tz)


def is_edge(at: datetime, granularity: Granularity, tz: Zone) -> bool:
    """Whether a bucket begins at ``at``."""
    return floor(at, granularity, tz) == at


def buckets(span: Span, granularity: Granularity, tz: Zone) -> list[Span]:
    """The buckets of a span, in order and without gaps.

    Raises:
        ValueError: the span does not begin and end on bucket edges.
    """
    tz = calendar.zone(tz)
    if not (is_edge(span.start, granularity, tz) and is_edge(span.end, granularity, tz)):
        raise ValueError(f"{span} does not begin and end on the edges of {granularity} buckets in {tz.key}")
    return [Span(*ends) for ends in pairwise(calendar.until(span.start, span.end, _STEPS[granularity], tz))]
