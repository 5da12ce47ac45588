"""What is requested of an API, and how wide it may be."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from service.model.measures import Measure
from service.model.spans import Granularity, Span


@dataclass(frozen=True, slots=True)
class Query:
    """One paged query to an org's API.

    Attributes:
        org: the org's name in the configuration.
        span: the buckets to store; it begins and ends on bucket edges.
        granularity: the length of the buckets.
        timezone: IANA name of the zone in which days and months begin.
        flows: ids of the flows to report on; empty means all flows.
        page_size: entries per page, the API's ``limit``.
        metrics_delay: sent to the engine, which then ignores records of that length before ``request_span.end``;
            None sends nothing.
        request_span: the span that is sent as dateFrom and dateTo. It ends after ``span`` where ``metrics_delay``
            would otherwise cut into it; the surplus buckets are dropped.
        measure: what is measured.
        group_by: the dimensions by which figures are split, sorted.
    """

    org: str
    span: Span
    granularity: Granularity
    timezone: str
    flows: tuple[str, ...]
    page_size: int
    metrics_delay: timedelta | None
    request_span: Span
    measure: Measure = Measure.OUTCOMES
    group_by: tuple[str, ...] = ()


class SplitHint(NamedTuple):
    """The size that passes where a larger query was rejected.

    Attributes:
        granularity: the length of the query's buckets.
        span: from the start of the query that was too large to the end of its scan.
        by_flow: whether the query listed flows.
        half: the size of its larger half: buckets times listed flows.
    """

    granularity: Granularity
    span: Span
    by_flow: bool
    half: int


class QueryWidth(NamedTuple):
    """What was learned of the width of an org's queries at one granularity, in buckets.

    Attributes:
        served: the widest that was served, of those below ``refused``; None where none was.
        refused: the narrowest that was refused; None where it is unknown.
        learned_at: when a query was last refused.
        first_in: the cycle in which one bucket was refused, after which the next cycle begins with one window;
            None where it begins as usual.
    """

    served: int | None
    refused: int | None
    learned_at: datetime
    first_in: str | None = None
