DROP TABLE flow_outcomes.pruned_month;
