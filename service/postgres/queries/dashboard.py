"""What the page shows, asked for in bounded pieces; reads only.

A year of an org's hourly windows is nine thousand rows: a day of them is counted where they are, and a sum over
their edges says whether they are just the windows that are owed. Only where it does not are they fetched singly.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import date, datetime
from typing import NamedTuple

from service.model import Span
from service.postgres.pool import Connection

MOST_WINDOWS = 5000  # that one answer looks at one by one
_DOUBTED = "(e.doubted_in IS NOT NULL OR e.state = 'complete' AND e.last_error IS NOT NULL)"


class Work(NamedTuple):
    """One job's windows of one org, by the granularity that is configured now."""

    work: str
    requested: str


class DayCount(NamedTuple):
    """What the ledger holds of a job's windows that begin on one local date.

    Attributes:
        edges: the sums of their starts and ends, in seconds since 1970.
        doubted: complete ones whose later reading failed or is not believed.
    """

    work: str
    day: date
    listed: int
    complete: int
    failed: int
    running: int
    pending: int
    doubted: int
    edges: tuple[float, float]
    granularities: tuple[str, ...]


class Listed(NamedTuple):
    """One window as the calendar needs it."""

    span: Span
    state: str
    doubted: bool


class WindowDetail(NamedTuple):
    """One window as a day tells it."""

    span: Span
    granularity: str
    state: str
    doubted: bool
    pages: int
    rows: int
    rejected: int
    attempts: int
    last_error: str | None
    due_at: datetime
    completed_at: datetime | None


class Restatement(NamedTuple):
    """A stored figure that changed."""

    org: str
    flow_id: str
    flow_name: str | None
    granularity: str
    bucket_start: datetime
    outcome_name: str
    old_count: int | None
    new_count: int | None
    restated_at: datetime


class Pace(NamedTuple):
    """How fast a work's windows are coming in: those that were first complete within ``PACE`` seconds."""

    org: str
    work: str
    windows: int
    seconds: float


PACE = 120.0


async def days(
    connection: Connection, org: str, works: Sequence[Work], whole: Span, timezone: str
) -> list[DayCount]:
    """The windows of these works that begin within ``whole``, counted by local date."""
    cursor = await connection.execute(
        "SELECT e.work, (e.window_start AT TIME ZONE %(tz)s)::date, count(*),"
        " count(*) FILTER (WHERE e.state = 'complete'), count(*) FILTER (WHERE e.state = 'failed'),"
        " count(*) FILTER (WHERE e.state = 'running'), count(*) FILTER (WHERE e.state = 'pending'),"
        f" count(*) FILTER (WHERE {_DOUBTED}),"
        " sum(date_part('epoch', e.window_start)), sum(date_part('epoch', e.window_end)),"
        " min(e.granularity), max(e.granularity)"
        " FROM unnest(%(works)s::text[], %(requested)s::text[]) AS o (work, requested)"
        " JOIN flow_outcomes.extraction_window e"
        "   ON e.org = %(org)s AND e.work = o.work AND e.requested_granularity = o.requested"
        " WHERE e.window_start >= %(start)s AND e.window_start < %(end)s GROUP BY 1, 2",
        {
            "tz": timezone,
            "works": [each.work for each in works],
            "requested": [each.requested for each in works],
            "org": org,
            "start": whole.start,
            "end": whole.end,
        },
    )
    found = []
    for row in await cursor.fetchall():
        work, day, *counts, starts, ends, first, last = row
        total, complete, failed, running, pending, doubted = counts
        granularities = (first,) if first == last else (first, last)
        found.append(
            DayCount(work, day, total, complete, failed, running, pending, doubted, (starts, ends), granularities)
        )
    return found


