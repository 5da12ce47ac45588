"""Windows, leases and errors, as ``status`` reports them; reads only.

The ledger of 500 orgs and three years of days has half a million rows, nearly all of them complete. So these are
counted in the database, and the sums of their starts and ends show whether they are exactly the windows that
should exist. Only windows that are not complete, or not in the ledger, are fetched one by one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import date, datetime
from typing import Any, NamedTuple, TypeVar

from psycopg.rows import kwargs_row

from service.model import Span
from service.postgres.pool import Connection
from service.postgres.windows import AD_HOC

T = TypeVar("T")

_ROWS_PER_TURN = 2000  # rows between two turns of the event loop
_ERRORS_PER_ORG = 5


class JobRange(NamedTuple):
    """One job's windows of one org that have ended, plus the job's delay.

    Attributes:
        org, stream: whose windows.
        requested: the job's granularity as configured; windows of an earlier one do not count.
        span: from the first window's start to the last one's end.
    """

    org: str
    stream: str
    requested: str
    span: Span


class JobCounts(NamedTuple):
    """The number of one job's windows in the ledger.

    Attributes:
        complete: those that are complete.
        newest: the end of the newest complete one.
        listed: those within the ``JobRange``, in any state.
        starts, ends: the sums of the starts and of the ends of these, in seconds since 1970.
        rejected: rejected outcomes of the stored scans.
        complete_with_error: complete ones whose later scan failed or is doubted.
    """

    complete: int
    newest: datetime | None
    listed: int
    starts: float
    ends: float
    rejected: int
    complete_with_error: int


class Sums(NamedTuple):
    """A number of windows, and the sums of their starts and ends in seconds since 1970."""

    windows: int
    starts: float
    ends: float


class Unfinished(NamedTuple):
    """A window that is not complete."""

    org: str
    stream: str
    requested: str
    window_start: datetime
    window_end: datetime
    state: str
    last_error: str | None
    due_at: datetime

    @property
    def span(self) -> Span:
        """The window's span."""
        return Span(self.window_start, self.window_end)


class CompleteWithError(NamedTuple):
    """A complete window whose later scan failed or is doubted; ``job`` is None for an ad hoc one."""

    org: str
    job: str | None
    window_start: datetime
    window_end: datetime
    last_error: str


class OrgLeaseState(NamedTuple):
    """The owner of an org, and what keeps it from working.

    Attributes:
        owner: the process that holds the lease; None where no process does.
        since: when it acquired the lease.
        breaker: ``closed``, ``half-open`` or ``open``.
        breaker_until: of an open breaker, when a probe may be sent.
        paused_for: seconds for which a 429 still pauses the org.
    """

    owner: str | None
    since: datetime | None
    breaker: str
    breaker_until: datetime | None
    paused_for: float


NO_SUMS = Sums(0, 0.0, 0.0)
NO_LEASE = OrgLeaseState(None, None, "closed", None, 0.0)
NO_WINDOWS = JobCounts(0, None, 0, 0.0, 0.0, 0, 0)


@asynccontextmanager
async def snapshot(connection: Connection) -> AsyncIterator[Connection]:
    """Everything read within is as of one instant."""
    async with connection.transaction():
        await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        yield connection


async def check_readable(connection: Connection) -> None:
    """Check that the ledger exists and may be read; the connection's error says why not."""
    await connection.execute("SELECT FROM flow_outcomes.extraction_window, flow_outcomes.ad_hoc_entry LIMIT 0")


async def job_counts(connection: Connection, jobs: Sequence[JobRange]) -> dict[tuple[str, str], JobCounts]:
    """The counts of each job with a window in the ledger, by org and stream."""
    values = {
        "orgs": [job.org for job in jobs],
        "streams": [job.stream for job in jobs],
        "requested": [job.requested for job in jobs],
        "starts": [job.span.start for job in jobs],
        "ends": [job.span.end for job in jobs],
    }

    def row(org: str, stream: str, **counts: Any) -> tuple[tuple[str, str], JobCounts]:
        return (org, stream), JobCounts(**counts)

    return {key: counts async for key, counts in _rows(connection, row, _JOB_COUNTS, values)}


async def unfinished(connection: Connection, orgs: Collection[str]) -> list[Unfinished]:
    """Every window of these orgs that is not complete, by start."""
    return [row async for row in _rows(connection, Unfinished, _UNFINISHED, {"orgs": list(orgs)})]


class _Day(NamedTuple):
    day: date
    windows: int
    starts: float
    ends: float


