"""One flow's outcomes over time, now or as of an instant, for the page's charts and tables."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from service.model import Span
from service.postgres.pool import Connection

PRESENT = "flow_outcomes.flow_outcome"
AS_OF = "flow_outcomes.flow_outcome_as_of(%(at)s)"


class Flow(NamedTuple):
    """A flow; ``name``, ``flow_type``, ``division_name`` and ``deleted`` are None where the API gives none."""

    flow_id: str
    name: str | None
    flow_type: str | None = None
    division_name: str | None = None
    deleted: bool | None = None


class FlowSpan(NamedTuple):
    """The buckets of one flow that are read.

    Attributes:
        org, flow_id: the flow.
        granularity: of the buckets.
        span: their starts.
    """

    org: str
    flow_id: str
    granularity: str
    span: Span

    def values(self, at: datetime | None) -> dict[str, object]:
        """The parameters of a statement."""
        return {
            "org": self.org,
            "flow": self.flow_id,
            "granularity": self.granularity,
            "start": self.span.start,
            "end": self.span.end,
            "at": at,
        }


class Point(NamedTuple):
    """One outcome in one bucket.

    Attributes:
        bucket_start: the bucket.
        outcome_name: None for the outcomes that have no series of their own.
        counted, share: None where the figure is null.
        split, successes: the count where it is split into successes and failures, and its successes.
        duration_count, duration_sum_ms: its timed successes, and the sum of their milliseconds.
        nulls: how many of the figures added up here are null.
        outcomes: how many outcomes the flow has in the span; the same in each point.
    """

    bucket_start: datetime
    outcome_name: str | None
    counted: int | None
    share: float | None
    split: int | None
    successes: int | None
    duration_count: int | None
    duration_sum_ms: int | None
    nulls: int
    outcomes: int


class OutcomeSums(NamedTuple):
    """The sum of one outcome's counts over a span, and its first bucket there."""

    outcome_name: str
    counted: int | None
    first: datetime


async def flows(connection: Connection, org: str, sought: str, most: int) -> list[Flow]:
    """The flows of an org whose name or id contains a text, by name."""
    values = {"org": org, "sought": sought, "most": most}
    return await connection.fetch_all(Flow, _FLOWS, values)


async def flow(connection: Connection, org: str, flow_id: str) -> Flow | None:
    """One flow, as the API lists it or as figures name it; None where neither does."""
    found = await connection.fetch_all(Flow, _FLOW, {"org": org, "flow": flow_id})
    return found[0] if found else None


async def points(
    connection: Connection, within: FlowSpan, at: datetime | None, most: int, dimension: str | None = None
) -> tuple[list[Point], int]:
    """A flow's outcomes by bucket: the ``most`` largest each, the others as one; and how many there are.

    Args:
        connection: the database.
        within: the flow and the buckets.
        at: None for the present figures.
        most: outcomes with a series of their own.
        dimension: None, or the dimension whose values take the place of the outcomes.
    """
    if dimension is None:
        statement, values = _POINTS.replace("<stored>", _STORED).replace("<source>", source(at)), within.values(at)
    else:
        statement = _POINTS.replace("<stored>", _STORED_BY_DIMENSION).replace("<source>", _detail(at))
        values = within.values(at) | {"dimension": dimension}
    rows = await connection.fetch_all(Point, statement, values | {"most": most})
    return rows, rows[0].outcomes if rows else 0


async def sums(connection: Connection, within: FlowSpan, at: datetime | None) -> dict[str, OutcomeSums]:
    """Each outcome's sums over a span."""
    rows = await connection.fetch_all(OutcomeSums, _SUMS.replace("<source>", source(at)), within.values(at))
    return {row.outcome_name: row for row in rows}


async def outcome_places(connection: Connection, org: str, flow_id: str) -> dict[str, int]:
    """The place of each name that an outcome of the flow has or had, in the order in which the outcomes appeared.

    All names of one outcome have one place.
    """
    rows = await connection.fetch_all(_Place, _PLACES, {"org": org, "flow": flow_id})
    return {row.outcome_name: row.place for row in rows}


class _Place(NamedTuple):
    outcome_name: str
    place: int


async def dimensions(connection: Connection, org: str, flow_id: str) -> list[str]:
    """The dimensions by which the flow's figures are, or were, grouped."""
    return await connection.fetch_values(_DIMENSIONS, {"org": org, "flow": flow_id})


