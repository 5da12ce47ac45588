"""Adjacent windows as scans, and spans as queries."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from math import ceil, floor
from typing import Literal, NamedTuple

from service.model import Granularity, Measure, Query, Span, Window
from service.plan.granularity import one_query, pieces, request_span

MetricsDelay = Literal["auto", "always", "never"]

MIN_PAGES, MAX_PAGES = 20, 125
"""The size of a scan of several windows. Its last page is half full on average: 2.5 % of 20 pages. A crash costs a
scan, and 125 pages are 13 seconds at 10 requests per second; their rows fit in memory, and one large merge is
cheaper than many small ones."""
SOON_PAGES = 100
"""Up to this many pages in all, the newest windows wait for older ones: ten seconds at 10 requests per second."""


@dataclass(frozen=True, slots=True)
class OrgSettings:
    """The configuration of an org that shapes its queries.

    Attributes:
        name: the org's name.
        timezone: IANA name of the zone in which days and months begin.
        flows: flow ids; empty means all flows.
        page_size: entries per page.
        concurrency: scans in flight.
        entries_max: the most entries of a response that has no pages; None where it has pages.
    """

    name: str
    timezone: str
    flows: tuple[str, ...] = ()
    page_size: int = 100
    concurrency: int = 4
    entries_max: int | None = None

    @property
    def planned_page_size(self) -> int:
        """Entries per page by which scans are planned: ``MAX_PAGES`` of them fit into one response."""
        if self.entries_max is None:
            return self.page_size
        return max(1, min(self.page_size, (self.entries_max - 1) // MAX_PAGES))

    def most_buckets(self, entries_per_bucket: float) -> int | None:
        """The most buckets whose entries fit into one response; None where it has pages."""
        if self.entries_max is None:
            return None
        return max(1, floor((self.entries_max - 1) / max(entries_per_bucket, 1.0)))


class WindowGroups(NamedTuple):
    """Windows in groups, one per scan, and windows to group later.

    Attributes:
        scans: the groups.
        later: empty where the number of entries per bucket is known. Otherwise ``scans`` holds one window as a
            probe, and ``later`` the rest.
    """

    scans: list[list[Window]]
    later: list[Window]


def group_windows(
    windows: Sequence[Window],
    org: OrgSettings,
    *,
    entries_per_bucket: float | None,
    delay: timedelta,
    metrics_delay: MetricsDelay,
    isolated: Collection[Span] = (),
    widest: int | None = None,
    probes: int = 1,
    is_lower_bound: bool = False,
) -> WindowGroups:
    """Group windows that follow one another, in the given order, while one query can cover them.

    The first scans, which run side by side, are shorter, so that they end one after the other: figures are stored
    sooner, and merges do not queue. The last scans are shorter too: one that runs alone leaves part of the request
    limit unused. Windows of ``SOON_PAGES`` in all are grouped in order of time instead: none waits long, and each
    scan less saves half a page.

    The probe is the first window where the windows are ascending, otherwise the newest, so that it leaves no gap.
    Further probes are windows that no query can cover together with the one before or after: they cost no request
    more than grouped ones.

    Args:
        windows: windows of one org.
        org: the org's settings.
        entries_per_bucket: the expected number of entries per bucket; None where it is unknown.
        delay: the delay buffer of their job.
        metrics_delay: when the delay is sent; ``always`` makes queries longer.
        isolated: spans of windows to query one by one.
        widest: the most buckets of a scan of several windows; None for no limit.
        probes: the most windows that are probes.
        is_lower_bound: whether there may be more entries, perhaps many times more: scans then have
            ``MIN_PAGES`` by it, and two windows at most where all of them have more than ``SOON_PAGES``.
    """
    overhang, single = _overhang(delay, metrics_delay), set(isolated)

    def one_scan(first: Window, previous: Window, window: Window) -> bool:
        """Whether a window can follow a scan from ``first`` to ``previous``."""
        return (
            _adjacent(previous, window)
            and not {previous.span, window.span} & single
            and one_query(Span(first.span.start, window.span.end), window.granularity, org.timezone, overhang)
        )

    if entries_per_bucket is None:
        if not windows:
            return WindowGroups([], [])
        ascending = all(windows[0].span.start <= window.span.start for window in windows)
        probe = windows[0] if ascending else max(windows, key=lambda window: window.span.start)
        ordered = sorted(windows, key=lambda window: window.span.start)
        joined = [one_scan(one, one, other) for one, other in pairwise(ordered)]
        alone = {
            id(window)
            for window, before, after in zip(ordered, [False, *joined], [*joined, False], strict=True)
            if not before and not after
        }
        first = [probe, *(window for window in windows if id(window) in alone and window is not probe)][:probes]
        chosen = set(map(id, first))
        return WindowGroups([[each] for each in first], [each for each in windows if id(each) not in chosen])
    page_size = org.planned_page_size
    weights = [pages(window.span, window.granularity, entries_per_bucket, page_size) for window in windows]
    total = left = sum(weights)
    if total <= SOON_PAGES:
        weighed = sorted(zip(windows, weights, strict=True), key=lambda each: each[0].span.start)
        windows, weights = [window for window, _ in weighed], [weight for _, weight in weighed]
    limit = min(max(ceil(total / org.concurrency), MIN_PAGES), MIN_PAGES if is_lower_bound else MAX_PAGES)
    most_windows = 2 if is_lower_bound and total > SOON_PAGES else len(windows)
    scans: list[list[Window]] = []
    filled = most = 0.0
    previous: Window | None = None
    for window, weight in zip(windows, weights, strict=True):
        if (
            previous is not None
            and filled + weight <= most
            and len(scans[-1]) < most_windows
            and (widest is None or _nominal_width(scans[-1][0], window) <= widest)
            and one_scan(scans[-1][0], previous, window)
        ):
            scans[-1].append(window)
            filled += weight
        else:
            scans.append([window])
            filled = weight
            most = limit * min(len(scans) / org.concurrency, 1)
            if total > SOON_PAGES:
                most = min(most, left / min(org.concurrency, 2))
            most = max(most, MIN_PAGES)
        left -= weight
        previous = window
    return WindowGroups(scans, [])


def pages(span: Span, granularity: Granularity, entries_per_bucket: float, page_size: int) -> float:
    """The expected number of pages of a span, as a fraction."""
    return span.duration / granularity.bucket_length * entries_per_bucket / page_size


def queries(
    span: Span,
    granularity: Granularity,
    org: OrgSettings,
    *,
    delay: timedelta,
    metrics_delay: MetricsDelay,
    now: datetime,
    measure: Measure = Measure.OUTCOMES,
    group_by: tuple[str, ...] = (),
) -> tuple[Query, ...]:
    """The queries that together cover a span, in order.

    With ``auto`` the delay is sent only in a query that includes records which have not settled. With ``always``
    it is sent in each query, and each requests that much more, up to the next bucket edge.

    Raises:
        ValueError: the span does not begin and end on bucket edges.
    """
    overhang = _overhang(delay, metrics_delay)
    result: list[Query] = []
    for piece in pieces(span, granularity, org.timezone, overhang):
        sent = metrics_delay == "always" or (metrics_delay == "auto" and piece.end + delay > now)
        result.append(
            Query(
                org=org.name,
                span=piece,
                granularity=granularity,
                timezone=org.timezone,
                flows=org.flows,
                page_size=org.page_size,
                metrics_delay=delay if sent else None,
                request_span=request_span(piece, granularity, org.timezone, overhang),
                measure=measure,
                group_by=group_by,
            )
        )
    return tuple(result)


def _nominal_width(first: Window, last: Window) -> int:
    """The buckets from the first window to the last, by their nominal length."""
    return round((last.span.end - first.span.start) / first.granularity.bucket_length)


def _overhang(delay: timedelta, metrics_delay: MetricsDelay) -> timedelta:
    return delay if metrics_delay == "always" else timedelta(0)


def _adjacent(one: Window, other: Window) -> bool:
    return (
        one.span.end == other.span.start
        and one.granularity is other.granularity
        and (one.org, one.stream, one.measure) == (other.org, other.stream, other.measure)
    )
