"""A scan in the session's temporary tables: its buckets, the numbers of its series, its figures, each once.

How the statements of a merge are written. The planner has no statistics on a new org or a new month. It expects
one row where there are thousands, and so may read all of them for each row of a scan instead of using an index. No
statement depends on its estimates:

- A row is looked up by its key with ``LATERAL (… LIMIT 1)`` or ``EXISTS (… OFFSET 0)``, which the planner cannot
  turn into a join in another order.
- Many rows are joined with temporary tables, whose sizes it knows.
- Where several indexes begin with the org, ``org = (SELECT %(org)s::text)`` makes it estimate an average org, and
  so choose the index that finds a single row.

All statements of a merge share these parameters: org, measure, group_by (names with commas between them),
granularity, start and end (the scan's span), flows (null: all), scope, expect_for, stream, by_id, scan_number,
window_starts, window_ends, revision, began_at, completed_at.

Aliases, the same in all statements: b scan_bucket, n scan_name, so scan_series, sf scan_figure, sr scan_reject,
su superseded, pc previous_coverage, nc new_coverage, ch change, k candidate, en expected_null, ft flow_total,
c bucket_coverage, fs flow_scope, f figure, o series, t outcome_title, a outcome_alias, w extraction_window.
"""

from __future__ import annotations

from datetime import datetime
from typing import LiteralString, NamedTuple

from service.postgres.merge.columns import VALUE_DEFINITIONS, VALUES

CREATE_TABLES = f"""
    -- The buckets of the scan.
    CREATE TEMP TABLE IF NOT EXISTS scan_bucket (
        bucket_start       timestamptz PRIMARY KEY,
        bucket_end         timestamptz NOT NULL,
        window_start       timestamptz NOT NULL,
        confirmed          boolean NOT NULL,   -- false: the window is empty, and not accepted as that
        absence_conclusive boolean NOT NULL,   -- false: a rejected entry may have been any outcome
        keep_stored        boolean NOT NULL DEFAULT false   -- stored figures stay as they are
    ) ON COMMIT DELETE ROWS;
    -- Names as the rows refer to them, each in one combination of dimensions. A name may have several numbers.
    CREATE TEMP TABLE IF NOT EXISTS scan_name (
        name_no    integer NOT NULL,
        flow_id    text NOT NULL,
        source_key text NOT NULL,
        dimensions jsonb NOT NULL
    ) ON COMMIT DELETE ROWS;
    -- Names that the scan reports, one number each, and their series.
    CREATE TEMP TABLE IF NOT EXISTS scan_series (
        name_no    integer NOT NULL,
        series_no  bigint NOT NULL,
        flow_id    text NOT NULL,
        source_key text NOT NULL,
        dimensions jsonb NOT NULL
    ) ON COMMIT DELETE ROWS;
    -- Figures that the scan reports, one for each series and bucket.
    CREATE TEMP TABLE IF NOT EXISTS scan_figure (
        bucket_start timestamptz NOT NULL,
        bucket_end   timestamptz NOT NULL,
        name_no      integer NOT NULL,
        state        flow_outcomes.figure_state NOT NULL,
        {VALUE_DEFINITIONS},
        part         text NOT NULL DEFAULT '',
        conflicting  boolean NOT NULL DEFAULT false
    ) ON COMMIT DELETE ROWS;
    -- Figures that differ from what is stored.
    CREATE TEMP TABLE IF NOT EXISTS change (
        series_no    bigint NOT NULL,
        bucket_start timestamptz NOT NULL,
        bucket_end   timestamptz NOT NULL,
        state        flow_outcomes.figure_state,   -- null: the figure ends, since its series is grouped otherwise
        {VALUE_DEFINITIONS},
        old_state    flow_outcomes.figure_state,
        old_count    bigint
    ) ON COMMIT DELETE ROWS;
    -- Buckets that a scan with a higher number has covered, and for which flows.
    CREATE TEMP TABLE IF NOT EXISTS superseded (
        bucket_start timestamptz NOT NULL,
        flow_ids     text[],
        scan_number  bigint NOT NULL
    ) ON COMMIT DELETE ROWS;
    -- Buckets that an earlier scan has covered, and for which flows.
    CREATE TEMP TABLE IF NOT EXISTS previous_coverage (
        bucket_start timestamptz NOT NULL,
        flow_ids     text[],
        group_by     text NOT NULL
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
        series_no    bigint NOT NULL,
        bucket_start timestamptz NOT NULL,
        bucket_end   timestamptz NOT NULL,
        PRIMARY KEY (series_no, bucket_start)
    ) ON COMMIT DELETE ROWS;
    -- Expected nulls that were stored.
    CREATE TEMP TABLE IF NOT EXISTS expected_null (
        series_no    bigint NOT NULL,
        bucket_start timestamptz NOT NULL
    ) ON COMMIT DELETE ROWS;
"""

