"""Complete windows whose figures are not stored, as after a restore that lost the partitions."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from service.postgres.pool import Connection


class JobStart(NamedTuple):
    """From when on an org's job must have its windows."""

    org: str
    stream: str
    since: datetime


class LostMonth(NamedTuple):
    """A month of a job, by the starts of its windows, that has fewer figures than its windows had rows.

    Attributes:
        org: the org.
        granularity: of its windows.
        span_start: the start of its first complete window.
        span_end: the end of its last one.
        windows: how many are complete.
        rows: the rows that they had.
        figures: the figures that are stored, counted up to 10,000.
    """

    org: str
    granularity: str
    span_start: datetime
    span_end: datetime
    windows: int
    rows: int
    figures: int


# A figure that a scan reported is never deleted, so a month has the rows of its windows. The tenth allows for rows
# that a later scan had replaced. Counting ends at 10,000, so a month costs milliseconds however large it is.
_FIND = """
    WITH
    month AS (
        SELECT w.org, w.granularity, min(w.window_start) AS span_start, max(w.window_end) AS span_end,
               count(*) AS windows, sum(w.rows)::bigint AS rows
        FROM flow_outcomes.extraction_window w
        JOIN unnest(%(orgs)s::text[], %(streams)s::text[], %(since)s::timestamptz[]) AS j (org, work, since)
          ON j.org = w.org AND j.work = w.work
        WHERE w.state = 'complete' AND w.window_start >= j.since AND NOT w.kept_stored
        GROUP BY w.org, w.work, w.granularity, date_trunc('month', w.window_start)
    )
    SELECT m.org, m.granularity, m.span_start, m.span_end, m.windows, m.rows, stored.figures
    FROM month m
    CROSS JOIN LATERAL (
        SELECT count(*) AS figures
        FROM (
            SELECT FROM flow_outcomes.figure f
            WHERE f.org = m.org AND f.granularity = m.granularity
              AND f.bucket_start >= m.span_start AND f.bucket_start < m.span_end
            LIMIT 10000
        ) counted
    ) stored
    WHERE stored.figures < least(m.rows * 0.9, 10000)
    ORDER BY m.org, m.granularity, m.span_start
"""


async def lost_months(connection: Connection, jobs: Sequence[JobStart]) -> list[LostMonth]:
    """The months of these jobs whose figures are not stored."""
    values = {
        "orgs": [job.org for job in jobs],
        "streams": [job.stream for job in jobs],
        "since": [job.since for job in jobs],
    }
    return await connection.fetch_all(LostMonth, _FIND, values)
