"""Absence: the buckets that a scan has covered, and the nulls where an outcome is expected and missing.

``seen_from`` and ``expected_to`` bound the figures that can matter, so that a statement reads few partitions.
"""

from __future__ import annotations

from datetime import datetime
from typing import LiteralString, NamedTuple

from service.postgres.merge.columns import VALUES

NOTE_PREVIOUS_COVERAGE = """
    INSERT INTO pg_temp.previous_coverage (bucket_start, flow_ids, group_by)
    SELECT c.bucket_start, fs.flow_ids, c.group_by
    FROM flow_outcomes.bucket_coverage c
    JOIN flow_outcomes.flow_scope fs ON fs.org = c.org AND fs.scope = c.scope
    JOIN pg_temp.scan_bucket b USING (bucket_start)
    WHERE c.org = %(org)s AND c.granularity = %(granularity)s AND c.measure = %(measure)s::flow_outcomes.measure
      AND c.bucket_start >= %(start)s AND c.bucket_start < %(end)s
"""

FIND_REGROUPED = """
    SELECT EXISTS (SELECT 1 FROM pg_temp.previous_coverage pc WHERE pc.group_by <> %(group_by)s)
"""

ADD_SCOPE = """
    INSERT INTO flow_outcomes.flow_scope (org, scope, flow_ids) VALUES (%(org)s, %(scope)s, %(flows)s::text[])
    ON CONFLICT DO NOTHING
"""

COVER = """
    WITH
    -- Buckets that no later scan has covered for all these flows. Once conclusive, absence stays conclusive,
    -- unless the scan groups by other dimensions: its series are others. Where scans of other flows group by
    -- others, the scan with the higher number decides for a flow.
    covered AS (
        INSERT INTO flow_outcomes.bucket_coverage AS c
               (org, granularity, bucket_start, bucket_end, scope, absence_conclusive, expect_for, measure,
                group_by, grouped_by)
        SELECT %(org)s, %(granularity)s, b.bucket_start, b.bucket_end, %(scope)s, b.absence_conclusive,
               %(expect_for)s, %(measure)s::flow_outcomes.measure, %(group_by)s, %(scan_number)s
        FROM pg_temp.scan_bucket b
        WHERE b.confirmed AND NOT EXISTS (
            SELECT 1 FROM pg_temp.superseded su
            WHERE su.bucket_start = b.bucket_start
              AND (su.flow_ids IS NULL OR su.flow_ids @> %(flows)s::text[]))
          -- what is stored beyond the retention stays, and so does its grouping
          AND NOT (b.keep_stored AND EXISTS (
              SELECT 1 FROM pg_temp.previous_coverage pc
              WHERE pc.bucket_start = b.bucket_start AND pc.group_by <> %(group_by)s))
        ORDER BY b.bucket_start
        ON CONFLICT (org, granularity, bucket_start, scope, measure) DO UPDATE
            SET bucket_end = EXCLUDED.bucket_end,
                absence_conclusive = EXCLUDED.absence_conclusive
                                     OR c.absence_conclusive AND c.group_by = EXCLUDED.group_by,
                expect_for = EXCLUDED.expect_for, group_by = EXCLUDED.group_by, grouped_by = EXCLUDED.grouped_by
            WHERE EXCLUDED.absence_conclusive AND NOT c.absence_conclusive OR c.expect_for <> EXCLUDED.expect_for
               OR %(regroups)s AND EXISTS (
                   SELECT 1 FROM pg_temp.previous_coverage pc
                   WHERE pc.bucket_start = c.bucket_start AND pc.group_by <> %(group_by)s)
        RETURNING bucket_start, bucket_end
    )
    INSERT INTO pg_temp.new_coverage SELECT * FROM covered
"""

LONGEST_EXPECTATION = """
    SELECT max(c.expect_for) FROM flow_outcomes.bucket_coverage c
    WHERE c.org = %(org)s AND c.granularity = %(granularity)s AND c.measure = %(measure)s::flow_outcomes.measure
"""

