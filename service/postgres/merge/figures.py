"""Figures: changes, previous versions, restatements, and shares that fit no denominator."""

from __future__ import annotations

from typing import LiteralString

from service.postgres.merge.columns import VALUES, values_of

_NEW: LiteralString = f"""
    SELECT so.series_no, sf.bucket_start, sf.bucket_end, sf.state, {values_of("sf")}
    FROM pg_temp.scan_figure sf
    JOIN pg_temp.scan_series so USING (name_no)
"""

# Beyond the retention an API returns a part of what it once had. There a scan adds what is new, and nothing that
# changes a stored figure for a reader: no other outcome of its name, and no rejected outcome of its flow.
DELETE_OF_STORED = """
    DELETE FROM pg_temp.scan_figure sf
    USING pg_temp.scan_series so, pg_temp.scan_bucket b
    WHERE so.name_no = sf.name_no AND b.bucket_start = sf.bucket_start AND b.keep_stored
      AND EXISTS (
          SELECT 1
          FROM flow_outcomes.series own
          JOIN flow_outcomes.series o
            ON o.org = (SELECT %(org)s::text) AND o.flow_id = own.flow_id
           AND o.measure = own.measure
           AND (o.outcome_name = own.outcome_name OR sf.state = 'rejected')
          CROSS JOIN LATERAL (
              SELECT 1 FROM flow_outcomes.figure f
              WHERE f.org = %(org)s AND f.granularity = %(granularity)s AND f.series_no = o.series_no
                AND f.bucket_start = sf.bucket_start AND f.outcome_count IS NOT NULL
                AND f.bucket_start >= %(start)s AND f.bucket_start < %(end)s
              LIMIT 1
          ) f
          WHERE own.org = (SELECT %(org)s::text) AND own.series_no = so.series_no
          OFFSET 0)
"""

# Equal rows are left out, so a scan that reports nothing new writes neither to the table nor to the WAL. A stored
# figure that the scan does not report is withdrawn, where its absence is conclusive. One whose series is grouped
# by other dimensions ends, with whatever state: see MARK_ENDED.
FIND_CHANGES = f"""
    INSERT INTO pg_temp.change
    SELECT coalesce(sf.series_no, f.series_no), coalesce(sf.bucket_start, f.bucket_start),
           coalesce(sf.bucket_end, f.bucket_end), coalesce(sf.state, 'withdrawn'), {values_of("sf")},
           f.state, f.outcome_count
    FROM (
        SELECT so.series_no, sf.*
        FROM pg_temp.scan_figure sf
        JOIN pg_temp.scan_series so USING (name_no)
    ) sf
    FULL JOIN (
        SELECT f.series_no, f.bucket_start, f.bucket_end, f.state, {values_of("f")}
        FROM flow_outcomes.figure f
        WHERE f.org = %(org)s AND f.granularity = %(granularity)s
          AND f.measure = %(measure)s::flow_outcomes.measure
          AND f.bucket_start >= %(start)s AND f.bucket_start < %(end)s
    ) f ON f.series_no = sf.series_no AND f.bucket_start = sf.bucket_start
    WHERE f.series_no IS NULL
       OR sf.series_no IS NULL AND (f.state IN ('reported', 'rejected') OR %(regroups)s) AND EXISTS (
              SELECT 1
              FROM pg_temp.scan_bucket b
              JOIN flow_outcomes.series o ON o.org = (SELECT %(org)s::text) AND o.series_no = f.series_no
              WHERE b.bucket_start = f.bucket_start AND b.confirmed AND NOT b.keep_stored
                AND (o.group_by <> %(group_by)s OR b.absence_conclusive AND f.state IN ('reported', 'rejected'))
                AND (%(flows)s::text[] IS NULL OR o.flow_id = ANY (%(flows)s::text[]))
                AND NOT EXISTS (SELECT 1 FROM pg_temp.superseded su
                                WHERE su.bucket_start = f.bucket_start
                                  AND (su.flow_ids IS NULL OR o.flow_id = ANY (su.flow_ids))))
       OR sf.series_no IS NOT NULL AND (
              f.state <> sf.state OR ({values_of("f")}) IS DISTINCT FROM ({values_of("sf")}))
"""

# For a scan over buckets that were grouped by other dimensions. Their figures end in the same transaction in which
# the new ones begin, so that a bucket is summed over one grouping at any instant.
MARK_ENDED = """
    UPDATE pg_temp.change ch SET state = NULL
    WHERE ch.state = 'withdrawn' AND EXISTS (
        SELECT 1 FROM flow_outcomes.series o
        WHERE o.org = (SELECT %(org)s::text) AND o.series_no = ch.series_no AND o.group_by <> %(group_by)s
        OFFSET 0)
"""

