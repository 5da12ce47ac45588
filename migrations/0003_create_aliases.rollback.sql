DROP FUNCTION flow_outcomes.resolve_alias(text, text, text);
DROP TABLE flow_outcomes.outcome_alias;
DROP FUNCTION flow_outcomes.guard_aliases();
DROP FUNCTION flow_outcomes.guard_aliases_emptied();
DROP FUNCTION flow_outcomes.alias_cycle(text);
DROP FUNCTION flow_outcomes.next_alias(text, text, text);
DROP TABLE flow_outcomes.alias_guard;