# Candidates in newly covered buckets: outcomes with a figure in reach that are not in each of the scan's buckets.
# The figure is looked up outcome by outcome: the index finds it at once, and all of them would be a month of rows.
FIND_EXPECTED_HERE = """
    INSERT INTO pg_temp.candidate
    SELECT seen.series_no, nc.bucket_start, nc.bucket_end
    FROM (
        SELECT o.series_no
        FROM flow_outcomes.series o
        CROSS JOIN LATERAL (
            SELECT 1
            FROM flow_outcomes.figure f
            WHERE f.org = %(org)s AND f.granularity = %(granularity)s AND f.series_no = o.series_no
              AND f.outcome_count IS NOT NULL AND f.bucket_start >= %(seen_from)s AND f.bucket_start < %(end)s
            UNION ALL
            SELECT 1
            FROM flow_outcomes.pruned_series p
            WHERE p.org = %(org)s AND p.granularity = %(granularity)s AND p.series_no = o.series_no
              AND p.seen_to >= %(seen_from)s
            LIMIT 1
        ) f
        WHERE o.org = (SELECT %(org)s::text) AND o.measure = %(measure)s::flow_outcomes.measure
          AND o.group_by = %(group_by)s
          AND (%(flows)s::text[] IS NULL OR o.flow_id = ANY (%(flows)s::text[]))
          AND o.series_no NOT IN (
              SELECT so.series_no FROM pg_temp.scan_series so
              WHERE so.name_no NOT IN (SELECT unnest(%(sparse)s::integer[])))
    ) seen
    CROSS JOIN pg_temp.new_coverage nc
    WHERE NOT EXISTS (
        SELECT 1 FROM flow_outcomes.figure f
        WHERE f.org = %(org)s AND f.granularity = %(granularity)s
          AND f.series_no = seen.series_no AND f.bucket_start = nc.bucket_start
          AND f.bucket_start >= %(start)s AND f.bucket_start < %(end)s
        OFFSET 0)
    ON CONFLICT DO NOTHING
"""

# Candidates in the same buckets: nulls that are stored already, from a scan of other flows.
FIND_EXPECTED_BEFORE = """
    INSERT INTO pg_temp.candidate
    SELECT f.series_no, f.bucket_start, f.bucket_end
    FROM flow_outcomes.figure f
    WHERE f.org = %(org)s AND f.granularity = %(granularity)s AND f.state = 'expected'
      AND f.measure = %(measure)s::flow_outcomes.measure
      AND f.bucket_start >= %(start)s AND f.bucket_start < %(end)s
      AND (f.bucket_start IN (SELECT bucket_start FROM pg_temp.new_coverage)) IS TRUE
    ON CONFLICT DO NOTHING
"""

# Outcomes that a first scan reports, and the ends of the first and the last bucket in which it does.
_REPORTED: LiteralString = """
        -- in all of the scan's buckets
        SELECT so.series_no, true AS appeared, b.earliest, b.latest
        FROM pg_temp.scan_series so
        CROSS JOIN (SELECT min(bucket_end) AS earliest, max(bucket_end) AS latest FROM pg_temp.scan_bucket) b
        WHERE so.name_no NOT IN (SELECT unnest(%(sparse)s::integer[]))
        UNION ALL
        -- in some of them
        SELECT so.series_no, true, f.earliest, f.latest
        FROM pg_temp.scan_series so
        CROSS JOIN LATERAL (
            SELECT min(f.bucket_end) AS earliest, max(f.bucket_end) AS latest FROM flow_outcomes.figure f
            WHERE f.org = %(org)s AND f.granularity = %(granularity)s AND f.series_no = so.series_no
              AND f.outcome_count IS NOT NULL AND f.bucket_start >= %(start)s AND f.bucket_start < %(end)s
        ) f
        WHERE so.name_no IN (SELECT unnest(%(sparse)s::integer[])) AND f.earliest IS NOT NULL
"""
# Outcomes whose figures appeared or disappeared, with the same ends.
_CHANGED: LiteralString = """
        SELECT series_no, outcome_count IS NOT NULL AS appeared,
               min(bucket_end) AS earliest, max(bucket_end) AS latest
        FROM pg_temp.change
        WHERE (outcome_count IS NULL) <> (old_count IS NULL)
        GROUP BY series_no, outcome_count IS NOT NULL
"""
_FIND_EXPECTED_AFTER: LiteralString = """
    INSERT INTO pg_temp.candidate
    WITH
    moved AS ({moved}),
    -- Buckets that were covered before, and how long outcomes are expected in them.
    reach AS MATERIALIZED (
        SELECT DISTINCT c.bucket_start, c.bucket_end,
               max(c.expect_for) OVER (PARTITION BY c.bucket_start) AS expect_for
        FROM flow_outcomes.bucket_coverage c
        WHERE c.org = %(org)s AND c.granularity = %(granularity)s
          AND c.measure = %(measure)s::flow_outcomes.measure
          AND c.bucket_start >= %(start)s AND c.bucket_start <= %(expected_to)s
          AND NOT c.bucket_start IN (SELECT bucket_start FROM pg_temp.new_coverage)
    )
    SELECT moved.series_no, reach.bucket_start, reach.bucket_end
    FROM moved
    JOIN reach ON reach.bucket_start >= moved.earliest AND reach.bucket_start <= moved.latest + reach.expect_for
    LEFT JOIN LATERAL (
        SELECT f.state FROM flow_outcomes.figure f
        WHERE f.org = %(org)s AND f.granularity = %(granularity)s
          AND f.series_no = moved.series_no AND f.bucket_start = reach.bucket_start
          AND f.bucket_start >= %(start)s AND f.bucket_start <= %(expected_to)s
        LIMIT 1
    ) f ON true
    WHERE CASE WHEN moved.appeared THEN f.state IS NULL ELSE f.state = 'expected' END
    ON CONFLICT DO NOTHING
"""

