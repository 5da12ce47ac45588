"""The statements of a merge, in the order in which it runs them.

Parameters are the same for all: org, granularity, start and end of the scan, flows (null: all), scope,
expect_for, began_at, revision. What a scan brought stands in the session's own tables; see TEMPORARY_TABLES.
"""

from __future__ import annotations

LOCK_ORG = "SELECT epoch, revision FROM flow_outcomes.org WHERE org = %(org)s FOR NO KEY UPDATE"

TEMPORARY_TABLES = (
    # the scan's buckets, and whether their silence may be believed
    """
    CREATE TEMP TABLE IF NOT EXISTS scan_bucket (
        bucket_start timestamptz PRIMARY KEY, bucket_end timestamptz NOT NULL, window_start timestamptz NOT NULL,
        believed boolean NOT NULL, silence_told boolean NOT NULL
    ) ON COMMIT DELETE ROWS
    """,
    # the outcomes that it names, and their numbers
    """
    CREATE TEMP TABLE IF NOT EXISTS scan_name (
        flow_id text NOT NULL, source_key text NOT NULL
    ) ON COMMIT DELETE ROWS
    """,
    """
    CREATE TEMP TABLE IF NOT EXISTS scan_outcome (
        outcome_no bigint NOT NULL, flow_no bigint NOT NULL, flow_id text NOT NULL, source_key text NOT NULL,
        outcome_name text NOT NULL
    ) ON COMMIT DELETE ROWS
    """,
    # what it reported, numbered, each key once
    """
    CREATE TEMP TABLE IF NOT EXISTS scanned (
        outcome_no bigint NOT NULL, bucket_start timestamptz NOT NULL, bucket_end timestamptz NOT NULL,
        rejected boolean NOT NULL, outcome_count bigint, outcome_percentage double precision,
        success_count bigint, failure_count bigint, differing boolean NOT NULL
    ) ON COMMIT DELETE ROWS
    """,
    # what is different from what is stored
    """
    CREATE TEMP TABLE IF NOT EXISTS change (
        outcome_no bigint NOT NULL, bucket_start timestamptz NOT NULL, bucket_end timestamptz NOT NULL,
        state flow_outcomes.figure_state NOT NULL, outcome_count bigint, outcome_percentage double precision,
        success_count bigint, failure_count bigint, old_state flow_outcomes.figure_state, old_count bigint
    ) ON COMMIT DELETE ROWS
    """,
    # what each flow's counts in a bucket add up to, where all of them are known
    """
    CREATE TEMP TABLE IF NOT EXISTS flow_total (
        flow_no bigint NOT NULL, bucket_start timestamptz NOT NULL, total double precision NOT NULL
    ) ON COMMIT DELETE ROWS
    """,
    # shares that do not fit that total
    """
    CREATE TEMP TABLE IF NOT EXISTS suspect (
        flow_no bigint NOT NULL, bucket_start timestamptz NOT NULL,
        outcome_count bigint, outcome_percentage double precision NOT NULL
    ) ON COMMIT DELETE ROWS
    """,
    # of its buckets, those that a scan begun later has read already, for which flows
    """
    CREATE TEMP TABLE IF NOT EXISTS outdone (
        bucket_start timestamptz NOT NULL, flow_ids text[]
    ) ON COMMIT DELETE ROWS
    """,
    # which of its buckets were covered before, for which flows
    """
    CREATE TEMP TABLE IF NOT EXISTS covered_before (
        bucket_start timestamptz NOT NULL, flow_ids text[]
    ) ON COMMIT DELETE ROWS
    """,
    # its buckets whose coverage is new or has changed
    """
    CREATE TEMP TABLE IF NOT EXISTS newly_covered (
        bucket_start timestamptz PRIMARY KEY, bucket_end timestamptz NOT NULL
    ) ON COMMIT DELETE ROWS
    """,
    # where an expected null may have to come or go
    """
    CREATE TEMP TABLE IF NOT EXISTS candidate (
        outcome_no bigint NOT NULL, bucket_start timestamptz NOT NULL, bucket_end timestamptz NOT NULL,
        PRIMARY KEY (outcome_no, bucket_start)
    ) ON COMMIT DELETE ROWS
    """,
    # where one came
    """
    CREATE TEMP TABLE IF NOT EXISTS missing (
        outcome_no bigint NOT NULL, bucket_start timestamptz NOT NULL
    ) ON COMMIT DELETE ROWS
    """,
)

