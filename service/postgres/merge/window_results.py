"""What a scan says of its windows: what was refused, what is not believed, which are complete."""

from __future__ import annotations

from typing import LiteralString

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
# Scans are numbered as they begin; no clock is compared.
FIND_OUTDONE = """
    INSERT INTO pg_temp.superseded
    SELECT b.bucket_start, x.flow_ids
    FROM flow_outcomes.extraction_window x
    JOIN pg_temp.scan_bucket b ON b.bucket_start >= x.window_start AND b.bucket_start < x.window_end
    WHERE x.org = %(org)s AND x.scan_number > %(scan_number)s AND x.granularity = %(granularity)s
"""

LEAVE_OUTDONE = """
    DELETE FROM pg_temp.scanned s
    USING pg_temp.scan_outcome o, pg_temp.superseded n
    WHERE o.name_no = s.name_no AND n.bucket_start = s.bucket_start
      AND (n.flow_ids IS NULL OR o.flow_id = ANY (n.flow_ids))
"""

SILENCE_UNTOLD = """
    UPDATE pg_temp.scan_bucket SET absence_conclusive = false WHERE window_start = ANY (%(untold)s::timestamptz[])
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
      AND EXISTS (
          SELECT 1
          FROM flow_outcomes.outcome o
          CROSS JOIN LATERAL (
              SELECT 1 FROM flow_outcomes.figure f
              WHERE f.org = %(org)s AND f.granularity = %(granularity)s AND f.outcome_no = o.outcome_no
                AND f.outcome_count IS NOT NULL
                AND f.bucket_start >= w.window_start AND f.bucket_start < w.window_end
                AND f.bucket_start >= %(start)s AND f.bucket_start < %(end)s
              LIMIT 1
          ) f
          WHERE o.org = (SELECT %(org)s::text)
            AND (%(flows)s::text[] IS NULL OR o.flow_id = ANY (%(flows)s::text[]))
          OFFSET 0)
"""

EXCLUDE_UNCONFIRMED = """
    UPDATE pg_temp.scan_bucket SET believed = false WHERE window_start = ANY (%(doubted)s::timestamptz[])
"""

COMPLETE_WINDOW = """
    UPDATE flow_outcomes.extraction_window
    SET state = 'complete', granularity = %(granularity)s, query_hash = %(query_hash)s, pages = %(pages)s,
        entries = %(entries)s, rows = %(rows)s, rejected = %(rejected)s, last_error = NULL, doubted_in = NULL,
        ask_alone = false, completed_at = %(completed_at)s, scan_number = %(scan_number)s,
        complete_since = coalesce(complete_since, %(completed_at)s),
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

_REFUTE: LiteralString = """
    UPDATE flow_outcomes.extraction_window x
    SET doubted_in = NULL, last_error = NULL
    WHERE x.org = %(org)s AND x.granularity = %(granularity)s AND x.doubted_in IS NOT NULL
      AND x.window_start < %(end)s AND x.window_end > %(start)s
"""

# A figure, whoever read it, refutes an empty scan that is not believed yet.
REFUTE_DOUBTS = f"""
    {_REFUTE} AND EXISTS (
        SELECT 1
        FROM pg_temp.scanned s
        JOIN pg_temp.scan_outcome o ON o.name_no = s.name_no
        WHERE s.bucket_start >= x.window_start AND s.bucket_start < x.window_end AND s.state = 'reported'
          AND (x.flow_ids IS NULL OR o.flow_id = ANY (x.flow_ids)))
"""

# The same where the scan's rows were stored at once.
REFUTE_DOUBTS_BY_NEW = f"""
    {_REFUTE} AND EXISTS (
        SELECT 1
        FROM pg_temp.scan_outcome o
        CROSS JOIN LATERAL (
            SELECT 1 FROM flow_outcomes.figure f
            WHERE f.org = %(org)s AND f.granularity = %(granularity)s AND f.outcome_no = o.outcome_no
              AND f.bucket_start >= x.window_start AND f.bucket_start < x.window_end
              AND f.bucket_start >= %(start)s AND f.bucket_start < %(end)s
              AND f.state = 'reported'
            LIMIT 1
        ) f
        WHERE x.flow_ids IS NULL OR o.flow_id = ANY (x.flow_ids)
        OFFSET 0)
"""
