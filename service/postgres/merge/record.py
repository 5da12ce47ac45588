"""What is merged, and what a merge returns."""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple

from service.model import Granularity, Scan, Span, Window

ALL_FLOWS = "*"
LONGEST_BUCKET = {
    Granularity.HOURLY: timedelta(hours=3),
    Granularity.DAILY: timedelta(days=3),
    Granularity.MONTHLY: timedelta(days=33),
}
"""No bucket is longer in any time zone, clock changes included."""


NOT_ACCEPTED_AFTER = timedelta(days=90)
"""Where the retention is unknown, an empty scan of an older window is never accepted over stored figures."""


@dataclass(frozen=True)
class Retention:
    """How long the org keeps its data; older figures are returned partially, or not at all.

    Attributes:
        kept: None where it is unknown.
    """

    kept: timedelta | None

    def limit(self, now: datetime) -> datetime:
        """A window that starts before this instant may lack data.

        It is a day later than the end of a known retention, as the day there is returned partially.
        """
        return now - (NOT_ACCEPTED_AFTER if self.kept is None else self.kept - timedelta(days=1))


@dataclass(frozen=True)
class ScanRecord:
    """A scan whose last page was read.

    Attributes:
        scan: its windows and queries.
        buckets: its buckets, ascending.
        flows: ids of the flows that it requested; empty means all flows.
        query_hash: shown with its windows.
        began_at: when it began, by the process's clock.
        pages: pages read. Each window is stored with all of them, for the windows share a query.
        entries: entries read. Each window is stored with its share, from which the pages of the next scan are
            estimated.
        cycle: id of its cycle. An empty window is accepted if a later cycle confirms it.
        number: the org's scans are numbered as they begin; of two scans the higher number is the truth.
        began_monotonic: when it began, in seconds of the monotonic clock.
        api_date: the ``Date`` of its last response; None where that had no valid one.
        api_monotonic: when that response arrived, in seconds of the monotonic clock.
        by_id: whether the API reports outcomes by id.
        retention: None where stored figures are not protected by it.
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
    retention: Retention | None = None

    @property
    def scope(self) -> str:
        """The key of the requested flows in ``flow_scope``."""
        if not self.flows:
            return ALL_FLOWS
        return hashlib.sha256("\0".join(sorted(self.flows)).encode()).hexdigest()[:32]

    def window_at(self, start: datetime) -> Window:
        """The window that starts at an instant."""
        windows = self.scan.windows
        return windows[bisect_left(windows, start, key=lambda window: window.span.start)]

    def buckets_in(self, window: Window) -> list[Span]:
        """The buckets of one of the windows."""
        first = bisect_left(self.buckets, window.span.start, key=lambda bucket: bucket.start)
        last = bisect_left(self.buckets, window.span.end, key=lambda bucket: bucket.start)
        return list(self.buckets[first:last])

    def entries_of(self, window: Window) -> int:
        """The share of the entries that falls to one of the windows, by its buckets."""
        return round(self.entries * len(self.buckets_in(window)) / max(1, len(self.buckets)))


class Missing(NamedTuple):
    """Figures of a window that a scan made null.

    Attributes:
        rows: how many.
        sample: up to five of their names.
    """

    rows: int
    sample: list[str]


class RejectedOutcome(NamedTuple):
    """A rejected outcome, for the log; None where a part is unknown."""

    window: Window
    reason: str
    flow_id: str | None
    outcome: str | None


@dataclass
class Merged:
    """What a merge stored.

    Attributes:
        rows: figures reported, by window.
        rejected: rejected outcomes, by window.
        rejects: some of the rejected outcomes.
        doubted: windows that are empty but have figures, until a later cycle confirms it.
        missing: outcomes that became null, by window.
        restated: restatements, by window.
        mismatched: figures whose share fits no denominator, by window.
        database_time: the database's clock during the merge.
        changed: figures inserted, updated or deleted.
        outcomes_added: outcomes that were new to the org.
    """

    rows: dict[Window, int] = field(default_factory=dict)
    rejected: dict[Window, int] = field(default_factory=dict)
    rejects: list[RejectedOutcome] = field(default_factory=list)
    doubted: set[Window] = field(default_factory=set)
    missing: dict[Window, Missing] = field(default_factory=dict)
    restated: dict[Window, int] = field(default_factory=dict)
    mismatched: dict[Window, int] = field(default_factory=dict)
    database_time: datetime | None = None
    changed: int = 0
    outcomes_added: int = 0
