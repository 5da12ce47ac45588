"""The scan in the session's own tables, where it was poured: its names numbered, each key once.

A merge's statements are written so that none becomes slow where the planner knows nothing of the org, as of a new
one, or of a new month: it takes thousands of rows for one, and then one plan is as good as another to it. So what
is looked up by its key is looked up row by row (LATERAL … LIMIT 1, or EXISTS … OFFSET 0, which it does not turn
round); what is joined with many rows stands in the session's own tables, whose size it sees; and where several
indexes begin with the org, ``(SELECT org)`` has it reckon with an average one, and so prefer the index that finds
a single row.

Parameters are the same for all statements of a merge: org, granularity, start and end of the scan, flows (null:
all), scope, expect_for, began_at, revision; where silence is looked into also
sparse: the names, by number, that not each of the scan's buckets has.
"""

from __future__ import annotations

from typing import LiteralString

LOCK_ORG = """
    SELECT epoch, revision, clock_timestamp() FROM flow_outcomes.org WHERE org = %(org)s FOR NO KEY UPDATE
"""

# A table of the session's own is written to the catalogue, so those that few merges need are made where they are.
TABLES = """
    -- the scan's buckets, and whether their silence may be believed
    CREATE TEMP TABLE IF NOT EXISTS scan_bucket (
        bucket_start timestamptz PRIMARY KEY, bucket_end timestamptz NOT NULL, window_start timestamptz NOT NULL,
        believed boolean NOT NULL, absence_conclusive boolean NOT NULL
    ) ON COMMIT DELETE ROWS;
    -- the outcomes that it names: what they are called in it, and their numbers
    CREATE TEMP TABLE IF NOT EXISTS scan_outcome (
        name_no integer NOT NULL, outcome_no bigint NOT NULL, flow_id text NOT NULL, source_key text NOT NULL
    ) ON COMMIT DELETE ROWS;
    -- what is different from what is stored
    CREATE TEMP TABLE IF NOT EXISTS change (
        outcome_no bigint NOT NULL, bucket_start timestamptz NOT NULL, bucket_end timestamptz NOT NULL,
        state flow_outcomes.figure_state NOT NULL, outcome_count bigint, outcome_percentage double precision,
        success_count bigint, failure_count bigint, old_state flow_outcomes.figure_state, old_count bigint
    ) ON COMMIT DELETE ROWS;
    -- of its buckets, those that a scan begun later has read already, for which flows
    CREATE TEMP TABLE IF NOT EXISTS superseded (
        bucket_start timestamptz NOT NULL, flow_ids text[]
    ) ON COMMIT DELETE ROWS;
    -- which of its buckets were covered before, for which flows
    CREATE TEMP TABLE IF NOT EXISTS covered_before (
        bucket_start timestamptz NOT NULL, flow_ids text[]
    ) ON COMMIT DELETE ROWS;
    -- its buckets whose coverage is new or has changed
    CREATE TEMP TABLE IF NOT EXISTS newly_covered (
        bucket_start timestamptz NOT NULL, bucket_end timestamptz NOT NULL
    ) ON COMMIT DELETE ROWS;
"""

TABLES_OF_SHARES = """
    -- what each flow's counts in a bucket add up to, where all of them are known
    CREATE TEMP TABLE IF NOT EXISTS flow_total (
        flow_id text NOT NULL, bucket_start timestamptz NOT NULL, total double precision NOT NULL
    ) ON COMMIT DELETE ROWS;
    -- shares that do not fit that total
    CREATE TEMP TABLE IF NOT EXISTS suspect (
        flow_id text NOT NULL, bucket_start timestamptz NOT NULL,
        outcome_count bigint, outcome_percentage double precision NOT NULL
    ) ON COMMIT DELETE ROWS;
"""

TABLES_OF_SILENCE = """
    -- where an expected null may have to come or go
    CREATE TEMP TABLE IF NOT EXISTS candidate (
        outcome_no bigint NOT NULL, bucket_start timestamptz NOT NULL, bucket_end timestamptz NOT NULL,
        PRIMARY KEY (outcome_no, bucket_start)
    ) ON COMMIT DELETE ROWS;
    -- where one came
    CREATE TEMP TABLE IF NOT EXISTS missing (
        outcome_no bigint NOT NULL, bucket_start timestamptz NOT NULL
    ) ON COMMIT DELETE ROWS;
"""