INSERT_BUCKETS = """
    INSERT INTO pg_temp.scan_bucket (bucket_start, bucket_end, window_start, confirmed, absence_conclusive)
    SELECT *, true, true
    FROM unnest(%(bucket_starts)s::timestamptz[], %(bucket_ends)s::timestamptz[],
                %(bucket_windows)s::timestamptz[])
"""

ADD_SERIES = """
    WITH
    -- Names as they are displayed: where the API reports ids, the title if it is known, else the id.
    named AS (
        SELECT DISTINCT n.flow_id, n.source_key, n.dimensions, coalesce(t.name, n.source_key) AS name
        FROM pg_temp.scan_name n
        LEFT JOIN flow_outcomes.outcome_title t
          ON %(by_id)s AND t.org = %(org)s AND t.outcome_id = n.source_key
         AND t.measure = %(measure)s::flow_outcomes.measure
    ),
    -- Those without a series get one: under the name of the same outcome in other dimensions, so that an alias
    -- which is not applied yet does not split it, else under the name after the aliases, which only outcomes have.
    added AS (
        INSERT INTO flow_outcomes.series
               (org, flow_id, source_key, outcome_id, reported_name, outcome_name, revision, measure, dimensions,
                group_by)
        SELECT %(org)s, named.flow_id, named.source_key, CASE WHEN %(by_id)s THEN nullif(named.source_key, '') END,
               named.name,
               CASE WHEN alike.outcome_name IS NOT NULL THEN alike.outcome_name
                    WHEN %(measure)s::flow_outcomes.measure = 'outcomes' AND named.name IN (
                             SELECT a.old_name FROM flow_outcomes.outcome_alias a WHERE a.org = %(org)s)
                    THEN flow_outcomes.resolve_alias(%(org)s, named.flow_id, named.name) ELSE named.name END,
               %(revision)s, %(measure)s::flow_outcomes.measure, named.dimensions, %(group_by)s
        FROM named
        LEFT JOIN LATERAL (
            SELECT true AS known FROM flow_outcomes.series o
            WHERE o.org = (SELECT %(org)s::text)
              AND o.flow_id = named.flow_id AND o.source_key = named.source_key
              AND o.measure = %(measure)s::flow_outcomes.measure AND o.dimensions = named.dimensions
            LIMIT 1
        ) o ON true
        LEFT JOIN LATERAL (
            SELECT o.outcome_name FROM flow_outcomes.series o
            WHERE o.org = (SELECT %(org)s::text)
              AND o.flow_id = named.flow_id AND o.source_key = named.source_key
              AND o.measure = %(measure)s::flow_outcomes.measure
            LIMIT 1
        ) alike ON true
        WHERE o.known IS NULL
        ORDER BY named.flow_id, named.source_key, named.dimensions
        RETURNING flow_id
    )
    INSERT INTO flow_outcomes.flow (org, flow_id)
    SELECT DISTINCT %(org)s, flow_id FROM added ORDER BY flow_id
    ON CONFLICT DO NOTHING
"""

