"""What silence means: which buckets a scan has covered, and where an outcome is expected and missing."""

from __future__ import annotations

from typing import LiteralString

NOTE_COVERED_BEFORE = """
    INSERT INTO pg_temp.covered_before
    SELECT c.bucket_start, s.flow_ids
    FROM flow_outcomes.bucket_coverage c
    JOIN flow_outcomes.flow_scope s ON s.org = c.org AND s.scope = c.scope
    JOIN pg_temp.scan_bucket b USING (bucket_start)
    WHERE c.org = %(org)s AND c.granularity = %(granularity)s
      AND c.bucket_start >= %(start)s AND c.bucket_start < %(end)s
"""

ADD_SCOPE = """
    INSERT INTO flow_outcomes.flow_scope (org, scope, flow_ids) VALUES (%(org)s, %(scope)s, %(flows)s::text[])
    ON CONFLICT DO NOTHING
"""

# What one scan's silence told, a later one whose silence tells nothing does not take back.
COVER = """
    WITH covered AS (
        INSERT INTO flow_outcomes.bucket_coverage AS c
               (org, granularity, bucket_start, bucket_end, scope, absence_conclusive, expect_for)
        SELECT %(org)s, %(granularity)s, b.bucket_start, b.bucket_end, %(scope)s, b.absence_conclusive,
               %(expect_for)s
        FROM pg_temp.scan_bucket b
        WHERE b.believed AND NOT EXISTS (
            SELECT 1 FROM pg_temp.superseded n
            WHERE n.bucket_start = b.bucket_start AND (n.flow_ids IS NULL OR n.flow_ids @> %(flows)s::text[]))
        ORDER BY b.bucket_start
        ON CONFLICT (org, granularity, bucket_start, scope) DO UPDATE
            SET bucket_end = EXCLUDED.bucket_end,
                absence_conclusive = c.absence_conclusive OR EXCLUDED.absence_conclusive,
                expect_for = EXCLUDED.expect_for
            WHERE EXCLUDED.absence_conclusive AND NOT c.absence_conclusive OR c.expect_for <> EXCLUDED.expect_for
        RETURNING bucket_start, bucket_end
    )
    INSERT INTO pg_temp.newly_covered SELECT * FROM covered
"""

# How far a figure can make an outcome expected at all; keeps the statements below to a few partitions.
LONGEST_EXPECTATION = """
    SELECT max(expect_for) FROM flow_outcomes.bucket_coverage
    WHERE org = %(org)s AND granularity = %(granularity)s
"""

# Buckets that are new: every outcome that had a figure not too long before and is not in each of the scan's. Asked
# outcome by outcome, since the index finds that figure at once where reading them all would take a month of them.
FIND_EXPECTED_HERE = """
    INSERT INTO pg_temp.candidate
    SELECT seen.outcome_no, b.bucket_start, b.bucket_end
    FROM (
        SELECT o.outcome_no
        FROM flow_outcomes.outcome o
        CROSS JOIN LATERAL (
            SELECT 1
            FROM flow_outcomes.figure f
            WHERE f.org = %(org)s AND f.granularity = %(granularity)s AND f.outcome_no = o.outcome_no
              AND f.outcome_count IS NOT NULL AND f.bucket_start >= %(seen_from)s AND f.bucket_start < %(end)s
            LIMIT 1
        ) figure
        WHERE o.org = (SELECT %(org)s::text)
          AND (%(flows)s::text[] IS NULL OR o.flow_id = ANY (%(flows)s::text[]))
          AND o.outcome_no NOT IN (
              SELECT n.outcome_no FROM pg_temp.scan_outcome n
              WHERE n.name_no NOT IN (SELECT unnest(%(sparse)s::integer[])))
    ) seen
    CROSS JOIN pg_temp.newly_covered b
    WHERE NOT EXISTS (
        SELECT 1 FROM flow_outcomes.figure f
        WHERE f.org = %(org)s AND f.granularity = %(granularity)s
          AND f.outcome_no = seen.outcome_no AND f.bucket_start = b.bucket_start
          AND f.bucket_start >= %(start)s AND f.bucket_start < %(end)s
        OFFSET 0)
    ON CONFLICT DO NOTHING
"""

