-- The export to a warehouse: its lease and its last result, the months that it no longer writes, and the catalog.

-- One row, for all orgs: org is empty.
CREATE TABLE flow_outcomes.export_lease (
    org           text PRIMARY KEY CHECK (org = ''),
    owner         text,          -- the exporting process's application_name; null: none exports
    expires_at    timestamptz,
    target        text,          -- the warehouse and namespace of the newest export
    export        bigint,        -- its number
    exported_at   timestamptz,   -- the database snapshot of the last run that succeeded, also where nothing was new
    failed_at     timestamptz,   -- null: the last run succeeded
    last_error    text
);

-- Months whose figures were removed from this database and stay in the warehouse: no export writes them.
CREATE TABLE flow_outcomes.pruned_month (
    org         text NOT NULL,
    granularity text NOT NULL,
    month       date NOT NULL CHECK (extract(day FROM month) = 1),   -- its first day, in UTC
    pruned_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org, granularity, month)
);

-- Creates the tables of pyiceberg's SQL catalog, as it would create them, where they do not exist. The first export
-- calls it. It runs with its owner's rights, so that a daemon's role needs no DDL. Whoever may read the views may read
-- the catalog, and whoever may write the leases may write it.
CREATE FUNCTION flow_outcomes.create_iceberg_catalog() RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    grantee text;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('flow_outcomes.create_iceberg_catalog', 0));
    IF EXISTS (SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
               WHERE n.nspname = 'flow_outcomes' AND c.relname = 'iceberg_tables') THEN
        RETURN;
    END IF;
    CREATE TABLE flow_outcomes.iceberg_tables (
        catalog_name               varchar(255) NOT NULL,
        table_namespace            varchar(255) NOT NULL,
        table_name                 varchar(255) NOT NULL,
        metadata_location          varchar(1000),
        previous_metadata_location varchar(1000),
        iceberg_type               varchar(5),
        PRIMARY KEY (catalog_name, table_namespace, table_name)
    );
    CREATE TABLE flow_outcomes.iceberg_namespace_properties (
        catalog_name   varchar(255) NOT NULL,
        namespace      varchar(255) NOT NULL,
        property_key   varchar(255) NOT NULL,
        property_value varchar(1000) NOT NULL,
        PRIMARY KEY (catalog_name, namespace, property_key)
    );
    FOR grantee IN
        SELECT CASE WHEN acl.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(acl.grantee)) END
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace CROSS JOIN LATERAL aclexplode(c.relacl) acl
        WHERE n.nspname = 'flow_outcomes' AND c.relname = 'flow_outcome' AND acl.privilege_type = 'SELECT'
    LOOP
        EXECUTE 'GRANT SELECT ON flow_outcomes.iceberg_tables, flow_outcomes.iceberg_namespace_properties TO '
                || grantee;
    END LOOP;
    FOR grantee IN
        SELECT CASE WHEN acl.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(acl.grantee)) END
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace CROSS JOIN LATERAL aclexplode(c.relacl) acl
        WHERE n.nspname = 'flow_outcomes' AND c.relname = 'export_lease' AND acl.privilege_type = 'UPDATE'
    LOOP
        EXECUTE 'GRANT SELECT, INSERT, UPDATE, DELETE ON flow_outcomes.iceberg_tables,'
                ' flow_outcomes.iceberg_namespace_properties TO ' || grantee;
    END LOOP;
END
$$;