TAKE_BUCKETS = """
    INSERT INTO pg_temp.scan_bucket
    SELECT *, true, true
    FROM unnest(%(bucket_starts)s::timestamptz[], %(bucket_ends)s::timestamptz[],
                %(bucket_windows)s::timestamptz[])
"""

TAKE_NAMES = """
    INSERT INTO pg_temp.scan_name SELECT DISTINCT flow_id, source_key FROM pg_temp.incoming
"""

# Where the API knows outcomes by id, their present names stand in outcome_title; without one the id serves.
ADD_OUTCOMES = """
    WITH added AS (
        INSERT INTO flow_outcomes.outcome
               (org, flow_id, source_key, outcome_id, reported_name, outcome_name, revision)
        SELECT %(org)s, flow_id, source_key, CASE WHEN %(by_id)s THEN nullif(source_key, '') END, name,
               CASE WHEN name IN (SELECT old_name FROM flow_outcomes.outcome_alias WHERE org = %(org)s)
                    THEN flow_outcomes.resolve_alias(%(org)s, flow_id, name) ELSE name END,
               %(revision)s
        FROM (
            SELECT n.flow_id, n.source_key, coalesce(t.name, n.source_key) AS name
            FROM pg_temp.scan_name n
            LEFT JOIN flow_outcomes.outcome_title t
              ON %(by_id)s AND t.org = %(org)s AND t.outcome_id = n.source_key
        ) i
        WHERE NOT EXISTS (SELECT 1 FROM flow_outcomes.outcome o
                          WHERE o.org = %(org)s AND o.flow_id = i.flow_id AND o.source_key = i.source_key)
        ORDER BY i.flow_id, i.source_key
        RETURNING flow_id
    )
    INSERT INTO flow_outcomes.flow (org, flow_id)
    SELECT DISTINCT %(org)s, flow_id FROM added ORDER BY flow_id
    ON CONFLICT DO NOTHING
"""

TAKE_OUTCOMES = """
    INSERT INTO pg_temp.scan_outcome
    SELECT o.outcome_no, min(o.outcome_no) OVER (PARTITION BY o.flow_id), o.flow_id, o.source_key, o.outcome_name
    FROM pg_temp.scan_name n
    JOIN flow_outcomes.outcome o ON o.org = %(org)s AND o.flow_id = n.flow_id AND o.source_key = n.source_key
"""

# Nearly every scan says everything once.
TAKE_SCAN = """
    INSERT INTO pg_temp.scanned
    SELECT o.outcome_no, i.bucket_start, i.bucket_end, i.rejected, i.outcome_count, i.outcome_percentage,
           i.success_count, i.failure_count, false
    FROM pg_temp.incoming i
    JOIN pg_temp.scan_outcome o ON o.flow_id = i.flow_id AND o.source_key = i.source_key
"""

HAS_REPEATS = """
    SELECT EXISTS (SELECT 1 FROM pg_temp.scanned GROUP BY outcome_no, bucket_start HAVING count(*) > 1)
"""

FORGET_SCAN = "TRUNCATE pg_temp.scanned"

# An outcome that was refused once in the scan is not known, whatever else the scan says of it.
TAKE_REPEATS = """
    INSERT INTO pg_temp.scanned
    SELECT o.outcome_no, i.bucket_start, min(i.bucket_end), bool_or(i.rejected),
           CASE WHEN NOT bool_or(i.rejected) THEN min(i.outcome_count) END,
           CASE WHEN NOT bool_or(i.rejected) THEN min(i.outcome_percentage) END,
           CASE WHEN NOT bool_or(i.rejected) THEN min(i.success_count) END,
           CASE WHEN NOT bool_or(i.rejected) THEN min(i.failure_count) END,
           NOT bool_or(i.rejected) AND count(*) > 1 AND (
               min(i.outcome_count) <> max(i.outcome_count)
               OR min(i.outcome_percentage) IS DISTINCT FROM max(i.outcome_percentage)
               OR count(i.outcome_percentage) NOT IN (0, count(*))
               OR min(i.success_count) IS DISTINCT FROM max(i.success_count)
               OR min(i.failure_count) IS DISTINCT FROM max(i.failure_count))
    FROM pg_temp.incoming i
    JOIN pg_temp.scan_outcome o ON o.flow_id = i.flow_id AND o.source_key = i.source_key
    GROUP BY o.outcome_no, i.bucket_start
"""

