DROP TABLE flow_outcomes.pruned_series;
ALTER TABLE flow_outcomes.org DROP COLUMN pruned_before;
