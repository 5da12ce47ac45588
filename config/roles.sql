-- The roles of a database that flow-outcomes shares with others: one that owns the schema, one for the daemon, one
-- for who reads. Run it as a superuser in that database, before the first `flow-outcomes migrate` and again after
-- each that brought something; it may be run as often as one likes. Give the passwords apart:
--
--     ALTER ROLE flow_outcomes_owner PASSWORD '…';     -- flow-outcomes migrate
--     ALTER ROLE flow_outcomes_daemon PASSWORD '…';    -- run, backfill, status, check, alias and the others
--     ALTER ROLE flow_outcomes_reader PASSWORD '…';    -- dashboards and reports
--
-- All processes of one database use the one daemon's role: an owner that stands still is cut off by another process,
-- which the server allows within a role.

DO $$
DECLARE
    role text;
BEGIN
    FOREACH role IN ARRAY ARRAY['flow_outcomes_owner', 'flow_outcomes_daemon', 'flow_outcomes_reader'] LOOP
        IF NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = role) THEN
            EXECUTE format('CREATE ROLE %I LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION', role);
        END IF;
    END LOOP;
    -- the migrations begin with CREATE SCHEMA IF NOT EXISTS, which asks for the right first
    EXECUTE format('GRANT CONNECT, CREATE ON DATABASE %I TO flow_outcomes_owner', current_database());
    -- a merge compares in temporary tables
    EXECUTE format('GRANT CONNECT, TEMPORARY ON DATABASE %I TO flow_outcomes_daemon', current_database());
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO flow_outcomes_reader', current_database());
END
$$;

CREATE SCHEMA IF NOT EXISTS flow_outcomes AUTHORIZATION flow_outcomes_owner;
GRANT USAGE ON SCHEMA flow_outcomes TO flow_outcomes_daemon, flow_outcomes_reader;

-- The daemon reads and writes rows, and defines nothing: partitions are made by a function of the owner's.
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA flow_outcomes TO flow_outcomes_daemon;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA flow_outcomes TO flow_outcomes_daemon;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA flow_outcomes TO flow_outcomes_daemon;
REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA flow_outcomes FROM PUBLIC;
ALTER DEFAULT PRIVILEGES FOR ROLE flow_outcomes_owner IN SCHEMA flow_outcomes
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO flow_outcomes_daemon;
ALTER DEFAULT PRIVILEGES FOR ROLE flow_outcomes_owner IN SCHEMA flow_outcomes
    GRANT USAGE ON SEQUENCES TO flow_outcomes_daemon;
ALTER DEFAULT PRIVILEGES FOR ROLE flow_outcomes_owner IN SCHEMA flow_outcomes
    GRANT EXECUTE ON FUNCTIONS TO flow_outcomes_daemon;
ALTER DEFAULT PRIVILEGES FOR ROLE flow_outcomes_owner REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;

-- Which migrations there are is for the migrating alone to write.
DO $$
DECLARE
    ledger text;
BEGIN
    FOR ledger IN
        SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = 'flow_outcomes' AND c.relkind = 'r' AND c.relname LIKE '%yoyo%'
    LOOP
        EXECUTE format('REVOKE INSERT, UPDATE, DELETE ON flow_outcomes.%I FROM flow_outcomes_daemon', ledger);
    END LOOP;
END
$$;

-- Who reads sees what the contract names. Entries that were refused stand as a server sent them: not for everybody.
-- A view reads with its owner's rights, a function with those of who calls it: hence the tables behind it.
DO $$
BEGIN
    IF to_regclass('flow_outcomes.flow_outcome') IS NOT NULL THEN
        GRANT SELECT ON flow_outcomes.flow_outcome, flow_outcomes.restatement, flow_outcomes.outcome_alias,
            flow_outcomes.extraction_window, flow_outcomes.flow TO flow_outcomes_reader;
        GRANT SELECT ON flow_outcomes.org, flow_outcomes.revision, flow_outcomes.figure, flow_outcomes.figure_history,
            flow_outcomes.outcome, flow_outcomes.outcome_history TO flow_outcomes_reader;
        GRANT EXECUTE ON FUNCTION flow_outcomes.flow_outcome_as_of(timestamptz) TO flow_outcomes_reader;
    END IF;
END
$$;
