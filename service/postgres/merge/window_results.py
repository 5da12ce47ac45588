"""Windows: what was rejected in them, which are empty and not accepted as that, and which are complete."""

from __future__ import annotations

from datetime import datetime
from typing import LiteralString, NamedTuple


class RejectCount(NamedTuple):
    """A row of ``COUNT_REJECTS``.

    Attributes:
        window_start: of the window.
        rejected: rejected outcomes in it.
        identified: whether flow, bucket and name of all of them are known.
    """

    window_start: datetime
    rejected: int
    identified: bool


# A rejected entry whose bucket is unknown belongs to the scan's only window.
COUNT_REJECTS = """
    SELECT coalesce(b.window_start, %(only_window)s) AS window_start, count(*) AS rejected,
           bool_and(b.window_start IS NOT NULL AND sr.flow_id IS NOT NULL AND sr.outcome_name IS NOT NULL)
               AS identified
    FROM pg_temp.scan_reject sr
    LEFT JOIN pg_temp.scan_bucket b USING (bucket_start)
    GROUP BY 1
"""

STORE_REJECTED_TEXTS = """
    INSERT INTO flow_outcomes.rejected_text (org, digest, entry)
    SELECT DISTINCT ON (digest) %(org)s, digest, entry FROM pg_temp.scan_reject
    WHERE entry IS NOT NULL ORDER BY digest
    ON CONFLICT DO NOTHING
"""


class StoredReject(NamedTuple):
    """A row of ``STORE_REJECTED``."""

    window_start: datetime
    reason: str
    flow_id: str | None
    outcome_name: str | None


# A row for each rejected outcome, also where an entry was reported twice; a later scan adds no row for the same
# one.
STORE_REJECTED = """
    WITH stored AS (
        INSERT INTO flow_outcomes.rejected_outcome (org, window_start, window_end, digest, ordinal, reason,
                                                    flow_id, bucket_start, outcome_name, rejected_at)
        SELECT %(org)s, scanned.window_start, scanned.window_end, sr.digest,
               row_number() OVER (PARTITION BY scanned.window_start, sr.digest
                                  ORDER BY sr.ordinal, sr.outcome_name, sr.reason) - 1,
               sr.reason, sr.flow_id, sr.bucket_start, sr.outcome_name, %(began_at)s
        FROM pg_temp.scan_reject sr
        LEFT JOIN pg_temp.scan_bucket b USING (bucket_start)
        JOIN unnest(%(window_starts)s::timestamptz[], %(window_ends)s::timestamptz[])
             AS scanned (window_start, window_end)
             ON scanned.window_start = coalesce(b.window_start, %(only_window)s)
        ORDER BY 2, 3, 4, 5
        ON CONFLICT DO NOTHING
        RETURNING window_start, reason, flow_id, outcome_name
    )
    SELECT window_start, reason, flow_id, outcome_name FROM stored LIMIT 20
"""

# Streams overlap, and a slow scan may end after one with a higher number, which then is the truth where both read.
FIND_SUPERSEDED = """
    INSERT INTO pg_temp.superseded (bucket_start, flow_ids, scan_number)
    SELECT b.bucket_start, w.flow_ids, w.scan_number
    FROM flow_outcomes.extraction_window w
    JOIN pg_temp.scan_bucket b ON b.bucket_start >= w.window_start AND b.bucket_start < w.window_end
    WHERE w.org = %(org)s AND w.scan_number > %(scan_number)s AND w.granularity = %(granularity)s
      AND w.measure = %(measure)s::flow_outcomes.measure::text
"""

DELETE_SUPERSEDED = """
    DELETE FROM pg_temp.scan_figure sf
    USING pg_temp.scan_series so, pg_temp.superseded su
    WHERE so.name_no = sf.name_no AND su.bucket_start = sf.bucket_start
      AND (su.flow_ids IS NULL OR so.flow_id = ANY (su.flow_ids))
"""

# A scan that changes no coverage keeps the number that it has there. Where this scan groups by other dimensions,
# the numbers are compared, so those of the scans that supersede it are brought up to date.
RENUMBER_SUPERSEDING = """
    UPDATE flow_outcomes.bucket_coverage c SET grouped_by = later.scan_number
    FROM (
        SELECT su.bucket_start, fs.scope, max(su.scan_number) AS scan_number
        FROM pg_temp.superseded su
        JOIN flow_outcomes.flow_scope fs
             ON fs.org = %(org)s AND (fs.flow_ids IS NULL AND su.flow_ids IS NULL
                                      OR fs.flow_ids @> su.flow_ids AND fs.flow_ids <@ su.flow_ids)
        GROUP BY su.bucket_start, fs.scope
    ) later
    WHERE c.org = %(org)s AND c.granularity = %(granularity)s AND c.measure = %(measure)s::flow_outcomes.measure
      AND c.bucket_start >= %(start)s AND c.bucket_start < %(end)s
      AND c.bucket_start = later.bucket_start AND c.scope = later.scope
      AND c.group_by <> %(group_by)s AND c.grouped_by < later.scan_number
"""

MARK_ABSENCE_INCONCLUSIVE = """
    UPDATE pg_temp.scan_bucket SET absence_conclusive = false WHERE window_start = ANY (%(starts)s::timestamptz[])
"""


class EmptyWindow(NamedTuple):
    """A row of ``FIND_EMPTY_WITH_FIGURES``.

    Attributes:
        window_start: of the window.
        doubted_in: the cycle in which it was first empty; None where this is the first time.
    """

    window_start: datetime
    doubted_in: str | None