# Candidates in buckets that were covered before: those after a figure that appeared or disappeared. One that
# appeared can only add nulls where there is no row, and one that disappeared can only remove nulls.
FIND_EXPECTED_AFTER_FIRST_SCAN = _FIND_EXPECTED_AFTER.format(moved=_REPORTED)
FIND_EXPECTED_AFTER_CHANGES = _FIND_EXPECTED_AFTER.format(moved=_CHANGED)

# No later scan has grouped this bucket of the flow by other dimensions; nearly always there is no row to read.
_GROUPED_LAST: LiteralString = """NOT EXISTS (
                    SELECT 1
                    FROM flow_outcomes.bucket_coverage later
                    JOIN flow_outcomes.flow_scope fs ON fs.org = later.org AND fs.scope = later.scope
                    WHERE later.org = %(org)s AND later.granularity = %(granularity)s
                      AND later.bucket_start = c.bucket_start AND later.measure = c.measure
                      AND later.group_by <> c.group_by AND later.grouped_by > c.grouped_by
                      AND (fs.flow_ids IS NULL OR o.flow_id = ANY (fs.flow_ids))
                    OFFSET 0)"""

# Stores the nulls of all candidates at once: figures and candidates of an outcome are put in the order of time,
# and each candidate is compared with the figure before it.
STORE_EXPECTED = f"""
    WITH
    -- Candidates without a figure.
    vacant AS MATERIALIZED (
        SELECT * FROM pg_temp.candidate k
        WHERE NOT EXISTS (
            SELECT 1 FROM flow_outcomes.figure f
            WHERE f.org = %(org)s AND f.granularity = %(granularity)s
              AND f.series_no = k.series_no AND f.bucket_start = k.bucket_start
              AND f.bucket_start >= %(start)s AND f.bucket_start <= %(expected_to)s
            OFFSET 0)
    ),
    reach AS MATERIALIZED (
        SELECT series_no, min(bucket_start) AS earliest, max(bucket_start) AS latest
        FROM vacant
        GROUP BY series_no
    ),
    -- The ends of the buckets with a figure: the last one before the first candidate, all between candidates, and
    -- the last one that was pruned.
    seen AS (
        SELECT reach.series_no, f.bucket_end
        FROM reach
        CROSS JOIN LATERAL (
            SELECT f.bucket_end FROM flow_outcomes.figure f
            WHERE f.org = %(org)s AND f.granularity = %(granularity)s AND f.series_no = reach.series_no
              AND f.outcome_count IS NOT NULL
              AND f.bucket_start >= %(seen_from)s AND f.bucket_start < %(expected_to)s
              AND f.bucket_start < reach.earliest
            ORDER BY f.bucket_start DESC LIMIT 1
        ) f
        UNION ALL
        SELECT reach.series_no, f.bucket_end
        FROM reach
        CROSS JOIN LATERAL (
            SELECT f.bucket_end FROM flow_outcomes.figure f
            WHERE f.org = %(org)s AND f.granularity = %(granularity)s AND f.series_no = reach.series_no
              AND f.outcome_count IS NOT NULL
              AND f.bucket_start >= %(start)s AND f.bucket_start < %(expected_to)s
              AND f.bucket_start >= reach.earliest AND f.bucket_start < reach.latest
            OFFSET 0
        ) f
        UNION ALL
        SELECT reach.series_no, p.seen_to
        FROM reach
        CROSS JOIN LATERAL (
            SELECT p.seen_to FROM flow_outcomes.pruned_series p
            WHERE p.org = %(org)s AND p.granularity = %(granularity)s AND p.series_no = reach.series_no
            OFFSET 0
        ) p
    ),
    step AS (
        SELECT series_no, bucket_start, bucket_end, bucket_start AS instant, NULL::timestamptz AS seen_to
        FROM vacant
        UNION ALL
        SELECT series_no, NULL, NULL, bucket_end, bucket_end FROM seen
    ),
    -- Each candidate with the end of the last bucket before it that has a figure.
    preceded AS (
        SELECT series_no, bucket_start, bucket_end,
               max(seen_to) OVER (PARTITION BY series_no ORDER BY instant, bucket_start NULLS FIRST
                                  ROWS UNBOUNDED PRECEDING) AS seen_to
        FROM step
    ),
    stored AS (
        INSERT INTO flow_outcomes.figure (org, granularity, series_no, bucket_start, bucket_end, state, measure,
                                          extraction_timestamp, revision)
        SELECT %(org)s, %(granularity)s, preceded.series_no, preceded.bucket_start, preceded.bucket_end,
               'expected', %(measure)s::flow_outcomes.measure, %(began_at)s, %(revision)s
        FROM preceded
        CROSS JOIN LATERAL (
            SELECT o.flow_id, o.group_by FROM flow_outcomes.series o
            WHERE o.org = (SELECT %(org)s::text) AND o.series_no = preceded.series_no
            LIMIT 1
        ) o
        WHERE preceded.bucket_start IS NOT NULL AND preceded.seen_to IS NOT NULL
          AND EXISTS (
              SELECT 1
              FROM flow_outcomes.bucket_coverage c
              JOIN flow_outcomes.flow_scope fs ON fs.org = c.org AND fs.scope = c.scope
              WHERE c.org = %(org)s AND c.granularity = %(granularity)s AND c.bucket_start = preceded.bucket_start
                AND c.measure = %(measure)s::flow_outcomes.measure AND c.group_by = o.group_by
                AND c.absence_conclusive AND (fs.flow_ids IS NULL OR o.flow_id = ANY (fs.flow_ids))
                AND {_GROUPED_LAST}
                AND preceded.seen_to >= preceded.bucket_start - c.expect_for
              OFFSET 0)
        ORDER BY preceded.series_no, preceded.bucket_start
        RETURNING series_no, bucket_start
    )
    INSERT INTO pg_temp.expected_null SELECT * FROM stored
"""

