"""A scan in the session's temporary tables: its buckets, its outcomes' numbers, its figures, each once.

How the statements of a merge are written. The planner has no statistics on a new org or a new month. It expects
one row where there are thousands, and so may read all of them for each row of a scan instead of using an index. No
statement depends on its estimates:

- A row is looked up by its key with ``LATERAL (… LIMIT 1)`` or ``EXISTS (… OFFSET 0)``, which the planner cannot
  turn into a join in another order.
- Many rows are joined with temporary tables, whose sizes it knows.
- Where several indexes begin with the org, ``org = (SELECT %(org)s::text)`` makes it estimate an average org, and
  so choose the index that finds a single row.

All statements of a merge share these parameters: org, granularity, start and end (the scan's span), flows (null:
all), scope, expect_for, stream, by_id, scan_number, window_starts, window_ends, revision, began_at, completed_at.

Aliases, the same in all statements: b scan_bucket, n scan_name, so scan_outcome, sf scan_figure, sr scan_reject,
su superseded, pc previous_coverage, nc new_coverage, ch change, k candidate, en expected_null, ft flow_total,
c bucket_coverage, fs flow_scope, f figure, o outcome, t outcome_title, a outcome_alias, w extraction_window.
"""

from __future__ import annotations

from datetime import datetime
from typing import LiteralString, NamedTuple

CREATE_TABLES = """
    -- The buckets of the scan.
    CREATE TEMP TABLE IF NOT EXISTS scan_bucket (
        bucket_start       timestamptz PRIMARY KEY,
        bucket_end         timestamptz NOT NULL,
        window_start       timestamptz NOT NULL,
        confirmed          boolean NOT NULL,   -- false: the window is empty, and not accepted as that
        absence_conclusive boolean NOT NULL,   -- false: a rejected entry may have been any outcome
        keep_stored        boolean NOT NULL DEFAULT false   -- stored figures stay as they are
    ) ON COMMIT DELETE ROWS;
    -- Names as the rows refer to them. A name may have several numbers.
    CREATE TEMP TABLE IF NOT EXISTS scan_name (
        name_no    integer NOT NULL,
        flow_id    text NOT NULL,
        source_key text NOT NULL
    ) ON COMMIT DELETE ROWS;
    -- Names that the scan reports, one number each, and their outcomes.
    CREATE TEMP TABLE IF NOT EXISTS scan_outcome (
        name_no    integer NOT NULL,
        outcome_no bigint NOT NULL,
        flow_id    text NOT NULL,
        source_key text NOT NULL
    ) ON COMMIT DELETE ROWS;
    -- Figures that the scan reports, one for each outcome and bucket.
    CREATE TEMP TABLE IF NOT EXISTS scan_figure (
        bucket_start       timestamptz NOT NULL,
        bucket_end         timestamptz NOT NULL,
        name_no            integer NOT NULL,
        state              flow_outcomes.figure_state NOT NULL,
        outcome_count      bigint,
        outcome_percentage double precision,
        success_count      bigint,
        failure_count      bigint,
        part               text NOT NULL DEFAULT '',
        conflicting        boolean NOT NULL DEFAULT false
    ) ON COMMIT DELETE ROWS;
    -- Figures that differ from what is stored.
    CREATE TEMP TABLE IF NOT EXISTS change (
        outcome_no         bigint NOT NULL,
        bucket_start       timestamptz NOT NULL,
        bucket_end         timestamptz NOT NULL,
        state              flow_outcomes.figure_state NOT NULL,
        outcome_count      bigint,
        outcome_percentage double precision,
        success_count      bigint,
        failure_count      bigint,
        old_state          flow_outcomes.figure_state,
        old_count          bigint
    ) ON COMMIT DELETE ROWS;
    -- Buckets that a scan with a higher number has covered, and for which flows.
    CREATE TEMP TABLE IF NOT EXISTS superseded (
        bucket_start timestamptz NOT NULL,
        flow_ids     text[]
    ) ON COMMIT DELETE ROWS;
    -- Buckets that an earlier scan has covered, and for which flows.
    CREATE TEMP TABLE IF NOT EXISTS previous_coverage (
        bucket_start timestamptz NOT NULL,
        flow_ids     text[]
    ) ON COMMIT DELETE ROWS;
    -- Buckets whose coverage is new or has changed.
    CREATE TEMP TABLE IF NOT EXISTS new_coverage (
        bucket_start timestamptz NOT NULL,
        bucket_end   timestamptz NOT NULL
    ) ON COMMIT DELETE ROWS;
"""

