"""What windows would cost: in how many queries, pages and seconds at the limit."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil

from service.model import Granularity, Span, Window
from service.plan.grouping import MetricsDelay, OrgSettings, group_windows, pages, queries

GUESSED_ENTRIES = 100.0
"""Entries of a bucket where no answer was ever read: flows that reported something."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What it takes to ask for windows.

    Attributes:
        scans: groups of adjacent windows that are asked for, and stored, together.
        queries: what these are asked in; a scan has several where one may not be so long.
        pages: requests, a token's not among them.
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
    alone: Collection[Span] = (),
) -> Cost:
    """What windows of one granularity cost, joined as a cycle would join them.

    Args:
        windows: in the order of the work.
        org: the org's settings.
        entries_per_bucket: how many entries a bucket is expected to bring.
        delay: the delay buffer.
        metrics_delay: its mode; ``always`` asks for more than is kept.
        now: the time of the cycle.
        alone: spans of windows that are asked one by one.
    """
    joined = group_windows(
        windows,
        org,
        entries_per_bucket=entries_per_bucket,
        delay=delay,
        metrics_delay=metrics_delay,
        alone=alone,
    )
    asked = [
        query
        for scan in joined.scans
        for query in queries(
            Span(scan[0].span.start, scan[-1].span.end),
            scan[0].granularity,
            org,
            delay=delay,
            metrics_delay=metrics_delay,
            now=now,
        )
    ]
    needed = (ceil(pages(each.asked, each.granularity, entries_per_bucket, org.page_size)) for each in asked)
    return Cost(len(joined.scans), len(asked), sum(max(1, each) for each in needed))


def seconds(requests: int, requests_per_second: float) -> float:
    """How long so many requests take at the limit, where the answers come fast enough."""
    return requests / requests_per_second


def by_granularity(windows: Iterable[Window]) -> dict[Granularity, list[Window]]:
    """Windows that may be joined at all, in their order."""
    found: dict[Granularity, list[Window]] = {}
    for window in windows:
        found.setdefault(window.granularity, []).append(window)
    return found
