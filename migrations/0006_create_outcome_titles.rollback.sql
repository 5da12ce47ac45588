ALTER TABLE flow_outcomes.staging DROP COLUMN part;
DROP INDEX flow_outcomes.outcome_by_id;
DROP TABLE flow_outcomes.outcome_title;
