"""What the page tells of a day, of a flow's outcomes over time, and of what changed lately."""

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
from service.postgres.queries import dashboard as stored
from service.postgres.queries import series as page_figures
from service.postgres.queries.dashboard import Restatement, Stream, WindowDetail
from service.postgres.queries.status import snapshot
from service.postgres.windows import stream_of
from service.web.coverage import local_day

MOST_WINDOWS = 60  # of a day; it has 25 hours at most
MOST_RESTATED = 50
MOST_OUTCOMES = 11  # on their own, the others as one
MOST_BUCKETS = 1200
_STEPS = {Granularity.HOURLY: Step.HOUR, Granularity.DAILY: Step.DAY, Granularity.MONTHLY: Step.MONTH}

Document = dict[str, Any]


async def day(connection: Connection, org: Org, job: Job, when: date, now: datetime) -> Document:
    """A job's windows of one local day and what was restated of them.

    Raises:
        DatabaseUnavailableError, SchemaError: as the connection says.
    """
    span = local_day(when, org)
    work = Stream(stream_of(job.name), job.granularity)
    owed = _owed(job, org, span, now)
    whole = Span(min(span.start, owed[0].start), max(span.end, owed[-1].end)) if owed else span
    async with snapshot(connection):
        found = await stored.window_details(connection, org.name, work, span, MOST_WINDOWS)
        granularities = {each.granularity for each in found}
        count, restated = await stored.restatements_within(
            connection, org.name, granularities, whole, MOST_RESTATED
        )
    listed = {each.span: _window(each, now) for each in found if each.span in owed}
    return {
        "org": org.name,
        "job": job.name,
        "day": when.isoformat(),
        "timezone": org.timezone,
        "windows": [listed.get(each) or _unlisted(each, job, now) for each in owed],
        "restatements": count,
        "restated": [restatement(each) for each in restated],
    }


def _owed(job: Job, org: Org, span: Span, now: datetime) -> list[Span]:
    step = Step(job.window)
    since = calendar.at_or_before(job.since.resolve(now, org.tz), step, org.tz)
    start = max(since, calendar.at_or_before(span.start, step, org.tz))
    if start >= span.end or start > now:
        return []
    end = calendar.at_or_after(span.end, step, org.tz)
    run = calendar.until(start, end, step, org.tz)
    return [Span(*ends) for ends in pairwise(run) if ends[0] <= now]


def _window(each: WindowDetail, now: datetime) -> Document:
    state = "doubted" if each.doubted and each.state == "complete" else each.state
    told = {"pending": "late" if each.due_at <= now else "waiting", "running": "being asked"}
    return {
        "window_start": instant(each.span.start),
        "window_end": instant(each.span.end),
        "granularity": each.granularity,
        "state": told.get(state, state),
        "pages": each.pages,
        "rows": each.rows,
        "rejected": each.rejected,
        "attempts": each.attempts,
        "last_error": each.last_error,
        "due_at": instant(each.due_at),
        "completed_at": None if each.completed_at is None else instant(each.completed_at),
    }


def _unlisted(span: Span, job: Job, now: datetime) -> Document:
    """A window that is owed, or will be, and that the ledger does not know."""
    due = windows.due_at(span, job.delay, job.off_peak)
    return {
        "window_start": instant(span.start),
        "window_end": instant(span.end),
        "granularity": None,
        "state": "never asked" if due <= now else "waiting",
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


async def changes(connection: Connection, orgs: Sequence[str], most: int) -> Document:
    """What was restated and renamed lately, the newest first.

    Raises:
        DatabaseUnavailableError, SchemaError: as the connection says.
    """
    async with snapshot(connection):
        restated = await stored.last_restatements(connection, orgs, most)
        renamed = await stored.last_renames(connection, orgs, min(most, 10))
    return {
        "restated": [restatement(each) for each in restated],
        "renamed": [{**each._asdict(), "renamed_at": instant(each.renamed_at)} for each in renamed],
    }


async def flows(connection: Connection, org: str, sought: str, most: int) -> Document:
    """The flows of an org, at most so many, and whether there are more.

    Raises:
        DatabaseUnavailableError, SchemaError: as the connection says.
    """
    found = await page_figures.flows(connection, org, sought, most + 1)
    return {"org": org, "flows": [each._asdict() for each in found[:most]], "more": len(found) > most}


async def shares(
    connection: Connection,
    org: Org,
    flow_id: str,
    granularity: Granularity,
    first: date,
    past: date,
    now: datetime,
) -> Document:
    """A flow's outcomes over time: for each a count and a share in each bucket, null where it is not known.

    ``nulls`` lists the buckets in which a stored figure is null; elsewhere an absent one was never expected.

    Raises:
        DatabaseUnavailableError, SchemaError: as the connection says.
    """
    span = windows.days(first, past, org.tz)
    step = _STEPS[granularity]
    start = calendar.at_or_before(span.start, step, org.tz)
    starts = calendar.until(start, min(span.end, calendar.after(now, step, org.tz)), step, org.tz)[:MOST_BUCKETS]
    starts = [each for each in starts if each < span.end]
    found, outcomes = await page_figures.points(
        connection, org.name, flow_id, granularity.value, Span(start, span.end), MOST_OUTCOMES
    )
    places = {at: place for place, at in enumerate(starts)}
    series: dict[str | None, Document] = {}
    for point in found:
        if (place := places.get(point.bucket_start)) is None:
            continue
        drawn = series.setdefault(point.outcome_name, _series(point.outcome_name, len(starts)))
        drawn["counts"][place], drawn["shares"][place] = point.counted, _rounded(point.share)
        if point.nulls:
            drawn["nulls"].append(place)
    return {
        "org": org.name,
        "flow_id": flow_id,
        "granularity": granularity.value,
        "timezone": org.timezone,
        "starts": [int(each.timestamp()) for each in starts],
        "labels": [_label(each.astimezone(org.tz), granularity) for each in starts],
        "outcomes": outcomes,
        "series": _ordered(series),
    }


def _series(name: str | None, length: int) -> Document:
    return {"name": name, "counts": [None] * length, "shares": [None] * length, "nulls": []}


def _ordered(series: Mapping[str | None, Document]) -> list[Document]:
    """The largest first, what is left together last."""
    return [
        *(each for name, each in series.items() if name is not None),
        *([series[None]] if None in series else []),
    ]


def _rounded(share: float | None) -> float | None:
    return None if share is None else round(share, 6)


def _label(local: datetime, granularity: Granularity) -> str:
    return {
        Granularity.HOURLY: f"{local:%Y-%m-%d %H:%M}",
        Granularity.DAILY: f"{local:%Y-%m-%d}",
        Granularity.MONTHLY: f"{local:%Y-%m}",
    }[granularity]