# And the nulls that are there already, for another list of flows had covered them.
FIND_EXPECTED_BEFORE = """
    INSERT INTO pg_temp.candidate
    SELECT f.outcome_no, f.bucket_start, f.bucket_end
    FROM flow_outcomes.figure f
    WHERE f.org = %(org)s AND f.granularity = %(granularity)s AND f.state = 'expected'
      AND f.bucket_start >= %(start)s AND f.bucket_start < %(end)s
      AND (f.bucket_start IN (SELECT bucket_start FROM pg_temp.newly_covered)) IS TRUE
    ON CONFLICT DO NOTHING
"""

# What came or went: of everything that was scanned where nothing was stored, or of what changed.
_CAME: LiteralString = """
        SELECT n.outcome_no, true AS came, b.earliest, b.latest
        FROM pg_temp.scan_outcome n
        CROSS JOIN (SELECT min(bucket_end) AS earliest, max(bucket_end) AS latest FROM pg_temp.scan_bucket) b
        WHERE n.name_no NOT IN (SELECT unnest(%(sparse)s::integer[]))
        UNION ALL
        SELECT n.outcome_no, true, f.earliest, f.latest
        FROM pg_temp.scan_outcome n
        CROSS JOIN LATERAL (
            SELECT min(f.bucket_end) AS earliest, max(f.bucket_end) AS latest FROM flow_outcomes.figure f
            WHERE f.org = %(org)s AND f.granularity = %(granularity)s AND f.outcome_no = n.outcome_no
              AND f.outcome_count IS NOT NULL AND f.bucket_start >= %(start)s AND f.bucket_start < %(end)s
        ) f
        WHERE n.name_no IN (SELECT unnest(%(sparse)s::integer[])) AND f.earliest IS NOT NULL
"""
_CAME_OR_WENT: LiteralString = """
        SELECT outcome_no, outcome_count IS NOT NULL AS came,
               min(bucket_end) AS earliest, max(bucket_end) AS latest
        FROM pg_temp.change WHERE (outcome_count IS NULL) <> (old_count IS NULL)
        GROUP BY outcome_no, outcome_count IS NOT NULL
"""
_LATER: LiteralString = """
    , reach AS MATERIALIZED (
        SELECT DISTINCT bucket_start, bucket_end, max(expect_for) OVER (PARTITION BY bucket_start) AS expect_for
        FROM flow_outcomes.bucket_coverage
        WHERE org = %(org)s AND granularity = %(granularity)s
          AND bucket_start >= %(start)s AND bucket_start <= %(expected_to)s
          AND NOT bucket_start IN (SELECT bucket_start FROM pg_temp.newly_covered)
    )
    SELECT m.outcome_no, v.bucket_start, v.bucket_end
    FROM moved m
    JOIN reach v ON v.bucket_start >= m.earliest AND v.bucket_start <= m.latest + v.expect_for
    LEFT JOIN LATERAL (
        SELECT f.state FROM flow_outcomes.figure f
        WHERE f.org = %(org)s AND f.granularity = %(granularity)s
          AND f.outcome_no = m.outcome_no AND f.bucket_start = v.bucket_start
          AND f.bucket_start >= %(start)s AND f.bucket_start <= %(expected_to)s
        LIMIT 1
    ) f ON true
    WHERE CASE WHEN m.came THEN f.state IS NULL ELSE f.state = 'expected' END
    ON CONFLICT DO NOTHING
"""

# Buckets after a figure that has come or gone, whichever of them was scanned first. One that came can only bring
# nulls where there is no row, one that went can only take back nulls that are there.
FIND_EXPECTED_AFTER_NEW = f"INSERT INTO pg_temp.candidate WITH moved AS ({_CAME}) {_LATER}"
FIND_EXPECTED_AFTER_CHANGES = f"INSERT INTO pg_temp.candidate WITH moved AS ({_CAME_OR_WENT}) {_LATER}"

