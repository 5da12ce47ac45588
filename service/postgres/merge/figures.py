"""Figures: what differs from what is stored, former versions kept; restatements, and shares that fit nothing."""

from __future__ import annotations

from typing import LiteralString

_NEW: LiteralString = """
    SELECT o.outcome_no, s.bucket_start, s.bucket_end, s.state, s.outcome_count, s.outcome_percentage,
           s.success_count, s.failure_count
    FROM pg_temp.scanned s JOIN pg_temp.scan_outcome o USING (name_no)
"""

# Unchanged rows are not written: neither the table nor its log grows by a reload that brings nothing new. What is
# stored and was not scanned is withdrawn, where the scan's silence tells that.
FIND_CHANGES = """
    INSERT INTO pg_temp.change
    SELECT coalesce(s.outcome_no, f.outcome_no), coalesce(s.bucket_start, f.bucket_start),
           coalesce(s.bucket_end, f.bucket_end), coalesce(s.state, 'withdrawn'),
           s.outcome_count, s.outcome_percentage, s.success_count, s.failure_count, f.state, f.outcome_count
    FROM (
        SELECT o.outcome_no, s.* FROM pg_temp.scanned s JOIN pg_temp.scan_outcome o USING (name_no)
    ) s
    FULL JOIN (
        SELECT outcome_no, bucket_start, bucket_end, state, outcome_count, outcome_percentage, success_count,
               failure_count
        FROM flow_outcomes.figure
        WHERE org = %(org)s AND granularity = %(granularity)s
          AND bucket_start >= %(start)s AND bucket_start < %(end)s
    ) f ON f.outcome_no = s.outcome_no AND f.bucket_start = s.bucket_start
    WHERE f.outcome_no IS NULL
       OR s.outcome_no IS NULL AND f.state IN ('reported', 'rejected') AND EXISTS (
              SELECT 1
              FROM pg_temp.scan_bucket b
              JOIN flow_outcomes.outcome o ON o.org = (SELECT %(org)s::text) AND o.outcome_no = f.outcome_no
              WHERE b.bucket_start = f.bucket_start AND b.believed AND b.absence_conclusive
                AND (%(flows)s::text[] IS NULL OR o.flow_id = ANY (%(flows)s::text[]))
                AND NOT EXISTS (SELECT 1 FROM pg_temp.superseded n
                                WHERE n.bucket_start = f.bucket_start
                                  AND (n.flow_ids IS NULL OR o.flow_id = ANY (n.flow_ids))))
       OR s.outcome_no IS NOT NULL AND (
              f.state <> s.state
              OR f.outcome_count IS DISTINCT FROM s.outcome_count
              OR f.outcome_percentage IS DISTINCT FROM s.outcome_percentage
              OR f.success_count IS DISTINCT FROM s.success_count
              OR f.failure_count IS DISTINCT FROM s.failure_count)
"""

ARCHIVE_PREVIOUS = """
    INSERT INTO flow_outcomes.figure_history
    SELECT f.org, f.granularity, f.outcome_no, f.bucket_start, f.bucket_end, f.state, f.outcome_count,
           f.outcome_percentage, f.success_count, f.failure_count, f.extraction_timestamp, f.revision, %(revision)s
    FROM pg_temp.change c
    CROSS JOIN LATERAL (
        SELECT * FROM flow_outcomes.figure f
        WHERE f.org = %(org)s AND f.granularity = %(granularity)s
          AND f.outcome_no = c.outcome_no AND f.bucket_start = c.bucket_start
          AND f.bucket_start >= %(start)s AND f.bucket_start < %(end)s
        LIMIT 1
    ) f
    WHERE c.old_state IS NOT NULL
"""

_STORE: LiteralString = """
    INSERT INTO flow_outcomes.figure (org, granularity, outcome_no, bucket_start, bucket_end, state, outcome_count,
        outcome_percentage, success_count, failure_count, extraction_timestamp, revision)
    SELECT %(org)s, %(granularity)s, outcome_no, bucket_start, bucket_end, state, outcome_count,
           outcome_percentage, success_count, failure_count, %(began_at)s, %(revision)s
"""

# Where no scan has been before nothing is stored, and everything is new.
STORE_ALL = f"{_STORE} FROM ({_NEW}) new ORDER BY outcome_no, bucket_start"
FIND_NEW = f"INSERT INTO pg_temp.change SELECT *, NULL, NULL FROM ({_NEW}) new"

# What is new and what is stored are told apart already, under the org's lock: asking the index again, row by row,
# is most of what ON CONFLICT would cost here.
STORE_NEW = f"{_STORE} FROM pg_temp.change WHERE old_state IS NULL ORDER BY outcome_no, bucket_start"

# Each of these conflicts: its row is found by the key, where the planner could read all of them for each change.
STORE_CHANGED = f"""
    {_STORE} FROM pg_temp.change WHERE old_state IS NOT NULL ORDER BY outcome_no, bucket_start
    ON CONFLICT (org, outcome_no, bucket_start, granularity) DO UPDATE
        SET bucket_end = EXCLUDED.bucket_end, state = EXCLUDED.state, outcome_count = EXCLUDED.outcome_count,
            outcome_percentage = EXCLUDED.outcome_percentage, success_count = EXCLUDED.success_count,
            failure_count = EXCLUDED.failure_count, extraction_timestamp = EXCLUDED.extraction_timestamp,
            revision = EXCLUDED.revision
"""

