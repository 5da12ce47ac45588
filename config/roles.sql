-- Roles for a database that flow-outcomes shares with other applications: the schema's owner, the daemon and a
-- reader. Run this script as a superuser in that database before the first `flow-outcomes migrate`, and again after
-- each one that applied a migration. It is idempotent. Set the passwords separately:
--
--     ALTER ROLE flow_outcomes_owner PASSWORD '…';     -- flow-outcomes migrate
--     ALTER ROLE flow_outcomes_daemon PASSWORD '…';    -- run, backfill, status, check, alias and the others
--     ALTER ROLE flow_outcomes_reader PASSWORD '…';    -- dashboards and reports
--
-- All daemons on one database use the same role, because a daemon terminates the sessions of one that has stopped
-- responding, and PostgreSQL permits that within a role.

DO $$
DECLARE
    role text;
BEGIN
    FOREACH role IN ARRAY ARRAY['flow_outcomes_owner', 'flow_outcomes_daemon', 'flow_outcomes_reader'] LOOP
        IF NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = role) THEN
            EXECUTE format('CREATE ROLE %I LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION', role);
        END IF;
    END LOOP;
    -- CREATE SCHEMA IF NOT EXISTS in the first migration checks this privilege, even if the schema exists
    EXECUTE format('GRANT CONNECT, CREATE ON DATABASE %I TO flow_outcomes_owner', current_database());
    -- a merge uses temporary tables
    EXECUTE format('GRANT CONNECT, TEMPORARY ON DATABASE %I TO flow_outcomes_daemon', current_database());
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO flow_outcomes_reader', current_database());
END
$$;

CREATE SCHEMA IF NOT EXISTS flow_outcomes AUTHORIZATION flow_outcomes_owner;
GRANT USAGE ON SCHEMA flow_outcomes TO flow_outcomes_daemon, flow_outcomes_reader;

-- The daemon reads and writes rows and creates nothing: a SECURITY DEFINER function of the owner creates partitions.
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA flow_outcomes TO flow_outcomes_daemon;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA flow_outcomes TO flow_outcomes_daemon;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA flow_outcomes TO flow_outcomes_daemon;
DO $$
BEGIN
    IF to_regtype('flow_outcomes.figure_state') IS NOT NULL THEN   -- before the first migration there is none
        GRANT USAGE ON TYPE flow_outcomes.figure_state, flow_outcomes.measure TO flow_outcomes_daemon;
    END IF;
END
$$;
REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA flow_outcomes FROM PUBLIC;
ALTER DEFAULT PRIVILEGES FOR ROLE flow_outcomes_owner IN SCHEMA flow_outcomes
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO flow_outcomes_daemon;
ALTER DEFAULT PRIVILEGES FOR ROLE flow_outcomes_owner IN SCHEMA flow_outcomes
    GRANT USAGE ON SEQUENCES TO flow_outcomes_daemon;
ALTER DEFAULT PRIVILEGES FOR ROLE flow_outcomes_owner IN SCHEMA flow_outcomes
    GRANT EXECUTE ON FUNCTIONS TO flow_outcomes_daemon;
ALTER DEFAULT PRIVILEGES FOR ROLE flow_outcomes_owner REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;

-- Only the owner writes the tables that record the applied migrations.
DO $$
DECLARE
    migration_table text;
BEGIN
    FOR migration_table IN
        SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = 'flow_outcomes' AND c.relkind = 'r' AND c.relname LIKE '%yoyo%'
    LOOP
        EXECUTE format('REVOKE INSERT, UPDATE, DELETE ON flow_outcomes.%I FROM flow_outcomes_daemon', migration_table);
    END LOOP;
END
$$;

-- The reader sees the public relations, except for rejected_entry, which holds unchecked text from the API.
-- A view reads with its owner's privileges. A function such as flow_outcome_as_of reads with its caller's, so the
-- tables that it reads are granted too.
DO $$
BEGIN
    IF to_regclass('flow_outcomes.flow_outcome') IS NOT NULL THEN
        GRANT SELECT ON flow_outcomes.flow_outcome, flow_outcomes.flow_outcome_detail, flow_outcomes.flow_execution,
            flow_outcomes.flow_milestone, flow_outcomes.restatement, flow_outcomes.coverage, flow_outcomes.outcome_alias,
            flow_outcomes.alias_suggestion, flow_outcomes.extraction_window, flow_outcomes.flow TO flow_outcomes_reader;
        GRANT SELECT ON flow_outcomes.flow_outcome_version, flow_outcomes.flow_outcome_detail_version,
            flow_outcomes.flow_execution_version, flow_outcomes.flow_milestone_version TO flow_outcomes_reader;
        GRANT SELECT ON flow_outcomes.org, flow_outcomes.revision, flow_outcomes.figure, flow_outcomes.figure_history,
            flow_outcomes.series, flow_outcomes.series_history TO flow_outcomes_reader;
        GRANT EXECUTE ON FUNCTION flow_outcomes.flow_outcome_as_of(timestamptz),
            flow_outcomes.flow_outcome_detail_as_of(timestamptz), flow_outcomes.flow_execution_as_of(timestamptz),
            flow_outcomes.flow_milestone_as_of(timestamptz) TO flow_outcomes_reader;
    END IF;
    -- the Iceberg catalog, after the first export
    IF to_regclass('flow_outcomes.iceberg_tables') IS NOT NULL THEN
        GRANT SELECT ON flow_outcomes.iceberg_tables, flow_outcomes.iceberg_namespace_properties
            TO flow_outcomes_reader;
    END IF;
END
$$;