# A new temporary table writes to the catalogs, so those that few merges need are created by these merges.
CREATE_REPEATS = """
    -- Figures as reported, where an outcome may be reported twice in a bucket, or in parts.
    CREATE TEMP TABLE IF NOT EXISTS scan_figure_raw (LIKE scan_figure INCLUDING DEFAULTS) ON COMMIT DELETE ROWS
"""

CREATE_REJECTS = """
    -- Rejected outcomes.
    CREATE TEMP TABLE IF NOT EXISTS scan_reject (
        digest       text NOT NULL,
        ordinal      integer NOT NULL,
        reason       text NOT NULL,
        entry        text,   -- with the first outcome of an entry alone
        flow_id      text,
        bucket_start timestamptz,
        outcome_name text
    ) ON COMMIT DELETE ROWS
"""

CREATE_SHARES = """
    -- The total of a flow in a bucket, where all of its counts are known.
    CREATE TEMP TABLE IF NOT EXISTS flow_total (
        flow_id      text NOT NULL,
        bucket_start timestamptz NOT NULL,
        total        double precision NOT NULL
    ) ON COMMIT DELETE ROWS;
    -- Figures whose share does not fit that total.
    CREATE TEMP TABLE IF NOT EXISTS suspect (
        flow_id            text NOT NULL,
        bucket_start       timestamptz NOT NULL,
        outcome_count      bigint,
        outcome_percentage double precision NOT NULL
    ) ON COMMIT DELETE ROWS;
"""

CREATE_EXPECTED = """
    -- Where an expected null may be missing or no longer be right.
    CREATE TEMP TABLE IF NOT EXISTS candidate (
        outcome_no   bigint NOT NULL,
        bucket_start timestamptz NOT NULL,
        bucket_end   timestamptz NOT NULL,
        PRIMARY KEY (outcome_no, bucket_start)
    ) ON COMMIT DELETE ROWS;
    -- Expected nulls that were stored.
    CREATE TEMP TABLE IF NOT EXISTS expected_null (
        outcome_no   bigint NOT NULL,
        bucket_start timestamptz NOT NULL
    ) ON COMMIT DELETE ROWS;
"""

INSERT_BUCKETS = """
    INSERT INTO pg_temp.scan_bucket (bucket_start, bucket_end, window_start, confirmed, absence_conclusive)
    SELECT *, true, true
    FROM unnest(%(bucket_starts)s::timestamptz[], %(bucket_ends)s::timestamptz[],
                %(bucket_windows)s::timestamptz[])
"""

ADD_OUTCOMES = """
    WITH
    -- Names as they are displayed: where the API reports ids, the title if it is known, else the id.
    named AS (
        SELECT DISTINCT n.flow_id, n.source_key, coalesce(t.name, n.source_key) AS name
        FROM pg_temp.scan_name n
        LEFT JOIN flow_outcomes.outcome_title t
          ON %(by_id)s AND t.org = %(org)s AND t.outcome_id = n.source_key
    ),
    -- Those without an outcome get one, under the name after the aliases.
    added AS (
        INSERT INTO flow_outcomes.outcome
               (org, flow_id, source_key, outcome_id, reported_name, outcome_name, revision)
        SELECT %(org)s, named.flow_id, named.source_key, CASE WHEN %(by_id)s THEN nullif(named.source_key, '') END,
               named.name,
               CASE WHEN named.name IN (SELECT a.old_name FROM flow_outcomes.outcome_alias a WHERE a.org = %(org)s)
                    THEN flow_outcomes.resolve_alias(%(org)s, named.flow_id, named.name) ELSE named.name END,
               %(revision)s
        FROM named
        LEFT JOIN LATERAL (
            SELECT true AS known FROM flow_outcomes.outcome o
            WHERE o.org = (SELECT %(org)s::text)
              AND o.flow_id = named.flow_id AND o.source_key = named.source_key
            LIMIT 1
        ) o ON true
        WHERE o.known IS NULL
        ORDER BY named.flow_id, named.source_key
        RETURNING flow_id
    )
    INSERT INTO flow_outcomes.flow (org, flow_id)
    SELECT DISTINCT %(org)s, flow_id FROM added ORDER BY flow_id
    ON CONFLICT DO NOTHING
"""