ARCHIVE_PREVIOUS = f"""
    INSERT INTO flow_outcomes.figure_history (org, granularity, series_no, bucket_start, bucket_end, state,
                                              measure, {VALUES}, extraction_timestamp, revision, until_revision)
    SELECT f.org, f.granularity, f.series_no, f.bucket_start, f.bucket_end, f.state, f.measure,
           {values_of("f")}, f.extraction_timestamp, f.revision, %(revision)s
    FROM pg_temp.change ch
    CROSS JOIN LATERAL (
        SELECT * FROM flow_outcomes.figure f
        WHERE f.org = %(org)s AND f.granularity = %(granularity)s
          AND f.series_no = ch.series_no AND f.bucket_start = ch.bucket_start
          AND f.bucket_start >= %(start)s AND f.bucket_start < %(end)s
        LIMIT 1
    ) f
    WHERE ch.old_state IS NOT NULL
"""

# Each is found by its key and deleted by its place, as in expected.DELETE_UNEXPECTED.
DELETE_ENDED = """
    DELETE FROM flow_outcomes.figure f
    WHERE f.org = %(org)s AND f.granularity = %(granularity)s
      AND f.bucket_start >= %(start)s AND f.bucket_start < %(end)s
      AND f.ctid = ANY (ARRAY(
          SELECT f.place
          FROM pg_temp.change ch
          CROSS JOIN LATERAL (
              SELECT f.ctid AS place FROM flow_outcomes.figure f
              WHERE f.org = %(org)s AND f.granularity = %(granularity)s
                AND f.series_no = ch.series_no AND f.bucket_start = ch.bucket_start
                AND f.bucket_start >= %(start)s AND f.bucket_start < %(end)s
              LIMIT 1
          ) f
          WHERE ch.state IS NULL))
      AND ((f.series_no, f.bucket_start) IN (
          SELECT ch.series_no, ch.bucket_start FROM pg_temp.change ch WHERE ch.state IS NULL)) IS TRUE
"""

_INSERT: LiteralString = f"""
    INSERT INTO flow_outcomes.figure (org, granularity, series_no, bucket_start, bucket_end, state, measure,
                                      {VALUES}, extraction_timestamp, revision)
    SELECT %(org)s, %(granularity)s, series_no, bucket_start, bucket_end, state,
           %(measure)s::flow_outcomes.measure, {VALUES}, %(began_at)s, %(revision)s
"""

# For a first scan, whose figures are all new.
INSERT_ALL = f"{_INSERT} FROM ({_NEW}) new ORDER BY series_no, bucket_start"
FIND_ALL_CHANGED = f"INSERT INTO pg_temp.change SELECT *, NULL, NULL FROM ({_NEW}) new"

# FIND_CHANGES has separated new figures from stored ones. ON CONFLICT would read the index twice.
INSERT_NEW = f"{_INSERT} FROM pg_temp.change WHERE old_state IS NULL ORDER BY series_no, bucket_start"

# Every row conflicts, and so is found by its key; for an UPDATE … FROM the planner could read all figures.
UPDATE_CHANGED = f"""
    {_INSERT} FROM pg_temp.change WHERE old_state IS NOT NULL AND state IS NOT NULL
    ORDER BY series_no, bucket_start
    ON CONFLICT (org, series_no, bucket_start, granularity) DO UPDATE
        SET (bucket_end, state, {VALUES}, extraction_timestamp, revision)
            = ROW (EXCLUDED.bucket_end, EXCLUDED.state, {values_of("EXCLUDED")}, EXCLUDED.extraction_timestamp,
                   EXCLUDED.revision)
"""

