DROP TABLE flow_outcomes.alias_suggested;
DROP FUNCTION flow_outcomes.alias_suggestion_since(text, text, timestamptz);
DROP VIEW flow_outcomes.alias_suggestion;
