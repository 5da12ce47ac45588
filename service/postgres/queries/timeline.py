"""What happened lately: a list of the page's view of the health."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import NamedTuple

from service.postgres.pool import Connection


class RestatedScan(NamedTuple):
    """A merge that changed stored counts."""

    org: str
    at: datetime
    granularity: str
    figures: int
    first: datetime
    last: datetime


class CompletedWindows(NamedTuple):
    """Windows of one job that became complete on one local day; ``at`` is the last one's time."""

    org: str
    job: str | None
    at: datetime
    windows: int
    first: datetime
    last: datetime


class OwnerChange(NamedTuple):
    """The process that holds an org, and since when."""

    org: str
    owner: str
    at: datetime


class _Restated(NamedTuple):
    org: str
    figures: int


async def restated_scans(connection: Connection, orgs: Collection[str], most: int) -> list[RestatedScan]:
    """The last merges that restated figures, newest first."""
    return await connection.fetch_all(RestatedScan, _RESTATED_SCANS, {"orgs": list(orgs), "most": most})


async def completed_windows(
    connection: Connection, timezones: Mapping[str, str], most: int
) -> list[CompletedWindows]:
    """The windows that first became complete within the last day, by job and the day of the org, newest first."""
    values = {"orgs": list(timezones), "timezones": list(timezones.values()), "most": most}
    return await connection.fetch_all(CompletedWindows, _COMPLETED, values)


async def owners(connection: Connection, orgs: Collection[str]) -> list[OwnerChange]:
    """The processes that acquired an org within the last week and still hold it, newest first."""
    return await connection.fetch_all(OwnerChange, _OWNERS, {"orgs": list(orgs)})


async def restated_since(connection: Connection, since: Mapping[str, datetime]) -> dict[str, int]:
    """The number of figures restated since an instant, by org; an org without any is absent."""
    values = {"orgs": list(since), "since": list(since.values())}
    return {row.org: row.figures for row in await connection.fetch_all(_Restated, _RESTATED_SINCE, values)}


_RESTATED_SCANS = """
    SELECT r.org, r.stamped_at AS at, figures.granularity, figures.number AS figures, figures.first, figures.last
    FROM unnest(%(orgs)s::text[]) AS given (org)
    CROSS JOIN LATERAL (  -- the last of each org, in the index's order
        SELECT r.* FROM flow_outcomes.revision r
        WHERE r.org = given.org AND r.stamped_at > now() - interval '7 days'
        ORDER BY r.stamped_at DESC, r.revision DESC
        LIMIT 200
    ) AS r
    CROSS JOIN LATERAL (
        SELECT s.granularity, count(*) AS number, min(s.bucket_start) AS first, max(s.bucket_start) AS last
        FROM flow_outcomes.restated s
        WHERE s.org = r.org AND s.revision = r.revision
        GROUP BY s.granularity
    ) AS figures
    ORDER BY r.stamped_at DESC, r.org, figures.granularity
    LIMIT %(most)s
"""

_COMPLETED = """
    SELECT w.org, w.job, max(coalesce(w.complete_since, w.completed_at)) AS at, count(*) AS windows,
           min(w.window_start) AS first, max(w.window_end) AS last
    FROM unnest(%(orgs)s::text[], %(timezones)s::text[]) AS given (org, timezone)
    JOIN flow_outcomes.extraction_window w ON w.org = given.org
    WHERE w.state = 'complete' AND w.completed_at > now() - interval '1 day'
      AND coalesce(w.complete_since, w.completed_at) > now() - interval '1 day'
    GROUP BY w.org, w.job, (coalesce(w.complete_since, w.completed_at) AT TIME ZONE given.timezone)::date
    ORDER BY at DESC, w.org, w.job
    LIMIT %(most)s
"""

_OWNERS = """
    SELECT l.org, l.owner, l.owned_since AS at
    FROM flow_outcomes.org_lease l
    WHERE l.org = ANY (%(orgs)s) AND l.owner IS NOT NULL AND l.owned_since > now() - interval '7 days'
      AND l.expires_at > clock_timestamp()
    ORDER BY l.owned_since DESC, l.org
"""

# From the few revisions of a day to their figures: otherwise the planner reads every restatement.
_RESTATED_SINCE = """
    SELECT r.org, sum(of_revision.figures)::bigint AS figures
    FROM unnest(%(orgs)s::text[], %(since)s::timestamptz[]) AS given (org, since)
    JOIN flow_outcomes.revision r ON r.org = given.org AND r.stamped_at >= given.since
    CROSS JOIN LATERAL (
        SELECT count(*) AS figures FROM flow_outcomes.restated s WHERE s.org = r.org AND s.revision = r.revision
    ) AS of_revision
    WHERE of_revision.figures > 0
    GROUP BY r.org
"""
