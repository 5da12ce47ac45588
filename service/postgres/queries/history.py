"""How a flow's figures changed: the instants of the changes, and the differences between two instants."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from service.postgres.pool import Connection
from service.postgres.queries.flow_figures import FlowSpan, source


class Change(NamedTuple):
    """An instant at which a flow's figures changed.

    Attributes:
        at: the instant.
        figures: the number of figures that it wrote.
        restated: how many of these had another count before.
        renamed: how many outcomes it renamed.
    """

    at: datetime
    figures: int
    restated: int
    renamed: int


class Difference(NamedTuple):
    """A figure that differs between two instants; None is null or absent.

    Attributes:
        bucket_start, outcome_name: the figure.
        was, now: its counts.
        first_at: when a figure of this outcome and bucket was first stored.
        restated_at: when it was last restated between the two; None where it was not.
    """

    bucket_start: datetime
    outcome_name: str
    was: int | None
    now: int | None
    first_at: datetime | None
    restated_at: datetime | None


class NameChange(NamedTuple):
    """An outcome that was renamed; ``by_alias`` where the API's name stayed the same."""

    old_name: str
    new_name: str
    by_alias: bool
    at: datetime


async def changes(connection: Connection, within: FlowSpan, most: int) -> list[Change]:
    """The last instants at which figures of these buckets changed, in order."""
    return await connection.fetch_all(Change, _CHANGES, within.values(None) | {"most": most})


async def differences(
    connection: Connection, within: FlowSpan, was_at: datetime | None, now_at: datetime | None, most: int
) -> tuple[int, list[Difference]]:
    """The number of figures whose counts differ between two instants, and the first of them by bucket.

    Args:
        connection: the database.
        within: the flow and the buckets.
        was_at: the first instant.
        now_at: the second one; None is now, for both.
        most: how many are listed.
    """
    was, now = (source(each).replace("%(at)s", name) for each, name in ((was_at, "%(was)s"), (now_at, "%(now)s")))
    statement = _DIFFERENCES.replace("<was>", was).replace("<now>", now)
    values = within.values(None) | {"was": was_at, "now": now_at, "most": most}
    total, rows = 0, []
    for row in await connection.fetch_all(_Listed, statement, values):
        total = row.total
        rows.append(Difference(*row[1:]))
    return total, rows


async def name_changes(
    connection: Connection, org: str, flow_id: str, after: datetime | None, until: datetime | None
) -> list[NameChange]:
    """The outcomes of a flow that were renamed after an instant and up to another one, in order."""
    values = {"org": org, "flow": flow_id, "after": after, "until": until}
    return await connection.fetch_all(NameChange, _NAME_CHANGES, values)


class _Listed(NamedTuple):
    total: int
    bucket_start: datetime
    outcome_name: str
    was: int | None
    now: int | None
    first_at: datetime | None
    restated_at: datetime | None


_VERSIONS = """
    SELECT f.org, f.series_no, f.bucket_start, f.revision, f.state
    FROM flow_outcomes.figure f
    WHERE f.org = %(org)s AND f.granularity = %(granularity)s AND f.series_no = ANY (
              ARRAY(SELECT o.series_no FROM flow_outcomes.series o
                    WHERE o.org = %(org)s AND o.flow_id = %(flow)s AND o.measure = 'outcomes'))
      AND f.bucket_start >= %(start)s AND f.bucket_start < %(end)s
    UNION ALL
    SELECT h.org, h.series_no, h.bucket_start, h.revision, h.state
    FROM flow_outcomes.figure_history h
    WHERE h.org = %(org)s AND h.granularity = %(granularity)s AND h.series_no = ANY (
              ARRAY(SELECT o.series_no FROM flow_outcomes.series o
                    WHERE o.org = %(org)s AND o.flow_id = %(flow)s AND o.measure = 'outcomes'))
      AND h.bucket_start >= %(start)s AND h.bucket_start < %(end)s
"""

