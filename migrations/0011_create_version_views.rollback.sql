DROP VIEW flow_outcomes.flow_milestone_version;
DROP VIEW flow_outcomes.flow_execution_version;
DROP VIEW flow_outcomes.flow_outcome_detail_version;
DROP VIEW flow_outcomes.flow_outcome_version;
