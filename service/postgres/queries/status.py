"""How it stands, as the ledger and the leases tell it; reads only, but for the owner's note of its breaker.

A ledger of 500 orgs and three years of days is half a million rows, and nearly all of them are complete. So these
are counted where they are, and a sum over their edges says whether they are just the windows that are owed; only
what is not complete, or not listed, is fetched one by one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import date, datetime
from typing import Any, NamedTuple

from service.model import Span
from service.postgres.pool import Connection
from service.postgres.windows import AD_HOC

_AT_ONCE = 2000  # rows between two turns of the event loop
_ERRORS = 5  # last errors of an org that are told


class JobRange(NamedTuple):
    """One job's windows of one org, all that have rested.

    Attributes:
        requested: the job's granularity as configured; windows of a former one are another matter.
        whole: from the first window's start to the last one's end.
    """

    org: str
    work: str
    requested: str
    whole: Span


class JobCounts(NamedTuple):
    """What the ledger holds of one job's windows.

    Attributes:
        complete: how many are complete.
        newest: the end of the newest complete one.
        listed: windows in whatever state within the owed whole.
        edges: the sum of their starts and that of their ends, in seconds since 1970.
        rejected: outcomes that were refused in the stored scans.
        troubled: complete ones whose later reading failed or is doubted.
    """

    complete: int
    newest: datetime | None
    listed: int
    edges: tuple[float, float]
    rejected: int
    troubled: int


class Sums(NamedTuple):
    """How many windows there are, and the sums of their starts and ends in seconds since 1970."""

    windows: int
    starts: float
    ends: float


class Unfinished(NamedTuple):
    """A window that is not complete."""

    org: str
    work: str
    requested: str
    span: Span
    state: str
    last_error: str | None
    due_at: datetime


class Troubled(NamedTuple):
    """A complete window with an error since."""

    job: str | None
    span: Span
    reason: str


class OrgLeaseState(NamedTuple):
    """Who works an org, and what holds it back.

    Attributes:
        owner: None where nobody holds a live lease.
        since: when the owner took it.
        breaker: ``closed``, ``half-open`` or ``open``.
        breaker_until: open: when a probe may be sent.
        held_for: seconds that a 429 still holds the org back.
    """

    owner: str | None
    since: datetime | None
    breaker: str
    breaker_until: datetime | None
    held_for: float


NO_SUMS = Sums(0, 0.0, 0.0)
NO_HOLD = OrgLeaseState(None, None, "closed", None, 0.0)
NOTHING = JobCounts(0, None, 0, (0.0, 0.0), 0, 0)


@asynccontextmanager
async def snapshot(connection: Connection) -> AsyncIterator[Connection]:
    """All that is read within is as of one instant."""
    async with connection.transaction():
        await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        yield connection


async def readable(connection: Connection) -> None:
    """See that the ledger is there and may be read; where not, the connection's own error says why."""
    await connection.execute("SELECT FROM flow_outcomes.extraction_window, flow_outcomes.ad_hoc_entry LIMIT 0")


async def counted(connection: Connection, owed: Sequence[JobRange]) -> dict[tuple[str, str], JobCounts]:
    """What the ledger holds, by org and work; nothing where it has no row."""
    rows = _rows(
        connection,
        # work by work: as one grouping the planner would sort the whole ledger for it
        "SELECT o.org, o.work, w.complete, w.newest, w.listed, w.starts, w.ends, w.rejected, w.troubled"
        " FROM unnest(%(orgs)s::text[], %(works)s::text[], %(requested)s::text[],"
        "   %(firsts)s::timestamptz[], %(pasts)s::timestamptz[]) AS o (org, work, requested, first, past)"
        " CROSS JOIN LATERAL ("
        "   SELECT count(*) AS found, count(*) FILTER (WHERE e.complete) AS complete,"
        "     max(e.window_end) FILTER (WHERE e.complete) AS newest, count(*) FILTER (WHERE e.within) AS listed,"
        "     coalesce(sum(date_part('epoch', e.window_start)) FILTER (WHERE e.within), 0) AS starts,"
        "     coalesce(sum(date_part('epoch', e.window_end)) FILTER (WHERE e.within), 0) AS ends,"
        "     sum(e.rejected)::bigint AS rejected,"
        "     count(*) FILTER (WHERE e.complete AND e.last_error IS NOT NULL) AS troubled"
        "   FROM (SELECT window_start, window_end, rejected, last_error, state = 'complete' AS complete,"
        "           window_start >= o.first AND window_end <= o.past AS within"
        "         FROM flow_outcomes.extraction_window"
        "         WHERE org = o.org AND work = o.work AND requested_granularity = o.requested) e) w"
        " WHERE w.found > 0",
        {
            "orgs": [each.org for each in owed],
            "works": [each.work for each in owed],
            "requested": [each.requested for each in owed],
            "firsts": [each.whole.start for each in owed],
            "pasts": [each.whole.end for each in owed],
        },
    )
    return {
        (org, work): JobCounts(complete, newest, listed, (starts, ends), rejected, troubled)
        async for org, work, complete, newest, listed, starts, ends, rejected, troubled in rows
    }


async def unfinished(connection: Connection, orgs: Collection[str]) -> list[Unfinished]:
    """Every window of these orgs that is not complete, by start."""
    rows = _rows(
        connection,
        "SELECT org, work, requested_granularity, window_start, window_end, state, last_error, due_at"
        " FROM flow_outcomes.extraction_window WHERE org = ANY (%(orgs)s) AND state <> 'complete'"
        " ORDER BY window_start, window_end",
        {"orgs": list(orgs)},
    )
    return [
        Unfinished(org, work, requested, Span(start, end), state, error, due_at)
        async for org, work, requested, start, end, state, error, due_at in rows
    ]


