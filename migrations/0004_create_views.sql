-- The views that reporting reads.

-- flow_outcome shows the present figures, flow_outcome_as_of the same columns as of an instant. Their common query is
-- written once, and each is created from it with a source of its own. A function behind the view would not do: a view
-- reads with its owner's rights, a function with its caller's, who may have none on the tables.
DO $do$
DECLARE
    common text := $query$
    SELECT org, flow_id, granularity, bucket_start, bucket_end,
           flow_id || '_' || outcome_name AS outcome_key, outcome_name,
           outcome_count, outcome_percentage,
           CASE WHEN total_known AND flow_total > 0
                THEN outcome_count::double precision / flow_total::double precision END AS outcome_share,
           extraction_timestamp, outcome_id, success_count, failure_count
    FROM (
        -- The flow's total in the bucket; it is unknown where one of its counts is.
        SELECT *, bool_and(count_known) OVER bucket AS total_known, sum(outcome_count) OVER bucket AS flow_total
        FROM (
            -- Figures with one name after the aliases are added: missing and n give n, rejected and n give null. A
            -- sum is null where it does not fit a bigint, a percentage where one of its parts is unknown. Percentages
            -- are added in one order, so that as-of gives the same to the last digit. An expected null adds nothing,
            -- so its time is not the figure's.
            SELECT org, flow_id, granularity, bucket_start, max(bucket_end) AS bucket_end, outcome_name,
                   bool_and(state <> 'rejected')
                       AND coalesce(sum(outcome_count) <= 9223372036854775807, true) AS count_known,
                   CASE WHEN bool_and(state <> 'rejected') AND sum(outcome_count) <= 9223372036854775807
                        THEN sum(outcome_count)::bigint END AS outcome_count,
                   CASE WHEN bool_and(state <> 'rejected') AND count(outcome_percentage) = count(outcome_count)
                        THEN sum(outcome_percentage ORDER BY outcome_no) END AS outcome_percentage,
                   CASE WHEN bool_and(state <> 'rejected') AND count(success_count) = count(outcome_count)
                         AND sum(success_count) <= 9223372036854775807
                        THEN sum(success_count)::bigint END AS success_count,
                   CASE WHEN bool_and(state <> 'rejected') AND count(failure_count) = count(outcome_count)
                         AND sum(failure_count) <= 9223372036854775807
                        THEN sum(failure_count)::bigint END AS failure_count,
                   coalesce(max(extraction_timestamp) FILTER (WHERE state <> 'expected'),
                            max(extraction_timestamp)) AS extraction_timestamp,
                   CASE WHEN count(*) = 1 THEN max(outcome_id) END AS outcome_id
            FROM (<source>) figure
            GROUP BY org, flow_id, granularity, bucket_start, outcome_name
        ) folded
        WINDOW bucket AS (PARTITION BY org, flow_id, granularity, bucket_start)
    ) totalled
    WHERE outcome_name <> ''
    $query$;
    present text := $source$
        SELECT f.org, f.outcome_no, o.flow_id, f.granularity, f.bucket_start, f.bucket_end,
               o.outcome_name, o.outcome_id,
               f.state, f.outcome_count, f.outcome_percentage, f.success_count, f.failure_count,
               f.extraction_timestamp
        FROM flow_outcomes.figure f
        JOIN flow_outcomes.outcome o ON o.org = f.org AND o.outcome_no = f.outcome_no
    $source$;
    -- The org's revision at the instant, and the versions of figures and names that belong to it.
    as_of text := $source$
        SELECT f.org, f.outcome_no, o.flow_id, f.granularity, f.bucket_start, f.bucket_end,
               o.outcome_name, o.outcome_id,
               f.state, f.outcome_count, f.outcome_percentage, f.success_count, f.failure_count,
               f.extraction_timestamp
        FROM flow_outcomes.org
        CROSS JOIN LATERAL (
            SELECT r.revision FROM flow_outcomes.revision r
            WHERE r.org = org.org AND r.stamped_at <= at
            ORDER BY r.stamped_at DESC, r.revision DESC LIMIT 1
        ) r
        JOIN (
            SELECT org, granularity, outcome_no, bucket_start, bucket_end, state, outcome_count,
                   outcome_percentage, success_count, failure_count, extraction_timestamp,
                   revision, NULL::bigint AS until_revision
            FROM flow_outcomes.figure
            UNION ALL
            SELECT org, granularity, outcome_no, bucket_start, bucket_end, state, outcome_count,
                   outcome_percentage, success_count, failure_count, extraction_timestamp,
                   revision, until_revision
            FROM flow_outcomes.figure_history
        ) f ON f.org = org.org AND f.revision <= r.revision
           AND (f.until_revision IS NULL OR r.revision < f.until_revision)
        JOIN (
            SELECT org, outcome_no, flow_id, outcome_id, outcome_name,
                   revision, NULL::bigint AS until_revision
            FROM flow_outcomes.outcome
            UNION ALL
            SELECT org, outcome_no, flow_id, outcome_id, outcome_name, revision, until_revision
            FROM flow_outcomes.outcome_history
        ) o ON o.org = f.org AND o.outcome_no = f.outcome_no AND o.revision <= r.revision
           AND (o.until_revision IS NULL OR r.revision < o.until_revision)
    $source$;
BEGIN
    EXECUTE 'CREATE VIEW flow_outcomes.flow_outcome AS ' || replace(common, '<source>', present);
    EXECUTE 'CREATE FUNCTION flow_outcomes.flow_outcome_as_of(at timestamptz) RETURNS TABLE (
        org text, flow_id text, granularity text, bucket_start timestamptz, bucket_end timestamptz,
        outcome_key text, outcome_name text, outcome_count bigint, outcome_percentage double precision,
        outcome_share double precision, extraction_timestamp timestamptz,
        outcome_id text, success_count bigint, failure_count bigint
    ) LANGUAGE sql STABLE AS ' || quote_literal(replace(common, '<source>', as_of));
END
$do$;

CREATE VIEW flow_outcomes.restatement AS
    SELECT s.org, s.flow_id, s.granularity, s.bucket_start, s.outcome_name, s.old_count, s.new_count,
           r.stamped_at AS restated_at
    FROM flow_outcomes.restated s
    JOIN flow_outcomes.revision r ON r.org = s.org AND r.revision = s.revision;

CREATE VIEW flow_outcomes.rejected_entry AS
    SELECT ro.org, ro.window_start, ro.window_end, ro.reason, rt.entry, ro.rejected_at,
           ro.flow_id, ro.bucket_start, ro.outcome_name
    FROM flow_outcomes.rejected_outcome ro
    JOIN flow_outcomes.rejected_text rt ON rt.org = ro.org AND rt.digest = ro.digest;