# Of the empty windows, those that have stored figures for the requested flows.
FIND_EMPTY_WITH_FIGURES = """
    SELECT empty.window_start, w.doubted_in
    FROM unnest(%(empty_starts)s::timestamptz[], %(empty_ends)s::timestamptz[])
         AS empty (window_start, window_end)
    LEFT JOIN flow_outcomes.extraction_window w
      ON w.org = %(org)s AND w.work = %(stream)s AND w.window_start = empty.window_start
     AND w.window_end = empty.window_end AND w.requested_granularity = %(requested)s
     AND w.measure = %(measure)s::flow_outcomes.measure::text
    WHERE EXISTS (SELECT 1 FROM flow_outcomes.bucket_coverage c
                  WHERE c.org = %(org)s AND c.granularity = %(granularity)s
                    AND c.measure = %(measure)s::flow_outcomes.measure
                    AND c.bucket_start >= empty.window_start AND c.bucket_start < empty.window_end)
      AND EXISTS (
          SELECT 1
          FROM flow_outcomes.series o
          CROSS JOIN LATERAL (
              SELECT 1 FROM flow_outcomes.figure f
              WHERE f.org = %(org)s AND f.granularity = %(granularity)s AND f.series_no = o.series_no
                AND f.outcome_count IS NOT NULL
                AND f.bucket_start >= empty.window_start AND f.bucket_start < empty.window_end
                AND f.bucket_start >= %(start)s AND f.bucket_start < %(end)s
              LIMIT 1
          ) f
          WHERE o.org = (SELECT %(org)s::text) AND o.measure = %(measure)s::flow_outcomes.measure
            AND (%(flows)s::text[] IS NULL OR o.flow_id = ANY (%(flows)s::text[]))
          OFFSET 0)
"""

EXCLUDE_UNCONFIRMED = """
    UPDATE pg_temp.scan_bucket SET confirmed = false WHERE window_start = ANY (%(starts)s::timestamptz[])
"""

KEEP_STORED = """
    UPDATE pg_temp.scan_bucket SET keep_stored = true WHERE window_start = ANY (%(starts)s::timestamptz[])
"""

# A note in last_error says that stored figures were kept; no other scan changes that.
COMPLETE_WINDOW = """
    UPDATE flow_outcomes.extraction_window
    SET state = 'complete', granularity = %(granularity)s, query_hash = %(query_hash)s, pages = %(pages)s,
        entries = %(entries)s, rows = %(rows)s, rejected = %(rejected)s, last_error = %(note)s,
        kept_stored = %(note)s::text IS NOT NULL, doubted_in = NULL, isolated = false,
        completed_at = %(completed_at)s, scan_number = %(scan_number)s,
        complete_since = coalesce(complete_since, %(completed_at)s),
        flow_ids = %(flows)s::text[], requests_read = requests_begun
    WHERE org = %(org)s AND work = %(stream)s AND window_start = %(window_start)s AND window_end = %(window_end)s
      AND requested_granularity = %(requested)s AND measure = %(measure)s::flow_outcomes.measure::text
"""

# A window that was complete stays complete, and one that was not stays due.
DOUBT_WINDOW = """
    UPDATE flow_outcomes.extraction_window
    SET doubted_in = coalesce(doubted_in, %(cycle)s), query_hash = %(query_hash)s, last_error = %(doubt)s,
        state = CASE WHEN state = 'complete' THEN 'complete' ELSE 'pending' END
    WHERE org = %(org)s AND work = %(stream)s AND window_start = %(window_start)s AND window_end = %(window_end)s
      AND requested_granularity = %(requested)s AND measure = %(measure)s::flow_outcomes.measure::text
"""

_CLEAR_DOUBT: LiteralString = """
    UPDATE flow_outcomes.extraction_window w
    SET doubted_in = NULL, last_error = NULL
    WHERE w.org = %(org)s AND w.granularity = %(granularity)s AND w.doubted_in IS NOT NULL
      AND w.measure = %(measure)s::flow_outcomes.measure::text
      AND w.window_start < %(end)s AND w.window_end > %(start)s
"""

# A reported figure, of whatever stream, ends the doubt about an empty window.
CLEAR_DOUBT = f"""
    {_CLEAR_DOUBT} AND EXISTS (
        SELECT 1
        FROM pg_temp.scan_figure sf
        JOIN pg_temp.scan_series so USING (name_no)
        WHERE sf.bucket_start >= w.window_start AND sf.bucket_start < w.window_end AND sf.state = 'reported'
          AND (w.flow_ids IS NULL OR so.flow_id = ANY (w.flow_ids)))
"""

# The same after a direct copy.
CLEAR_DOUBT_AFTER_COPY = f"""
    {_CLEAR_DOUBT} AND EXISTS (
        SELECT 1
        FROM pg_temp.scan_series so
        CROSS JOIN LATERAL (
            SELECT 1 FROM flow_outcomes.figure f
            WHERE f.org = %(org)s AND f.granularity = %(granularity)s AND f.series_no = so.series_no
              AND f.bucket_start >= w.window_start AND f.bucket_start < w.window_end
              AND f.bucket_start >= %(start)s AND f.bucket_start < %(end)s
              AND f.state = 'reported'
            LIMIT 1
        ) f
        WHERE w.flow_ids IS NULL OR so.flow_id = ANY (w.flow_ids)
        OFFSET 0)
"""
