"""One flow over time: its outcomes by bucket, the instants at which they changed, and what differs between two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple
from zlib import crc32

from service.config import Org
from service.model import Granularity, Span, instant
from service.plan import calendar, windows
from service.plan.calendar import Step
from service.postgres.pool import Connection
from service.postgres.queries import flow_figures, history
from service.postgres.queries.flow_figures import FlowSpan, OutcomeSums, Point
from service.postgres.queries.history import Difference, NameChange
from service.postgres.queries.status import snapshot

MAX_OUTCOMES = 11
"""Outcomes with a series of their own; the others share one."""
MAX_BUCKETS = 1200
MAX_INSTANTS = 2000
MAX_DIFFERENCES = 2000
_STEPS = {Granularity.HOURLY: Step.HOUR, Granularity.DAILY: Step.DAY, Granularity.MONTHLY: Step.MONTH}
_MEASURES = ("counted", "split", "successes", "duration_count", "duration_sum_ms")

Document = dict[str, Any]


class FlowRequest(NamedTuple):
    """What is shown of a flow.

    Attributes:
        org: the org.
        flow_id: the flow.
        granularity: of the buckets.
        first, end: local dates; the second one is excluded.
        at: the instant as of which; None is now.
        compared_with: the instant to compare with; None is now.
        dimension: None, or the dimension whose values are shown in place of the outcomes.
    """

    org: Org
    flow_id: str
    granularity: Granularity
    first: date
    end: date
    at: datetime | None = None
    compared_with: datetime | None = None
    dimension: str | None = None

    @property
    def span(self) -> Span:
        """From the start of the first bucket to the end of the last day."""
        span = windows.days(self.first, self.end, self.org.tz)
        return Span(calendar.at_or_before(span.start, _STEPS[self.granularity], self.org.tz), span.end)

    def within(self, span: Span) -> FlowSpan:
        """The flow's buckets in a span."""
        return FlowSpan(self.org.name, self.flow_id, self.granularity.value, span)


async def document(connection: Connection, request: FlowRequest, now: datetime) -> Document:
    """A flow's outcomes over time: each measure by bucket, null where unknown.

    ``nulls`` lists the buckets whose stored figure is null; in other buckets an absent figure is not expected.
    ``before`` has the sums of as many buckets before the first one.

    Raises:
        DatabaseUnavailableError, SchemaError: as the connection.
    """
    span, starts = request.span, _starts(request, now)
    earlier = Span(span.start - (min(span.end, now) - span.start), span.start)
    async with snapshot(connection):
        flow = await flow_figures.flow(connection, request.org.name, request.flow_id)
        dimensions = await flow_figures.dimensions(connection, request.org.name, request.flow_id)
        dimension = request.dimension if request.dimension in dimensions else None
        points, outcomes = await flow_figures.points(
            connection, request.within(span), request.at, MAX_OUTCOMES, dimension
        )
        before = await flow_figures.sums(connection, request.within(earlier), request.at)
        if min((each.first for each in before.values()), default=span.start) > earlier.start + _slack(request):
            before = {}  # not stored from its beginning on: nothing to compare with
        colours = await flow_figures.outcome_places(connection, request.org.name, request.flow_id)
    return {
        "org": request.org.name,
        "flow": None if flow is None else flow._asdict(),
        "granularity": request.granularity.value,
        "timezone": request.org.timezone,
        "from": request.first.isoformat(),
        "to": request.end.isoformat(),
        "at": None if request.at is None else instant(request.at),
        "starts": [int(each.timestamp()) for each in starts],
        "dimensions": dimensions,
        "dimension": dimension,
        "outcomes": outcomes,
        "series": _shared(_series(points, starts, {}, {}))
        if dimension
        else _series(points, starts, before, colours),
    }


def _slack(request: FlowRequest) -> timedelta:
    return 2 * request.granularity.bucket_length


def _starts(request: FlowRequest, now: datetime) -> list[datetime]:
    """The starts of the buckets up to now."""
    span, step, tz = request.span, _STEPS[request.granularity], request.org.tz
    if span.start > now:
        return []
    end = min(span.end, calendar.after(now, step, tz))
    return [each for each in calendar.until(span.start, end, step, tz) if each < span.end][:MAX_BUCKETS]