_FIND_OUTCOMES: LiteralString = """
    INSERT INTO pg_temp.scan_outcome (name_no, outcome_no, flow_id, source_key)
    SELECT n.name_no, o.outcome_no, o.flow_id, o.source_key
    FROM {names} n
    CROSS JOIN LATERAL (
        SELECT o.outcome_no, o.flow_id, o.source_key FROM flow_outcomes.outcome o
        WHERE o.org = (SELECT %(org)s::text) AND o.flow_id = n.flow_id AND o.source_key = n.source_key
        LIMIT 1
    ) o
"""
FIND_OUTCOMES = _FIND_OUTCOMES.format(names="pg_temp.scan_name")
"""For a scan in which nothing repeats, names included."""
FIND_REPEATED_OUTCOMES = _FIND_OUTCOMES.format(
    names="(SELECT min(name_no) AS name_no, flow_id, source_key FROM pg_temp.scan_name GROUP BY 2, 3)"
)

DELETE_OUTCOMES = "DELETE FROM pg_temp.scan_outcome"

# Four bytes of the name's number and eight of the outcome's, for all of them in one value.
PACK_OUTCOMES = """
    SELECT coalesce(string_agg(int4send(name_no) || int8send(outcome_no), ''), '') FROM pg_temp.scan_outcome
"""

# Equal figures count once. An outcome that was rejected once is rejected.
INSERT_REPEATED = """
    INSERT INTO pg_temp.scan_figure (name_no, bucket_start, bucket_end, state, outcome_count, outcome_percentage,
                                     success_count, failure_count, conflicting)
    SELECT so.name_no, sf.bucket_start, min(sf.bucket_end), max(sf.state),
           CASE WHEN max(sf.state) = 'reported' THEN min(sf.outcome_count) END,
           CASE WHEN max(sf.state) = 'reported' THEN min(sf.outcome_percentage) END,
           CASE WHEN max(sf.state) = 'reported' THEN min(sf.success_count) END,
           CASE WHEN max(sf.state) = 'reported' THEN min(sf.failure_count) END,
           max(sf.state) = 'reported' AND count(*) > 1 AND (
               min(sf.outcome_count) <> max(sf.outcome_count)
               OR min(sf.outcome_percentage) IS DISTINCT FROM max(sf.outcome_percentage)
               OR count(sf.outcome_percentage) NOT IN (0, count(*))
               OR min(sf.success_count) IS DISTINCT FROM max(sf.success_count)
               OR min(sf.failure_count) IS DISTINCT FROM max(sf.failure_count))
    FROM pg_temp.scan_figure_raw sf
    JOIN pg_temp.scan_name n ON n.name_no = sf.name_no
    JOIN pg_temp.scan_outcome so ON so.flow_id = n.flow_id AND so.source_key = n.source_key
    GROUP BY so.name_no, sf.bucket_start
"""

