"""A span that somebody asked for by hand, as the windows in which it can be had."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from typing import NamedTuple

from service.config import AdHoc, Org
from service.model import Span, Window
from service.plan.buckets import is_edge
from service.plan.granularity import adjust, pieces
from service.postgres.windows import AD_HOC

DELAY = timedelta(hours=1)


class AdHocWindows(NamedTuple):
    """One window, or more where one query may not be so long; none where nothing of the span has settled.

    Attributes:
        windows: in order.
        moved: whether they do not cover exactly what was asked for.
        coarsened: whether a granularity was named and this is another one.
    """

    windows: tuple[Window, ...]
    moved: bool
    coarsened: bool


def ad_hoc_windows(org: Org, entry: AdHoc, now: datetime) -> AdHocWindows:
    """The windows of an ad hoc span, its dates read in the org's time zone."""
    span = Span(
        datetime.combine(entry.start, time.min, org.tz).astimezone(UTC),
        datetime.combine(entry.end, time.min, org.tz).astimezone(UTC),
    )
    return _windows(org, span, entry.granularity, now)


def aligned(org: Org, window: Window) -> bool:
    """Whether the window still begins and ends where buckets do: the org's time zone may be another one since."""
    return all(is_edge(at, window.granularity, org.tz) for at in (window.span.start, window.span.end))


def aligned_anew(org: Org, window: Window, now: datetime) -> AdHocWindows:
    """The windows in which the span of one that is not aligned any more can be had."""
    return _windows(org, window.span, window.requested, now)


def _windows(org: Org, span: Span, requested: str, now: datetime) -> AdHocWindows:
    adjusted = adjust(span, requested, org.timezone, now - DELAY)
    if adjusted is None:
        return AdHocWindows((), moved=True, coarsened=False)
    windows = tuple(
        Window(org.name, AD_HOC, None, piece, requested, adjusted.granularity, piece.end + DELAY)
        for piece in pieces(adjusted.span, adjusted.granularity, org.timezone)
    )
    return AdHocWindows(windows, adjusted.moved, adjusted.coarsened)
