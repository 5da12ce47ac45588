-- Every version of the figures with the time for which it holds, for the fdw command: a foreign table takes no instant.

-- A version of an org's figures holds from one revision's stamp to the next. A query names an instant, of which each org
-- has one revision: WHERE valid_from <= at AND valid_to > at. Without it, every version is computed.
DO $do$
DECLARE
    relation  text;
    described record;
BEGIN
    FOREACH relation IN ARRAY ARRAY['flow_outcome', 'flow_outcome_detail', 'flow_execution', 'flow_milestone'] LOOP
        EXECUTE format($view$
            CREATE VIEW flow_outcomes.%I AS
                SELECT f.*, r.valid_from, r.valid_to
                FROM (
                    SELECT org, stamped_at AS valid_from,
                           coalesce(lead(stamped_at) OVER (PARTITION BY org ORDER BY revision), 'infinity') AS valid_to
                    FROM flow_outcomes.revision
                ) r
                CROSS JOIN LATERAL (
                    -- within the subquery, so that an org's figures are computed at its own instant alone
                    SELECT f.* FROM flow_outcomes.%I(r.valid_from) f WHERE f.org = r.org OFFSET 0
                ) f
        $view$, relation || '_version', relation || '_as_of');
        EXECUTE format('COMMENT ON VIEW flow_outcomes.%I IS %L', relation || '_version',
                       'Every version of ' || relation || '; name an instant: valid_from <= at AND valid_to > at');
        FOR described IN
            SELECT a.attname, coalesce(
                       (SELECT col_description(s.attrelid, s.attnum) FROM pg_attribute s
                        WHERE s.attrelid = format('flow_outcomes.%I', relation)::regclass AND s.attname = a.attname),
                       CASE a.attname WHEN 'valid_from' THEN 'From when on the org''s figures were these'
                                      ELSE 'When the org''s figures changed again; infinity for the present ones' END
                   ) AS description
            FROM pg_attribute a
            WHERE a.attrelid = format('flow_outcomes.%I', relation || '_version')::regclass AND a.attnum > 0
        LOOP
            EXECUTE format('COMMENT ON COLUMN flow_outcomes.%I.%I IS %L', relation || '_version', described.attname,
                           described.description);
        END LOOP;
    END LOOP;
END
$do$;
