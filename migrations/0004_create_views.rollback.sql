DROP VIEW flow_outcomes.rejected_entry;
DROP VIEW flow_outcomes.restatement;
DROP FUNCTION flow_outcomes.flow_outcome_as_of(timestamptz);
DROP VIEW flow_outcomes.flow_outcome;