# The same where the API tells figures in parts: of one part equal rows count once, and the parts add up. A sum
# that no bigint holds is not known.
TAKE_PARTS = """
    INSERT INTO pg_temp.scanned
    SELECT outcome_no, bucket_start, min(bucket_end), NOT bool_and(known),
           CASE WHEN bool_and(known) THEN sum(outcome_count) END,
           CASE WHEN bool_and(known) AND count(outcome_percentage) = count(*) THEN sum(outcome_percentage) END,
           CASE WHEN bool_and(known) THEN sum(success_count) END,
           CASE WHEN bool_and(known) THEN sum(failure_count) END,
           bool_and(known) AND bool_or(differing)
    FROM (
        SELECT *, NOT rejected AND sum(outcome_count) OVER (PARTITION BY outcome_no, bucket_start)
                                   <= 9223372036854775807 AS known
        FROM (
            SELECT o.outcome_no, i.bucket_start, i.part, min(i.bucket_end) AS bucket_end,
                   bool_or(i.rejected) AS rejected, min(i.outcome_count) AS outcome_count,
                   min(i.outcome_percentage) AS outcome_percentage,
                   min(i.success_count) AS success_count, min(i.failure_count) AS failure_count,
                   count(*) > 1 AND (
                       min(i.outcome_count) IS DISTINCT FROM max(i.outcome_count)
                       OR min(i.outcome_percentage) IS DISTINCT FROM max(i.outcome_percentage)
                       OR count(i.outcome_percentage) NOT IN (0, count(*))
                       OR min(i.success_count) IS DISTINCT FROM max(i.success_count)
                       OR min(i.failure_count) IS DISTINCT FROM max(i.failure_count)) AS differing
            FROM pg_temp.incoming i
            JOIN pg_temp.scan_outcome o ON o.flow_id = i.flow_id AND o.source_key = i.source_key
            GROUP BY o.outcome_no, i.bucket_start, i.part
        ) told
    ) told
    GROUP BY outcome_no, bucket_start
"""

HAS_PARTS = "SELECT EXISTS (SELECT 1 FROM pg_temp.incoming WHERE part <> '')"

# An entry that was refused may have been a part of whatever it does not rule out; a sum without it is no figure.
DOUBT_PARTS = """
    UPDATE pg_temp.scanned s
    SET rejected = true, outcome_count = NULL, outcome_percentage = NULL,
        success_count = NULL, failure_count = NULL
    FROM pg_temp.scan_outcome o, pg_temp.incoming_reject i
    WHERE o.outcome_no = s.outcome_no
      AND (i.flow_id IS NULL OR i.outcome_name IS NULL OR i.bucket_start IS NULL)
      AND (i.flow_id IS NULL OR i.flow_id = o.flow_id)
      AND (i.outcome_name IS NULL OR i.outcome_name = o.source_key)
      AND (i.bucket_start IS NULL OR i.bucket_start = s.bucket_start)
"""

FIND_CONFLICT = """
    SELECT o.flow_id, s.bucket_start, o.source_key
    FROM pg_temp.scanned s
    JOIN pg_temp.scan_outcome o ON o.outcome_no = s.outcome_no
    WHERE s.differing LIMIT 1
"""

COUNT_ROWS = """
    SELECT b.window_start, count(*)
    FROM pg_temp.scanned s JOIN pg_temp.scan_bucket b USING (bucket_start)
    WHERE NOT s.rejected
    GROUP BY b.window_start
"""

# A refused entry whose bucket cannot be told is put down to the window that was asked alone.
COUNT_REJECTS = """
    SELECT coalesce(b.window_start, %(alone)s), count(*),
           bool_and(b.window_start IS NOT NULL AND i.flow_id IS NOT NULL AND i.outcome_name IS NOT NULL)
    FROM pg_temp.incoming_reject i
    LEFT JOIN pg_temp.scan_bucket b USING (bucket_start)
    GROUP BY 1
"""

KEEP_REJECTED_TEXT = """
    INSERT INTO flow_outcomes.rejected_text (org, digest, entry)
    SELECT DISTINCT ON (digest) %(org)s, digest, entry FROM pg_temp.incoming_reject
    WHERE entry IS NOT NULL ORDER BY digest
    ON CONFLICT DO NOTHING
"""

