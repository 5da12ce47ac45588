-- The coverage of each job, and how its figures changed: one row per window.

ALTER TABLE flow_outcomes.extraction_window ADD COLUMN complete_since timestamptz;   -- when it was first complete

-- For a merge, which looks for windows that a later scan has covered; nearly always there are none.
CREATE INDEX extraction_window_scanned ON flow_outcomes.extraction_window (org, scan_number);
CREATE INDEX extraction_window_doubted ON flow_outcomes.extraction_window (org) WHERE doubted_in IS NOT NULL;

-- For the page, which looks for windows that became complete lately.
CREATE INDEX extraction_window_completed ON flow_outcomes.extraction_window (org, completed_at);

-- restated_by is the sum of the absolute changes of restated counts; a null counts as zero.
CREATE VIEW flow_outcomes.coverage AS
    SELECT w.org, w.job, w.window_start, w.window_end, w.granularity, w.state = 'complete' AS complete,
           w.complete_since, w.completed_at AS confirmed_at, w.state, w.doubted_in IS NOT NULL AS doubted, w.last_error,
           s.restatements, s.restated_by, s.last_restated_at, w.measure
    FROM flow_outcomes.extraction_window w
    CROSS JOIN LATERAL (
        SELECT count(*) AS restatements,
               coalesce(sum(abs(coalesce(s.new_count, 0)::numeric - coalesce(s.old_count, 0))), 0) AS restated_by,
               max(r.stamped_at) AS last_restated_at
        FROM flow_outcomes.restated s
        JOIN flow_outcomes.revision r ON r.org = s.org AND r.revision = s.revision
        WHERE s.org = w.org AND s.granularity = w.granularity AND w.measure = 'outcomes'
          AND s.bucket_start >= w.window_start AND s.bucket_start < w.window_end
    ) s;