TAKE_BUCKETS = """
    INSERT INTO pg_temp.scan_bucket
    SELECT *, true, true
    FROM unnest(%(bucket_starts)s::timestamptz[], %(bucket_ends)s::timestamptz[],
                %(bucket_windows)s::timestamptz[])
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
            SELECT DISTINCT n.flow_id, n.source_key, coalesce(t.name, n.source_key) AS name
            FROM pg_temp.incoming_name n
            LEFT JOIN flow_outcomes.outcome_title t
              ON %(by_id)s AND t.org = %(org)s AND t.outcome_id = n.source_key
        ) i
        LEFT JOIN LATERAL (
            SELECT true AS known FROM flow_outcomes.outcome o
            WHERE o.org = (SELECT %(org)s::text) AND o.flow_id = i.flow_id AND o.source_key = i.source_key
            LIMIT 1
        ) o ON true
        WHERE o.known IS NULL
        ORDER BY i.flow_id, i.source_key
        RETURNING flow_id
    )
    INSERT INTO flow_outcomes.flow (org, flow_id)
    SELECT DISTINCT %(org)s, flow_id FROM added ORDER BY flow_id
    ON CONFLICT DO NOTHING
"""

_TAKE_OUTCOMES: LiteralString = """
    INSERT INTO pg_temp.scan_outcome
    SELECT n.name_no, o.*
    FROM {names} n
    CROSS JOIN LATERAL (
        SELECT o.outcome_no, o.flow_id, o.source_key FROM flow_outcomes.outcome o
        WHERE o.org = (SELECT %(org)s::text) AND o.flow_id = n.flow_id AND o.source_key = n.source_key
        LIMIT 1
    ) o
"""
TAKE_OUTCOMES = _TAKE_OUTCOMES.format(names="pg_temp.incoming_name")

# Of a scan that says things more than once: a name of it may be numbered more than once too.
TAKE_REPEATED_OUTCOMES = _TAKE_OUTCOMES.format(
    names="(SELECT min(name_no) AS name_no, flow_id, source_key FROM pg_temp.incoming_name GROUP BY 2, 3)"
)

# What the outcomes are called in the scan, four bytes, and their numbers, eight: thousands of rows in one value.
NUMBERS = """
    SELECT coalesce(string_agg(int4send(name_no) || int8send(outcome_no), ''), '') FROM pg_temp.scan_outcome
"""

FORGET_OUTCOMES = "DELETE FROM pg_temp.scan_outcome"

# An outcome that was refused once in the scan is not known, whatever else the scan says of it.
TAKE_REPEATS = """
    INSERT INTO pg_temp.scanned (name_no, bucket_start, bucket_end, state, outcome_count, outcome_percentage,
                                 success_count, failure_count, conflicting)
    SELECT o.name_no, i.bucket_start, min(i.bucket_end), max(i.state),
           CASE WHEN max(i.state) = 'reported' THEN min(i.outcome_count) END,
           CASE WHEN max(i.state) = 'reported' THEN min(i.outcome_percentage) END,
           CASE WHEN max(i.state) = 'reported' THEN min(i.success_count) END,
           CASE WHEN max(i.state) = 'reported' THEN min(i.failure_count) END,
           max(i.state) = 'reported' AND count(*) > 1 AND (
               min(i.outcome_count) <> max(i.outcome_count)
               OR min(i.outcome_percentage) IS DISTINCT FROM max(i.outcome_percentage)
               OR count(i.outcome_percentage) NOT IN (0, count(*))
               OR min(i.success_count) IS DISTINCT FROM max(i.success_count)
               OR min(i.failure_count) IS DISTINCT FROM max(i.failure_count))
    FROM pg_temp.incoming i
    JOIN pg_temp.incoming_name n ON n.name_no = i.name_no
    JOIN pg_temp.scan_outcome o ON o.flow_id = n.flow_id AND o.source_key = n.source_key
    GROUP BY o.name_no, i.bucket_start
"""