async def listed(
    connection: Connection, org: str, work: Work, dates: Collection[date], timezone: str
) -> list[Listed]:
    """The windows of a work that begin on these local dates, one by one."""
    cursor = await connection.execute(
        f"SELECT e.window_start, e.window_end, e.state, {_DOUBTED} FROM flow_outcomes.extraction_window e"
        " WHERE e.org = %(org)s AND e.work = %(work)s AND e.requested_granularity = %(requested)s"
        " AND e.window_start >= %(first)s::timestamp AT TIME ZONE 'UTC' - interval '1 day'"
        " AND e.window_start < %(last)s::timestamp AT TIME ZONE 'UTC' + interval '2 days'"
        " AND (e.window_start AT TIME ZONE %(tz)s)::date = ANY (%(dates)s) ORDER BY 1 LIMIT %(most)s",
        {
            "org": org,
            "work": work.work,
            "requested": work.requested,
            "first": min(dates),
            "last": max(dates),
            "tz": timezone,
            "dates": list(dates),
            "most": MOST_WINDOWS,
        },
    )
    return [Listed(Span(start, end), state, doubted) for start, end, state, doubted in await cursor.fetchall()]


async def restated_days(
    connection: Connection, org: str, granularities: Collection[str], first: date, past: date, timezone: str
) -> dict[str, set[date]]:
    """The local dates on which a bucket begins that was restated, by granularity: a look into the index a day."""
    cursor = await connection.execute(
        # a LIMIT, for with EXISTS the planner joins every restatement with every day
        "SELECT g.granularity, d.day::date FROM unnest(%(granularities)s::text[]) AS g (granularity)"
        " CROSS JOIN generate_series(%(first)s::timestamp, %(past)s::timestamp - interval '1 day',"
        "   interval '1 day') AS d (day)"
        " CROSS JOIN LATERAL (SELECT FROM flow_outcomes.restated s WHERE s.org = %(org)s"
        "   AND s.granularity = g.granularity AND s.bucket_start >= d.day AT TIME ZONE %(tz)s"
        "   AND s.bucket_start < (d.day + interval '1 day') AT TIME ZONE %(tz)s"
        "   ORDER BY s.bucket_start LIMIT 1) r",
        {"granularities": list(granularities), "first": first, "past": past, "org": org, "tz": timezone},
    )
    found: dict[str, set[date]] = {each: set() for each in granularities}
    for granularity, day in await cursor.fetchall():
        found[granularity].add(day)
    return found


async def windows(connection: Connection, org: str, work: Work, span: Span, most: int) -> list[WindowDetail]:
    """The windows of a work that share time with a span, by start."""
    cursor = await connection.execute(
        f"SELECT e.window_start, e.window_end, e.granularity, e.state, {_DOUBTED}, e.pages, e.rows, e.rejected,"
        " e.attempts, e.last_error, e.due_at, e.completed_at FROM flow_outcomes.extraction_window e"
        " WHERE e.org = %(org)s AND e.work = %(work)s AND e.requested_granularity = %(requested)s"
        " AND e.window_start < %(end)s AND e.window_end > %(start)s"
        " AND e.window_start > %(start)s - interval '32 days' ORDER BY 1 LIMIT %(most)s",
        {"org": org, **work._asdict(), "start": span.start, "end": span.end, "most": most},
    )
    return [WindowDetail(Span(row[0], row[1]), *row[2:]) for row in await cursor.fetchall()]


_RESTATEMENT = (
    "SELECT s.org, s.flow_id, f.name, s.granularity, s.bucket_start, s.outcome_name, s.old_count, s.new_count,"
    " r.stamped_at"
)
_NAMED = "LEFT JOIN flow_outcomes.flow f ON f.org = s.org AND f.flow_id = s.flow_id"


