"""A flow's outcomes over time for the page's charts: the largest ones each, the others as one."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from service.model import Span
from service.postgres.pool import Connection


class Flow(NamedTuple):
    """A flow; ``name`` is None where the API gives none."""

    flow_id: str
    name: str | None


class Point(NamedTuple):
    """One outcome in one bucket.

    Attributes:
        bucket_start: the bucket.
        outcome_name: None for the outcomes that have no curve of their own.
        counted, share: None where the figure is null.
        nulls: how many of the figures added up here are null.
        outcomes: how many outcomes the flow has in the span; the same in each point.
    """

    bucket_start: datetime
    outcome_name: str | None
    counted: int | None
    share: float | None
    nulls: int
    outcomes: int


async def flows(connection: Connection, org: str, sought: str, most: int) -> list[Flow]:
    """The flows of an org whose name or id contains a text, by name."""
    return await connection.fetch_all(
        Flow,
        """
        SELECT flow_id, name
        FROM flow_outcomes.flow
        WHERE org = %(org)s
          AND position(lower(%(sought)s) IN lower(coalesce(name, '') || ' ' || flow_id)) > 0
        ORDER BY coalesce(name, flow_id), flow_id
        LIMIT %(most)s
        """,
        {"org": org, "sought": sought, "most": most},
    )


async def points(
    connection: Connection, org: str, flow_id: str, granularity: str, span: Span, most: int
) -> tuple[list[Point], int]:
    """A flow's outcomes over a span: the ``most`` largest each, the others as one; and how many there are."""
    rows = await connection.fetch_all(
        Point,
        _POINTS,
        {
            "org": org,
            "flow": flow_id,
            "granularity": granularity,
            "start": span.start,
            "end": span.end,
            "most": most,
        },
    )
    return rows, rows[0].outcomes if rows else 0


_POINTS = """
    WITH stored AS MATERIALIZED (  -- read once, for both of the following
        SELECT bucket_start, outcome_name, outcome_count, outcome_share
        FROM flow_outcomes.flow_outcome
        WHERE org = %(org)s AND flow_id = %(flow)s AND granularity = %(granularity)s
          AND bucket_start >= %(start)s AND bucket_start < %(end)s
    ), ranked AS (  -- the outcomes, the largest first
        SELECT outcome_name,
               row_number() OVER (ORDER BY sum(outcome_count) DESC NULLS LAST, outcome_name) AS place
        FROM stored GROUP BY outcome_name
    )
    SELECT stored.bucket_start,
           CASE WHEN ranked.place <= %(most)s THEN stored.outcome_name END AS outcome_name,
           CASE WHEN sum(stored.outcome_count) <= 9223372036854775807
                THEN sum(stored.outcome_count)::bigint END AS counted,
           sum(stored.outcome_share) AS share,
           count(*) - count(stored.outcome_count) AS nulls,
           (SELECT count(*) FROM ranked) AS outcomes
    FROM stored JOIN ranked USING (outcome_name)
    GROUP BY 1, 2
    ORDER BY min(ranked.place), 1
"""