# One row for each outcome at fault, also where the same entry came twice; the same in a later scan adds none.
KEEP_REJECTED = """
    WITH kept AS (
        INSERT INTO flow_outcomes.rejected_outcome (org, window_start, window_end, digest, ordinal, reason,
                                                    flow_id, bucket_start, outcome_name, rejected_at)
        SELECT %(org)s, w.window_start, w.window_end, i.digest,
               row_number() OVER (PARTITION BY w.window_start, i.digest
                                  ORDER BY i.ordinal, i.outcome_name, i.reason) - 1,
               i.reason, i.flow_id, i.bucket_start, i.outcome_name, %(began_at)s
        FROM pg_temp.incoming_reject i
        LEFT JOIN pg_temp.scan_bucket b USING (bucket_start)
        JOIN unnest(%(window_starts)s::timestamptz[], %(window_ends)s::timestamptz[])
             AS w (window_start, window_end) ON w.window_start = coalesce(b.window_start, %(alone)s)
        ORDER BY 2, 3, 4, 5
        ON CONFLICT DO NOTHING
        RETURNING window_start, reason, flow_id, outcome_name
    )
    SELECT * FROM kept LIMIT 20
"""

# Works overlap, and a slow scan may end after one that began later: that one is the truth where both have been.
# When a scan began is reckoned back by the server's clock, for owners' clocks may differ.
FIND_OUTDONE = """
    INSERT INTO pg_temp.outdone
    SELECT b.bucket_start, x.flow_ids
    FROM flow_outcomes.extraction_window x
    JOIN pg_temp.scan_bucket b ON b.bucket_start >= x.window_start AND b.bucket_start < x.window_end
    WHERE x.org = %(org)s AND x.scanned_at > clock_timestamp() - %(elapsed)s AND x.granularity = %(granularity)s
"""

LEAVE_OUTDONE = """
    DELETE FROM pg_temp.scanned s
    USING pg_temp.scan_outcome o, pg_temp.outdone n
    WHERE o.outcome_no = s.outcome_no AND n.bucket_start = s.bucket_start
      AND (n.flow_ids IS NULL OR o.flow_id = ANY (n.flow_ids))
"""

SILENCE_UNTOLD = """
    UPDATE pg_temp.scan_bucket SET silence_told = false WHERE window_start = ANY (%(untold)s::timestamptz[])
"""

# Of the windows that came back wholly empty, those that have figures. Where no scan has been, there are none.
FIND_DOUBTED = """
    SELECT w.window_start, x.doubted_in
    FROM unnest(%(empty_starts)s::timestamptz[], %(empty_ends)s::timestamptz[]) AS w (window_start, window_end)
    LEFT JOIN flow_outcomes.extraction_window x
      ON x.org = %(org)s AND x.work = %(work)s AND x.window_start = w.window_start
     AND x.window_end = w.window_end AND x.requested_granularity = %(requested)s
    WHERE EXISTS (SELECT 1 FROM flow_outcomes.bucket_coverage c
                  WHERE c.org = %(org)s AND c.granularity = %(granularity)s
                    AND c.bucket_start >= w.window_start AND c.bucket_start < w.window_end)
      AND EXISTS (SELECT 1 FROM flow_outcomes.outcome o
                  JOIN flow_outcomes.figure f ON f.org = o.org AND f.outcome_no = o.outcome_no
                  WHERE o.org = %(org)s AND (%(flows)s::text[] IS NULL OR o.flow_id = ANY (%(flows)s::text[]))
                    AND f.granularity = %(granularity)s AND f.outcome_count IS NOT NULL
                    AND f.bucket_start >= w.window_start AND f.bucket_start < w.window_end
                    AND f.bucket_start >= %(start)s AND f.bucket_start < %(end)s)
"""

