"""An ad hoc span as windows."""

from __future__ import annotations

from datetime import UTC, datetime, time
from typing import NamedTuple

from service.config import AdHoc, Org
from service.extraction.cycle import AD_HOC_POLICY
from service.model import Measure, Span, Window
from service.plan.buckets import ceil, is_edge
from service.plan.granularity import adjust, pieces
from service.postgres.windows import AD_HOC


class AdHocWindows(NamedTuple):
    """The windows of an ad hoc span: one for each measure, or more where the span is too long for one query.

    Attributes:
        windows: in order; empty where no bucket of the span has settled.
        moved: whether they cover another span than requested.
        coarsened: whether their granularity is coarser than the requested one.
    """

    windows: tuple[Window, ...]
    moved: bool
    coarsened: bool


def ad_hoc_windows(org: Org, entry: AdHoc, now: datetime) -> AdHocWindows:
    """The windows of an ad hoc span, whose dates are dates in the org's time zone.

    Without a measure, for each that a job of the org has.
    """
    span = Span(
        datetime.combine(entry.start, time.min, org.tz).astimezone(UTC),
        datetime.combine(entry.end, time.min, org.tz).astimezone(UTC),
    )
    measures = org.measures if entry.measure is None else (Measure(entry.measure),)
    return _windows(org, span, entry.granularity, now, measures)


def prune_problem(org: Org, planned: AdHocWindows, pruned_before: datetime | None) -> str | None:
    """Why these windows are not extracted: they start before the org's prune date; None where they do not."""
    if pruned_before is None or not planned.windows or planned.windows[0].span.start >= pruned_before:
        return None
    first = planned.windows[0]
    begins = ceil(pruned_before, first.granularity, org.tz).astimezone(org.tz)
    return (
        f"{org.name} was pruned before {pruned_before:%Y-%m-%d} UTC, and nothing before that is extracted again;"
        f" the first {first.granularity} figures that can be extracted begin at {begins:%Y-%m-%d %H:%M}"
        f" {org.timezone}"
    )


def is_aligned(org: Org, window: Window) -> bool:
    """Whether the window begins and ends on bucket edges; not after the org's time zone changed."""
    return all(is_edge(at, window.granularity, org.tz) for at in (window.span.start, window.span.end))


def realigned(org: Org, window: Window, now: datetime) -> AdHocWindows:
    """The windows that cover the span of a window which is no longer aligned."""
    return _windows(org, window.span, window.requested, now, (window.measure,))


def _windows(org: Org, span: Span, requested: str, now: datetime, measures: tuple[Measure, ...]) -> AdHocWindows:
    delay = AD_HOC_POLICY.delay
    adjusted = adjust(span, requested, org.timezone, now - delay)
    if adjusted is None:
        return AdHocWindows((), moved=True, coarsened=False)
    windows = tuple(
        Window(
            org.name,
            AD_HOC,
            None,
            piece,
            requested,
            adjusted.granularity,
            piece.end + delay,
            measure=measure,
        )
        for measure in measures
        for piece in pieces(adjusted.span, adjusted.granularity, org.timezone)
    )
    return AdHocWindows(windows, adjusted.moved, adjusted.coarsened)
