"""Adjacent windows in one scan, spans as queries, and a query in halves."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil
from typing import Literal, NamedTuple

from service.model import Granularity, Query, Span, Window
from service.plan.granularity import asked, one_query, pieces

MetricsDelay = Literal["auto", "always", "never"]

# A scan of 20 pages has half a page of waste on average, 2.5 %. One of 125 is 13 seconds at the usual limit,
# which a crash may cost; its rows still fit in memory, and merging many at once is cheaper.
FEWEST_PAGES, MOST_PAGES = 20, 125
# Ten seconds at the usual limit: so long the newest windows may wait for those before them.
SOON_PAGES = 100

_NOMINAL = {
    Granularity.HOURLY: timedelta(hours=1),
    Granularity.DAILY: timedelta(days=1),
    Granularity.MONTHLY: timedelta(days=30),
}
_NOTHING = timedelta(0)


@dataclass(frozen=True, slots=True)
class OrgSettings:
    """What of an org's configuration shapes its queries.

    Attributes:
        name: the org's name.
        timezone: IANA name; where days and months begin.
        flows: flow ids asked for; empty is all flows.
        page_size: entries a page.
        concurrency: scans in flight.
    """

    name: str
    timezone: str
    flows: tuple[str, ...] = ()
    page_size: int = 100
    concurrency: int = 4


class WindowGroups(NamedTuple):
    """Windows in groups, one for each scan, and those to be grouped later.

    ``later`` holds windows only where nothing is known of the size of an answer: then ``scans`` holds one window
    alone as a probe, which leaves no gap: the first, or the newest where the first is in their midst. Once it was
    read the rest can be joined.
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
    alone: Collection[Span] = (),
) -> WindowGroups:
    """Join windows that follow one another, in the order given, while one query may ask for them.

    The first of those that run side by side are shorter, so that they end one after the other: figures are there
    sooner, and their merges do not queue. Windows that bring few pages in all, seconds at the limit, are joined in
    the order of time: none waits long, and each scan fewer is half a page less of waste.

    Args:
        windows: all of one org.
        org: the org's settings.
        entries_per_bucket: how many entries one bucket is expected to bring, at the granularity of these windows;
            None where no answer was ever seen.
        delay: the delay buffer of their job.
        metrics_delay: its mode; ``always`` reaches further and leaves less room.
        alone: spans of windows that are to be asked one by one.
    """
    if entries_per_bucket is None:
        if not windows:
            return WindowGroups([], [])
        ascending = all(windows[0].span.start <= window.span.start for window in windows)
        probe = windows[0] if ascending else max(windows, key=lambda window: window.span.start)
        return WindowGroups([[probe]], [window for window in windows if window is not probe])
    tail, single = _tail(delay, metrics_delay), set(alone)
    weights = [pages(window.span, window.granularity, entries_per_bucket, org.page_size) for window in windows]
    if sum(weights) <= SOON_PAGES:
        weighed = sorted(zip(windows, weights, strict=True), key=lambda each: each[0].span.start)
        windows, weights = [window for window, _ in weighed], [weight for _, weight in weighed]
    room = min(max(ceil(sum(weights) / org.concurrency), FEWEST_PAGES), MOST_PAGES)
    scans: list[list[Window]] = []
    filled = 0.0
    previous: Window | None = None
    for window, weight in zip(windows, weights, strict=True):
        if (
            previous is not None
            and filled + weight <= max(room * min(len(scans) / org.concurrency, 1), FEWEST_PAGES)
            and _adjacent(previous, window)
            and not {previous.span, window.span} & single
            and one_query(Span(scans[-1][0].span.start, window.span.end), window.granularity, org.timezone, tail)
        ):
            scans[-1].append(window)
            filled += weight
        else:
            scans.append([window])
            filled = weight
        previous = window
    return WindowGroups(scans, [])


def pages(span: Span, granularity: Granularity, entries_per_bucket: float, page_size: int) -> float:
    """How many pages a span is expected to bring, as a fraction."""
    return span.duration / _NOMINAL[granularity] * entries_per_bucket / page_size


def queries(
    span: Span,
    granularity: Granularity,
    org: OrgSettings,
    *,
    delay: timedelta,
    metrics_delay: MetricsDelay,
    now: datetime,
) -> tuple[Query, ...]:
    """The queries that together ask for a span, in order.

    With ``auto`` the engine is told the delay only where a query reaches into what has not settled. With
    ``always`` it is told each time, and each query asks that much further, up to the next bucket's edge.

    Raises:
        ValueError: the span does not begin and end on bucket edges.
    """
    tail = _tail(delay, metrics_delay)
    found: list[Query] = []
    for piece in pieces(span, granularity, org.timezone, tail):
        sent = metrics_delay == "always" or (metrics_delay == "auto" and piece.end + delay > now)
        found.append(
            Query(
                org=org.name,
                span=piece,
                granularity=granularity,
                timezone=org.timezone,
                flows=org.flows,
                page_size=org.page_size,
                metrics_delay=delay if sent else None,
                asked=asked(piece, granularity, org.timezone, tail),
            )
        )
    return tuple(found)


def _tail(delay: timedelta, metrics_delay: MetricsDelay) -> timedelta:
    return delay if metrics_delay == "always" else _NOTHING


def _adjacent(one: Window, other: Window) -> bool:
    return (
        one.span.end == other.span.start
        and one.granularity is other.granularity
        and (one.org, one.work) == (other.org, other.work)
    )