# Deletes nulls that are no longer expected. Each is found by its key and deleted by its place; for a join the
# planner could read all figures for each candidate. The key is compared again, for every partition has such a
# place.
DELETE_UNEXPECTED = f"""
    WITH
    unexpected AS MATERIALIZED (
        SELECT k.series_no, k.bucket_start, f.place
        FROM pg_temp.candidate k
        CROSS JOIN LATERAL (
            SELECT f.ctid AS place, f.state, f.revision FROM flow_outcomes.figure f
            WHERE f.org = %(org)s AND f.granularity = %(granularity)s
              AND f.series_no = k.series_no AND f.bucket_start = k.bucket_start
              AND f.bucket_start >= %(start)s AND f.bucket_start <= %(expected_to)s
            LIMIT 1
        ) f
        WHERE f.state = 'expected' AND f.revision < %(revision)s AND NOT EXISTS (
            SELECT 1
            FROM flow_outcomes.bucket_coverage c
            JOIN flow_outcomes.flow_scope fs ON fs.org = c.org AND fs.scope = c.scope
            JOIN flow_outcomes.series o ON o.org = (SELECT %(org)s::text) AND o.series_no = k.series_no
            WHERE c.org = %(org)s AND c.granularity = %(granularity)s AND c.bucket_start = k.bucket_start
              AND c.measure = %(measure)s::flow_outcomes.measure AND c.group_by = o.group_by
              AND c.absence_conclusive AND (fs.flow_ids IS NULL OR o.flow_id = ANY (fs.flow_ids))
              AND {_GROUPED_LAST}
              AND (EXISTS (
                  SELECT 1 FROM flow_outcomes.figure f
                  WHERE f.org = %(org)s AND f.granularity = %(granularity)s AND f.series_no = k.series_no
                    AND f.outcome_count IS NOT NULL
                    AND f.bucket_start >= %(seen_from)s AND f.bucket_start < %(expected_to)s
                    AND f.bucket_start >= k.bucket_start - c.expect_for - %(longest_bucket)s
                    AND f.bucket_start < k.bucket_start
                    AND f.bucket_end <= k.bucket_start AND f.bucket_end >= k.bucket_start - c.expect_for
                  OFFSET 0
              ) OR EXISTS (
                  SELECT 1 FROM flow_outcomes.pruned_series p
                  WHERE p.org = %(org)s AND p.granularity = %(granularity)s AND p.series_no = k.series_no
                    AND p.seen_to <= k.bucket_start AND p.seen_to >= k.bucket_start - c.expect_for
                  OFFSET 0
              ))
            OFFSET 0)
    ),
    deleted AS (
        DELETE FROM flow_outcomes.figure f
        WHERE f.org = %(org)s AND f.granularity = %(granularity)s
          AND f.bucket_start >= %(start)s AND f.bucket_start <= %(expected_to)s
          AND f.ctid = ANY (ARRAY(SELECT place FROM unexpected))
          AND ((f.series_no, f.bucket_start) IN (SELECT series_no, bucket_start FROM unexpected)) IS TRUE
        RETURNING f.*
    )
    INSERT INTO flow_outcomes.figure_history (org, granularity, series_no, bucket_start, bucket_end, state,
                                              measure, {VALUES}, extraction_timestamp, revision, until_revision)
    SELECT org, granularity, series_no, bucket_start, bucket_end, state, measure, {VALUES}, extraction_timestamp,
           revision, %(revision)s
    FROM deleted
"""