_WANTED = """
    EXISTS (
        SELECT 1
        FROM flow_outcomes.bucket_coverage v
        JOIN flow_outcomes.flow_scope s ON s.org = v.org AND s.scope = v.scope
        JOIN flow_outcomes.outcome o ON o.org = (SELECT %(org)s::text) AND o.outcome_no = k.outcome_no
        WHERE v.org = %(org)s AND v.granularity = %(granularity)s AND v.bucket_start = k.bucket_start
          AND v.absence_conclusive AND (s.flow_ids IS NULL OR o.flow_id = ANY (s.flow_ids))
          AND EXISTS (
              SELECT 1 FROM flow_outcomes.figure p
              WHERE p.org = %(org)s AND p.granularity = %(granularity)s AND p.outcome_no = k.outcome_no
                AND p.outcome_count IS NOT NULL
                AND p.bucket_start >= %(seen_from)s AND p.bucket_start < %(expected_to)s
                AND p.bucket_start >= k.bucket_start - v.expect_for - %(longest_bucket)s
                AND p.bucket_start < k.bucket_start
                AND p.bucket_end <= k.bucket_start AND p.bucket_end >= k.bucket_start - v.expect_for
              OFFSET 0
          )
        OFFSET 0
    )
"""

# For all candidates at once: each outcome's figures and candidates are walked in the order of time, with the last
# figure seen in hand.
STORE_EXPECTED = """
    WITH k AS MATERIALIZED (
        SELECT * FROM pg_temp.candidate c
        WHERE NOT EXISTS (
            SELECT 1 FROM flow_outcomes.figure f
            WHERE f.org = %(org)s AND f.granularity = %(granularity)s
              AND f.outcome_no = c.outcome_no AND f.bucket_start = c.bucket_start
              AND f.bucket_start >= %(start)s AND f.bucket_start <= %(expected_to)s
            OFFSET 0)
    ), reach AS MATERIALIZED (
        SELECT outcome_no, min(bucket_start) AS earliest, max(bucket_start) AS latest FROM k GROUP BY outcome_no
    ), seen AS (
        SELECT r.outcome_no, f.bucket_end
        FROM reach r
        CROSS JOIN LATERAL (
            SELECT f.bucket_end FROM flow_outcomes.figure f
            WHERE f.org = %(org)s AND f.granularity = %(granularity)s AND f.outcome_no = r.outcome_no
              AND f.outcome_count IS NOT NULL
              AND f.bucket_start >= %(seen_from)s AND f.bucket_start < %(expected_to)s
              AND f.bucket_start < r.earliest
            ORDER BY f.bucket_start DESC LIMIT 1
        ) f
        UNION ALL
        SELECT r.outcome_no, f.bucket_end
        FROM reach r
        CROSS JOIN LATERAL (
            SELECT f.bucket_end FROM flow_outcomes.figure f
            WHERE f.org = %(org)s AND f.granularity = %(granularity)s AND f.outcome_no = r.outcome_no
              AND f.outcome_count IS NOT NULL
              AND f.bucket_start >= %(start)s AND f.bucket_start < %(expected_to)s
              AND f.bucket_start >= r.earliest AND f.bucket_start < r.latest
            OFFSET 0
        ) f
    ), walked AS (
        SELECT outcome_no, bucket_start, bucket_end,
               max(seen_to) OVER (PARTITION BY outcome_no ORDER BY instant, bucket_start NULLS FIRST
                                  ROWS UNBOUNDED PRECEDING) AS seen_to
        FROM (
            SELECT outcome_no, bucket_start, bucket_end, bucket_start AS instant, NULL::timestamptz AS seen_to
            FROM k
            UNION ALL
            SELECT outcome_no, NULL, NULL, bucket_end, bucket_end FROM seen
        ) steps
    ), stored AS (
        INSERT INTO flow_outcomes.figure (org, granularity, outcome_no, bucket_start, bucket_end, state,
                                          extraction_timestamp, revision)
        SELECT %(org)s, %(granularity)s, w.outcome_no, w.bucket_start, w.bucket_end, 'expected',
               %(began_at)s, %(revision)s
        FROM walked w
        CROSS JOIN LATERAL (
            SELECT o.flow_id FROM flow_outcomes.outcome o
            WHERE o.org = (SELECT %(org)s::text) AND o.outcome_no = w.outcome_no
            LIMIT 1
        ) o
        WHERE w.bucket_start IS NOT NULL AND w.seen_to IS NOT NULL
          AND EXISTS (
              SELECT 1
              FROM flow_outcomes.bucket_coverage v
              JOIN flow_outcomes.flow_scope s ON s.org = v.org AND s.scope = v.scope
              WHERE v.org = %(org)s AND v.granularity = %(granularity)s AND v.bucket_start = w.bucket_start
                AND v.absence_conclusive AND (s.flow_ids IS NULL OR o.flow_id = ANY (s.flow_ids))
                AND w.seen_to >= w.bucket_start - v.expect_for
              OFFSET 0)
        ORDER BY w.outcome_no, w.bucket_start
        RETURNING outcome_no, bucket_start
    )
    INSERT INTO pg_temp.missing SELECT * FROM stored
"""

