DO $do$
DECLARE
    described record;
BEGIN
    FOR described IN
        SELECT c.relname, a.attname
        FROM pg_class c
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        WHERE c.relnamespace = 'flow_outcomes'::regnamespace AND col_description(c.oid, a.attnum) IS NOT NULL
    LOOP
        EXECUTE format('COMMENT ON COLUMN flow_outcomes.%I.%I IS NULL', described.relname, described.attname);
    END LOOP;
    FOR described IN
        SELECT CASE c.relkind WHEN 'v' THEN 'VIEW' ELSE 'TABLE' END AS kind, c.relname
        FROM pg_class c
        WHERE c.relnamespace = 'flow_outcomes'::regnamespace AND obj_description(c.oid, 'pg_class') IS NOT NULL
    LOOP
        EXECUTE format('COMMENT ON %s flow_outcomes.%I IS NULL', described.kind, described.relname);
    END LOOP;
    FOR described IN
        SELECT p.oid::regprocedure::text AS signature
        FROM pg_proc p
        WHERE p.pronamespace = 'flow_outcomes'::regnamespace AND obj_description(p.oid, 'pg_proc') IS NOT NULL
    LOOP
        EXECUTE format('COMMENT ON FUNCTION %s IS NULL', described.signature);
    END LOOP;
END
$do$;