INSERT_PARTS = """
    WITH
    -- Each part once: equal figures of one part count once.
    part AS (
        SELECT so.name_no, sf.bucket_start, sf.part, min(sf.bucket_end) AS bucket_end,
               max(sf.state) AS state, min(sf.outcome_count) AS outcome_count,
               min(sf.outcome_percentage) AS outcome_percentage,
               CASE WHEN count(sf.success_count) = count(*) THEN min(sf.success_count) END AS success_count,
               CASE WHEN count(sf.failure_count) = count(*) THEN min(sf.failure_count) END AS failure_count,
               count(*) > 1 AND (
                   min(sf.outcome_count) IS DISTINCT FROM max(sf.outcome_count)
                   OR min(sf.outcome_percentage) IS DISTINCT FROM max(sf.outcome_percentage)
                   OR count(sf.outcome_percentage) NOT IN (0, count(*))
                   OR min(sf.success_count) IS DISTINCT FROM max(sf.success_count)
                   OR min(sf.failure_count) IS DISTINCT FROM max(sf.failure_count)) AS conflicting
        FROM pg_temp.scan_figure_raw sf
        JOIN pg_temp.scan_name n ON n.name_no = sf.name_no
        JOIN pg_temp.scan_outcome so ON so.flow_id = n.flow_id AND so.source_key = n.source_key
        GROUP BY so.name_no, sf.bucket_start, sf.part
    ),
    -- A sum is known where no part was rejected, and where it fits a bigint.
    -- Its split is known where every part has one.
    judged AS (
        SELECT *, state = 'reported' AND sum(outcome_count) OVER (PARTITION BY name_no, bucket_start)
                                   <= 9223372036854775807 AS known
        FROM part
    )
    INSERT INTO pg_temp.scan_figure (name_no, bucket_start, bucket_end, state, outcome_count, outcome_percentage,
                                     success_count, failure_count, conflicting)
    SELECT name_no, bucket_start, min(bucket_end),
           (CASE WHEN bool_and(known) THEN 'reported' ELSE 'rejected' END)::flow_outcomes.figure_state,
           CASE WHEN bool_and(known) THEN sum(outcome_count) END,
           CASE WHEN bool_and(known) AND count(outcome_percentage) = count(*) THEN sum(outcome_percentage) END,
           CASE WHEN bool_and(known) AND count(success_count) = count(*) THEN sum(success_count) END,
           CASE WHEN bool_and(known) AND count(failure_count) = count(*) THEN sum(failure_count) END,
           bool_and(known) AND bool_or(conflicting)
    FROM judged
    GROUP BY name_no, bucket_start
"""

# A rejected entry may have been a part of any outcome that it does not rule out, whose sum is unknown then.
REJECT_INCOMPLETE_SUMS = """
    UPDATE pg_temp.scan_figure sf
    SET state = 'rejected', outcome_count = NULL, outcome_percentage = NULL,
        success_count = NULL, failure_count = NULL
    FROM pg_temp.scan_outcome so, pg_temp.scan_reject sr
    WHERE so.name_no = sf.name_no
      AND (sr.flow_id IS NULL OR sr.outcome_name IS NULL OR sr.bucket_start IS NULL)
      AND (sr.flow_id IS NULL OR sr.flow_id = so.flow_id)
      AND (sr.outcome_name IS NULL OR sr.outcome_name = so.source_key)
      AND (sr.bucket_start IS NULL OR sr.bucket_start = sf.bucket_start)
"""


class Conflict(NamedTuple):
    """A row of ``FIND_CONFLICT``."""

    flow_id: str
    bucket_start: datetime
    source_key: str


FIND_CONFLICT = """
    SELECT so.flow_id, sf.bucket_start, so.source_key
    FROM pg_temp.scan_figure sf
    JOIN pg_temp.scan_outcome so USING (name_no)
    WHERE sf.conflicting LIMIT 1
"""

# The numbers of the names that are not in each of the scan's buckets.
FIND_SPARSE = """
    SELECT coalesce(array_agg(so.name_no), '{}')
    FROM pg_temp.scan_outcome so
    LEFT JOIN (SELECT name_no, count(*) AS buckets FROM pg_temp.scan_figure GROUP BY name_no) sf USING (name_no)
    WHERE coalesce(sf.buckets, 0) < (SELECT count(*) FROM pg_temp.scan_bucket)
"""


class WindowCount(NamedTuple):
    """A count of rows in a window."""

    window_start: datetime
    rows: int


COUNT_REPORTED = """
    SELECT b.window_start, count(*) AS rows
    FROM pg_temp.scan_figure sf
    JOIN pg_temp.scan_bucket b USING (bucket_start)
    WHERE sf.state = 'reported'
    GROUP BY b.window_start
"""
