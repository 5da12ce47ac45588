DROP VIEW flow_outcomes.coverage;
DROP INDEX flow_outcomes.extraction_window_completed;
DROP INDEX flow_outcomes.extraction_window_doubted;
DROP INDEX flow_outcomes.extraction_window_scanned;
ALTER TABLE flow_outcomes.extraction_window DROP COLUMN complete_since;
