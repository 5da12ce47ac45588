"""A query that came out too large, in halves."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from math import inf

from service.model import Query, Span, SplitHint
from service.plan.buckets import buckets
from service.plan.granularity import asked
from service.plan.grouping import _NOTHING


def halve(query: Query) -> tuple[Query, Query] | None:
    """Two queries that together ask for the same; None where there is nothing left to cut.

    Flows are cut where two or more are listed, else time, on a bucket's edge.
    """
    if len(query.flows) > 1:
        middle = len(query.flows) // 2
        return replace(query, flows=query.flows[:middle]), replace(query, flows=query.flows[middle:])
    steps = buckets(query.span, query.granularity, query.timezone)
    if len(steps) <= 1:
        return None
    cut = steps[len(steps) // 2].start
    earlier, later = Span(query.span.start, cut), Span(cut, query.span.end)
    return _first_half(query, earlier), replace(query, span=later, asked=Span(cut, query.asked.end))


def size(query: Query) -> int:
    """How much a query asks for: its buckets, for each flow that it lists."""
    return len(buckets(query.span, query.granularity, query.timezone)) * max(1, len(query.flows))


def split_hint(query: Query, halves: tuple[Query, Query]) -> SplitHint:
    """What is to be remembered of a query that came out too large, and is asked in these halves."""
    return SplitHint(query.granularity, query.span, bool(query.flows), max(map(size, halves)))


def largest(query: Query, reach: Span, cuts: Iterable[SplitHint]) -> float:
    """The size up to which a query may be asked at once, by what came out too large within ``reach``.

    Windows are not joined alike in two cycles, so the very query that came out too large is rarely asked again.
    The smallest that did says what passes: its halves.
    """
    return min(
        (
            cut.half
            for cut in cuts
            if cut.granularity is query.granularity
            and cut.by_flow == bool(query.flows)
            and cut.span.overlaps(reach)
        ),
        default=inf,
    )


def _first_half(query: Query, span: Span) -> Query:
    """The earlier part of a query, with just as much ignored by the engine as it would have been in the whole."""
    delay = query.metrics_delay
    if delay is not None and query.asked.end > query.span.end:
        return replace(query, span=span, asked=asked(span, query.granularity, query.timezone, delay))
    ignored = _NOTHING if delay is None else span.end - (query.asked.end - delay)
    return replace(query, span=span, asked=span, metrics_delay=ignored if ignored > _NOTHING else None)