# Each row is found by its key, and deleted where it was found: of a join the planner could read all figures for
# each candidate. The key again, for every partition has such a place.
TAKE_BACK_EXPECTED = f"""
    WITH unwanted AS MATERIALIZED (
        SELECT k.outcome_no, k.bucket_start, f.place
        FROM pg_temp.candidate k
        CROSS JOIN LATERAL (
            SELECT f.ctid AS place, f.state, f.revision FROM flow_outcomes.figure f
            WHERE f.org = %(org)s AND f.granularity = %(granularity)s
              AND f.outcome_no = k.outcome_no AND f.bucket_start = k.bucket_start
              AND f.bucket_start >= %(start)s AND f.bucket_start <= %(expected_to)s
            LIMIT 1
        ) f
        WHERE f.state = 'expected' AND f.revision < %(revision)s AND NOT {_WANTED}
    ), gone AS (
        DELETE FROM flow_outcomes.figure f
        WHERE f.org = %(org)s AND f.granularity = %(granularity)s
          AND f.bucket_start >= %(start)s AND f.bucket_start <= %(expected_to)s
          AND f.ctid = ANY (ARRAY(SELECT place FROM unwanted))
          AND ((f.outcome_no, f.bucket_start) IN (SELECT outcome_no, bucket_start FROM unwanted)) IS TRUE
        RETURNING f.*
    )
    INSERT INTO flow_outcomes.figure_history
    SELECT org, granularity, outcome_no, bucket_start, bucket_end, state, outcome_count, outcome_percentage,
           success_count, failure_count, extraction_timestamp, revision, %(revision)s
    FROM gone
"""

# What this scan made null that a reader misses: a name that another one was made an alias of is not missing.
COUNT_MISSING = """
    WITH gone AS MATERIALIZED (
        SELECT o.flow_id, o.outcome_name, m.bucket_start
        FROM (SELECT outcome_no, bucket_start FROM pg_temp.missing
              UNION ALL
              SELECT outcome_no, bucket_start FROM pg_temp.change WHERE state = 'withdrawn') m
        CROSS JOIN LATERAL (
            SELECT o.flow_id, o.outcome_name FROM flow_outcomes.outcome o
            WHERE o.org = (SELECT %(org)s::text) AND o.outcome_no = m.outcome_no
            LIMIT 1
        ) o
        WHERE o.outcome_name <> ''
    )
    SELECT b.window_start, count(*), (array_agg(DISTINCT gone.outcome_name))[1:5]
    FROM gone
    JOIN pg_temp.scan_bucket b USING (bucket_start)
    WHERE NOT EXISTS (
        SELECT 1
        FROM flow_outcomes.outcome o
        CROSS JOIN LATERAL (
            SELECT 1 FROM flow_outcomes.figure f
            WHERE f.org = %(org)s AND f.granularity = %(granularity)s
              AND f.outcome_no = o.outcome_no AND f.bucket_start = gone.bucket_start
              AND f.bucket_start >= %(start)s AND f.bucket_start < %(end)s
              AND f.state IN ('reported', 'rejected')
            LIMIT 1
        ) f
        WHERE o.org = (SELECT %(org)s::text) AND o.flow_id = gone.flow_id AND o.outcome_name = gone.outcome_name
        OFFSET 0)
    GROUP BY b.window_start
"""
