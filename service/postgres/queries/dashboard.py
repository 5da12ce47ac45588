"""The page's data in bounded pieces; reads only.

A year of an org's hourly windows is nine thousand rows. So the windows of a day are counted in the database, and
the sums of their starts and ends show whether they are exactly the windows that should exist. Only where they are
not are the windows of a day fetched one by one.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import date, datetime
from typing import NamedTuple

from service.model import Span
from service.postgres.pool import Connection

MOST_WINDOWS = 5000  # that one call of day_windows returns
_PACE_SECONDS = 120.0


class Stream(NamedTuple):
    """One job's windows of one org, at the granularity that is configured now."""

    stream: str
    requested: str


class DayCount(NamedTuple):
    """The number of a job's windows in the ledger that start on one local date.

    Attributes:
        stream: the job's.
        day: the local date.
        listed: all of them.
        complete, failed, running, pending: those in this state.
        doubted: complete ones whose later scan failed or is doubted.
        starts, ends: the sums of their starts and of their ends, in seconds since 1970.
        first_granularity, last_granularity: their granularities, in alphabetical order.
    """

    stream: str
    day: date
    listed: int
    complete: int
    failed: int
    running: int
    pending: int
    doubted: int
    starts: float
    ends: float
    first_granularity: str
    last_granularity: str

    @property
    def edges(self) -> tuple[float, float]:
        """``starts`` and ``ends``."""
        return self.starts, self.ends

    @property
    def granularities(self) -> set[str]:
        """The granularities of the windows: two at most, as one window can be a step coarser than its job."""
        return {self.first_granularity, self.last_granularity}


class DayWindow(NamedTuple):
    """One window for the calendar; ``doubted``: its later scan failed or is doubted."""

    window_start: datetime
    window_end: datetime
    state: str
    doubted: bool

    @property
    def span(self) -> Span:
        """The window's span."""
        return Span(self.window_start, self.window_end)


class WindowDetail(NamedTuple):
    """One window for the view of a day; its columns in ``extraction_window``."""

    window_start: datetime
    window_end: datetime
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

    @property
    def span(self) -> Span:
        """The window's span."""
        return Span(self.window_start, self.window_end)


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


class Rename(NamedTuple):
    """Outcomes that were renamed, and the number of flows that have one."""

    org: str
    old_name: str
    new_name: str
    renamed_at: datetime
    flows: int


class Pace(NamedTuple):
    """How many windows of a stream became complete within ``_PACE_SECONDS``, and the seconds since the first."""

    org: str
    stream: str
    windows: int
    seconds: float


async def day_counts(
    connection: Connection, org: str, streams: Sequence[Stream], span: Span, timezone: str
) -> list[DayCount]:
    """The windows of these streams that start within a span, by local date."""
    values = {
        "tz": timezone,
        "streams": [each.stream for each in streams],
        "requested": [each.requested for each in streams],
        "org": org,
        "start": span.start,
        "end": span.end,
    }
    return await connection.fetch_all(DayCount, _DAY_COUNTS, values)


async def day_windows(
    connection: Connection, org: str, stream: Stream, dates: Collection[date], timezone: str
) -> list[DayWindow]:
    """The windows of a stream that start on these local dates."""
    values = {
        "org": org,
        **stream._asdict(),
        "first": min(dates),
        "last": max(dates),
        "tz": timezone,
        "dates": list(dates),
        "most": MOST_WINDOWS,
    }
    return await connection.fetch_all(DayWindow, _DAY_WINDOWS, values)


class _RestatedDay(NamedTuple):
    granularity: str
    day: date


async def restated_days(
    connection: Connection, org: str, granularities: Collection[str], first: date, past: date, timezone: str
) -> dict[str, set[date]]:
    """The local dates from ``first`` to before ``past`` on which a restated bucket starts, by granularity."""
    values = {"granularities": list(granularities), "first": first, "past": past, "org": org, "tz": timezone}
    days: dict[str, set[date]] = {each: set() for each in granularities}
    for row in await connection.fetch_all(_RestatedDay, _RESTATED_DAYS, values):
        days[row.granularity].add(row.day)
    return days


