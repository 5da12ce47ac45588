-- The mapping table. It may be edited with plain SQL, so the rules hold here, whoever writes.

CREATE TABLE flow_outcomes.outcome_alias (
    org      text NOT NULL CHECK (org <> ''),
    flow_id  text CHECK (flow_id <> ''),       -- null: all flows of the org
    old_name text NOT NULL CHECK (old_name <> ''),
    new_name text NOT NULL CHECK (new_name <> '')
);
CREATE UNIQUE INDEX outcome_alias_key ON flow_outcomes.outcome_alias (org, (coalesce(flow_id, '')), old_name);

-- One row an org: counts the changes, and makes those who write at the same time wait for each other.
CREATE TABLE flow_outcomes.alias_guard (
    org     text PRIMARY KEY,
    changes bigint NOT NULL DEFAULT 0
);

-- Where a name leads for each flow that has entries of its own, and for all others (flow_id null).
-- A chain that has come as far as there are names is a cycle.
CREATE FUNCTION flow_outcomes.alias_cycle(p_org text) RETURNS text
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH RECURSIVE flows AS (
        SELECT DISTINCT flow_id FROM flow_outcomes.outcome_alias WHERE org = p_org
        UNION SELECT NULL
    ), edges AS (
        SELECT DISTINCT ON (f.flow_id, a.old_name) f.flow_id, a.old_name, a.new_name
        FROM flows f
        JOIN flow_outcomes.outcome_alias a
          ON a.org = p_org AND (a.flow_id = f.flow_id OR a.flow_id IS NULL)
        ORDER BY f.flow_id, a.old_name, a.flow_id IS NULL
    ), walk AS (
        SELECT flow_id, old_name AS origin, new_name AS name, ARRAY[old_name] AS path FROM edges
        UNION ALL
        SELECT w.flow_id, w.origin, e.new_name, w.path || e.old_name
        FROM walk w
        JOIN edges e ON e.flow_id IS NOT DISTINCT FROM w.flow_id AND e.old_name = w.name
        WHERE NOT w.name = ANY (w.path)
    )
    SELECT array_to_string(path || name, ' → ') || coalesce(' (flow ' || flow_id || ')', '')
    FROM walk WHERE name = origin
    ORDER BY cardinality(path), origin LIMIT 1
$$;

-- Who may write the mapping table need not have rights on what stands behind it.
CREATE FUNCTION flow_outcomes.guard_aliases() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    changed_org text;
    cycle       text;
BEGIN
    FOR changed_org IN
        SELECT org FROM touched GROUP BY org ORDER BY org
    LOOP
        INSERT INTO flow_outcomes.alias_guard AS g (org, changes) VALUES (changed_org, 1)
            ON CONFLICT (org) DO UPDATE SET changes = g.changes + 1;
        cycle := flow_outcomes.alias_cycle(changed_org);
        IF cycle IS NOT NULL THEN
            RAISE EXCEPTION 'the aliases of org % would go round in a circle: %', changed_org, cycle
                USING ERRCODE = 'check_violation', HINT = 'remove one of these entries first';
        END IF;
    END LOOP;
    RETURN NULL;
END
$$;
CREATE TRIGGER guard_insert AFTER INSERT ON flow_outcomes.outcome_alias
    REFERENCING NEW TABLE AS touched FOR EACH STATEMENT EXECUTE FUNCTION flow_outcomes.guard_aliases();
CREATE TRIGGER guard_update_new AFTER UPDATE ON flow_outcomes.outcome_alias
    REFERENCING NEW TABLE AS touched FOR EACH STATEMENT EXECUTE FUNCTION flow_outcomes.guard_aliases();
CREATE TRIGGER guard_update_old AFTER UPDATE ON flow_outcomes.outcome_alias
    REFERENCING OLD TABLE AS touched FOR EACH STATEMENT EXECUTE FUNCTION flow_outcomes.guard_aliases();
-- an entry that goes may uncover the org's own, and so close a circle
CREATE TRIGGER guard_delete AFTER DELETE ON flow_outcomes.outcome_alias
    REFERENCING OLD TABLE AS touched FOR EACH STATEMENT EXECUTE FUNCTION flow_outcomes.guard_aliases();

CREATE FUNCTION flow_outcomes.guard_aliases_emptied() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE flow_outcomes.alias_guard SET changes = changes + 1;
    RETURN NULL;
END
$$;
CREATE TRIGGER guard_truncate AFTER TRUNCATE ON flow_outcomes.outcome_alias
    FOR EACH STATEMENT EXECUTE FUNCTION flow_outcomes.guard_aliases_emptied();

-- What a flow's reported name is called after the aliases; a flow's own entry beats the org's at every step.
CREATE FUNCTION flow_outcomes.resolve_alias(p_org text, p_flow_id text, p_name text) RETURNS text
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH RECURSIVE walk AS (
        SELECT p_name AS name, 0 AS step
        UNION ALL
        SELECT (SELECT a.new_name FROM flow_outcomes.outcome_alias a
                WHERE a.org = p_org AND a.old_name = w.name
                  AND coalesce(a.flow_id, '') IN (p_flow_id, '')
                ORDER BY a.flow_id IS NULL LIMIT 1), w.step + 1
        FROM walk w WHERE w.name IS NOT NULL AND w.step < 1000
    )
    SELECT name FROM walk WHERE name IS NOT NULL ORDER BY step DESC LIMIT 1
$$;