async def sums_by_day(connection: Connection, job: JobRange) -> dict[date, Sums]:
    """The windows of a job in the ledger, by the UTC date of their start."""
    values = {
        "org": job.org,
        "stream": job.stream,
        "requested": job.requested,
        "start": job.span.start,
        "end": job.span.end,
    }
    rows = _rows(connection, _Day, _SUMS_BY_DAY, values)
    return {row.day: Sums(row.windows, row.starts, row.ends) async for row in rows}


async def missing(connection: Connection, job: JobRange, spans: Sequence[Span]) -> list[Span]:
    """Those of these spans that are no window of the job in the ledger, by start."""
    values = {
        "org": job.org,
        "stream": job.stream,
        "requested": job.requested,
        "starts": [span.start for span in spans],
        "ends": [span.end for span in spans],
    }
    return [span async for span in _rows(connection, Span, _MISSING, values)]


class _AdHocCount(NamedTuple):
    org: str
    state: str
    windows: int


async def ad_hoc_counts(connection: Connection, orgs: Collection[str]) -> dict[str, dict[str, int]]:
    """The number of ad hoc windows in each state, by org; one that was requested again is pending."""
    counts: dict[str, dict[str, int]] = {}
    async for row in _rows(connection, _AdHocCount, _AD_HOC_COUNTS, {"orgs": list(orgs), "stream": AD_HOC}):
        counts.setdefault(row.org, {})[row.state] = row.windows
    return counts


async def leases(connection: Connection, orgs: Collection[str]) -> dict[str, OrgLeaseState]:
    """The lease of each org that was ever held, by org."""

    def row(org: str, **state: Any) -> tuple[str, OrgLeaseState]:
        return org, OrgLeaseState(**state)

    return {org: state async for org, state in _rows(connection, row, _LEASES, {"orgs": list(orgs)})}


async def last_errors(connection: Connection, orgs: Collection[str]) -> dict[str, list[CompleteWithError]]:
    """The newest complete windows with an error, by org; ``_ERRORS_PER_ORG`` of each."""
    errors: dict[str, list[CompleteWithError]] = {}
    values = {"orgs": list(orgs), "most": _ERRORS_PER_ORG}
    async for row in _rows(connection, CompleteWithError, _LAST_ERRORS, values):
        errors.setdefault(row.org, []).append(row)
    return errors


async def requested_entries(connection: Connection, orgs: Collection[str]) -> set[tuple[str, str, str]]:
    """The ad hoc entries of the configuration that were requested: org, name and content."""

    def row(org: str, name: str, content: str) -> tuple[str, str, str]:
        return org, name, content

    return {entry async for entry in _rows(connection, row, _REQUESTED_ENTRIES, {"orgs": list(orgs)})}


class _Restated(NamedTuple):
    org: str
    figures: int


async def restated_last_day(connection: Connection, orgs: Collection[str]) -> dict[str, int]:
    """The number of figures that were restated within the last 24 hours, by org."""
    rows = _rows(connection, _Restated, _RESTATED_LAST_DAY, {"orgs": list(orgs)})
    return {row.org: row.figures async for row in rows}


async def _rows(
    connection: Connection, row: Callable[..., T], statement: str, values: Mapping[str, Any]
) -> AsyncIterator[T]:
    """Every row, as ``row(**columns)``; other tasks run in between."""
    async with connection.cursor(row_factory=kwargs_row(row)) as cursor:
        await cursor.execute(statement, values)
        while rows := await cursor.fetchmany(_ROWS_PER_TURN):
            for each in rows:
                yield each
            await asyncio.sleep(0)


# One lateral query a job: for one grouping of all jobs the planner would sort the whole ledger.
_JOB_COUNTS = """
    SELECT job.org, job.stream, counts.complete, counts.newest, counts.listed, counts.starts, counts.ends,
           counts.rejected, counts.complete_with_error
    FROM unnest(%(orgs)s::text[], %(streams)s::text[], %(requested)s::text[], %(starts)s::timestamptz[],
                %(ends)s::timestamptz[]) AS job (org, stream, requested, span_start, span_end)
    CROSS JOIN LATERAL (
        SELECT count(*) AS total,
               count(*) FILTER (WHERE own.complete) AS complete,
               max(own.window_end) FILTER (WHERE own.complete) AS newest,
               count(*) FILTER (WHERE own.within) AS listed,
               coalesce(sum(date_part('epoch', own.window_start)) FILTER (WHERE own.within), 0) AS starts,
               coalesce(sum(date_part('epoch', own.window_end)) FILTER (WHERE own.within), 0) AS ends,
               sum(own.rejected)::bigint AS rejected,
               count(*) FILTER (WHERE own.complete AND own.with_error) AS complete_with_error
        FROM (
            SELECT w.window_start, w.window_end, w.rejected, w.state = 'complete' AS complete,
                   w.last_error IS NOT NULL AND NOT w.kept_stored AS with_error,
                   w.window_start >= job.span_start AND w.window_end <= job.span_end AS within
            FROM flow_outcomes.extraction_window w
            WHERE w.org = job.org AND w.work = job.stream AND w.requested_granularity = job.requested
        ) AS own
    ) AS counts
    WHERE counts.total > 0
"""