def _series(
    points: Sequence[Point],
    starts: Sequence[datetime],
    before: Mapping[str, OutcomeSums],
    colours: Mapping[str, int],
) -> list[Document]:
    """A series for each outcome, the largest first, and the one that the others share last."""
    places = {at: place for place, at in enumerate(starts)}
    by_name: dict[str | None, Document] = {}
    for point in points:
        if (place := places.get(point.bucket_start)) is None:
            continue
        one = by_name.setdefault(point.outcome_name, _empty(point.outcome_name, len(starts), colours, before))
        for name in _MEASURES:
            if (value := getattr(point, name)) is not None:
                one.setdefault(name, [None] * len(starts))[place] = value
        one["shares"][place] = None if point.share is None else round(point.share, 6)
        if point.nulls:
            one["nulls"].append(place)
    return sorted(by_name.values(), key=lambda each: each["name"] is None)


def _shared(series: list[Document]) -> list[Document]:
    """The same with each one's part of the bucket's total as its share."""
    for each in series:
        for place, count in enumerate(each["counted"]):
            total = sum(other["counted"][place] or 0 for other in series)
            each["shares"][place] = round(count / total, 6) if count is not None and total else None
    return series


def _empty(
    name: str | None, length: int, colours: Mapping[str, int], before: Mapping[str, OutcomeSums]
) -> Document:
    earlier = before.get(name) if name is not None else None
    return {
        "name": name,
        "colour": None if name is None else colours.get(name, crc32(name.encode("utf-8", "surrogatepass"))),
        "counted": [None] * length,
        "shares": [None] * length,
        "nulls": [],
        "before": None if earlier is None else earlier.counted,
    }


async def instants(connection: Connection, request: FlowRequest) -> Document:
    """The instants at which the shown figures changed, in order: when, and how many figures.

    Raises:
        DatabaseUnavailableError, SchemaError: as the connection.
    """
    found = await history.changes(connection, request.within(request.span), MAX_INSTANTS)
    return {
        "instants": [
            {
                "at": _microseconds(each.at),
                "figures": each.figures,
                "restated": each.restated,
                "renamed": each.renamed,
            }
            for each in found
        ],
    }


async def differences(connection: Connection, request: FlowRequest) -> Document:
    """The figures that differ between two instants, each with the reasons.

    Raises:
        DatabaseUnavailableError, SchemaError: as the connection.
    """
    was_at, now_at = request.at, request.compared_with
    async with snapshot(connection):
        total, rows = await history.differences(
            connection, request.within(request.span), was_at, now_at, MAX_DIFFERENCES
        )
        names = await history.name_changes(connection, request.org.name, request.flow_id, was_at, now_at)
    return {
        "differences": total,
        "renamed": [{**each._asdict(), "at": _microseconds(each.at)} for each in names],
        "cells": [
            {
                "start": int(each.bucket_start.timestamp()),
                "outcome": each.outcome_name,
                "was": each.was,
                "is": each.now,
                "why": _reasons(each, names, was_at),
            }
            for each in rows
        ],
    }


def _reasons(cell: Difference, names: Sequence[NameChange], was_at: datetime | None) -> list[Document]:
    """Why a figure differs, in the order in which they explain it."""
    reasons: list[Document] = []
    later = cell.was is None and cell.first_at is not None and was_at is not None and cell.first_at > was_at
    if later:
        reasons.append({"kind": "extracted", "at": _microseconds(cell.first_at)})
    for change in names:
        if not later and cell.outcome_name in (change.old_name, change.new_name):
            kind = "alias" if change.by_alias else "renamed"
            reasons.append(
                {"kind": kind, "at": _microseconds(change.at), "from": change.old_name, "to": change.new_name}
            )
    if cell.restated_at is not None:
        reasons.append({"kind": "restated", "at": _microseconds(cell.restated_at)})
    return reasons


def _microseconds(at: datetime | None) -> str | None:
    """An instant to the microsecond: a revision's timestamp must not be rounded down below itself."""
    return None if at is None else at.isoformat(timespec="microseconds").replace("+00:00", "Z")