async def restated_within(
    connection: Connection, org: str, granularities: Collection[str], span: Span, most: int
) -> tuple[int, list[Restatement]]:
    """How many restatements there are of buckets that begin in a span, and the last of them."""
    values = {"org": org, "granularities": list(granularities), "start": span.start, "end": span.end, "most": most}
    within = (
        "s.org = %(org)s AND s.granularity = ANY (%(granularities)s)"
        " AND s.bucket_start >= %(start)s AND s.bucket_start < %(end)s"
    )
    cursor = await connection.execute(f"SELECT count(*) FROM flow_outcomes.restated s WHERE {within}", values)
    count = await cursor.fetchone()
    cursor = await connection.execute(
        f"{_RESTATEMENT} FROM flow_outcomes.restated s"
        f" JOIN flow_outcomes.revision r ON r.org = s.org AND r.revision = s.revision {_NAMED}"
        f" WHERE {within} ORDER BY s.revision DESC, s.bucket_start, s.flow_id, s.outcome_name LIMIT %(most)s",
        values,
    )
    return (count[0] if count else 0), [Restatement(*row) for row in await cursor.fetchall()]


async def restated_last(connection: Connection, orgs: Collection[str], most: int) -> list[Restatement]:
    """The last restatements of these orgs, the newest first."""
    cursor = await connection.execute(
        f"{_RESTATEMENT} FROM unnest(%(orgs)s::text[]) AS o (org) CROSS JOIN LATERAL ("
        "   SELECT * FROM flow_outcomes.restated WHERE org = o.org"
        "   ORDER BY revision DESC, granularity DESC, flow_id DESC, bucket_start DESC, outcome_name DESC"
        "   LIMIT %(most)s) s"
        f" JOIN flow_outcomes.revision r ON r.org = s.org AND r.revision = s.revision {_NAMED}"
        " ORDER BY r.stamped_at DESC, s.org, s.bucket_start DESC, s.flow_id, s.outcome_name LIMIT %(most)s",
        {"orgs": list(orgs), "most": most},
    )
    return [Restatement(*row) for row in await cursor.fetchall()]


class Rename(NamedTuple):
    """Outcomes that go by another name since."""

    org: str
    old_name: str
    new_name: str
    renamed_at: datetime
    flows: int


async def renamed_last(connection: Connection, orgs: Collection[str], most: int) -> list[Rename]:
    """The last renames of these orgs, by an alias or by the API, the newest first."""
    cursor = await connection.execute(
        "SELECT h.org, h.outcome_name, n.outcome_name, r.stamped_at, count(DISTINCT h.flow_id)"
        " FROM flow_outcomes.outcome_history h"
        " JOIN (SELECT org, outcome_no, outcome_name, revision FROM flow_outcomes.outcome"
        "       UNION ALL SELECT org, outcome_no, outcome_name, revision FROM flow_outcomes.outcome_history) n"
        "   ON n.org = h.org AND n.outcome_no = h.outcome_no AND n.revision = h.until_revision"
        " JOIN flow_outcomes.revision r ON r.org = h.org AND r.revision = h.until_revision"
        " WHERE h.org = ANY (%(orgs)s) AND h.outcome_name <> n.outcome_name"
        " GROUP BY 1, 2, 3, 4 ORDER BY 4 DESC, 1, 2, 3 LIMIT %(most)s",
        {"orgs": list(orgs), "most": most},
    )
    return [Rename(*row) for row in await cursor.fetchall()]


async def pace(connection: Connection, orgs: Collection[str]) -> list[Pace]:
    """How fast the windows of these orgs are coming in."""
    cursor = await connection.execute(
        "SELECT org, work, count(*),"
        " greatest(1, date_part('epoch', now() - min(coalesce(complete_since, completed_at))))"
        " FROM flow_outcomes.extraction_window WHERE org = ANY (%(orgs)s)"
        " AND completed_at > now() - make_interval(secs => %(looked)s)"
        " AND state = 'complete' AND (job IS NULL OR complete_since IS NOT NULL)"
        " AND CASE WHEN job IS NULL THEN completed_at ELSE complete_since END"
        "     > now() - make_interval(secs => %(pace)s) GROUP BY 1, 2",
        {"orgs": list(orgs), "looked": 5 * PACE, "pace": PACE},
    )
    return [Pace(*row) for row in await cursor.fetchall()]
