-- The views that reporting reads.

-- A view shows the present figures, the function of its name with _as_of the same columns as of an instant. Their common
-- query is written once, and each is created from it with a source of its own. A function behind the view would not do: a
-- view reads with its owner's rights, a function with its caller's, who may have none on the tables.
-- flow_name is the flow's present name, also as of an instant.
DO $do$
DECLARE
    -- Outcomes: flow_outcome_detail has a row for each combination of dimensions, flow_outcome their sum.
    outcomes text := $query$
    SELECT org, flow_id,
           -- not a join: the planner read all flows of an org for each figure where it knew nothing of the org
           (SELECT fl.name FROM flow_outcomes.flow fl
            WHERE fl.org = totalled.org AND fl.flow_id = totalled.flow_id) AS flow_name,
           granularity, bucket_start, bucket_end,
           flow_id || '_' || outcome_name AS outcome_key, outcome_name,
           outcome_count, outcome_percentage,
           CASE WHEN total_known AND flow_total > 0
                THEN outcome_count::double precision / flow_total::double precision END AS outcome_share,
           extraction_timestamp, outcome_id, success_count, failure_count,
           CASE WHEN outcome_count > 0
                THEN success_count::double precision / outcome_count::double precision END AS success_rate,
           duration_count, duration_sum_ms, duration_min_ms, duration_max_ms<dimensions>
    FROM (
        -- The flow's total in the bucket; it is unknown where one of its counts is.
        SELECT *, bool_and(count_known) OVER bucket AS total_known, sum(outcome_count) OVER bucket AS flow_total
        FROM (
            -- Figures with one name after the aliases are added: missing and n give n, rejected and n give null. A
            -- sum is null where it does not fit a bigint, a percentage where one of its parts is unknown. Percentages
            -- are added in one order, so that as-of gives the same to the last digit. An expected null adds nothing,
            -- so its time is not the figure's. Durations are those of successes: a figure without them adds none.
            SELECT org, flow_id, granularity, bucket_start, max(bucket_end) AS bucket_end, outcome_name,
                   bool_and(state <> 'rejected')
                       AND coalesce(sum(outcome_count) <= 9223372036854775807, true) AS count_known,
                   CASE WHEN bool_and(state <> 'rejected') AND sum(outcome_count) <= 9223372036854775807
                        THEN sum(outcome_count)::bigint END AS outcome_count,
                   CASE WHEN bool_and(state <> 'rejected') AND count(outcome_percentage) = count(outcome_count)
                        THEN sum(outcome_percentage ORDER BY series_no) END AS outcome_percentage,
                   CASE WHEN bool_and(state <> 'rejected') AND count(success_count) = count(outcome_count)
                         AND sum(success_count) <= 9223372036854775807
                        THEN sum(success_count)::bigint END AS success_count,
                   CASE WHEN bool_and(state <> 'rejected') AND count(failure_count) = count(outcome_count)
                         AND sum(failure_count) <= 9223372036854775807
                        THEN sum(failure_count)::bigint END AS failure_count,
                   coalesce(max(extraction_timestamp) FILTER (WHERE state <> 'expected'),
                            max(extraction_timestamp)) AS extraction_timestamp,
                   CASE WHEN min(outcome_id) = max(outcome_id) AND count(outcome_id) = count(*)
                        THEN max(outcome_id) END AS outcome_id,
                   CASE WHEN <durations known> THEN sum(duration_count)::bigint END AS duration_count,
                   CASE WHEN <durations known> THEN sum(duration_sum_ms)::bigint END AS duration_sum_ms,
                   CASE WHEN <durations known> AND count(duration_min_ms) = count(duration_count)
                        THEN min(duration_min_ms) END AS duration_min_ms,
                   CASE WHEN <durations known> AND count(duration_max_ms) = count(duration_count)
                        THEN max(duration_max_ms) END AS duration_max_ms<dimensions>
            FROM (<source>) figure
            WHERE measure = 'outcomes'
            GROUP BY org, flow_id, granularity, bucket_start, outcome_name<dimensions>
        ) folded
        WINDOW bucket AS (PARTITION BY org, flow_id, granularity, bucket_start)
    ) totalled
    WHERE outcome_name <> ''
    $query$;
    durations_known text := $query$bool_and(state <> 'rejected') AND min(duration_count) >= 0
                         AND greatest(sum(duration_count), sum(duration_sum_ms)) <= 9223372036854775807$query$;
    -- Executions: a series has nothing to be added to.
    executions text := $query$
    SELECT figure.org, figure.flow_id,
           (SELECT fl.name FROM flow_outcomes.flow fl
            WHERE fl.org = figure.org AND fl.flow_id = figure.flow_id) AS flow_name,
           figure.granularity, figure.bucket_start, figure.bucket_end,
           CASE WHEN figure.source_key <> 'nFlow'
                THEN substr(figure.source_key, strpos(figure.source_key, ':') + 1) END AS exit_reason,
           figure.dimensions,
           split_part(figure.source_key, ':', 1) AS metric,
           CASE WHEN figure.source_key = 'nFlow' THEN figure.outcome_count END AS execution_count,
           CASE WHEN figure.duration_count >= 0 THEN figure.duration_count END AS duration_count,
           figure.duration_sum_ms, figure.duration_min_ms, figure.duration_max_ms,
           figure.extraction_timestamp
    FROM (<source>) figure
    WHERE figure.measure = 'executions' AND figure.source_key <> ''
    $query$;
    milestones text := $query$
    SELECT figure.org, figure.flow_id,
           (SELECT fl.name FROM flow_outcomes.flow fl
            WHERE fl.org = figure.org AND fl.flow_id = figure.flow_id) AS flow_name,
           figure.granularity, figure.bucket_start, figure.bucket_end,
           figure.outcome_id AS milestone_id, figure.outcome_name AS milestone_name, figure.dimensions,
           figure.outcome_count AS milestone_count, figure.execution_count, figure.extraction_timestamp
    FROM (<source>) figure
    WHERE figure.measure = 'milestones' AND figure.source_key <> ''
    $query$;
    present text := $source$
        SELECT f.org, f.series_no, o.flow_id, f.granularity, f.bucket_start, f.bucket_end,
               f.measure, o.source_key, o.dimensions, o.outcome_name, o.outcome_id,
               f.state, f.outcome_count, f.outcome_percentage, f.success_count, f.failure_count,
               f.execution_count, f.duration_count, f.duration_sum_ms, f.duration_min_ms, f.duration_max_ms,
               f.extraction_timestamp
        FROM flow_outcomes.figure f
        JOIN flow_outcomes.series o ON o.org = f.org AND o.series_no = f.series_no
    $source$;
    -- The org's revision at the instant, and the versions of figures and names that belong to it.
    as_of text := $source$
        SELECT f.org, f.series_no, o.flow_id, f.granularity, f.bucket_start, f.bucket_end,
               f.measure, o.source_key, o.dimensions, o.outcome_name, o.outcome_id,
               f.state, f.outcome_count, f.outcome_percentage, f.success_count, f.failure_count,
               f.execution_count, f.duration_count, f.duration_sum_ms, f.duration_min_ms, f.duration_max_ms,
               f.extraction_timestamp
        FROM flow_outcomes.org
        CROSS JOIN LATERAL (
            SELECT r.revision FROM flow_outcomes.revision r
            WHERE r.org = org.org AND r.stamped_at <= at
            ORDER BY r.stamped_at DESC, r.revision DESC LIMIT 1
        ) r
        JOIN (
            SELECT org, granularity, series_no, bucket_start, bucket_end, state, measure, outcome_count,
                   outcome_percentage, success_count, failure_count, execution_count, duration_count,
                   duration_sum_ms, duration_min_ms, duration_max_ms, extraction_timestamp,
                   revision, NULL::bigint AS until_revision
            FROM flow_outcomes.figure
            UNION ALL
            SELECT org, granularity, series_no, bucket_start, bucket_end, state, measure, outcome_count,
                   outcome_percentage, success_count, failure_count, execution_count, duration_count,
                   duration_sum_ms, duration_min_ms, duration_max_ms, extraction_timestamp,
                   revision, until_revision
            FROM flow_outcomes.figure_history
        ) f ON f.org = org.org AND f.revision <= r.revision
           AND (f.until_revision IS NULL OR r.revision < f.until_revision)
        JOIN (
            SELECT o.org, o.series_no, o.flow_id, o.source_key, o.dimensions, o.outcome_id, o.outcome_name,
                   o.revision, NULL::bigint AS until_revision
            FROM flow_outcomes.series o
            UNION ALL
            SELECT h.org, h.series_no, h.flow_id, o.source_key, o.dimensions, h.outcome_id, h.outcome_name,
                   h.revision, h.until_revision
            FROM flow_outcomes.series_history h
            JOIN flow_outcomes.series o ON o.org = h.org AND o.series_no = h.series_no
        ) o ON o.org = f.org AND o.series_no = f.series_no AND o.revision <= r.revision
           AND (o.until_revision IS NULL OR r.revision < o.until_revision)
    $source$;
    outcome_columns text := $columns$
        org text, flow_id text, flow_name text, granularity text, bucket_start timestamptz, bucket_end timestamptz,
        outcome_key text, outcome_name text, outcome_count bigint, outcome_percentage double precision,
        outcome_share double precision, extraction_timestamp timestamptz,
        outcome_id text, success_count bigint, failure_count bigint, success_rate double precision,
        duration_count bigint, duration_sum_ms bigint, duration_min_ms bigint, duration_max_ms bigint
    $columns$;
    execution_columns text := $columns$
        org text, flow_id text, flow_name text, granularity text, bucket_start timestamptz, bucket_end timestamptz,
        exit_reason text, dimensions jsonb, metric text, execution_count bigint, duration_count bigint,
        duration_sum_ms bigint, duration_min_ms bigint, duration_max_ms bigint, extraction_timestamp timestamptz
    $columns$;
    milestone_columns text := $columns$
        org text, flow_id text, flow_name text, granularity text, bucket_start timestamptz, bucket_end timestamptz,
        milestone_id text, milestone_name text, dimensions jsonb, milestone_count bigint, execution_count bigint,
        extraction_timestamp timestamptz
    $columns$;
    relation record;