_FIND_SERIES: LiteralString = """
    INSERT INTO pg_temp.scan_series (name_no, series_no, flow_id, source_key, dimensions)
    SELECT n.name_no, o.series_no, o.flow_id, o.source_key, o.dimensions
    FROM {names} n
    CROSS JOIN LATERAL (
        SELECT o.series_no, o.flow_id, o.source_key, o.dimensions FROM flow_outcomes.series o
        WHERE o.org = (SELECT %(org)s::text) AND o.flow_id = n.flow_id AND o.source_key = n.source_key
          AND o.measure = %(measure)s::flow_outcomes.measure AND o.dimensions = n.dimensions
        LIMIT 1
    ) o
"""
FIND_SERIES = _FIND_SERIES.format(names="pg_temp.scan_name")
"""For a scan in which nothing repeats, names included."""
FIND_REPEATED_SERIES = _FIND_SERIES.format(
    names="(SELECT min(name_no) AS name_no, flow_id, source_key, dimensions FROM pg_temp.scan_name"
    " GROUP BY flow_id, source_key, dimensions)"
)

COUNT_SERIES = "SELECT count(*) FROM (SELECT DISTINCT flow_id, source_key, dimensions FROM pg_temp.scan_name) n"

DELETE_SERIES = "DELETE FROM pg_temp.scan_series"

# Four bytes of the name's number and eight of the series', for all of them in one value.
PACK_SERIES = """
    SELECT coalesce(string_agg(int4send(name_no) || int8send(series_no), ''), '') FROM pg_temp.scan_series
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
    JOIN pg_temp.scan_series so
      ON so.flow_id = n.flow_id AND so.source_key = n.source_key AND so.dimensions = n.dimensions
    GROUP BY so.name_no, sf.bucket_start
"""

INSERT_PARTS = f"""
    WITH
    -- Each part once: equal figures of one part count once. A part may have durations and no count.
    part AS (
        SELECT so.name_no, sf.bucket_start, sf.part, min(sf.bucket_end) AS bucket_end,
               max(sf.state) AS state, min(sf.outcome_count) AS outcome_count,
               min(sf.outcome_percentage) AS outcome_percentage,
               CASE WHEN count(sf.success_count) = count(sf.outcome_count) THEN min(sf.success_count) END
                   AS success_count,
               CASE WHEN count(sf.failure_count) = count(sf.outcome_count) THEN min(sf.failure_count) END
                   AS failure_count,
               CASE WHEN count(sf.execution_count) = count(sf.outcome_count) THEN min(sf.execution_count) END
                   AS execution_count,
               min(sf.duration_count) AS duration_count, min(sf.duration_sum_ms) AS duration_sum_ms,
               min(sf.duration_min_ms) AS duration_min_ms, min(sf.duration_max_ms) AS duration_max_ms,
               count(*) > 1 AND (
                   min(sf.outcome_count) IS DISTINCT FROM max(sf.outcome_count)
                   OR min(sf.outcome_percentage) IS DISTINCT FROM max(sf.outcome_percentage)
                   OR count(sf.outcome_percentage) NOT IN (0, count(*))
                   OR min(sf.success_count) IS DISTINCT FROM max(sf.success_count)
                   OR min(sf.failure_count) IS DISTINCT FROM max(sf.failure_count)
                   OR min(sf.execution_count) IS DISTINCT FROM max(sf.execution_count)
                   OR min(sf.duration_count) IS DISTINCT FROM max(sf.duration_count)
                   OR min(sf.duration_sum_ms) IS DISTINCT FROM max(sf.duration_sum_ms)
                   OR min(sf.duration_min_ms) IS DISTINCT FROM max(sf.duration_min_ms)
                   OR min(sf.duration_max_ms) IS DISTINCT FROM max(sf.duration_max_ms)) AS conflicting
        FROM pg_temp.scan_figure_raw sf
        JOIN pg_temp.scan_name n ON n.name_no = sf.name_no
        JOIN pg_temp.scan_series so
          ON so.flow_id = n.flow_id AND so.source_key = n.source_key AND so.dimensions = n.dimensions
        GROUP BY so.name_no, sf.bucket_start, sf.part
    ),
    -- A sum is known where no part was rejected, and where it fits a bigint.
    -- Its split is known where every part has one.
    judged AS (
        SELECT *, state = 'reported' AND sum(outcome_count) OVER (PARTITION BY name_no, bucket_start)
                                   <= 9223372036854775807 AS known
        FROM part
    ),
    -- Durations are known (or there are none) where those of no part are invalid, and where they fit a bigint.
    summed AS (
        SELECT name_no, bucket_start, min(bucket_end) AS bucket_end, bool_and(known) AS known,
               bool_and(known) AND min(duration_count) >= 0
                   AND greatest(sum(duration_count), sum(duration_sum_ms)) <= 9223372036854775807 AS timed,
               sum(outcome_count) AS outcome_count,
               CASE WHEN count(outcome_percentage) = count(*) THEN sum(outcome_percentage) END
                   AS outcome_percentage,
               CASE WHEN count(success_count) = count(outcome_count) THEN sum(success_count) END AS success_count,
               CASE WHEN count(failure_count) = count(outcome_count) THEN sum(failure_count) END AS failure_count,
               CASE WHEN count(execution_count) = count(outcome_count) THEN sum(execution_count) END
                   AS execution_count,
               sum(duration_count) AS duration_count, sum(duration_sum_ms) AS duration_sum_ms,
               CASE WHEN count(duration_min_ms) = count(duration_count) THEN min(duration_min_ms) END
                   AS duration_min_ms,
               CASE WHEN count(duration_max_ms) = count(duration_count) THEN max(duration_max_ms) END
                   AS duration_max_ms,
               bool_or(conflicting) AS conflicting
        FROM judged
        GROUP BY name_no, bucket_start
        -- durations without any count are no figure
        HAVING bool_or(state = 'rejected' OR outcome_count IS NOT NULL)
    )
    INSERT INTO pg_temp.scan_figure (name_no, bucket_start, bucket_end, state, {VALUES}, conflicting)
    SELECT name_no, bucket_start, bucket_end,
           (CASE WHEN known THEN 'reported' ELSE 'rejected' END)::flow_outcomes.figure_state,
           CASE WHEN known THEN outcome_count END, CASE WHEN known THEN outcome_percentage END,
           CASE WHEN known THEN success_count END, CASE WHEN known THEN failure_count END,
           CASE WHEN known AND execution_count <= 9223372036854775807 THEN execution_count END,
           CASE WHEN timed THEN duration_count WHEN known AND duration_count IS NOT NULL THEN -1 END,
           CASE WHEN timed THEN duration_sum_ms END, CASE WHEN timed THEN duration_min_ms END,
           CASE WHEN timed THEN duration_max_ms END,
           known AND conflicting
    FROM summed
"""

