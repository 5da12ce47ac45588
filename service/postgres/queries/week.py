"""An org's flows over the last days, for the page's overview.

With 1,000 flows this is a hundred thousand figures. So the figures are read from their table and added once, by
flow and day, without the view's grouping by name. Only the flows with a figure that does not simply add up,
a rejected one or a null among others of its name, are read again through the view.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from service.model import Span
from service.postgres.pool import Connection

_WORK_MEM = "32MB"


class FlowDays(NamedTuple):
    """One flow's sums by day; the lists have one element for each of ``days``, and are None where not needed.

    Attributes:
        flow_id: the flow.
        name: None where the API gives none.
        deleted: whether the API lists the flow as deleted.
        days: numbers of days with a figure, from 1.
        totals: the sum of the counts; None where no count is known.
        largest: the sum of the counts of the flow's largest outcome.
        split: the sum of the counts that are split into successes and failures.
        successes: the sum of their successes.
        duration_counts, duration_sums: the number of timed successes, and the sum of their milliseconds.
        nulls: the number of figures without a count in the last week.
        ends_null: whether the last day has such a figure.
        inexact: the number of figures that do not simply add up with others of their name.
    """

    flow_id: str
    name: str | None
    deleted: bool | None
    days: list[int]
    totals: list[int | None]
    largest: list[int | None] | None
    split: list[int | None] | None
    successes: list[int | None] | None
    duration_counts: list[int | None] | None
    duration_sums: list[int | None] | None
    nulls: int
    ends_null: bool
    inexact: int


class LargestOutcomes(NamedTuple):
    """A flow's largest outcomes this week, the largest first.

    Attributes:
        flow_id: the flow.
        names: their names.
        this, before: the sums of their counts this week and the week before.
        numbers: of the largest one, the outcomes that have this name after the aliases.
    """

    flow_id: str
    names: list[str]
    this: list[int | None]
    before: list[int | None]
    numbers: list[int]


class RestatedFlow(NamedTuple):
    """The number of a flow's figures that were restated."""

    flow_id: str
    figures: int


class RestatedDay(NamedTuple):
    """The number of figures that were restated on one day, numbered from 1."""

    day: int
    figures: int


async def org_revision(connection: Connection, org: str) -> int | None:
    """The number of the last merge or rename that changed the org's figures."""
    revision: int | None = await connection.fetch_value(_REVISION, [org])
    return revision


async def covered_buckets(connection: Connection, org: str, granularity: str, span: Span) -> list[datetime]:
    """The starts of the buckets within a span that a complete scan has covered."""
    return await connection.fetch_values(
        """
        SELECT DISTINCT b.bucket_start FROM flow_outcomes.bucket_coverage b
        WHERE b.org = %(org)s AND b.granularity = %(granularity)s AND b.measure = 'outcomes'
          AND b.bucket_start >= %(start)s AND b.bucket_start < %(end)s
        ORDER BY 1
        """,
        {"org": org, "granularity": granularity, "start": span.start, "end": span.end},
    )


async def largest_outcomes(
    connection: Connection,
    org: str,
    granularity: str,
    edges: Sequence[datetime],
    this: Collection[int],
    before: Collection[int],
) -> dict[str, LargestOutcomes]:
    """The three largest outcomes of each flow over the days ``this``, compared with the days ``before``."""
    values = {
        "org": org,
        "granularity": granularity,
        "edges": list(edges),
        "start": edges[0],
        "end": edges[-1],
        "this": list(this),
        "before": list(before),
    }
    rows = await connection.fetch_all(LargestOutcomes, _LARGEST, values)
    return {row.flow_id: row for row in rows}


async def flow_days(
    connection: Connection,
    org: str,
    granularity: str,
    edges: Sequence[datetime],
    largest: Collection[int],
    *,
    split: bool,
    since: datetime | None = None,
) -> list[FlowDays]:
    """The sums of each flow with a figure, by day; day n begins at the nth of ``edges``.

    Args:
        connection: the database, in a transaction.
        org: the org.
        granularity: of the figures.
        edges: the starts of the days and the end of the last one.
        largest: the numbers of the outcomes that are the largest of their flow; empty leaves their sums out.
        split: whether to add successes and durations, where the API gives them.
        since: figures before it are left out.
    """
    values = {
        "org": org,
        "granularity": granularity,
        "edges": list(edges),
        "start": max(edges[0], since or edges[0]),
        "end": edges[-1],
        "largest": list(largest),
        "split": split,
        "last": len(edges) - 1,
    }
    await connection.execute(f"SET LOCAL work_mem = '{_WORK_MEM}'")
    rows = await connection.fetch_all(FlowDays, _flow_days(_FIGURES, values, split=split), values)
    inexact = [row.flow_id for row in rows if row.inexact]
    if not inexact:
        return rows
    values["flows"] = inexact
    exact = await connection.fetch_all(FlowDays, _flow_days(_VIEW, values, split=split), values)
    replaced = {row.flow_id: row for row in exact}
    return [replaced.get(row.flow_id, row) for row in rows]