_UNFINISHED = """
    SELECT w.org, w.work AS stream, w.requested_granularity AS requested, w.window_start, w.window_end, w.state,
           w.last_error, w.due_at
    FROM flow_outcomes.extraction_window w
    WHERE w.org = ANY (%(orgs)s) AND w.state <> 'complete'
    ORDER BY w.window_start, w.window_end
"""

_SUMS_BY_DAY = """
    SELECT (w.window_start AT TIME ZONE 'UTC')::date AS day, count(*) AS windows,
           sum(date_part('epoch', w.window_start)) AS starts, sum(date_part('epoch', w.window_end)) AS ends
    FROM flow_outcomes.extraction_window w
    WHERE w.org = %(org)s AND w.work = %(stream)s AND w.requested_granularity = %(requested)s
      AND w.window_start >= %(start)s AND w.window_end <= %(end)s
    GROUP BY 1
"""

_MISSING = """
    SELECT given.window_start AS start, given.window_end AS "end"
    FROM unnest(%(starts)s::timestamptz[], %(ends)s::timestamptz[]) AS given (window_start, window_end)
    WHERE NOT EXISTS (
        SELECT FROM flow_outcomes.extraction_window w
        WHERE w.org = %(org)s AND w.work = %(stream)s AND w.requested_granularity = %(requested)s
          AND w.window_start = given.window_start AND w.window_end = given.window_end)
    ORDER BY given.window_start
"""

_AD_HOC_COUNTS = """
    SELECT w.org,
           CASE WHEN w.state = 'complete' AND w.requests > w.requests_read THEN 'pending'
                ELSE w.state END AS state,
           count(*) AS windows
    FROM flow_outcomes.extraction_window w
    WHERE w.org = ANY (%(orgs)s) AND w.work = %(stream)s
    GROUP BY 1, 2
"""

_REQUESTED_ENTRIES = """
    SELECT e.org, e.name, e.content FROM flow_outcomes.ad_hoc_entry e WHERE e.org = ANY (%(orgs)s)
"""

# Where no process holds the org, the former owner's breaker counts until it would have closed.
_LEASES = """
    SELECT lease.org,
           CASE WHEN lease.live THEN lease.owner END AS owner,
           CASE WHEN lease.live THEN lease.owned_since END AS since,
           CASE WHEN lease.live OR lease.breaker_until > clock_timestamp() THEN lease.breaker ELSE 'closed' END
               AS breaker,
           lease.breaker_until,
           coalesce(greatest(0, date_part('epoch', lease.paused_until - clock_timestamp())), 0) AS paused_for
    FROM (
        SELECT l.*, l.owner IS NOT NULL AND l.expires_at > clock_timestamp() AS live
        FROM flow_outcomes.org_lease l
        WHERE l.org = ANY (%(orgs)s)
    ) AS lease
"""

_LAST_ERRORS = """
    SELECT ranked.org, ranked.job, ranked.window_start, ranked.window_end, ranked.last_error
    FROM (
        SELECT w.*, row_number() OVER (PARTITION BY w.org ORDER BY w.window_start DESC) AS place
        FROM flow_outcomes.extraction_window w
        WHERE w.org = ANY (%(orgs)s) AND w.state = 'complete' AND w.last_error IS NOT NULL AND NOT w.kept_stored
    ) AS ranked
    WHERE ranked.place <= %(most)s
    ORDER BY ranked.org, ranked.place
"""

# From the few revisions of a day to their figures: otherwise the planner reads every restatement.
_RESTATED_LAST_DAY = """
    SELECT r.org, sum(of_revision.figures)::bigint AS figures
    FROM flow_outcomes.revision r
    CROSS JOIN LATERAL (
        SELECT count(*) AS figures FROM flow_outcomes.restated s WHERE s.org = r.org AND s.revision = r.revision
    ) AS of_revision
    WHERE r.org = ANY (%(orgs)s) AND r.stamped_at > now() - interval '1 day' AND of_revision.figures > 0
    GROUP BY r.org
"""
