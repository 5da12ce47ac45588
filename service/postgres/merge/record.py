"""What goes into a merge, and what comes of it."""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from service.model import Granularity, Scan, Span, Window

ALL_FLOWS = "*"
# No bucket is longer, wherever clocks are put back.
LONGEST_BUCKET = {
    Granularity.HOURLY: timedelta(hours=3),
    Granularity.DAILY: timedelta(days=3),
    Granularity.MONTHLY: timedelta(days=33),
}


@dataclass(frozen=True)
class ScanRecord:
    """What is known of a scan that came to its end.

    Attributes:
        scan: the windows and queries.
        buckets: all buckets of the scan, ascending.
        flows: flow ids asked for; empty is all.
        query_hash: what the windows show.
        began_at: when the scan began by the process's clock.
        pages: pages read, for each window what it took (they share a query's).
        entries: entries read; each window keeps its share, to reckon the next scan's pages with.
        cycle: names the cycle; an empty scan is believed when a later one says it again.
        number: of the org's scans, in the order in which they began: of two the higher is the truth.
        began_monotonic: when it began, in seconds of the monotonic clock.
        api_date: the ``Date`` of its last response; None where that had no valid one.
        api_monotonic: when that response came, in seconds of the monotonic clock.
        by_id: whether the API knows outcomes by id, and these are what it reported.
    """

    scan: Scan
    buckets: Sequence[Span]
    flows: tuple[str, ...]
    query_hash: str
    began_at: datetime
    pages: int
    entries: int
    cycle: str
    number: int
    began_monotonic: float
    api_date: datetime | None = None
    api_monotonic: float = 0.0
    by_id: bool = False

    def window_at(self, start: datetime) -> Window:
        """The window that starts then."""
        windows = self.scan.windows
        return windows[bisect_left(windows, start, key=lambda window: window.span.start)]

    def buckets_in(self, window: Window) -> list[Span]:
        """The buckets of one of its windows."""
        first = bisect_left(self.buckets, window.span.start, key=lambda bucket: bucket.start)
        last = bisect_left(self.buckets, window.span.end, key=lambda bucket: bucket.start)
        return list(self.buckets[first:last])


@dataclass(frozen=True)
class Missing:
    """Outcomes that a window no longer has: how many rows, and some of their names."""

    rows: int
    sample: list[str]


@dataclass
class Merged:
    """What a merge did, window by window.

    Attributes:
        rows: figures reported, by window.
        rejected: refused outcomes, by window.
        rejects: up to a few refused outcomes for the log: (window, reason, flow id, outcome).
        doubted: windows whose wholly empty scan is not believed yet.
        missing, restated, mismatched: how many rows, by window.
        database_time: what the database's clock showed.
        changed: rows stored anew or changed.
        outcomes_added: outcomes that the org had not had before.
    """

    rows: dict[Window, int] = field(default_factory=dict)
    rejected: dict[Window, int] = field(default_factory=dict)
    rejects: list[tuple[Window, str, str | None, str | None]] = field(default_factory=list)
    doubted: set[Window] = field(default_factory=set)
    missing: dict[Window, Missing] = field(default_factory=dict)
    restated: dict[Window, int] = field(default_factory=dict)
    mismatched: dict[Window, int] = field(default_factory=dict)
    database_time: datetime | None = None
    changed: int = 0
    outcomes_added: int = 0


def scope_of(flows: Sequence[str]) -> str:
    """The name of a set of flows in ``flow_scope``."""
    return hashlib.sha256("\0".join(sorted(flows)).encode()).hexdigest()[:32] if flows else ALL_FLOWS