def _detail(at: datetime | None) -> str:
    return "flow_outcomes.flow_outcome_detail" if at is None else "flow_outcomes.flow_outcome_detail_as_of(%(at)s)"


def source(at: datetime | None) -> str:
    """The relation with the figures of an instant; its parameter is ``at``."""
    return PRESENT if at is None else AS_OF


_FLOWS = """
    SELECT flow_id, name, flow_type, division_name, deleted
    FROM flow_outcomes.flow
    WHERE org = %(org)s
      AND position(lower(%(sought)s) IN lower(coalesce(name, '') || ' ' || flow_id)) > 0
    ORDER BY lower(coalesce(name, flow_id)), flow_id
    LIMIT %(most)s
"""

_FLOW = """
    SELECT flow.flow_id, flow.name, flow.flow_type, flow.division_name, flow.deleted
    FROM flow_outcomes.flow
    WHERE flow.org = %(org)s AND flow.flow_id = %(flow)s
    UNION ALL
    (SELECT o.flow_id, NULL, NULL, NULL, NULL FROM flow_outcomes.series o
     WHERE o.org = %(org)s AND o.flow_id = %(flow)s LIMIT 1)
"""

_WITHIN = """
    org = %(org)s AND flow_id = %(flow)s AND granularity = %(granularity)s
    AND bucket_start >= %(start)s AND bucket_start < %(end)s
"""

_FIT = "CASE WHEN {0} <= 9223372036854775807 THEN ({0})::bigint END"
_MEASURES = ",\n           ".join(
    f"{_FIT.format(total)} AS {name}"
    for name, total in (
        ("counted", "sum(stored.outcome_count)"),
        ("split", "sum(stored.outcome_count) FILTER (WHERE stored.success_count IS NOT NULL)"),
        ("successes", "sum(stored.success_count)"),
        ("duration_count", "sum(stored.duration_count)"),
        ("duration_sum_ms", "sum(stored.duration_sum_ms)"),
    )
)

_STORED = f"""
    SELECT bucket_start, outcome_name, outcome_count, outcome_share, success_count,
           duration_count, duration_sum_ms
    FROM <source> f
    WHERE {_WITHIN}
"""

_STORED_BY_DIMENSION = f"""
    SELECT bucket_start, coalesce(dimensions ->> %(dimension)s, 'null') AS outcome_name, outcome_count,
           NULL::double precision AS outcome_share, success_count, duration_count, duration_sum_ms
    FROM <source> f
    WHERE {_WITHIN} AND dimensions ? %(dimension)s
"""

_POINTS = f"""
    WITH stored AS MATERIALIZED (<stored>  -- read once, for both of the following
    ), ranked AS (  -- the outcomes, the largest first
        SELECT outcome_name,
               row_number() OVER (ORDER BY sum(outcome_count) DESC NULLS LAST, outcome_name) AS place
        FROM stored GROUP BY outcome_name
    )
    SELECT stored.bucket_start,
           CASE WHEN ranked.place <= %(most)s THEN stored.outcome_name END AS outcome_name,
           {_MEASURES},
           sum(stored.outcome_share) AS share,
           count(*) - count(stored.outcome_count) AS nulls,
           (SELECT count(*) FROM ranked) AS outcomes
    FROM stored JOIN ranked USING (outcome_name)
    GROUP BY 1, 2
    ORDER BY min(ranked.place), 1
"""

_SUMS = f"""
    SELECT outcome_name, {_FIT.format("sum(outcome_count)")} AS counted, min(bucket_start) AS first
    FROM <source> f
    WHERE {_WITHIN}
    GROUP BY outcome_name
"""

_PLACES = """
    SELECT named.outcome_name, (dense_rank() OVER (ORDER BY min(named.series_no)) - 1)::int AS place
    FROM (
        SELECT o.series_no, o.outcome_name FROM flow_outcomes.series o
        WHERE o.org = %(org)s AND o.flow_id = %(flow)s AND o.measure = 'outcomes'
        UNION ALL
        SELECT h.series_no, h.outcome_name FROM flow_outcomes.series_history h
        WHERE h.org = %(org)s AND h.flow_id = %(flow)s
    ) named
    WHERE named.outcome_name <> ''
    GROUP BY named.outcome_name
"""

_DIMENSIONS = """
    SELECT DISTINCT jsonb_object_keys(o.dimensions) AS name
    FROM flow_outcomes.series o
    WHERE o.org = %(org)s AND o.flow_id = %(flow)s AND o.measure = 'outcomes'
    ORDER BY 1
"""