def _flow_days(source: str, values: Mapping[str, Any], *, split: bool) -> str:
    """The statement, without the sums that are not needed: every sum takes its time."""
    sums = [
        ("total", "totals", "sum(f.outcome_count)", True),
        ("largest", "largest", "sum(f.outcome_count) FILTER (WHERE named.is_largest)", bool(values["largest"])),
        ("split", "split", "sum(f.outcome_count) FILTER (WHERE f.success_count IS NOT NULL)", split),
        ("success", "successes", "sum(f.success_count)", split),
        ("duration_count", "duration_counts", "sum(f.duration_count)", split),
        ("duration_sum", "duration_sums", "sum(f.duration_sum_ms)", split),
    ]
    by_day = ", ".join(f"{_bounded(total)} AS {name}" for name, _, total, needed in sums if needed)
    by_flow = ", ".join(
        f"{f'array_agg(by_day.{name})' if needed else 'NULL::bigint[]'} AS {names}"
        for name, names, _, needed in sums
    )
    return _FLOW_DAYS.replace("<source>", source).replace("<sums>", by_day).replace("<lists>", by_flow)


async def restated_flows(connection: Connection, org: str, granularity: str, span: Span) -> dict[str, int]:
    """The number of figures of each flow whose bucket starts in a span and that were restated."""
    values = {"org": org, "granularity": granularity, "start": span.start, "end": span.end}
    rows = await connection.fetch_all(RestatedFlow, _RESTATED_FLOWS, values)
    return {row.flow_id: row.figures for row in rows}


async def restated_by_day(
    connection: Connection, org: str, granularity: str, edges: Sequence[datetime]
) -> dict[int, int]:
    """The number of figures restated on each day; day n begins at the nth of ``edges``."""
    values = {
        "org": org,
        "granularity": granularity,
        "edges": list(edges),
        "start": edges[0],
        "end": edges[-1],
    }
    rows = await connection.fetch_all(RestatedDay, _RESTATED_BY_DAY, values)
    return {row.day: row.figures for row in rows}


def _bounded(total: str) -> str:
    """A sum as a bigint; null where it does not fit one."""
    return f"CASE WHEN {total} <= 9223372036854775807 THEN ({total})::bigint END"


_REVISION = "SELECT o.revision FROM flow_outcomes.org o WHERE o.org = %s"

_LARGEST = f"""
    WITH summed AS (  -- each outcome over both weeks
        SELECT f.series_no,
               sum(f.outcome_count) FILTER (WHERE f.day = ANY (%(this)s::int[])) AS this,
               sum(f.outcome_count) FILTER (WHERE f.day = ANY (%(before)s::int[])) AS before
        FROM (
            SELECT f.series_no, f.outcome_count,
                   width_bucket(f.bucket_start, %(edges)s::timestamptz[]) AS day
            FROM flow_outcomes.figure f
            WHERE f.org = %(org)s AND f.granularity = %(granularity)s AND f.measure = 'outcomes'
              AND f.bucket_start >= %(start)s AND f.bucket_start < %(end)s
        ) f
        GROUP BY f.series_no
    ), named AS (  -- outcomes of one name after the aliases
        SELECT o.flow_id, o.outcome_name, sum(summed.this) AS this, sum(summed.before) AS before,
               array_agg(o.series_no) AS numbers
        FROM summed
        JOIN flow_outcomes.series o ON o.org = %(org)s AND o.series_no = summed.series_no
        WHERE o.outcome_name <> ''  -- the mark of a bucket with an unknown name
        GROUP BY o.flow_id, o.outcome_name
    ), ranked AS (
        SELECT named.*, row_number() OVER (
                   PARTITION BY flow_id ORDER BY this DESC NULLS LAST, before DESC NULLS LAST, outcome_name
               ) AS place
        FROM named
    )
    SELECT ranked.flow_id, array_agg(ranked.outcome_name ORDER BY ranked.place) AS names,
           array_agg({_bounded("ranked.this")} ORDER BY ranked.place) AS this,
           array_agg({_bounded("ranked.before")} ORDER BY ranked.place) AS before,
           max(ranked.numbers) FILTER (WHERE ranked.place = 1) AS numbers
    FROM ranked
    WHERE ranked.place <= 3
    GROUP BY ranked.flow_id
"""

