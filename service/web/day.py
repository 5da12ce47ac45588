"""One day of a job: its windows and their restatements."""

from __future__ import annotations

from datetime import date, datetime
from itertools import pairwise
from typing import Any

from service.config import Job, Org
from service.model import Span, instant
from service.plan import calendar, windows
from service.plan.calendar import Step
from service.postgres.pool import Connection
from service.postgres.prune_dates import prune_date
from service.postgres.queries import dashboard
from service.postgres.queries.dashboard import Restatement, Stream, WindowDetail
from service.postgres.queries.status import snapshot
from service.postgres.windows import stream_of
from service.web.coverage import local_day
from service.web.problems import backfill

MAX_WINDOWS = 60
"""Windows of a day; a local day has at most 25 hours."""
MAX_RESTATEMENTS = 50

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
    shown = [listed.get(each) or _unlisted(each, job, now) for each in planned]
    lacking = any(each["state"] not in {"complete", "waiting", "running"} for each in shown)
    return {
        "org": org.name,
        "job": job.name,
        "day": when.isoformat(),
        "timezone": org.timezone,
        "windows": shown,
        "command": backfill(org.name, job, when, when) if lacking else None,
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
