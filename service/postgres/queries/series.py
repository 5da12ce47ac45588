"""The figures that the page draws: one flow's outcomes over time, folded to as many as a chart can tell apart."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from service.model import Span
from service.postgres.pool import Connection


class Flow(NamedTuple):
    """A flow, and its name where the API gives one."""

    flow_id: str
    name: str | None


class Point(NamedTuple):
    """One outcome in one bucket.

    Attributes:
        outcome_name: None stands for all that are not drawn on their own.
        counted, share: None where the figure is null.
        nulls: how many of the figures here are null.
    """

    bucket_start: datetime
    outcome_name: str | None
    counted: int | None
    share: float | None
    nulls: int


async def flows(connection: Connection, org: str, sought: str, most: int) -> list[Flow]:
    """The flows of an org whose name or id has this text in it, by name."""
    cursor = await connection.execute(
        "SELECT flow_id, name FROM flow_outcomes.flow WHERE org = %(org)s"
        " AND position(lower(%(sought)s) IN lower(coalesce(name, '') || ' ' || flow_id)) > 0"
        " ORDER BY coalesce(name, flow_id), flow_id LIMIT %(most)s",
        {"org": org, "sought": sought, "most": most},
    )
    return [Flow(*row) for row in await cursor.fetchall()]


async def points(
    connection: Connection, org: str, flow_id: str, granularity: str, span: Span, most: int
) -> tuple[list[Point], int]:
    """A flow's outcomes over a span: the ``most`` largest each, the others as one; and how many there are."""
    cursor = await connection.execute(
        "WITH stored AS MATERIALIZED ("
        "   SELECT bucket_start, outcome_name, outcome_count, outcome_share FROM flow_outcomes.flow_outcome"
        "   WHERE org = %(org)s AND flow_id = %(flow)s AND granularity = %(granularity)s"
        "   AND bucket_start >= %(start)s AND bucket_start < %(end)s),"
        " ranked AS (SELECT outcome_name, row_number() OVER (ORDER BY sum(outcome_count) DESC NULLS LAST,"
        "   outcome_name) AS place FROM stored GROUP BY 1)"
        " SELECT s.bucket_start, CASE WHEN r.place <= %(most)s THEN s.outcome_name END,"
        " CASE WHEN sum(s.outcome_count) <= 9223372036854775807 THEN sum(s.outcome_count)::bigint END,"
        " sum(s.outcome_share), count(*) - count(s.outcome_count), (SELECT count(*) FROM ranked)"
        " FROM stored s JOIN ranked r ON r.outcome_name = s.outcome_name"
        " GROUP BY 1, 2 ORDER BY min(r.place), 1",
        {
            "org": org,
            "flow": flow_id,
            "granularity": granularity,
            "start": span.start,
            "end": span.end,
            "most": most,
        },
    )
    rows = await cursor.fetchall()
    return [Point(*row[:5]) for row in rows], rows[0][5] if rows else 0
