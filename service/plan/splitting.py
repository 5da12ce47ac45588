"""Queries that are too large, in halves."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from math import inf

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
    steps = buckets(query.span, query.granularity, query.timezone)
    if len(steps) <= 1:
        return None
    edge = steps[len(steps) // 2].start
    later = replace(query, span=Span(edge, query.span.end), request_span=Span(edge, query.request_span.end))
    return _first_half(query, Span(query.span.start, edge)), later


def size(query: Query) -> int:
    """The size of a query: its buckets, times the flows that it lists."""
    return len(buckets(query.span, query.granularity, query.timezone)) * max(1, len(query.flows))


def split_hint(query: Query, halves: tuple[Query, Query]) -> SplitHint:
    """The hint to store for a query that was too large and is split into these halves."""
    return SplitHint(query.granularity, query.span, bool(query.flows), max(map(size, halves)))


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
