"""How wide a span may be at each granularity: coarsening, widening and cutting.

A window's granularity depends on wall-clock time: a local week is seven days, even where it lasts 169 hours. The
limit of a query is one of elapsed time, as the API may count it: that week is cut into two queries, not coarsened.
"""

from __future__ import annotations

from bisect import bisect_right
from datetime import datetime, timedelta
from typing import Literal, NamedTuple

from service.model import Granularity, Span
from service.plan.buckets import buckets, ceil, floor
from service.plan.calendar import Zone, zone

WindowKind = Literal["hour", "day", "week", "month"]

_LIMIT = {Granularity.HOURLY: timedelta(days=7), Granularity.DAILY: timedelta(days=365)}
_MONTHLY_YEARS = 7
_LADDER = tuple(Granularity)
_ZERO = timedelta(0)


class Adjusted(NamedTuple):
    """A span and the granularity at which it is extracted.

    Attributes:
        span: begins and ends on bucket edges.
        granularity: the finest, from the requested one on, that the span fits.
        coarsened: whether it is coarser than a requested granularity.
        moved: whether the span differs from the requested one.
    """

    span: Span
    granularity: Granularity
    coarsened: bool
    moved: bool


def coarser(granularity: Granularity) -> Granularity | None:
    """The next coarser granularity; None after monthly."""
    index = _LADDER.index(granularity) + 1
    return _LADDER[index] if index < len(_LADDER) else None


def fits(span: Span, granularity: Granularity, tz: Zone) -> bool:
    """Whether a span fits this granularity, by wall-clock time."""
    tz = zone(tz)
    start, end = (at.astimezone(tz).replace(tzinfo=None) for at in span)
    if granularity is Granularity.MONTHLY:
        return end <= _years_on(start)
    return end - start <= _LIMIT[granularity]


def for_window(kind: WindowKind, requested: str) -> Granularity:
    """The granularity of a job's windows: as requested, ``auto`` for the finest; a month is daily at finest."""
    finest = Granularity.DAILY if kind == "month" else Granularity.HOURLY
    if requested == "auto":
        return finest
    return max(finest, Granularity(requested), key=_LADDER.index)


def adjust(
    span: Span,
    requested: str,
    tz: Zone,
    settled_until: datetime,
    *,
    coarsest: Granularity | None = None,
) -> Adjusted | None:
    """Widen an ad hoc span to bucket edges, cut it back to what has settled, and coarsen it until it fits.

    Args:
        span: the requested span.
        requested: a granularity, or ``auto`` for the finest that fits.
        tz: the zone in which days and months begin.
        settled_until: buckets that end later are left out.
        coarsest: where coarsening ends, fitting or not; monthly by default.

    Returns:
        None where no bucket has settled. A monthly span may be too long for one query: ``pieces`` cuts it.
    """
    tz = zone(tz)
    first = Granularity.HOURLY if requested == "auto" else Granularity(requested)
    last = max(first, coarsest or Granularity.MONTHLY, key=_LADDER.index)
    for granularity in _LADDER[_LADDER.index(first) : _LADDER.index(last) + 1]:
        start = floor(span.start, granularity, tz)
        end = min(ceil(span.end, granularity, tz), floor(settled_until, granularity, tz))
        adjusted = Span(start, end)
        if end <= start:
            return None
        if granularity is last or fits(adjusted, granularity, tz):
            coarsened = requested != "auto" and granularity is not first
            return Adjusted(adjusted, granularity, coarsened, moved=adjusted != span)
    raise AssertionError("the last granularity always returns")


def request_span(span: Span, granularity: Granularity, tz: Zone, overhang: timedelta = _ZERO) -> Span:
    """The span to request for a query that reaches ``overhang`` past its span, up to a bucket edge."""
    return Span(span.start, ceil(span.end + overhang, granularity, tz)) if overhang else span


def one_query(span: Span, granularity: Granularity, tz: Zone, overhang: timedelta = _ZERO) -> bool:
    """Whether one query can cover a span and reach ``overhang`` past it, by elapsed time."""
    sent = request_span(span, granularity, tz, overhang)
    if granularity is Granularity.MONTHLY:
        return fits(sent, granularity, tz)
    return sent.duration <= _LIMIT[granularity]


def pieces(span: Span, granularity: Granularity, tz: Zone, overhang: timedelta = _ZERO) -> list[Span]:
    """Cut a span on bucket edges into the fewest queries of about equal length.

    Each piece leaves room for ``overhang``, except a single bucket, which is never cut.

    Raises:
        ValueError: the span does not begin and end on bucket edges.
    """
    if span.start < span.end and one_query(span, granularity, tz, overhang):
        return [span]
    steps = buckets(span, granularity, tz)
    greedy = _greedy(steps, granularity, tz, overhang)
    count = len(greedy)
    even = [
        Span(steps[index * len(steps) // count].start, steps[(index + 1) * len(steps) // count - 1].end)
        for index in range(count)
    ]
    return even if all(one_query(piece, granularity, tz, overhang) for piece in even) else greedy


def _greedy(steps: list[Span], granularity: Granularity, tz: Zone, overhang: timedelta) -> list[Span]:
    """The fewest pieces: each from the start as long as possible."""
    result: list[Span] = []
    first = 0
    while first < len(steps):
        start = steps[first].start
        end = bisect_right(
            steps,
            False,
            lo=first + 1,
            key=lambda step: not one_query(Span(start, step.end), granularity, tz, overhang),
        )
        result.append(Span(start, steps[end - 1].end))
        first = end
    return result


def _years_on(start: datetime) -> datetime:
    """The end of the longest monthly query that begins at a wall-clock time."""
    try:
        return start.replace(year=start.year + _MONTHLY_YEARS)
    except ValueError:  # 29 February
        return start.replace(year=start.year + _MONTHLY_YEARS, month=3, day=1)