# As a reader saw it before and sees it now: folded under the name that it has at this moment. A bucket that no
# scan had covered for the flow has no former figure, so nothing of it is restated. What a changed figure is folded
# with is looked up only where several outcomes have a name.
RESTATE = """
    WITH named AS MATERIALIZED (
        SELECT c.outcome_no, o.flow_id, o.outcome_name
        FROM (SELECT DISTINCT outcome_no FROM pg_temp.change) c
        CROSS JOIN LATERAL (
            SELECT o.flow_id, o.outcome_name FROM flow_outcomes.outcome o
            WHERE o.org = (SELECT %(org)s::text) AND o.outcome_no = c.outcome_no
            LIMIT 1
        ) o
        WHERE o.outcome_name <> ''
    ), shared AS MATERIALIZED (
        SELECT k.flow_id, k.outcome_name, o.outcome_nos
        FROM (SELECT DISTINCT flow_id, outcome_name FROM named) k
        CROSS JOIN LATERAL (
            SELECT array_agg(o.outcome_no) AS outcome_nos FROM flow_outcomes.outcome o
            WHERE o.org = (SELECT %(org)s::text) AND o.flow_id = k.flow_id AND o.outcome_name = k.outcome_name
        ) o
        WHERE cardinality(o.outcome_nos) > 1
    ), touched AS MATERIALIZED (
        SELECT n.flow_id, n.outcome_name, c.bucket_start, c.old_state, c.old_count, c.state, c.outcome_count
        FROM pg_temp.change c
        JOIN named n USING (outcome_no)
        WHERE EXISTS (SELECT 1 FROM pg_temp.covered_before v WHERE v.bucket_start = c.bucket_start
                      AND (v.flow_ids IS NULL OR n.flow_id = ANY (v.flow_ids)))
    ), part AS (
        SELECT * FROM touched
        UNION ALL
        SELECT k.flow_id, k.outcome_name, k.bucket_start, f.state, f.outcome_count, f.state, f.outcome_count
        FROM (SELECT DISTINCT flow_id, outcome_name, bucket_start FROM touched) k
        JOIN shared USING (flow_id, outcome_name)
        CROSS JOIN LATERAL unnest(shared.outcome_nos) AS o (outcome_no)
        CROSS JOIN LATERAL (
            SELECT f.state, f.outcome_count FROM flow_outcomes.figure f
            WHERE f.org = %(org)s AND f.granularity = %(granularity)s
              AND f.outcome_no = o.outcome_no AND f.bucket_start = k.bucket_start
              AND f.bucket_start >= %(start)s AND f.bucket_start < %(end)s AND f.revision < %(revision)s
            LIMIT 1
        ) f
    ), folded AS (
        SELECT flow_id, outcome_name, bucket_start,
               CASE WHEN coalesce(bool_and(old_state <> 'rejected'), true) THEN sum(old_count) END AS old_count,
               CASE WHEN bool_and(state <> 'rejected') THEN sum(outcome_count) END AS new_count
        FROM part
        GROUP BY flow_id, outcome_name, bucket_start
    ), added AS (
        INSERT INTO flow_outcomes.restated (org, revision, granularity, flow_id, bucket_start, outcome_name,
                                            old_count, new_count)
        SELECT %(org)s, %(revision)s, %(granularity)s, flow_id, bucket_start, outcome_name,
               CASE WHEN old_count <= 9223372036854775807 THEN old_count END,
               CASE WHEN new_count <= 9223372036854775807 THEN new_count END
        FROM folded WHERE CASE WHEN old_count <= 9223372036854775807 THEN old_count END
                          IS DISTINCT FROM CASE WHEN new_count <= 9223372036854775807 THEN new_count END
        ORDER BY flow_id, bucket_start, outcome_name
        RETURNING bucket_start
    )
    SELECT b.window_start, count(*) FROM added JOIN pg_temp.scan_bucket b USING (bucket_start)
    GROUP BY b.window_start
"""

# A share that fits neither its flow's total in the bucket, nor the bucket's, the flow's or the scan's own. The
# first is asked of every changed figure, the others of the few that do not fit it.
TOTAL_FLOWS = """
    INSERT INTO pg_temp.flow_total
    SELECT o.flow_id, s.bucket_start, coalesce(sum(s.outcome_count), 0)::double precision
    FROM pg_temp.scanned s JOIN pg_temp.scan_outcome o USING (name_no)
    GROUP BY o.flow_id, s.bucket_start HAVING max(s.state) = 'reported'
"""

FIND_SUSPECTS = """
    INSERT INTO pg_temp.suspect
    SELECT o.flow_id, c.bucket_start, c.outcome_count, c.outcome_percentage
    FROM pg_temp.change c
    JOIN pg_temp.scan_outcome o USING (outcome_no)
    JOIN pg_temp.flow_total t ON t.flow_id = o.flow_id AND t.bucket_start = c.bucket_start
    WHERE abs(c.outcome_percentage - coalesce(c.outcome_count / nullif(t.total, 0), 0)) > 0.01
"""

COUNT_MISMATCHES = """
    SELECT b.window_start, count(*)
    FROM pg_temp.suspect s
    JOIN pg_temp.scan_bucket b USING (bucket_start)
    JOIN (SELECT bucket_start, sum(total) AS total FROM pg_temp.flow_total GROUP BY bucket_start) bucket
        USING (bucket_start)
    JOIN (SELECT flow_id, sum(total) AS total FROM pg_temp.flow_total GROUP BY flow_id) flow USING (flow_id)
    CROSS JOIN (SELECT sum(total) AS total FROM pg_temp.flow_total) scan
    WHERE abs(s.outcome_percentage - coalesce(s.outcome_count / nullif(bucket.total, 0), 0)) > 0.01
      AND abs(s.outcome_percentage - coalesce(s.outcome_count / nullif(flow.total, 0), 0)) > 0.01
      AND abs(s.outcome_percentage - coalesce(s.outcome_count / nullif(scan.total, 0), 0)) > 0.01
    GROUP BY b.window_start
"""
