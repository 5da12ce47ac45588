"""Queries in parts: by flows, by time on a bucket's edge."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from math import ceil, inf

from service.model import Query, Span, SplitHint
from service.plan.buckets import buckets
from service.plan.granularity import request_span

_ZERO = timedelta(0)


def halve(query: Query) -> tuple[Query, Query] | None:
    """Two queries that together cover the query; None where it cannot be split.

    A query that lists two or more flows is split by flows, any other by time on a bucket's edge.
    """
    if len(query.flows) > 1:
        middle = len(query.flows) // 2
        return replace(query, flows=query.flows[:middle]), replace(query, flows=query.flows[middle:])
    half, rest = front(query, max(1, width(query) // 2))
    return None if rest is None else (half, rest)


def width(query: Query) -> int:
    """The number of a query's buckets."""
    return len(buckets(query.span, query.granularity, query.timezone))


def front(query: Query, count: int) -> tuple[Query, Query | None]:
    """A query over the first buckets, and one over the rest; None where there is no rest."""
    steps = buckets(query.span, query.granularity, query.timezone)
    if count >= len(steps):
        return query, None
    edge = steps[count].start
    later = replace(query, span=Span(edge, query.span.end), request_span=Span(edge, query.request_span.end))
    return _first_half(query, Span(query.span.start, edge)), later


def in_parts(query: Query, most: int) -> list[Query]:
    """The query in the fewest parts of about equal length that cover at most so many buckets each."""
    parts = []
    for left in range(ceil(width(query) / most), 1, -1):
        first, rest = front(query, ceil(width(query) / left))
        if rest is None:
            break
        parts.append(first)
        query = rest
    return [*parts, query]


def smaller(query: Query, limit: float) -> tuple[Query, ...]:
    """The query, or where it is larger than the limit a first part and the rest, or halves of its flows.

    By time the first part is one of the fewest of about equal length. A rest may still be larger than the limit.
    """
    if size(query) <= limit:
        return (query,)
    if len(query.flows) > 1:
        return halve(query) or (query,)
    count = width(query)
    pieces = ceil(count / limit)
    first, rest = front(query, ceil(count / pieces))
    return (first,) if rest is None else (first, rest)


def size(query: Query) -> int:
    """The size of a query: its buckets, times the flows that it lists."""
    return width(query) * max(1, len(query.flows))


def split_hint(query: Query, halves: tuple[Query, Query], scan: Span) -> SplitHint:
    """The hint to store for a query of a scan that was too large; the rest of the scan is split by it too."""
    span = Span(query.span.start, max(query.span.end, scan.end))
    return SplitHint(query.granularity, span, bool(query.flows), max(map(size, halves)))


def largest(query: Query, span: Span, hints: Iterable[SplitHint]) -> float:
    """The largest size that passes, by the hints that overlap ``span``; infinite without one.

    Two cycles group windows differently, so a query that was too large is hardly ever sent again as it was. The
    smallest known half is what passes.
    """
    return min(
        (
            hint.half
            for hint in hints
            if hint.granularity is query.granularity
            and hint.by_flow == bool(query.flows)
            and hint.span.overlaps(span)
        ),
        default=inf,
    )


def _first_half(query: Query, span: Span) -> Query:
    """The earlier half of a query, in which the API ignores the same records as in the complete query."""
    delay = query.metrics_delay
    if delay is not None and query.request_span.end > query.span.end:
        sent = request_span(span, query.granularity, query.timezone, delay)
        return replace(query, span=span, request_span=sent)
    ignored = _ZERO if delay is None else span.end - (query.request_span.end - delay)
    return replace(query, span=span, request_span=span, metrics_delay=ignored if ignored > _ZERO else None)