DISBELIEVE = """
    UPDATE pg_temp.scan_bucket SET believed = false WHERE window_start = ANY (%(doubted)s::timestamptz[])
"""

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
               (org, granularity, bucket_start, bucket_end, scope, silence_told, expect_for)
        SELECT %(org)s, %(granularity)s, b.bucket_start, b.bucket_end, %(scope)s, b.silence_told, %(expect_for)s
        FROM pg_temp.scan_bucket b
        WHERE b.believed AND NOT EXISTS (
            SELECT 1 FROM pg_temp.outdone n
            WHERE n.bucket_start = b.bucket_start AND (n.flow_ids IS NULL OR n.flow_ids @> %(flows)s::text[]))
        ORDER BY b.bucket_start
        ON CONFLICT (org, granularity, bucket_start, scope) DO UPDATE
            SET bucket_end = EXCLUDED.bucket_end, silence_told = c.silence_told OR EXCLUDED.silence_told,
                expect_for = EXCLUDED.expect_for
            WHERE EXCLUDED.silence_told AND NOT c.silence_told OR c.expect_for <> EXCLUDED.expect_for
        RETURNING bucket_start, bucket_end
    )
    INSERT INTO pg_temp.newly_covered SELECT * FROM covered
"""

# Where no scan has been before nothing is stored, and everything is new.
FIND_NEW = """
    INSERT INTO pg_temp.change
    SELECT outcome_no, bucket_start, bucket_end,
           (CASE WHEN rejected THEN 'rejected' ELSE 'reported' END)::flow_outcomes.figure_state,
           outcome_count, outcome_percentage, success_count, failure_count, NULL, NULL
    FROM pg_temp.scanned
"""

# Unchanged rows are not written: neither the table nor its log grows by a reload that brings nothing new. What is
# stored and was not scanned is withdrawn, where the scan's silence tells that.
FIND_CHANGES = """
    INSERT INTO pg_temp.change
    SELECT coalesce(s.outcome_no, f.outcome_no), coalesce(s.bucket_start, f.bucket_start),
           coalesce(s.bucket_end, f.bucket_end),
           (CASE WHEN s.rejected THEN 'rejected' WHEN s.outcome_no IS NULL THEN 'withdrawn' ELSE 'reported'
            END)::flow_outcomes.figure_state,
           s.outcome_count, s.outcome_percentage, s.success_count, s.failure_count, f.state, f.outcome_count
    FROM pg_temp.scanned s
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
              JOIN flow_outcomes.outcome o ON o.org = %(org)s AND o.outcome_no = f.outcome_no
              WHERE b.bucket_start = f.bucket_start AND b.believed AND b.silence_told
                AND (%(flows)s::text[] IS NULL OR o.flow_id = ANY (%(flows)s::text[]))
                AND NOT EXISTS (SELECT 1 FROM pg_temp.outdone n
                                WHERE n.bucket_start = f.bucket_start
                                  AND (n.flow_ids IS NULL OR o.flow_id = ANY (n.flow_ids))))
       OR s.outcome_no IS NOT NULL AND (
              (f.state = 'rejected') <> s.rejected
              OR f.state NOT IN ('reported', 'rejected')
              OR f.outcome_count IS DISTINCT FROM s.outcome_count
              OR f.outcome_percentage IS DISTINCT FROM s.outcome_percentage
              OR f.success_count IS DISTINCT FROM s.success_count
              OR f.failure_count IS DISTINCT FROM s.failure_count)
"""

KEEP_FORMER = """
    INSERT INTO flow_outcomes.figure_history
    SELECT f.org, f.granularity, f.outcome_no, f.bucket_start, f.bucket_end, f.state, f.outcome_count,
           f.outcome_percentage, f.success_count, f.failure_count, f.extraction_timestamp, f.revision, %(revision)s
    FROM pg_temp.change c
    JOIN flow_outcomes.figure f
      ON f.org = %(org)s AND f.granularity = %(granularity)s
     AND f.outcome_no = c.outcome_no AND f.bucket_start = c.bucket_start
     AND f.bucket_start >= %(start)s AND f.bucket_start < %(end)s
    WHERE c.old_state IS NOT NULL
"""

# What is new and what is stored are told apart already, under the org's lock: asking the index again, row by row,
# is most of what ON CONFLICT costs.
STORE_NEW = """
    INSERT INTO flow_outcomes.figure (org, granularity, outcome_no, bucket_start, bucket_end, state, outcome_count,
        outcome_percentage, success_count, failure_count, extraction_timestamp, revision)
    SELECT %(org)s, %(granularity)s, outcome_no, bucket_start, bucket_end, state, outcome_count,
           outcome_percentage, success_count, failure_count, %(began_at)s, %(revision)s
    FROM pg_temp.change WHERE old_state IS NULL ORDER BY outcome_no, bucket_start
