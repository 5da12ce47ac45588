DROP TABLE flow_outcomes.run_request;
DROP TABLE flow_outcomes.ad_hoc_entry;
DROP TABLE flow_outcomes.query_cut;
DROP TABLE flow_outcomes.deep_pass;
DROP TABLE flow_outcomes.extraction_window;
DROP TABLE flow_outcomes.org_retention;
DROP TABLE flow_outcomes.org_lease;
DROP TABLE flow_outcomes.org;
