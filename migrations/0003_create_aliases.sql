-- The mapping table. It may be edited with plain SQL, so the rules hold here, whoever writes.

CREATE TABLE flow_outcomes.outcome_alias (
    org      text NOT NULL CHECK (octet_length(org) BETWEEN 1 AND 512),
    flow_id  text CHECK (octet_length(flow_id) BETWEEN 1 AND 512),   -- null: all flows of the org
    old_name text NOT NULL CHECK (octet_length(old_name) BETWEEN 1 AND 512),   -- no longer name is ever stored,
    new_name text NOT NULL CHECK (octet_length(new_name) BETWEEN 1 AND 512)    -- and none may overfill an index
);
CREATE UNIQUE INDEX outcome_alias_key ON flow_outcomes.outcome_alias (org, (coalesce(flow_id, '')), old_name);

-- One row an org: counts the changes, and makes those who write at the same time wait for each other.
CREATE TABLE flow_outcomes.alias_guard (
    org     text PRIMARY KEY,
    changes bigint NOT NULL DEFAULT 0
);

-- One step of a chain: what the name is called next; null at the chain's end. A flow's own entry beats the org's.
CREATE FUNCTION flow_outcomes.next_alias(p_org text, p_flow_id text, p_name text) RETURNS text
    LANGUAGE sql STABLE AS $$
    SELECT a.new_name FROM flow_outcomes.outcome_alias a
    WHERE a.org = p_org AND coalesce(a.flow_id, '') IN (p_flow_id, '') AND a.old_name = p_name
    ORDER BY a.flow_id IS NULL LIMIT 1
$$;

-- A circle in the entries as one flow sees them, told as a path; null where there is none. A flow that has entries
-- of its own sees these before the org's; all others (flow_id '') see the org's alone.
-- Every chain is followed back from its end, so what is not come by leads into a circle.
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
        name := flow_outcomes.next_alias(p_org, seen_by, name);   -- past what only leads into the circle
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

-- What a flow's reported name is called after the aliases.
CREATE FUNCTION flow_outcomes.resolve_alias(p_org text, p_flow_id text, p_name text) RETURNS text
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    reached text := p_name;
    further text;
BEGIN
    FOR step IN 1 .. 100000 LOOP   -- no circle can be written; where the rules were switched off, this ends all the same
        further := flow_outcomes.next_alias(p_org, p_flow_id, reached);
        EXIT WHEN further IS NULL;
        reached := further;
    END LOOP;
    RETURN reached;
END
$$;