# Where figures come in several parts, a rejected entry may have been a part of any outcome that it does not rule
# out, whose sum is unknown then.
REJECT_INCOMPLETE_SUMS = f"""
    UPDATE pg_temp.scan_figure sf
    SET state = 'rejected', ({VALUES}) = ROW ({", ".join(["NULL"] * (VALUES.count(",") + 1))})
    FROM pg_temp.scan_series so, pg_temp.scan_reject sr
    WHERE so.name_no = sf.name_no
      AND (sr.flow_id IS NULL OR sr.outcome_name IS NULL OR sr.bucket_start IS NULL)
      AND (sr.flow_id IS NULL OR sr.flow_id = so.flow_id)
      AND (sr.outcome_name IS NULL OR sr.outcome_name = so.source_key)
      AND (sr.bucket_start IS NULL OR sr.bucket_start = sf.bucket_start)
      AND EXISTS (
          SELECT FROM pg_temp.scan_figure_raw r
          JOIN pg_temp.scan_name n ON n.name_no = r.name_no
          GROUP BY n.flow_id, n.source_key, n.dimensions, r.bucket_start
          HAVING count(DISTINCT r.part) > 1)
"""


class Conflict(NamedTuple):
    """A row of ``FIND_CONFLICT``."""

    flow_id: str
    bucket_start: datetime
    source_key: str


FIND_CONFLICT = """
    SELECT so.flow_id, sf.bucket_start, so.source_key
    FROM pg_temp.scan_figure sf
    JOIN pg_temp.scan_series so USING (name_no)
    WHERE sf.conflicting LIMIT 1
"""

# The numbers of the names that are not in each of the scan's buckets.
FIND_SPARSE = """
    SELECT coalesce(array_agg(so.name_no), '{}')
    FROM pg_temp.scan_series so
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
