-- The table of aliases. It may be edited with plain SQL, so its rules are enforced here.

CREATE TABLE flow_outcomes.outcome_alias (
    org      text NOT NULL CHECK (octet_length(org) BETWEEN 1 AND 512),
    flow_id  text CHECK (octet_length(flow_id) BETWEEN 1 AND 512),   -- null: all flows of the org
    old_name text NOT NULL CHECK (octet_length(old_name) BETWEEN 1 AND 512),   -- the bound of stored names,
    new_name text NOT NULL CHECK (octet_length(new_name) BETWEEN 1 AND 512)    -- which fits an index row
);
CREATE UNIQUE INDEX outcome_alias_key ON flow_outcomes.outcome_alias (org, (coalesce(flow_id, '')), old_name);
-- It has no primary key, since flow_id may be null. Without an identity, a publication of all tables rejects changes.
ALTER TABLE flow_outcomes.outcome_alias REPLICA IDENTITY FULL;

-- One row per org: counts the changes, and serialises concurrent writers.
CREATE TABLE flow_outcomes.alias_guard (
    org     text PRIMARY KEY,
    changes bigint NOT NULL DEFAULT 0
);

-- The next name in a chain; null at its end. A flow's own entry takes precedence over the org's.
CREATE FUNCTION flow_outcomes.next_alias(p_org text, p_flow_id text, p_name text) RETURNS text
    LANGUAGE sql STABLE AS $$
    SELECT a.new_name FROM flow_outcomes.outcome_alias a
    WHERE a.org = p_org AND coalesce(a.flow_id, '') IN (p_flow_id, '') AND a.old_name = p_name
    ORDER BY a.flow_id IS NULL LIMIT 1
$$;

-- A cycle in the entries as one flow sees them, as a path; null where there is none. A flow with entries of its own
-- sees these before the org's; all others (flow_id '') see only the org's. Every chain is followed back from its end,
-- so an entry that is not reached leads into a cycle.
CREATE FUNCTION flow_outcomes.alias_cycle(p_org text) RETURNS text
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    seen_by text;
    name    text;
    path    text[];
BEGIN
    WITH RECURSIVE flows AS (
        SELECT DISTINCT coalesce(flow_id, '') AS flow_id FROM flow_outcomes.outcome_alias WHERE org = p_org
        UNION SELECT ''
    ), edge AS MATERIALIZED (
        SELECT DISTINCT ON (f.flow_id, a.old_name) f.flow_id, a.old_name, a.new_name
        FROM flows f
        JOIN flow_outcomes.outcome_alias a ON a.org = p_org AND coalesce(a.flow_id, '') IN (f.flow_id, '')
        ORDER BY f.flow_id, a.old_name, a.flow_id IS NULL
    ), ending AS (
        SELECT e.flow_id, e.old_name
        FROM edge e LEFT JOIN edge n ON n.flow_id = e.flow_id AND n.old_name = e.new_name
        WHERE n.flow_id IS NULL
        UNION ALL
        SELECT e.flow_id, e.old_name
        FROM ending n JOIN edge e ON e.flow_id = n.flow_id AND e.new_name = n.old_name
    )
    SELECT e.flow_id, e.old_name INTO seen_by, name
    FROM (SELECT flow_id, old_name FROM edge EXCEPT ALL SELECT flow_id, old_name FROM ending) e
    ORDER BY 1, 2 LIMIT 1;
    IF name IS NULL THEN
        RETURN NULL;
    END IF;
    FOR step IN 1 .. (SELECT count(*) FROM flow_outcomes.outcome_alias WHERE org = p_org) LOOP
        name := flow_outcomes.next_alias(p_org, seen_by, name);   -- past the entries that only lead into the cycle
    END LOOP;
    path := ARRAY[name];
    LOOP
        path := path || flow_outcomes.next_alias(p_org, seen_by, path[cardinality(path)]);
        EXIT WHEN path[cardinality(path)] = name;
        IF cardinality(path) = 10 THEN
            path := path || '…'::text || name;
            EXIT;
        END IF;
    END LOOP;
    RETURN array_to_string(path, ' → ') || CASE WHEN seen_by = '' THEN '' ELSE ' (flow ' || seen_by || ')' END;
END
$$;

-- Runs with its owner's rights: a role that may write the aliases needs none on the other tables.
CREATE FUNCTION flow_outcomes.guard_aliases() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    changed_org text;
    cycle       text;
BEGIN
    FOR changed_org IN
        SELECT org FROM changed GROUP BY org ORDER BY org
    LOOP
        INSERT INTO flow_outcomes.alias_guard AS g (org, changes) VALUES (changed_org, 1)
            ON CONFLICT (org) DO UPDATE SET changes = g.changes + 1;
        cycle := flow_outcomes.alias_cycle(changed_org);
        IF cycle IS NOT NULL THEN
            RAISE EXCEPTION 'the aliases of org % would form a cycle: %', changed_org, cycle
                USING ERRCODE = 'check_violation', HINT = 'remove one of these entries first';
        END IF;
    END LOOP;
    RETURN NULL;
END
$$;
CREATE TRIGGER guard_insert AFTER INSERT ON flow_outcomes.outcome_alias
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION flow_outcomes.guard_aliases();
CREATE TRIGGER guard_update_new AFTER UPDATE ON flow_outcomes.outcome_alias
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION flow_outcomes.guard_aliases();
CREATE TRIGGER guard_update_old AFTER UPDATE ON flow_outcomes.outcome_alias
    REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION flow_outcomes.guard_aliases();
-- Without a flow's entry the org's applies, which may close a cycle.
CREATE TRIGGER guard_delete AFTER DELETE ON flow_outcomes.outcome_alias
    REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION flow_outcomes.guard_aliases();

CREATE FUNCTION flow_outcomes.guard_aliases_emptied() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE flow_outcomes.alias_guard SET changes = changes + 1;
    RETURN NULL;
END
$$;
CREATE TRIGGER guard_truncate AFTER TRUNCATE ON flow_outcomes.outcome_alias
    FOR EACH STATEMENT EXECUTE FUNCTION flow_outcomes.guard_aliases_emptied();

-- A flow's reported name after the aliases.
CREATE FUNCTION flow_outcomes.resolve_alias(p_org text, p_flow_id text, p_name text) RETURNS text
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    name text := p_name;
    next_name text;
BEGIN
    FOR step IN 1 .. 100000 LOOP   -- ends also where triggers were disabled and a cycle was written
        next_name := flow_outcomes.next_alias(p_org, p_flow_id, name);
        EXIT WHEN next_name IS NULL;
        name := next_name;
    END LOOP;
    RETURN name;
END
$$;
