"""The queries, pages and seconds that windows need."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil

from service.model import Granularity, Measure, Span, Window
from service.plan.grouping import MetricsDelay, OrgSettings, group_windows, pages, queries

DEFAULT_ENTRIES = 100.0
"""The assumed number of entries per bucket, that is of flows that report something, where none was ever read."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What it takes to query windows.

    Attributes:
        scans: groups of adjacent windows that are queried and stored together.
        queries: a scan that is too long for one query needs several.
        pages: one request each; token requests are not included.
    """

    scans: int = 0
    queries: int = 0
    pages: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.scans + other.scans, self.queries + other.queries, self.pages + other.pages)


def cost(
    windows: Sequence[Window],
    org: OrgSettings,
    *,
    entries_per_bucket: float,
    delay: timedelta,
    metrics_delay: MetricsDelay,
    now: datetime,
    isolated: Collection[Span] = (),
    widest: int | None = None,
) -> Cost:
    """The cost of windows of one granularity, grouped as a cycle groups them.

    Args:
        windows: in the order of extraction.
        org: the org's settings.
        entries_per_bucket: the expected number of entries per bucket.
        delay: the delay buffer.
        metrics_delay: when the delay is sent; ``always`` requests more than is stored.
        now: the time of the cycle.
        isolated: spans of windows to query one by one.
        widest: the most buckets of a query; None for no limit.
    """
    groups = group_windows(
        windows,
        org,
        entries_per_bucket=entries_per_bucket,
        delay=delay,
        metrics_delay=metrics_delay,
        isolated=isolated,
        widest=widest,
    )
    sent = [
        query.request_span
        for scan in groups.scans
        for query in queries(
            Span(scan[0].span.start, scan[-1].span.end),
            scan[0].granularity,
            org,
            delay=delay,
            metrics_delay=metrics_delay,
            now=now,
        )
    ]
    if not windows:
        return Cost()
    step = windows[0].granularity
    parts = [1 if widest is None else max(1, ceil(span.duration / step.bucket_length / widest)) for span in sent]
    is_paged = org.entries_max is None
    counts = [pages(span, step, entries_per_bucket, org.page_size) if is_paged else 1 for span in sent]
    needed = sum(part * max(1, ceil(count / part)) for part, count in zip(parts, counts, strict=True))
    return Cost(len(groups.scans), sum(parts), needed)


def seconds(requests: int, requests_per_second: float) -> float:
    """How long requests take at the rate limit, where responses are fast enough."""
    return requests / requests_per_second


def by_kind(windows: Iterable[Window]) -> dict[tuple[Granularity, Measure], list[Window]]:
    """Windows by granularity and measure, in their order; only those of one kind can share a scan."""
    groups: dict[tuple[Granularity, Measure], list[Window]] = {}
    for window in windows:
        groups.setdefault((window.granularity, window.measure), []).append(window)
    return groups