async def listed(connection: Connection, org: str, work: str, requested: str, whole: Span) -> dict[date, Sums]:
    """What the ledger holds of a work's windows within a span, by the UTC date of their start."""
    rows = _rows(
        connection,
        "SELECT (window_start AT TIME ZONE 'UTC')::date, count(*), sum(date_part('epoch', window_start)),"
        " sum(date_part('epoch', window_end)) FROM flow_outcomes.extraction_window"
        " WHERE org = %(org)s AND work = %(work)s AND requested_granularity = %(requested)s"
        " AND window_start >= %(start)s AND window_end <= %(end)s GROUP BY 1",
        {"org": org, "work": work, "requested": requested, "start": whole.start, "end": whole.end},
    )
    return {day: Sums(count, starts, ends) async for day, count, starts, ends in rows}


async def unlisted(
    connection: Connection, orgs: Sequence[str], work: str, requested: str, spans: Sequence[Span]
) -> list[tuple[str, Span]]:
    """Which of these spans the ledger does not list, for each of the orgs, by start."""
    rows = _rows(
        connection,
        "SELECT o.org, s.window_start, s.window_end"
        " FROM unnest(%(orgs)s::text[]) AS o (org)"
        " CROSS JOIN unnest(%(starts)s::timestamptz[], %(ends)s::timestamptz[]) AS s (window_start, window_end)"
        " WHERE NOT EXISTS (SELECT 1 FROM flow_outcomes.extraction_window e WHERE e.org = o.org"
        "   AND e.work = %(work)s AND e.requested_granularity = %(requested)s"
        "   AND e.window_start = s.window_start AND e.window_end = s.window_end)"
        " ORDER BY s.window_start",
        {
            "orgs": list(orgs),
            "work": work,
            "requested": requested,
            "starts": [span.start for span in spans],
            "ends": [span.end for span in spans],
        },
    )
    return [(org, Span(start, end)) async for org, start, end in rows]


async def ad_hoc(connection: Connection, orgs: Collection[str]) -> dict[str, dict[str, int]]:
    """How many windows of ad hoc work are in each state, by org; one to be read again is pending."""
    found: dict[str, dict[str, int]] = {}
    rows = _rows(
        connection,
        "SELECT org, CASE WHEN state = 'complete' AND requests > requests_read THEN 'pending' ELSE state END,"
        " count(*)"
        " FROM flow_outcomes.extraction_window WHERE org = ANY (%(orgs)s) AND work = %(work)s GROUP BY 1, 2",
        {"orgs": list(orgs), "work": AD_HOC},
    )
    async for org, state, count in rows:
        found.setdefault(org, {})[state] = count
    return found


async def holds(connection: Connection, orgs: Collection[str]) -> dict[str, OrgLeaseState]:
    """Who works each org, as far as anybody ever did."""
    rows = _rows(
        connection,
        # nobody holds it: the last owner's breaker says something just as long as it would have stayed open
        "SELECT org, CASE WHEN live THEN owner END, CASE WHEN live THEN owned_since END,"
        " CASE WHEN live OR breaker_until > clock_timestamp() THEN breaker ELSE 'closed' END, breaker_until,"
        " coalesce(greatest(0, date_part('epoch', held_until - clock_timestamp())), 0)"
        " FROM (SELECT *, owner IS NOT NULL AND expires_at > clock_timestamp() AS live"
        "       FROM flow_outcomes.org_lease WHERE org = ANY (%(orgs)s)) lease",
        {"orgs": list(orgs)},
    )
    return {row[0]: OrgLeaseState(*row[1:]) async for row in rows}


async def last_errors(connection: Connection, orgs: Collection[str]) -> dict[str, list[Troubled]]:
    """Complete windows whose later reading failed or is doubted, by org, the newest first; a few of each."""
    found: dict[str, list[Troubled]] = {}
    rows = _rows(
        connection,
        "SELECT org, job, window_start, window_end, last_error FROM ("
        " SELECT *, row_number() OVER (PARTITION BY org ORDER BY window_start DESC) AS place"
        " FROM flow_outcomes.extraction_window WHERE org = ANY (%(orgs)s) AND state = 'complete'"
        " AND last_error IS NOT NULL) told WHERE place <= %(most)s ORDER BY org, place",
        {"orgs": list(orgs), "most": _ERRORS},
    )
    async for org, job, start, end, error in rows:
        found.setdefault(org, []).append(Troubled(job, Span(start, end), error))
    return found


async def restated(connection: Connection, orgs: Collection[str]) -> dict[str, int]:
    """How many figures were restated within the last day, by org."""
    rows = _rows(
        connection,
        # from the few revisions to their figures: the planner would rather read every restatement there ever was
        "SELECT r.org, sum(s.count)::bigint FROM flow_outcomes.revision r CROSS JOIN LATERAL ("
        "   SELECT count(*) FROM flow_outcomes.restated s WHERE s.org = r.org AND s.revision = r.revision) s"
        " WHERE r.org = ANY (%(orgs)s) AND r.stamped_at > now() - interval '1 day' AND s.count > 0 GROUP BY 1",
        {"orgs": list(orgs)},
    )
    return {org: count async for org, count in rows}


async def _rows(connection: Connection, statement: str, values: dict[str, Any]) -> AsyncIterator[tuple[Any, ...]]:
    """The rows of an answer, others having their turn in between."""
    cursor = await connection.execute(statement, values)
    rows: Iterable[tuple[Any, ...]]
    while rows := await cursor.fetchmany(_AT_ONCE):
        for row in rows:
            yield row
        await asyncio.sleep(0)