"""

STORE_CHANGED = """
    UPDATE flow_outcomes.figure f
    SET bucket_end = c.bucket_end, state = c.state, outcome_count = c.outcome_count,
        outcome_percentage = c.outcome_percentage, success_count = c.success_count,
        failure_count = c.failure_count, extraction_timestamp = %(began_at)s, revision = %(revision)s
    FROM pg_temp.change c
    WHERE f.org = %(org)s AND f.granularity = %(granularity)s
      AND f.outcome_no = c.outcome_no AND f.bucket_start = c.bucket_start
      AND f.bucket_start >= %(start)s AND f.bucket_start < %(end)s
      AND c.old_state IS NOT NULL
"""

# As a reader saw it before and sees it now: folded under the name that it has at this moment. A bucket that no
# scan had covered for the flow has no former figure, so nothing of it is restated. What a changed figure is folded
# with is looked up one by one, and only where several outcomes have a name: the planner may know nothing yet of
# what was stored a moment ago, and would go through all of it for each change.
RESTATE = """
    WITH named AS MATERIALIZED (
        SELECT c.outcome_no, o.flow_id, o.outcome_name
        FROM (SELECT DISTINCT outcome_no FROM pg_temp.change) c
        CROSS JOIN LATERAL (
            SELECT o.flow_id, o.outcome_name FROM flow_outcomes.outcome o
            WHERE o.org = %(org)s AND o.outcome_no = c.outcome_no
            LIMIT 1
        ) o
        WHERE o.outcome_name <> ''
    ), shared AS MATERIALIZED (
        SELECT k.flow_id, k.outcome_name, o.outcome_nos
        FROM (SELECT DISTINCT flow_id, outcome_name FROM named) k
        CROSS JOIN LATERAL (
            SELECT array_agg(o.outcome_no) AS outcome_nos FROM flow_outcomes.outcome o
            WHERE o.org = %(org)s AND o.flow_id = k.flow_id AND o.outcome_name = k.outcome_name
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

# How far a figure can make an outcome expected at all; keeps the statements below to a few partitions.
LONGEST_EXPECTATION = """
    SELECT max(expect_for) FROM flow_outcomes.bucket_coverage
    WHERE org = %(org)s AND granularity = %(granularity)s
"""

# Buckets that are new: every outcome that had a figure not too long before and is not in each of them. Asked
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
        WHERE o.org = %(org)s AND (%(flows)s::text[] IS NULL OR o.flow_id = ANY (%(flows)s::text[]))
          AND o.outcome_no NOT IN (
              SELECT s.outcome_no FROM pg_temp.scanned s JOIN pg_temp.newly_covered b USING (bucket_start)
              GROUP BY s.outcome_no HAVING count(*) = (SELECT count(*) FROM pg_temp.newly_covered))
    ) seen
    CROSS JOIN pg_temp.newly_covered b
    WHERE NOT EXISTS (SELECT 1 FROM pg_temp.scanned s
                      WHERE s.outcome_no = seen.outcome_no AND s.bucket_start = b.bucket_start)
    UNION
    SELECT f.outcome_no, f.bucket_start, f.bucket_end
    FROM flow_outcomes.figure f JOIN pg_temp.newly_covered b ON b.bucket_start = f.bucket_start
    WHERE f.org = %(org)s AND f.granularity = %(granularity)s AND f.state = 'expected'
      AND f.bucket_start >= %(start)s AND f.bucket_start < %(end)s
    ON CONFLICT DO NOTHING
"""

# Buckets after a figure that has come or gone, whichever of them was scanned first. One that came can only bring
# nulls where there is no row, one that went can only take back nulls that are there.
FIND_EXPECTED_LATER = """
    INSERT INTO pg_temp.candidate
    WITH moved AS (
        SELECT outcome_no, outcome_count IS NOT NULL AS came,
               min(bucket_end) AS earliest, max(bucket_end) AS latest
        FROM pg_temp.change
        WHERE (outcome_count IS NULL) <> (old_count IS NULL)
        GROUP BY outcome_no, outcome_count IS NOT NULL
    ), reach AS (
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

_WANTED = """
    EXISTS (
        SELECT 1
        FROM flow_outcomes.bucket_coverage v
        JOIN flow_outcomes.flow_scope s ON s.org = v.org AND s.scope = v.scope
        JOIN flow_outcomes.outcome o ON o.org = v.org AND o.outcome_no = k.outcome_no
        WHERE v.org = %(org)s AND v.granularity = %(granularity)s AND v.bucket_start = k.bucket_start
          AND v.silence_told AND (s.flow_ids IS NULL OR o.flow_id = ANY (s.flow_ids))
          AND EXISTS (
              SELECT 1 FROM flow_outcomes.figure p
              WHERE p.org = %(org)s AND p.granularity = %(granularity)s AND p.outcome_no = k.outcome_no
                AND p.outcome_count IS NOT NULL
                AND p.bucket_start >= %(seen_from)s AND p.bucket_start < %(expected_to)s
                AND p.bucket_start >= k.bucket_start - v.expect_for - %(longest_bucket)s
                AND p.bucket_start < k.bucket_start
                AND p.bucket_end <= k.bucket_start AND p.bucket_end >= k.bucket_start - v.expect_for
          )
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
              AND f.bucket_start >= %(start)s AND f.bucket_start <= %(expected_to)s)
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
        SELECT f.outcome_no, f.bucket_end
        FROM reach r
        JOIN flow_outcomes.figure f
          ON f.org = %(org)s AND f.granularity = %(granularity)s AND f.outcome_no = r.outcome_no
         AND f.bucket_start >= %(start)s AND f.bucket_start < %(expected_to)s
         AND f.bucket_start >= r.earliest AND f.bucket_start < r.latest
        WHERE f.outcome_count IS NOT NULL
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
        JOIN flow_outcomes.outcome o ON o.org = %(org)s AND o.outcome_no = w.outcome_no
        WHERE w.bucket_start IS NOT NULL AND w.seen_to IS NOT NULL
          AND EXISTS (
              SELECT 1
              FROM flow_outcomes.bucket_coverage v
              JOIN flow_outcomes.flow_scope s ON s.org = v.org AND s.scope = v.scope
              WHERE v.org = %(org)s AND v.granularity = %(granularity)s AND v.bucket_start = w.bucket_start
                AND v.silence_told AND (s.flow_ids IS NULL OR o.flow_id = ANY (s.flow_ids))
                AND w.seen_to >= w.bucket_start - v.expect_for)
        ORDER BY w.outcome_no, w.bucket_start
        RETURNING outcome_no, bucket_start
    )
    INSERT INTO pg_temp.missing SELECT * FROM stored
"""

TAKE_BACK_EXPECTED = f"""
    WITH gone AS (
        DELETE FROM flow_outcomes.figure f
        USING pg_temp.candidate k
        WHERE f.org = %(org)s AND f.granularity = %(granularity)s
          AND f.outcome_no = k.outcome_no AND f.bucket_start = k.bucket_start
          AND f.bucket_start >= %(start)s AND f.bucket_start <= %(expected_to)s
          AND f.state = 'expected' AND f.revision < %(revision)s AND NOT {_WANTED}
        RETURNING f.*
    )
    INSERT INTO flow_outcomes.figure_history
    SELECT org, granularity, outcome_no, bucket_start, bucket_end, state, outcome_count, outcome_percentage,
           success_count, failure_count, extraction_timestamp, revision, %(revision)s
    FROM gone
"""

# What this scan made null that a reader misses: a name that another one was made an alias of is not missing.
COUNT_MISSING = """
    WITH told AS MATERIALIZED (
        SELECT n.flow_id, n.outcome_name, s.bucket_start
        FROM pg_temp.scanned s JOIN pg_temp.scan_outcome n USING (outcome_no)
    ), gone AS (
        SELECT o.flow_id, o.outcome_name, m.bucket_start
        FROM (SELECT outcome_no, bucket_start FROM pg_temp.missing
              UNION ALL
              SELECT outcome_no, bucket_start FROM pg_temp.change WHERE state = 'withdrawn') m
        JOIN flow_outcomes.outcome o ON o.org = %(org)s AND o.outcome_no = m.outcome_no
        WHERE o.outcome_name <> ''
    )
    SELECT b.window_start, count(*), (array_agg(DISTINCT gone.outcome_name))[1:5]
    FROM gone
    JOIN pg_temp.scan_bucket b USING (bucket_start)
    LEFT JOIN told USING (flow_id, outcome_name, bucket_start)
    WHERE told.flow_id IS NULL
    GROUP BY b.window_start
"""

# A share that fits neither its flow's total in the bucket, nor the bucket's, the flow's or the scan's own. The
# first is asked of every changed figure, the others of the few that do not fit it.
TOTAL_FLOWS = """
    INSERT INTO pg_temp.flow_total
    SELECT o.flow_no, s.bucket_start, coalesce(sum(s.outcome_count), 0)::double precision
    FROM pg_temp.scanned s JOIN pg_temp.scan_outcome o USING (outcome_no)
    GROUP BY o.flow_no, s.bucket_start HAVING NOT bool_or(s.rejected)
"""

FIND_SUSPECTS = """
    INSERT INTO pg_temp.suspect
    SELECT o.flow_no, c.bucket_start, c.outcome_count, c.outcome_percentage
    FROM pg_temp.change c
    JOIN pg_temp.scan_outcome o USING (outcome_no)
    JOIN pg_temp.flow_total t ON t.flow_no = o.flow_no AND t.bucket_start = c.bucket_start
    WHERE abs(c.outcome_percentage - coalesce(c.outcome_count / nullif(t.total, 0), 0)) > 0.01
"""

COUNT_MISMATCHES = """
    SELECT b.window_start, count(*)
    FROM pg_temp.suspect s
    JOIN pg_temp.scan_bucket b USING (bucket_start)
    JOIN (SELECT bucket_start, sum(total) AS total FROM pg_temp.flow_total GROUP BY bucket_start) bucket
        USING (bucket_start)
    JOIN (SELECT flow_no, sum(total) AS total FROM pg_temp.flow_total GROUP BY flow_no) flow USING (flow_no)
    CROSS JOIN (SELECT sum(total) AS total FROM pg_temp.flow_total) scan
    WHERE abs(s.outcome_percentage - coalesce(s.outcome_count / nullif(bucket.total, 0), 0)) > 0.01
      AND abs(s.outcome_percentage - coalesce(s.outcome_count / nullif(flow.total, 0), 0)) > 0.01
      AND abs(s.outcome_percentage - coalesce(s.outcome_count / nullif(scan.total, 0), 0)) > 0.01
    GROUP BY b.window_start
"""

COMPLETE_WINDOW = """
    UPDATE flow_outcomes.extraction_window
    SET state = 'complete', granularity = %(granularity)s, query_hash = %(query_hash)s, pages = %(pages)s,
        entries = %(entries)s, rows = %(rows)s, rejected = %(rejected)s, last_error = NULL, doubted_in = NULL,
        ask_alone = false, completed_at = clock_timestamp(), scanned_at = clock_timestamp() - %(elapsed)s,
        complete_since = coalesce(complete_since, clock_timestamp()),
        flow_ids = %(flows)s::text[], requests_read = requests_begun
    WHERE org = %(org)s AND work = %(work)s AND window_start = %(window_start)s AND window_end = %(window_end)s
      AND requested_granularity = %(requested)s
"""

# Until it is believed, a window that was complete stays so, and one that was not stays due.
DOUBT_WINDOW = """
    UPDATE flow_outcomes.extraction_window
    SET doubted_in = coalesce(doubted_in, %(cycle)s), query_hash = %(query_hash)s, last_error = %(doubt)s,
        state = CASE WHEN state = 'complete' THEN 'complete' ELSE 'pending' END
    WHERE org = %(org)s AND work = %(work)s AND window_start = %(window_start)s AND window_end = %(window_end)s
      AND requested_granularity = %(requested)s
"""

# A figure, whoever read it, refutes an empty scan that is not believed yet.
REFUTE_DOUBTS = """
    UPDATE flow_outcomes.extraction_window x
    SET doubted_in = NULL, last_error = NULL
    WHERE x.org = %(org)s AND x.granularity = %(granularity)s AND x.doubted_in IS NOT NULL
      AND x.window_start < %(end)s AND x.window_end > %(start)s
      AND EXISTS (
          SELECT 1
          FROM pg_temp.scanned s
          JOIN pg_temp.scan_outcome o ON o.outcome_no = s.outcome_no
          WHERE s.bucket_start >= x.window_start AND s.bucket_start < x.window_end AND NOT s.rejected
            AND (x.flow_ids IS NULL OR o.flow_id = ANY (x.flow_ids)))
"""
