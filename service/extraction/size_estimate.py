"""How many entries a bucket has: as stored scans show it, or the pages that are being read."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import NamedTuple

from service.model import Page, Window
from service.plan.forecast import DEFAULT_ENTRIES
from service.plan.grouping import OrgSettings
from service.plan.narrowing import WidthPolicy
from service.postgres.windows import Ledger

_PEAK = 4
"""How many times the average the fullest bucket may have: opening hours are a quarter of a week."""


class SizeEstimate:
    """The entries per bucket of windows of one kind, from the first pages of their queries.

    Attributes:
        entries: the highest average that is certain; None before a query's end or its second page.
        is_exact: whether ``entries`` is the average of a query that was read to its end, not a lower bound.
        changed: set whenever ``entries`` may have changed.
    """

    def __init__(self) -> None:
        self.entries: float | None = None
        self.is_exact = False
        self.changed = asyncio.Event()

    def query(self, buckets: int) -> QueryCount:
        """A count of the pages of one query over so many buckets."""
        return QueryCount(self, buckets)


class QueryCount:
    """Counts the entries of one query's pages for an estimate.

    A first page that is not the last says little: there may be one more, or many. Pages may be ordered by bucket
    or by flow, so the first ones give a lower bound alone: what was read, over all buckets of the query, and a
    share of the fullest bucket so far.
    """

    def __init__(self, estimate: SizeEstimate, buckets: int) -> None:
        self._estimate = estimate
        self._buckets = buckets
        self._entries = self._pages = 0
        self._by_bucket: Counter[str] = Counter()

    def add(self, page: Page) -> None:
        """Count the entries of the query's next page."""
        estimate = self._estimate
        if estimate.is_exact:
            return
        self._entries += len(page.entries)
        self._pages += 1
        if page.more:
            starts = (entry.interval[0] for entry in page.entries)
            self._by_bucket.update(start for start in starts if isinstance(start, str))
            least = max((self._entries + 1) / self._buckets, max(self._by_bucket.values(), default=0) / _PEAK)
            if self._pages > 1:
                estimate.entries = max(estimate.entries or 0.0, least)
        else:
            estimate.entries, estimate.is_exact = max(estimate.entries or 0.0, self._entries / self._buckets), True
        estimate.changed.set()


class ExpectedSize(NamedTuple):
    """What is known of the entries per bucket of windows that wait.

    Attributes:
        entries: the expected number; a lower bound unless ``is_known``; None where nothing is known.
        is_known: whether all windows may be grouped by it.
        probes: the number of windows that may be requested side by side where nothing is known.
    """

    entries: float | None
    is_known: bool = False
    probes: int = 1


async def expected_size(
    window: Window,
    estimate: SizeEstimate,
    ledger: Ledger,
    policy: WidthPolicy,
    org: OrgSettings,
    cycle: str,
    *,
    is_idle: bool,
    is_first: bool,
) -> ExpectedSize:
    """What is known of the entries per bucket before the next scans start.

    Args:
        window: the first of those to be requested.
        estimate: from the pages that this cycle has read.
        ledger: has the sizes of stored scans.
        policy: the rule for the width of queries.
        org: the org's settings.
        cycle: the cycle's id.
        is_idle: whether none of these windows is being requested.
        is_first: whether none of them was started yet.
    """
    if policy.begins_with_one_window(cycle) and estimate.entries is None and (is_first or not is_idle):
        return ExpectedSize(None)
    step, entries = window.granularity, estimate.entries if estimate.is_exact else None
    if entries is None and is_idle:
        entries = await ledger.entries_per_bucket(
            window.stream, step, step.bucket_length.total_seconds(), window.measure
        )
        if entries is not None:
            estimate.entries, estimate.is_exact = entries, True
    if entries is not None:
        return ExpectedSize(max(entries, 1.0), is_known=True)
    if org.flows:
        return ExpectedSize(len(org.flows), is_known=True)
    if not is_first and policy.is_exhausted(cycle):  # no flood of single windows that are refused alike
        return ExpectedSize(DEFAULT_ENTRIES, is_known=True)
    return ExpectedSize(estimate.entries, probes=org.concurrency)