BEGIN
    outcomes := replace(outcomes, '<durations known>', durations_known);
    FOR relation IN
        SELECT * FROM (VALUES
            ('flow_outcome', replace(outcomes, '<dimensions>', ''), outcome_columns),
            ('flow_outcome_detail', replace(outcomes, '<dimensions>', ', dimensions'),
             outcome_columns || ', dimensions jsonb'),
            ('flow_execution', executions, execution_columns),
            ('flow_milestone', milestones, milestone_columns)
        ) AS relation (name, query, columns)
    LOOP
        EXECUTE format('CREATE VIEW flow_outcomes.%I AS %s', relation.name,
                       replace(relation.query, '<source>', present));
        EXECUTE format('CREATE FUNCTION flow_outcomes.%I(at timestamptz) RETURNS TABLE (%s) LANGUAGE sql STABLE AS %L',
                       relation.name || '_as_of', relation.columns, replace(relation.query, '<source>', as_of));
    END LOOP;
END
$do$;

CREATE VIEW flow_outcomes.restatement AS
    SELECT s.org, s.flow_id, fl.name AS flow_name, s.granularity, s.bucket_start, s.outcome_name, s.old_count,
           s.new_count, r.stamped_at AS restated_at
    FROM flow_outcomes.restated s
    JOIN flow_outcomes.revision r ON r.org = s.org AND r.revision = s.revision
    LEFT JOIN flow_outcomes.flow fl ON fl.org = s.org AND fl.flow_id = s.flow_id;

CREATE VIEW flow_outcomes.rejected_entry AS
    SELECT ro.org, ro.window_start, ro.window_end, ro.reason, rt.entry, ro.rejected_at,
           ro.flow_id, fl.name AS flow_name, ro.bucket_start, ro.outcome_name
    FROM flow_outcomes.rejected_outcome ro
    JOIN flow_outcomes.rejected_text rt ON rt.org = ro.org AND rt.digest = ro.digest
    LEFT JOIN flow_outcomes.flow fl ON fl.org = ro.org AND fl.flow_id = ro.flow_id;