async def window_details(
    connection: Connection, org: str, stream: Stream, span: Span, most: int
) -> list[WindowDetail]:
    """The windows of a stream that overlap a span, by start."""
    values = {"org": org, **stream._asdict(), "start": span.start, "end": span.end, "most": most}
    return await connection.fetch_all(WindowDetail, _WINDOW_DETAILS, values)


async def restatements_within(
    connection: Connection, org: str, granularities: Collection[str], span: Span, most: int
) -> tuple[int, list[Restatement]]:
    """The number of restatements of buckets that start in a span, and the last of them."""
    values = {"org": org, "granularities": list(granularities), "start": span.start, "end": span.end, "most": most}
    total = await connection.fetch_value(
        f"SELECT count(*) FROM flow_outcomes.restated s WHERE {_RESTATED_WITHIN}", values
    )
    return total, await connection.fetch_all(Restatement, _RESTATEMENTS_WITHIN, values)


async def last_renames(connection: Connection, orgs: Collection[str], most: int) -> list[Rename]:
    """The last renames of these orgs, by an alias or by the API, newest first."""
    return await connection.fetch_all(Rename, _LAST_RENAMES, {"orgs": list(orgs), "most": most})


async def paces(connection: Connection, orgs: Collection[str]) -> list[Pace]:
    """The pace at which the windows of these orgs become complete; nothing where none did."""
    values = {"orgs": list(orgs), "looked": 5 * _PACE_SECONDS, "pace": _PACE_SECONDS}
    return await connection.fetch_all(Pace, _PACES, values)


_DOUBTED = "(w.doubted_in IS NOT NULL OR w.state = 'complete' AND w.last_error IS NOT NULL AND NOT w.kept_stored)"

_DAY_COUNTS = f"""
    SELECT w.work AS stream, (w.window_start AT TIME ZONE %(tz)s)::date AS day, count(*) AS listed,
           count(*) FILTER (WHERE w.state = 'complete') AS complete,
           count(*) FILTER (WHERE w.state = 'failed') AS failed,
           count(*) FILTER (WHERE w.state = 'running') AS running,
           count(*) FILTER (WHERE w.state = 'pending') AS pending,
           count(*) FILTER (WHERE {_DOUBTED}) AS doubted,
           sum(date_part('epoch', w.window_start)) AS starts, sum(date_part('epoch', w.window_end)) AS ends,
           min(w.granularity) AS first_granularity, max(w.granularity) AS last_granularity
    FROM unnest(%(streams)s::text[], %(requested)s::text[]) AS given (stream, requested)
    JOIN flow_outcomes.extraction_window w
        ON w.org = %(org)s AND w.work = given.stream AND w.requested_granularity = given.requested
    WHERE w.window_start >= %(start)s AND w.window_start < %(end)s
    GROUP BY 1, 2
"""

# The bounds in UTC are for the index; a local date starts a day earlier or later at most.
_DAY_WINDOWS = f"""
    SELECT w.window_start, w.window_end, w.state, {_DOUBTED} AS doubted
    FROM flow_outcomes.extraction_window w
    WHERE w.org = %(org)s AND w.work = %(stream)s AND w.requested_granularity = %(requested)s
      AND w.window_start >= %(first)s::timestamp AT TIME ZONE 'UTC' - interval '1 day'
      AND w.window_start < %(last)s::timestamp AT TIME ZONE 'UTC' + interval '2 days'
      AND (w.window_start AT TIME ZONE %(tz)s)::date = ANY (%(dates)s)
    ORDER BY w.window_start
    LIMIT %(most)s
"""

# One index scan a day, with LIMIT: for EXISTS the planner joins every restatement with every day.
_RESTATED_DAYS = """
    SELECT g.granularity, d.day::date AS day
    FROM unnest(%(granularities)s::text[]) AS g (granularity)
    CROSS JOIN generate_series(
        %(first)s::timestamp, %(past)s::timestamp - interval '1 day', interval '1 day'
    ) AS d (day)
    CROSS JOIN LATERAL (
        SELECT FROM flow_outcomes.restated s
        WHERE s.org = %(org)s AND s.granularity = g.granularity
          AND s.bucket_start >= d.day AT TIME ZONE %(tz)s
          AND s.bucket_start < (d.day + interval '1 day') AT TIME ZONE %(tz)s
        ORDER BY s.bucket_start LIMIT 1
    ) AS one
"""

