ALTER TABLE flow_outcomes.staging DROP COLUMN part;
DROP INDEX flow_outcomes.series_by_source;
DROP TABLE flow_outcomes.outcome_title;
