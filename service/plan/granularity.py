"""How wide a span may be at each granularity, and what becomes of one that is wider.

A window's granularity is judged by wall-clock time: a local week is seven days, though it may last 169 hours. A
query's limit is judged by elapsed time, as an engine may count it: that week is asked in two queries, and is not
coarsened.
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
_NOTHING = timedelta(0)


class Adjusted(NamedTuple):
    """A span as it will be extracted.

    Attributes:
        span: whole buckets.
        granularity: the finest that the span may have, from the requested one on.
        coarsened: whether a granularity was named and this is another one.
        moved: whether the span is not the one that was asked for.
    """

    span: Span
    granularity: Granularity
    coarsened: bool
    moved: bool


def coarser(granularity: Granularity) -> Granularity | None:
    """One step coarser; None after monthly."""
    place = _LADDER.index(granularity) + 1
    return _LADDER[place] if place < len(_LADDER) else None


def fits(span: Span, granularity: Granularity, tz: Zone) -> bool:
    """Whether a span may have this granularity, by wall-clock time."""
    tz = zone(tz)
    start, end = (at.astimezone(tz).replace(tzinfo=None) for at in span)
    if granularity is Granularity.MONTHLY:
        return end <= _years_on(start)
    return end - start <= _LIMIT[granularity]


def for_window(kind: WindowKind, requested: str) -> Granularity:
    """The granularity of a job's windows: as requested, but a month is daily at finest; ``auto`` is the finest."""
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
    """Widen an ad hoc span to whole buckets, cut it back to what has settled, and coarsen it until it fits.

    Args:
        span: what was asked for.
        requested: a granularity, or ``auto`` for the finest that fits.
        tz: where days and months begin.
        settled_until: no bucket that ends later is taken.
        coarsest: where coarsening ends, fitting or not; monthly unless told.

    Returns:
        None where no whole bucket has settled. A monthly span may be longer than one query's: ``pieces`` cuts it.
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
    raise AssertionError("the last granularity is always taken")


def asked(span: Span, granularity: Granularity, tz: Zone, tail: timedelta = _NOTHING) -> Span:
    """What goes to the engine where the query is to reach ``tail`` past its span, up to a bucket's edge."""
    return Span(span.start, ceil(span.end + tail, granularity, tz)) if tail else span


def one_query(span: Span, granularity: Granularity, tz: Zone, tail: timedelta = _NOTHING) -> bool:
    """Whether a span, reaching ``tail`` further, may be asked in one query: by elapsed time."""
    whole = asked(span, granularity, tz, tail)
    if granularity is Granularity.MONTHLY:
        return fits(whole, granularity, tz)
    return whole.duration <= _LIMIT[granularity]


def pieces(span: Span, granularity: Granularity, tz: Zone, tail: timedelta = _NOTHING) -> list[Span]:
    """Cut a span on bucket edges into the fewest queries, as even as may be.

    Where ``tail`` is given, each piece has room to reach so much further. A single bucket is never cut, even where
    it has no such room.

    Raises:
        ValueError: the span does not begin and end on bucket edges.
    """
    if span.start < span.end and one_query(span, granularity, tz, tail):
        return [span]
    steps = buckets(span, granularity, tz)
    greedy = _greedy(steps, granularity, tz, tail)
    count = len(greedy)
    even = [
        Span(steps[index * len(steps) // count].start, steps[(index + 1) * len(steps) // count - 1].end)
        for index in range(count)
    ]
    return even if all(one_query(piece, granularity, tz, tail) for piece in even) else greedy


def _greedy(steps: list[Span], granularity: Granularity, tz: Zone, tail: timedelta) -> list[Span]:
    """As much as fits in each piece, from the start: no cut has fewer pieces."""
    found: list[Span] = []
    first = 0
    while first < len(steps):
        start = steps[first].start
        past = bisect_right(
            steps,
            False,
            lo=first + 1,
            key=lambda step: not one_query(Span(start, step.end), granularity, tz, tail),
        )
        found.append(Span(start, steps[past - 1].end))
        first = past
    return found


def _years_on(start: datetime) -> datetime:
    try:
        return start.replace(year=start.year + _MONTHLY_YEARS)
    except ValueError:  # 29 February
        return start.replace(year=start.year + _MONTHLY_YEARS, month=3, day=1)
