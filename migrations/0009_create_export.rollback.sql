DROP TABLE IF EXISTS flow_outcomes.iceberg_namespace_properties;
DROP TABLE IF EXISTS flow_outcomes.iceberg_tables;
DROP FUNCTION flow_outcomes.create_iceberg_catalog();
DROP TABLE flow_outcomes.pruned_month;
DROP TABLE flow_outcomes.export_lease;