# The same where the API tells figures in parts: of one part equal rows count once, and the parts add up. A sum
# that no bigint holds is not known.
TAKE_PARTS = """
    INSERT INTO pg_temp.scanned (name_no, bucket_start, bucket_end, state, outcome_count, outcome_percentage,
                                 success_count, failure_count, conflicting)
    SELECT name_no, bucket_start, min(bucket_end),
           (CASE WHEN bool_and(known) THEN 'reported' ELSE 'rejected' END)::flow_outcomes.figure_state,
           CASE WHEN bool_and(known) THEN sum(outcome_count) END,
           CASE WHEN bool_and(known) AND count(outcome_percentage) = count(*) THEN sum(outcome_percentage) END,
           CASE WHEN bool_and(known) THEN sum(success_count) END,
           CASE WHEN bool_and(known) THEN sum(failure_count) END,
           bool_and(known) AND bool_or(conflicting)
    FROM (
        SELECT *, state = 'reported' AND sum(outcome_count) OVER (PARTITION BY name_no, bucket_start)
                                   <= 9223372036854775807 AS known
        FROM (
            SELECT o.name_no, i.bucket_start, i.part, min(i.bucket_end) AS bucket_end,
                   max(i.state) AS state, min(i.outcome_count) AS outcome_count,
                   min(i.outcome_percentage) AS outcome_percentage,
                   min(i.success_count) AS success_count, min(i.failure_count) AS failure_count,
                   count(*) > 1 AND (
                       min(i.outcome_count) IS DISTINCT FROM max(i.outcome_count)
                       OR min(i.outcome_percentage) IS DISTINCT FROM max(i.outcome_percentage)
                       OR count(i.outcome_percentage) NOT IN (0, count(*))
                       OR min(i.success_count) IS DISTINCT FROM max(i.success_count)
                       OR min(i.failure_count) IS DISTINCT FROM max(i.failure_count)) AS conflicting
            FROM pg_temp.incoming i
            JOIN pg_temp.incoming_name n ON n.name_no = i.name_no
            JOIN pg_temp.scan_outcome o ON o.flow_id = n.flow_id AND o.source_key = n.source_key
            GROUP BY o.name_no, i.bucket_start, i.part
        ) told
    ) told
    GROUP BY name_no, bucket_start
"""

# An entry that was refused may have been a part of whatever it does not rule out; a sum without it is no figure.
DOUBT_PARTS = """
    UPDATE pg_temp.scanned s
    SET state = 'rejected', outcome_count = NULL, outcome_percentage = NULL,
        success_count = NULL, failure_count = NULL
    FROM pg_temp.scan_outcome o, pg_temp.incoming_reject i
    WHERE o.name_no = s.name_no
      AND (i.flow_id IS NULL OR i.outcome_name IS NULL OR i.bucket_start IS NULL)
      AND (i.flow_id IS NULL OR i.flow_id = o.flow_id)
      AND (i.outcome_name IS NULL OR i.outcome_name = o.source_key)
      AND (i.bucket_start IS NULL OR i.bucket_start = s.bucket_start)
"""

FIND_CONFLICT = """
    SELECT o.flow_id, s.bucket_start, o.source_key
    FROM pg_temp.scanned s
    JOIN pg_temp.scan_outcome o ON o.name_no = s.name_no
    WHERE s.conflicting LIMIT 1
"""

# Of what is counted in the process where nothing repeats and nothing was left out.
FIND_SELDOM = """
    SELECT coalesce(array_agg(o.name_no), '{}')
    FROM pg_temp.scan_outcome o
    LEFT JOIN (SELECT name_no, count(*) AS buckets FROM pg_temp.scanned GROUP BY name_no) s USING (name_no)
    WHERE coalesce(s.buckets, 0) < (SELECT count(*) FROM pg_temp.scan_bucket)
"""

COUNT_ROWS = """
    SELECT b.window_start, count(*)
    FROM pg_temp.scanned s JOIN pg_temp.scan_bucket b USING (bucket_start)
    WHERE s.state = 'reported'
    GROUP BY b.window_start
"""