# Grouped by numbers, not by the flow's text, and in memory: half of the time.
_FLOW_DAYS = """
    WITH named AS MATERIALIZED (
        SELECT o.series_no, o.flow_id, o.outcome_name, (dense_rank() OVER (ORDER BY o.flow_id))::int AS flow_no,
               o.series_no = ANY (%(largest)s::bigint[]) AS is_largest,
               count(*) OVER (PARTITION BY o.flow_id, o.outcome_name) > 1 AS is_shared
        FROM flow_outcomes.series o
        WHERE o.org = %(org)s AND o.measure = 'outcomes'
    ), by_day AS (
        SELECT named.flow_no, f.day, <sums>, count(*) - count(f.outcome_count) AS nulls,
               count(*) FILTER (WHERE f.is_invalid OR named.is_shared AND f.is_partial) AS inexact
        FROM (<source>) f
        JOIN named USING (series_no)
        GROUP BY named.flow_no, f.day
    ), by_flow AS (
        SELECT by_day.flow_no, array_agg(by_day.day) AS days, <lists>,
               coalesce(sum(by_day.nulls) FILTER (WHERE by_day.day > %(last)s - 7), 0)::bigint AS nulls,
               coalesce(bool_or(by_day.nulls > 0) FILTER (WHERE by_day.day = %(last)s), false) AS ends_null,
               sum(by_day.inexact)::bigint AS inexact
        FROM by_day
        GROUP BY by_day.flow_no
    )
    SELECT flows.flow_id, flow.name, flow.deleted, by_flow.days, by_flow.totals, by_flow.largest, by_flow.split,
           by_flow.successes, by_flow.duration_counts, by_flow.duration_sums, by_flow.nulls, by_flow.ends_null,
           by_flow.inexact
    FROM by_flow
    JOIN (SELECT DISTINCT flow_no, flow_id FROM named) flows USING (flow_no)
    LEFT JOIN flow_outcomes.flow ON flow.org = %(org)s AND flow.flow_id = flows.flow_id
"""

_FIGURES = """
    SELECT f.series_no, f.outcome_count, f.success_count, f.duration_count, f.duration_sum_ms,
           f.duration_count < 0 AS is_invalid,
           f.outcome_count IS NULL OR f.success_count IS NULL AND %(split)s AS is_partial,
           width_bucket(f.bucket_start, %(edges)s::timestamptz[]) AS day
    FROM flow_outcomes.figure f
    WHERE f.org = %(org)s AND f.granularity = %(granularity)s AND f.measure = 'outcomes'
      AND f.bucket_start >= %(start)s AND f.bucket_start < %(end)s
"""

# A row of the view under the first of the outcomes that have its name.
_VIEW = """
    SELECT first.series_no, f.outcome_count, f.success_count, f.duration_count, f.duration_sum_ms,
           false AS is_invalid, false AS is_partial,
           width_bucket(f.bucket_start, %(edges)s::timestamptz[]) AS day
    FROM flow_outcomes.flow_outcome f
    CROSS JOIN LATERAL (
        SELECT named.series_no FROM named
        WHERE named.flow_id = f.flow_id AND named.outcome_name = f.outcome_name
        ORDER BY named.is_largest DESC, named.series_no LIMIT 1
    ) first
    WHERE f.org = %(org)s AND f.granularity = %(granularity)s AND f.flow_id = ANY (%(flows)s)
      AND f.bucket_start >= %(start)s AND f.bucket_start < %(end)s
"""

_RESTATED_FLOWS = """
    SELECT s.flow_id, count(DISTINCT (s.bucket_start, s.outcome_name)) AS figures
    FROM flow_outcomes.restated s
    WHERE s.org = %(org)s AND s.granularity = %(granularity)s
      AND s.bucket_start >= %(start)s AND s.bucket_start < %(end)s
    GROUP BY s.flow_id
"""

_RESTATED_BY_DAY = """
    SELECT width_bucket(r.stamped_at, %(edges)s::timestamptz[]) AS day, count(*) AS figures
    FROM flow_outcomes.revision r
    JOIN flow_outcomes.restated s ON s.org = r.org AND s.revision = r.revision
    WHERE r.org = %(org)s AND s.granularity = %(granularity)s
      AND r.stamped_at >= %(start)s AND r.stamped_at < %(end)s
    GROUP BY 1
"""