_CHANGES = f"""
    WITH changed AS (
        SELECT v.revision, count(*) AS figures, 0 AS restated, 0 AS renamed
        FROM ({_VERSIONS}) v
        GROUP BY v.revision
        UNION ALL
        SELECT s.revision, 0, count(*), 0
        FROM flow_outcomes.restated s
        WHERE s.org = %(org)s AND s.granularity = %(granularity)s AND s.flow_id = %(flow)s
          AND s.bucket_start >= %(start)s AND s.bucket_start < %(end)s
        GROUP BY s.revision
        UNION ALL
        SELECT h.until_revision, 0, 0, count(*)
        FROM flow_outcomes.series_history h
        WHERE h.org = %(org)s AND h.flow_id = %(flow)s
        GROUP BY h.until_revision
    ), listed AS (
        SELECT r.stamped_at AS at, sum(c.figures)::bigint AS figures, sum(c.restated)::bigint AS restated,
               sum(c.renamed)::bigint AS renamed
        FROM changed c
        JOIN flow_outcomes.revision r ON r.org = %(org)s AND r.revision = c.revision
        GROUP BY r.stamped_at
        ORDER BY r.stamped_at DESC
        LIMIT %(most)s
    )
    SELECT * FROM listed ORDER BY at
"""

_WITHIN = """
    f.org = %(org)s AND f.flow_id = %(flow)s AND f.granularity = %(granularity)s
    AND f.bucket_start >= %(start)s AND f.bucket_start < %(end)s
"""

_DIFFERENCES = f"""
    WITH was AS MATERIALIZED (
        SELECT f.bucket_start, f.outcome_name, f.outcome_count FROM <was> f WHERE {_WITHIN}
    ), now AS MATERIALIZED (
        SELECT f.bucket_start, f.outcome_name, f.outcome_count FROM <now> f WHERE {_WITHIN}
    ), differing AS (
        SELECT bucket_start, outcome_name, was.outcome_count AS was, now.outcome_count AS now
        FROM was FULL JOIN now USING (bucket_start, outcome_name)
        WHERE was.outcome_count IS DISTINCT FROM now.outcome_count
    ), first AS (  -- when a figure of this name was first stored
        SELECT v.bucket_start, o.outcome_name, min(v.revision) AS revision
        FROM ({_VERSIONS}) v
        JOIN flow_outcomes.series o ON o.org = v.org AND o.series_no = v.series_no
        WHERE v.state <> 'expected'
        GROUP BY v.bucket_start, o.outcome_name
    ), restated AS (
        SELECT s.bucket_start, s.outcome_name, max(r.stamped_at) AS at
        FROM flow_outcomes.restated s
        JOIN flow_outcomes.revision r ON r.org = s.org AND r.revision = s.revision
        WHERE s.org = %(org)s AND s.granularity = %(granularity)s AND s.flow_id = %(flow)s
          AND s.bucket_start >= %(start)s AND s.bucket_start < %(end)s
          AND r.stamped_at > coalesce(%(was)s::timestamptz, '-infinity')
          AND r.stamped_at <= coalesce(%(now)s::timestamptz, 'infinity')
        GROUP BY s.bucket_start, s.outcome_name
    )
    SELECT count(*) OVER () AS total, bucket_start, outcome_name, d.was, d.now, r.stamped_at AS first_at,
           restated.at AS restated_at
    FROM differing d
    LEFT JOIN first USING (bucket_start, outcome_name)
    LEFT JOIN flow_outcomes.revision r ON r.org = %(org)s AND r.revision = first.revision
    LEFT JOIN restated USING (bucket_start, outcome_name)
    ORDER BY bucket_start DESC, outcome_name
    LIMIT %(most)s
"""

_NAME_CHANGES = """
    WITH named AS (  -- each name that an outcome of the flow has or had, with the revision that gave it
        SELECT o.series_no, o.outcome_name, o.reported_name, o.revision FROM flow_outcomes.series o
        WHERE o.org = %(org)s AND o.flow_id = %(flow)s
        UNION ALL
        SELECT h.series_no, h.outcome_name, h.reported_name, h.revision FROM flow_outcomes.series_history h
        WHERE h.org = %(org)s AND h.flow_id = %(flow)s
    )
    SELECT h.outcome_name AS old_name, named.outcome_name AS new_name,
           h.reported_name = named.reported_name AS by_alias, r.stamped_at AS at
    FROM flow_outcomes.series_history h
    JOIN named ON named.series_no = h.series_no AND named.revision = h.until_revision
    JOIN flow_outcomes.revision r ON r.org = h.org AND r.revision = h.until_revision
    WHERE h.org = %(org)s AND h.flow_id = %(flow)s AND h.outcome_name <> named.outcome_name
      AND r.stamped_at > coalesce(%(after)s::timestamptz, '-infinity')
      AND r.stamped_at <= coalesce(%(until)s::timestamptz, 'infinity')
    ORDER BY at, old_name, new_name
"""
