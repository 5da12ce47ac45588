-- How far each job has come, and how its figures held: a row a window.

ALTER TABLE flow_outcomes.extraction_window ADD COLUMN complete_since timestamptz;   -- when it first was

-- A merge asks whether a scan begun later has been there, and nearly always none has.
CREATE INDEX extraction_window_scanned ON flow_outcomes.extraction_window (org, scan_number);
CREATE INDEX extraction_window_doubted ON flow_outcomes.extraction_window (org) WHERE doubted_in IS NOT NULL;

-- restated_by adds up how far each restated count moved, a null taken as nothing.
CREATE VIEW flow_outcomes.coverage AS
    SELECT w.org, w.job, w.window_start, w.window_end, w.granularity, w.state = 'complete' AS complete,
           w.complete_since, w.completed_at AS confirmed_at, w.state, w.doubted_in IS NOT NULL AS doubted, w.last_error,
           r.restatements, r.restated_by, r.last_restated_at
    FROM flow_outcomes.extraction_window w
    CROSS JOIN LATERAL (
        SELECT count(*) AS restatements,
               coalesce(sum(abs(coalesce(s.new_count, 0)::numeric - coalesce(s.old_count, 0))), 0) AS restated_by,
               max(v.stamped_at) AS last_restated_at
        FROM flow_outcomes.restated s
        JOIN flow_outcomes.revision v ON v.org = s.org AND v.revision = s.revision
        WHERE s.org = w.org AND s.granularity = w.granularity
          AND s.bucket_start >= w.window_start AND s.bucket_start < w.window_end
    ) r;
