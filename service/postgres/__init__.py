"""Everything that speaks SQL: pool, schema, ledger, merge, aliases, the hold on an org."""