# Restatements compare what a reader of flow_outcome saw before with what a reader sees now, under today's name:
# over all dimensions, for outcomes alone. A figure that ended counts as absent now.
RESTATE = """
    WITH
    -- The changed outcomes and their names.
    named AS MATERIALIZED (
        SELECT ch.series_no, o.flow_id, o.outcome_name
        FROM (SELECT DISTINCT series_no FROM pg_temp.change) ch
        CROSS JOIN LATERAL (
            SELECT o.flow_id, o.outcome_name FROM flow_outcomes.series o
            WHERE o.org = (SELECT %(org)s::text) AND o.series_no = ch.series_no
            LIMIT 1
        ) o
        WHERE o.outcome_name <> ''
    ),
    -- Names that several outcomes of a flow have.
    shared AS MATERIALIZED (
        SELECT named.flow_id, named.outcome_name, o.series_nos
        FROM (SELECT DISTINCT flow_id, outcome_name FROM named) named
        CROSS JOIN LATERAL (
            SELECT array_agg(o.series_no) AS series_nos FROM flow_outcomes.series o
            WHERE o.org = (SELECT %(org)s::text)
              AND o.flow_id = named.flow_id AND o.outcome_name = named.outcome_name
              AND o.measure = 'outcomes'
        ) o
        WHERE cardinality(o.series_nos) > 1
    ),
    -- Changes in buckets that had been covered for the flow; in others there is nothing to restate.
    restatable AS MATERIALIZED (
        SELECT named.flow_id, named.outcome_name, ch.bucket_start, ch.old_state, ch.old_count, ch.state,
               ch.outcome_count
        FROM pg_temp.change ch
        JOIN named USING (series_no)
        WHERE EXISTS (SELECT 1 FROM pg_temp.previous_coverage pc
                      WHERE pc.bucket_start = ch.bucket_start
                        AND (pc.flow_ids IS NULL OR named.flow_id = ANY (pc.flow_ids)))
    ),
    -- These, and the unchanged figures with which they are added up.
    part AS (
        SELECT * FROM restatable
        UNION ALL
        SELECT folded.flow_id, folded.outcome_name, folded.bucket_start, f.state, f.outcome_count, f.state,
               f.outcome_count
        FROM (SELECT DISTINCT flow_id, outcome_name, bucket_start FROM restatable) folded
        JOIN shared USING (flow_id, outcome_name)
        CROSS JOIN LATERAL unnest(shared.series_nos) AS other (series_no)
        CROSS JOIN LATERAL (
            SELECT f.state, f.outcome_count FROM flow_outcomes.figure f
            WHERE f.org = %(org)s AND f.granularity = %(granularity)s
              AND f.series_no = other.series_no AND f.bucket_start = folded.bucket_start
              AND f.bucket_start >= %(start)s AND f.bucket_start < %(end)s AND f.revision < %(revision)s
            LIMIT 1
        ) f
    ),
    -- The counts before and after, by name; null where one of the figures is rejected.
    summed AS (
        SELECT flow_id, outcome_name, bucket_start,
               CASE WHEN coalesce(bool_and(old_state <> 'rejected'), true) THEN sum(old_count) END AS old_count,
               CASE WHEN bool_and(state <> 'rejected') THEN sum(outcome_count) END AS new_count
        FROM part
        GROUP BY flow_id, outcome_name, bucket_start
    ),
    -- The same as a reader sees them: null where the sum does not fit a bigint.
    visible AS (
        SELECT flow_id, outcome_name, bucket_start,
               CASE WHEN old_count <= 9223372036854775807 THEN old_count END AS old_count,
               CASE WHEN new_count <= 9223372036854775807 THEN new_count END AS new_count
        FROM summed
    ),
    added AS (
        INSERT INTO flow_outcomes.restated (org, revision, granularity, flow_id, bucket_start, outcome_name,
                                            old_count, new_count)
        SELECT %(org)s, %(revision)s, %(granularity)s, flow_id, bucket_start, outcome_name, old_count, new_count
        FROM visible
        WHERE old_count IS DISTINCT FROM new_count
        ORDER BY flow_id, bucket_start, outcome_name
        RETURNING bucket_start
    )
    SELECT b.window_start, count(*) AS rows
    FROM added
    JOIN pg_temp.scan_bucket b USING (bucket_start)
    GROUP BY b.window_start
"""

TOTAL_FLOWS = """
    INSERT INTO pg_temp.flow_total (flow_id, bucket_start, total)
    SELECT so.flow_id, sf.bucket_start, coalesce(sum(sf.outcome_count), 0)::double precision
    FROM pg_temp.scan_figure sf
    JOIN pg_temp.scan_series so USING (name_no)
    GROUP BY so.flow_id, sf.bucket_start HAVING max(sf.state) = 'reported'
"""

# Changed figures whose share is not of the flow's total in the bucket: few, so the other denominators are computed
# for these alone.
FIND_SUSPECTS = """
    INSERT INTO pg_temp.suspect (flow_id, bucket_start, outcome_count, outcome_percentage)
    SELECT so.flow_id, ch.bucket_start, ch.outcome_count, ch.outcome_percentage
    FROM pg_temp.change ch
    JOIN pg_temp.scan_series so USING (series_no)
    JOIN pg_temp.flow_total ft ON ft.flow_id = so.flow_id AND ft.bucket_start = ch.bucket_start
    WHERE abs(ch.outcome_percentage - coalesce(ch.outcome_count / nullif(ft.total, 0), 0)) > 0.01
"""

# Nor of the bucket's, the flow's, or the scan's total.
COUNT_MISMATCHES = """
    WITH
    bucket AS (
        SELECT bucket_start, sum(total) AS total FROM pg_temp.flow_total GROUP BY bucket_start
    ),
    flow AS (
        SELECT flow_id, sum(total) AS total FROM pg_temp.flow_total GROUP BY flow_id
    ),
    scan AS (
        SELECT sum(total) AS total FROM pg_temp.flow_total
    )
    SELECT b.window_start, count(*) AS rows
    FROM pg_temp.suspect
    JOIN pg_temp.scan_bucket b USING (bucket_start)
    JOIN bucket USING (bucket_start)
    JOIN flow USING (flow_id)
    CROSS JOIN scan
    WHERE abs(outcome_percentage - coalesce(outcome_count / nullif(bucket.total, 0), 0)) > 0.01
      AND abs(outcome_percentage - coalesce(outcome_count / nullif(flow.total, 0), 0)) > 0.01
      AND abs(outcome_percentage - coalesce(outcome_count / nullif(scan.total, 0), 0)) > 0.01
    GROUP BY b.window_start
"""
