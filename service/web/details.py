"""The page's details: one day of a job, a flow's outcomes over time, recent changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from itertools import pairwise
from typing import Any

from service.config import Job, Org
from service.model import Granularity, Span, instant
from service.plan import calendar, windows
from service.plan.calendar import Step
from service.postgres.pool import Connection
from service.postgres.prune_dates import prune_date
from service.postgres.queries import dashboard, series
from service.postgres.queries.dashboard import Restatement, Stream, WindowDetail
from service.postgres.queries.status import snapshot
from service.postgres.windows import stream_of
from service.web.coverage import local_day

MAX_WINDOWS = 60
"""Windows of a day; a local day has at most 25 hours."""
MAX_RESTATEMENTS = 50
MAX_RENAMES = 10
MAX_OUTCOMES = 11
"""Outcomes with a series of their own; the others share one."""
MAX_BUCKETS = 1200
_STEPS = {Granularity.HOURLY: Step.HOUR, Granularity.DAILY: Step.DAY, Granularity.MONTHLY: Step.MONTH}

Document = dict[str, Any]


async def day(connection: Connection, org: Org, job: Job, when: date, now: datetime) -> Document:
    """A job's windows of one local day, and their restatements.

    Raises:
        DatabaseUnavailableError, SchemaError: as the connection.
    """
    span = local_day(when, org)
    stream = Stream(stream_of(job.name, job.measure), job.granularity)
    async with snapshot(connection):
        planned = _planned(job, org, span, now, await prune_date(connection, org.name))
        covered = Span(min(span.start, planned[0].start), max(span.end, planned[-1].end)) if planned else span
        stored = await dashboard.window_details(connection, org.name, stream, span, MAX_WINDOWS)
        granularities = {each.granularity for each in stored}
        count, restated = await dashboard.restatements_within(
            connection, org.name, granularities, covered, MAX_RESTATEMENTS
        )
    listed = {each.span: _window(each, now) for each in stored if each.span in planned}
    return {
        "org": org.name,
        "job": job.name,
        "day": when.isoformat(),
        "timezone": org.timezone,
        "windows": [listed.get(each) or _unlisted(each, job, now) for each in planned],
        "restatements": count,
        "restated": [restatement(each) for each in restated],
    }


def _planned(job: Job, org: Org, span: Span, now: datetime, pruned_before: datetime | None) -> list[Span]:
    step = Step(job.window)
    begins = job.since.resolve(now, org.tz)
    since = calendar.at_or_before(max(begins, pruned_before or begins), step, org.tz)
    start = max(since, calendar.at_or_before(span.start, step, org.tz))
    if start >= span.end or start > now:
        return []
    end = calendar.at_or_after(span.end, step, org.tz)
    starts = calendar.until(start, end, step, org.tz)
    spans = [Span(*ends) for ends in pairwise(starts) if ends[0] <= now]
    if pruned_before is None:
        return spans
    first = windows.first_bucket(job.window, job.granularity, pruned_before, org.tz)
    return [each for each in windows.since_bucket(spans, first) if each.end > span.start]


def _window(each: WindowDetail, now: datetime) -> Document:
    state = "doubted" if each.doubted and each.state == "complete" else each.state
    if state == "pending":
        state = "late" if each.due_at <= now else "waiting"
    return {
        "window_start": instant(each.span.start),
        "window_end": instant(each.span.end),
        "granularity": each.granularity,
        "state": state,
        "pages": each.pages,
        "rows": each.rows,
        "rejected": each.rejected,
        "attempts": each.attempts,
        "last_error": each.last_error,
        "due_at": instant(each.due_at),
        "completed_at": None if each.completed_at is None else instant(each.completed_at),
    }


def _unlisted(span: Span, job: Job, now: datetime) -> Document:
    """A window that the ledger does not list."""
    due = windows.due_at(span, job.delay, job.off_peak)
    return {
        "window_start": instant(span.start),
        "window_end": instant(span.end),
        "granularity": None,
        "state": "not requested" if due <= now else "waiting",
        "pages": 0,
        "rows": 0,
        "rejected": 0,
        "attempts": 0,
        "last_error": None,
        "due_at": instant(due),
        "completed_at": None,
    }


def restatement(each: Restatement) -> Document:
    """One restated figure."""
    return {
        **each._asdict(),
        "bucket_start": instant(each.bucket_start),
        "restated_at": instant(each.restated_at),
    }


async def changes(connection: Connection, orgs: Sequence[str], limit: int) -> Document:
    """The last restatements and renames, newest first.

    Raises:
        DatabaseUnavailableError, SchemaError: as the connection.
    """
    async with snapshot(connection):
        restated = await dashboard.last_restatements(connection, orgs, limit)
        renamed = await dashboard.last_renames(connection, orgs, min(limit, MAX_RENAMES))
    return {
        "restated": [restatement(each) for each in restated],
        "renamed": [{**each._asdict(), "renamed_at": instant(each.renamed_at)} for each in renamed],
    }


async def flows(connection: Connection, org: str, search_text: str, limit: int) -> Document:
    """An org's flows whose name or id contains a text, and whether there are more than the limit.

    Raises:
        DatabaseUnavailableError, SchemaError: as the connection.
    """
    found = await series.flows(connection, org, search_text, limit + 1)
    return {"org": org, "flows": [each._asdict() for each in found[:limit]], "more": len(found) > limit}


async def shares(
    connection: Connection,
    org: Org,
    flow_id: str,
    granularity: Granularity,
    first: date,
    end: date,
    now: datetime,
) -> Document:
    """A flow's outcomes over time: for each outcome the count and the share by bucket, null where unknown.

    ``nulls`` lists the buckets whose stored figure is null; in other buckets an absent figure is not expected.

    Raises:
        DatabaseUnavailableError, SchemaError: as the connection.
    """
    span = windows.days(first, end, org.tz)
    step = _STEPS[granularity]
    start = calendar.at_or_before(span.start, step, org.tz)
    starts = calendar.until(start, min(span.end, calendar.after(now, step, org.tz)), step, org.tz)[:MAX_BUCKETS]
    starts = [each for each in starts if each < span.end]
    points, outcomes = await series.points(
        connection, org.name, flow_id, granularity.value, Span(start, span.end), MAX_OUTCOMES
    )
    places = {at: place for place, at in enumerate(starts)}
    by_name: dict[str | None, Document] = {}
    for point in points:
        if (place := places.get(point.bucket_start)) is None:
            continue
        one = by_name.setdefault(point.outcome_name, _empty_series(point.outcome_name, len(starts)))
        one["counts"][place], one["shares"][place] = point.counted, _rounded(point.share)
        if point.nulls:
            one["nulls"].append(place)
    return {
        "org": org.name,
        "flow_id": flow_id,
        "granularity": granularity.value,
        "timezone": org.timezone,
        "starts": [int(each.timestamp()) for each in starts],
        "labels": [_label(each.astimezone(org.tz), granularity) for each in starts],
        "outcomes": outcomes,
        "series": _ordered(by_name),
    }


def _empty_series(name: str | None, length: int) -> Document:
    return {"name": name, "counts": [None] * length, "shares": [None] * length, "nulls": []}


def _ordered(by_name: Mapping[str | None, Document]) -> list[Document]:
    """Largest outcome first, as queried; the series that the others share last."""
    return sorted(by_name.values(), key=lambda each: each["name"] is None)


def _rounded(share: float | None) -> float | None:
    return None if share is None else round(share, 6)


def _label(local: datetime, granularity: Granularity) -> str:
    return {
        Granularity.HOURLY: f"{local:%Y-%m-%d %H:%M}",
        Granularity.DAILY: f"{local:%Y-%m-%d}",
        Granularity.MONTHLY: f"{local:%Y-%m}",
    }[granularity]