# No window is longer than 32 days: the bound is for the index.
_WINDOW_DETAILS = f"""
    SELECT w.window_start, w.window_end, w.granularity, w.state, {_DOUBTED} AS doubted, w.pages, w.rows,
           w.rejected, w.attempts, w.last_error, w.due_at, w.completed_at
    FROM flow_outcomes.extraction_window w
    WHERE w.org = %(org)s AND w.work = %(stream)s AND w.requested_granularity = %(requested)s
      AND w.window_start < %(end)s AND w.window_end > %(start)s
      AND w.window_start > %(start)s - interval '32 days'
    ORDER BY w.window_start
    LIMIT %(most)s
"""

_RESTATEMENT = """
    s.org, s.flow_id, flow.name AS flow_name, s.granularity, s.bucket_start, s.outcome_name, s.old_count,
    s.new_count, r.stamped_at AS restated_at
"""
_WITH_FLOW = """
    JOIN flow_outcomes.revision r ON r.org = s.org AND r.revision = s.revision
    LEFT JOIN flow_outcomes.flow ON flow.org = s.org AND flow.flow_id = s.flow_id
"""

_RESTATED_WITHIN = """
    s.org = %(org)s AND s.granularity = ANY (%(granularities)s)
    AND s.bucket_start >= %(start)s AND s.bucket_start < %(end)s
"""

_RESTATEMENTS_WITHIN = f"""
    SELECT {_RESTATEMENT}
    FROM flow_outcomes.restated s {_WITH_FLOW}
    WHERE {_RESTATED_WITHIN}
    ORDER BY s.revision DESC, s.bucket_start, s.flow_id, s.outcome_name
    LIMIT %(most)s
"""

_LAST_RESTATEMENTS = f"""
    SELECT {_RESTATEMENT}
    FROM unnest(%(orgs)s::text[]) AS given (org)
    CROSS JOIN LATERAL (  -- the last of each org, in the index's order
        SELECT * FROM flow_outcomes.restated s
        WHERE s.org = given.org
        ORDER BY s.revision DESC, s.granularity DESC, s.flow_id DESC, s.bucket_start DESC, s.outcome_name DESC
        LIMIT %(most)s
    ) AS s {_WITH_FLOW}
    ORDER BY r.stamped_at DESC, s.org, s.bucket_start DESC, s.flow_id, s.outcome_name
    LIMIT %(most)s
"""

_LAST_RENAMES = """
    WITH named AS (  -- each name that an outcome has or had, with the revision that gave it
        SELECT o.org, o.series_no, o.outcome_name, o.revision FROM flow_outcomes.series o
        UNION ALL
        SELECT h.org, h.series_no, h.outcome_name, h.revision FROM flow_outcomes.series_history h
    )
    SELECT h.org, h.outcome_name AS old_name, named.outcome_name AS new_name, r.stamped_at AS renamed_at,
           count(DISTINCT h.flow_id) AS flows
    FROM flow_outcomes.series_history h
    JOIN named ON named.org = h.org AND named.series_no = h.series_no AND named.revision = h.until_revision
    JOIN flow_outcomes.revision r ON r.org = h.org AND r.revision = h.until_revision
    WHERE h.org = ANY (%(orgs)s) AND h.outcome_name <> named.outcome_name
    GROUP BY 1, 2, 3, 4
    ORDER BY renamed_at DESC, h.org, old_name, new_name
    LIMIT %(most)s
"""

# A job's window counts when it is first complete, an ad hoc one each time. The first bound is for the index.
_PACES = """
    SELECT w.org, w.work AS stream, count(*) AS windows,
           greatest(1, date_part('epoch', now() - min(coalesce(w.complete_since, w.completed_at)))) AS seconds
    FROM flow_outcomes.extraction_window w
    WHERE w.org = ANY (%(orgs)s) AND w.completed_at > now() - make_interval(secs => %(looked)s)
      AND w.state = 'complete' AND (w.job IS NULL OR w.complete_since IS NOT NULL)
      AND CASE WHEN w.job IS NULL THEN w.completed_at ELSE w.complete_since END
          > now() - make_interval(secs => %(pace)s)
    GROUP BY w.org, w.work
"""