class MissingCount(NamedTuple):
    """A row of ``COUNT_MISSING``.

    Attributes:
        window_start: of the window.
        rows: figures that became null.
        sample: up to five of their names.
    """

    window_start: datetime
    rows: int
    sample: list[str]


COUNT_MISSING = """
    WITH
    -- What the scan made null: withdrawn figures and expected ones.
    nulled AS MATERIALIZED (
        SELECT o.flow_id, o.outcome_name, null_figure.bucket_start
        FROM (
            SELECT en.series_no, en.bucket_start FROM pg_temp.expected_null en
            UNION ALL
            SELECT ch.series_no, ch.bucket_start FROM pg_temp.change ch WHERE ch.state = 'withdrawn'
        ) null_figure
        CROSS JOIN LATERAL (
            SELECT o.flow_id, o.outcome_name FROM flow_outcomes.series o
            WHERE o.org = (SELECT %(org)s::text) AND o.series_no = null_figure.series_no
            LIMIT 1
        ) o
        WHERE o.outcome_name <> ''
    )
    SELECT b.window_start, count(*) AS rows, (array_agg(DISTINCT nulled.outcome_name))[1:5] AS sample
    FROM nulled
    JOIN pg_temp.scan_bucket b USING (bucket_start)
    -- A name under which another outcome was reported is not missing.
    WHERE NOT EXISTS (
        SELECT 1
        FROM flow_outcomes.series o
        CROSS JOIN LATERAL (
            SELECT 1 FROM flow_outcomes.figure f
            WHERE f.org = %(org)s AND f.granularity = %(granularity)s
              AND f.series_no = o.series_no AND f.bucket_start = nulled.bucket_start
              AND f.bucket_start >= %(start)s AND f.bucket_start < %(end)s
              AND f.state IN ('reported', 'rejected')
            LIMIT 1
        ) f
        WHERE o.org = (SELECT %(org)s::text) AND o.measure = %(measure)s::flow_outcomes.measure
          AND o.flow_id = nulled.flow_id AND o.outcome_name = nulled.outcome_name
        OFFSET 0)
    GROUP BY b.window_start
"""
