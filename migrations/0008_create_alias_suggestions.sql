-- Suggested aliases: pairs of names in one flow, one of which ends where the other begins, at a similar level.
--
-- Only where outcomes are known by name alone: an outcome with an id keeps it through a rename. Whether an outcome ends
-- is read from the newest figure of each series, one look into an index; figures are read only for pairs that are
-- adjacent, 28 days on each side.

-- The view and the function have one query. The function reads one org, or one flow of it, and only what was seen since
-- an instant. It reads with its caller's privileges.
DO $do$
DECLARE
    query text := $query$
    WITH RECURSIVE
    -- The granularity that is compared: days where they are recent, otherwise hours, added up to days, or months.
    compared AS MATERIALIZED (
        SELECT DISTINCT ON (newest.org) newest.org, newest.granularity,
               CASE newest.granularity WHEN 'monthly' THEN interval '12 months' ELSE interval '28 days' END AS reach,
               CASE newest.granularity WHEN 'monthly' THEN 2 ELSE 3 END AS least
        FROM (
            SELECT org.org, g.granularity, g.place, bc.bucket_end,
                   max(bc.bucket_end) OVER (PARTITION BY org.org) AS newest_end
            FROM flow_outcomes.org
            CROSS JOIN (VALUES ('daily', 1), ('hourly', 2), ('monthly', 3)) AS g (granularity, place)
            CROSS JOIN LATERAL (
                SELECT bc.bucket_end FROM flow_outcomes.bucket_coverage bc
                WHERE bc.org = org.org AND bc.granularity = g.granularity AND bc.measure = 'outcomes'
                ORDER BY bc.bucket_start DESC LIMIT 1
            ) bc
            WHERE <org>
        ) newest
        ORDER BY newest.org, newest.bucket_end < newest.newest_end - interval '3 days', newest.place
    ),
    -- Each name of a flow after the aliases, with the newest bucket that has a count above zero.
    seen AS MATERIALIZED (
        SELECT o.org, o.flow_id, o.outcome_name, c.granularity, c.reach, c.least,
               array_agg(o.series_no) AS series, max(f.bucket_start) AS last_start, max(f.bucket_end) AS last_end
        FROM compared c
        JOIN flow_outcomes.series o ON o.org = c.org
        CROSS JOIN LATERAL (
            SELECT f.bucket_start, f.bucket_end FROM flow_outcomes.figure f
            WHERE f.org = o.org AND f.series_no = o.series_no AND f.granularity = c.granularity
              AND f.outcome_count > 0 AND f.bucket_start >= <since>
            ORDER BY f.bucket_start DESC LIMIT 1
        ) f
        WHERE o.measure = 'outcomes' AND o.outcome_id IS NULL AND o.source_key <> '' AND <flow>
        GROUP BY o.org, o.flow_id, o.outcome_name, c.granularity, c.reach, c.least
    ),
    -- Names that the flow no longer reports.
    gone AS MATERIALIZED (
        SELECT * FROM (
            SELECT s.*, max(s.last_end) OVER (PARTITION BY s.org, s.flow_id) AS newest_end FROM seen s
        ) s
        WHERE s.last_end <= s.newest_end - interval '2 days'
    ),
    -- The names of these flows, with their oldest bucket.
    begun AS MATERIALIZED (
        SELECT s.org, s.flow_id, s.outcome_name, s.series, s.last_start, f.bucket_start AS first_start
        FROM seen s
        CROSS JOIN LATERAL (
            SELECT min(f.bucket_start) AS bucket_start
            FROM unnest(s.series) AS o (series_no)
            CROSS JOIN LATERAL (
                SELECT f.bucket_start FROM flow_outcomes.figure f
                WHERE f.org = s.org AND f.series_no = o.series_no AND f.granularity = s.granularity
                  AND f.outcome_count > 0
                ORDER BY f.bucket_start LIMIT 1
            ) f
        ) f
        WHERE EXISTS (SELECT FROM gone g WHERE g.org = s.org AND g.flow_id = s.flow_id)
    ),
    -- Adjacent ones. A day may have both: the rename was at noon, or an execution across midnight ended under the old
    -- name.
    pair AS MATERIALIZED (
        SELECT g.org, g.flow_id, g.granularity, g.least, g.reach,
               g.outcome_name AS old_name, n.outcome_name AS new_name, g.series AS old_series, n.series AS new_series,
               g.last_start, g.last_end, n.first_start,
               <step g.last_start> AS last_step, <step n.first_start> AS first_step
        FROM gone g
        JOIN begun n ON n.org = g.org AND n.flow_id = g.flow_id AND n.outcome_name <> g.outcome_name
        WHERE n.first_start <= g.last_end
                               + CASE g.granularity WHEN 'monthly' THEN interval '0' ELSE interval '10 days' END
          AND n.first_start >= g.last_start
                               - CASE g.granularity WHEN 'monthly' THEN interval '0' ELSE interval '25 hours' END
          AND n.last_start > g.last_start
          AND NOT EXISTS (
              SELECT FROM flow_outcomes.outcome_alias a
              WHERE a.org = g.org AND coalesce(a.flow_id, '') IN (g.flow_id, '')
                AND a.old_name IN (g.outcome_name, n.outcome_name)
          )
    ),
    -- How well a pair fits: read for one pair after the other, so that no plan depends on how many there are.
    fitted AS (
        SELECT p.*, m.seen_before, m.seen_after, m.mean_before, m.mean_after, m.gap, m.gap_absence,
               coalesce(m.weekday_ratio, m.mean_after / m.mean_before) AS ratio,
               sqrt(0.005 + v.before + v.after) AS deviation,
               CASE WHEN m.weekdays >= 5 AND least(m.days_before, m.days_after) >= 7
                    THEN greatest(0, m.weekday_distance - 0.52 * sqrt(7 * (v.before + v.after))) ELSE 0 END AS pattern,
               CASE WHEN p.first_step <= p.last_step
                    THEN greatest(0, m.sum_shared / (p.last_step - p.first_step + 1)
                                     / greatest(m.mean_before, m.mean_after) - 1.5 - 2 / sqrt(m.mean_before))
                    ELSE 0 END AS doubled
        FROM (
            SELECT p.*, least(p.last_step, p.first_step - 1) AS before_to,
                   greatest(p.first_step, p.last_step + 1) AS after_from
            FROM pair p
        ) p
        CROSS JOIN LATERAL (
            SELECT sum(l.days_before)::double precision AS days_before,
                   sum(l.days_after)::double precision AS days_after,
                   sum(l.seen_before)::bigint AS seen_before, sum(l.seen_after)::bigint AS seen_after,
                   sum(l.sum_before) / nullif(sum(l.days_before), 0)::double precision AS mean_before,
                   sum(l.sum_after) / nullif(sum(l.days_after), 0)::double precision AS mean_after,
                   sum(l.sum_after) FILTER (WHERE l.level_before > 0)
                       / sum(l.level_before * l.days_after) FILTER (WHERE l.level_before > 0) AS weekday_ratio,
                   -- the days that this ratio rests on: weekdays that one side lacks do not count
                   coalesce(sum(l.days_after) FILTER (WHERE l.level_before > 0) ^ 2
                            / sum(l.days_after ^ 2 / l.days_before) FILTER (WHERE l.level_before > 0),
                            sum(l.days_before))::double precision AS weight_before,
                   coalesce(sum(l.days_after) FILTER (WHERE l.level_before > 0),
                            sum(l.days_after))::double precision AS weight_after,
                   -- half of the sum of the differences between the weekdays' shares
                   sum(abs(l.share_before - l.share_after)) / 2 AS weekday_distance,
                   count(l.level_before) AS weekdays,
                   -- the improbability of being absent by chance
                   sum(l.without_old * -ln(greatest(1 - l.old_likely, 1e-9))) AS old_absence,
                   sum(l.without_new * -ln(greatest(1 - l.new_likely, 1e-9))) AS new_absence,
                   sum(l.between_them * -ln(greatest(1 - greatest(l.old_likely, l.new_likely), 1e-9))) AS gap_absence,
                   sum(l.between_them)::double precision AS gap,
                   sum(l.sum_shared) AS sum_shared, sum(l.old_overlap) AS old_overlap,
                   sum(l.new_overlap) AS new_overlap
            FROM (
                SELECT l.*, l.level_before / nullif(sum(l.level_before) OVER (), 0) AS share_before,
                       l.level_after / nullif(sum(l.level_after) OVER (), 0) AS share_after
                FROM (
                    -- How likely the names are reported on each weekday, and their level there.
                    SELECT w.*,
                           (w.seen_before + 2 * (sum(w.seen_before) OVER () + 0.5) / (sum(w.days_before) OVER () + 1.0))
                               / (greatest(w.days_before, w.seen_before) + 2.0) AS old_likely,
                           (w.seen_after + 2 * (sum(w.seen_after) OVER () + 0.5) / (sum(w.days_after) OVER () + 1.0))
                               / (greatest(w.days_after, w.seen_after) + 2.0) AS new_likely,
                           CASE WHEN w.days_before > 0 AND w.days_after > 0
                                THEN w.sum_before / w.days_before END AS level_before,
                           CASE WHEN w.days_before > 0 AND w.days_after > 0
                                THEN w.sum_after / w.days_after END AS level_after
                    FROM (
                        -- By weekday: the days on each side, those without the old name after it and without the new
                        -- one before it, and the days between. A day that has both names is on no side.
                        SELECT s.weekday,
                               count(*) FILTER (WHERE s.covered AND s.step BETWEEN s.old_from AND p.before_to)
                                   AS days_before,
                               count(*) FILTER (WHERE s.old_count > 0 AND s.step <= p.last_step) AS seen_before,
                               coalesce(sum(s.old_count) FILTER (
                                   WHERE s.covered AND s.step BETWEEN s.old_from AND p.before_to), 0) AS sum_before,
                               count(*) FILTER (WHERE s.covered AND s.step BETWEEN p.after_from AND s.new_to)
                                   AS days_after,
                               count(*) FILTER (WHERE s.new_count > 0 AND s.step >= p.first_step) AS seen_after,
                               coalesce(sum(s.new_count) FILTER (
                                   WHERE s.covered AND s.step BETWEEN p.after_from AND s.new_to), 0) AS sum_after,
                               count(*) FILTER (WHERE s.covered AND s.step > p.last_step) AS without_old,
                               count(*) FILTER (WHERE s.covered AND s.step < p.first_step) AS without_new,
                               count(*) FILTER (WHERE s.covered AND s.step > p.last_step AND s.step < p.first_step)
                                   AS between_them,
                               coalesce(sum(s.old_count + s.new_count) FILTER (
                                   WHERE s.step BETWEEN p.first_step AND p.last_step), 0) AS sum_shared,
                               coalesce(sum(s.old_count) FILTER (WHERE s.step > p.first_step), 0) AS old_overlap,
                               coalesce(sum(s.new_count) FILTER (WHERE s.step < p.last_step), 0) AS new_overlap
                        FROM (
                            -- The counts of both names by day (or month), zero where a scan covered the day and
                            -- reported none.
                            SELECT d.step,
                                   count(DISTINCT d.bucket_start)
                                       >= CASE p.granularity WHEN 'hourly' THEN 23 ELSE 1 END AS covered,
                                   coalesce(sum(d.old_count), 0)::double precision AS old_count,
                                   coalesce(sum(d.new_count), 0)::double precision AS new_count,
                                   min(min(d.step) FILTER (WHERE d.old_count > 0)) OVER () AS old_from,
                                   max(max(d.step) FILTER (WHERE d.new_count > 0)) OVER () AS new_to,
                                   CASE p.granularity WHEN 'monthly' THEN 0 ELSE d.step % 7 END AS weekday
                            FROM (
                                SELECT <step bc.bucket_start> AS step, bc.bucket_start, NULL::bigint AS old_count,
                                       NULL::bigint AS new_count
                                FROM flow_outcomes.bucket_coverage bc
                                WHERE bc.org = p.org AND bc.granularity = p.granularity AND bc.measure = 'outcomes'
                                  AND bc.bucket_start >= p.last_start - p.reach
                                  AND bc.bucket_start <= p.first_start + p.reach
                                UNION ALL
                                SELECT <step f.bucket_start>, NULL,
                                       CASE WHEN f.series_no = ANY (p.old_series) THEN f.outcome_count END,
                                       CASE WHEN f.series_no = ANY (p.new_series) THEN f.outcome_count END
                                FROM flow_outcomes.figure f
                                WHERE f.org = p.org AND f.series_no = ANY (p.old_series || p.new_series)
                                  AND f.granularity = p.granularity AND f.outcome_count > 0
                                  AND f.bucket_start >= p.last_start - p.reach
                                  AND f.bucket_start <= p.first_start + p.reach
                            ) d
                            GROUP BY d.step
                        ) s
                        GROUP BY s.weekday
                    ) w
                ) l
            ) l
        ) m
        -- A day's count differs from its weekday's mean by 39 % (a variance of 0.15), a month's by 14 %, and both by
        -- chance where they are low.
        CROSS JOIN LATERAL (
            SELECT (c.variance + 1 / nullif(m.mean_before, 0)) / m.weight_before AS before,
                   (c.variance + 1 / nullif(m.mean_after, 0)) / m.weight_after AS after
            FROM (SELECT CASE p.granularity WHEN 'monthly' THEN 0.02 ELSE 0.15 END AS variance) c
        ) v
        WHERE m.mean_before > 0 AND m.mean_after > 0
          AND m.seen_before >= p.least AND m.seen_after >= p.least
          AND m.old_absence >= 3 AND m.new_absence >= 3
          AND (m.gap <= 3 OR m.gap_absence <= 4)
          AND (p.first_step >= p.last_step OR m.old_overlap <= 0.15 * m.mean_before
                                           OR m.new_overlap <= 0.15 * m.mean_after)
    ),
    -- The weight of a pair beside its alternatives, and names that differ in digits alone, as those of campaigns do.
    weighed AS (
        SELECT f.*,
               exp(greatest(-100, 3 - (ln(f.ratio) / f.deviation) ^ 2 / 2 - 12 * f.pattern - 2 * f.doubled
                   - least(f.gap_absence, 0.9 * f.gap)
                   + CASE f.first_step - f.last_step WHEN 0 THEN 0.7 WHEN -1 THEN -0.7 ELSE 0 END
                   + CASE WHEN regexp_replace(lower(f.old_name), '[0-9]+', '', 'g')
                             = regexp_replace(lower(f.new_name), '[0-9]+', '', 'g') THEN 1.5 ELSE 0 END)) AS weight
        FROM fitted f
        WHERE f.ratio BETWEEN 0.33 AND 3
    ),
    -- A name is renamed once, so pairs that share a name compete: belief propagation between old names and new ones.
    -- from_old is the share that the old name's other pairs leave to this one, from_new that of the new name's.
    belief AS (
        SELECT 0 AS round, w.org, w.flow_id, w.old_name, w.new_name, w.granularity, w.last_start, w.first_start,
               w.seen_before, w.seen_after, w.mean_before, w.mean_after, w.ratio, w.weight,
               1::double precision AS from_old, 1::double precision AS from_new
        FROM weighed w
        UNION ALL
        SELECT b.round + 1, b.org, b.flow_id, b.old_name, b.new_name, b.granularity, b.last_start, b.first_start,
               b.seen_before, b.seen_after, b.mean_before, b.mean_after, b.ratio, b.weight,
               1 / (1 + greatest(0, sum(b.weight * b.from_new) OVER old_names - b.weight * b.from_new)),
               1 / (1 + greatest(0, sum(b.weight * b.from_old) OVER new_names - b.weight * b.from_old))
        FROM belief b
        WHERE b.round < 20
        WINDOW old_names AS (PARTITION BY b.org, b.flow_id, b.old_name),
               new_names AS (PARTITION BY b.org, b.flow_id, b.new_name)
    ),
    rated AS (
        SELECT b.*, b.from_old * b.from_new AS left_by_others,
               b.weight * b.from_old * b.from_new / (1 + b.weight * b.from_old * b.from_new) AS confidence
        FROM belief b
        WHERE b.round = 20
    )
    SELECT r.org, r.flow_id, fl.name AS flow_name, r.old_name, r.new_name,
           round(r.confidence::numeric, 2)::double precision AS confidence, r.granularity,
           r.last_start AS last_seen, r.first_start AS first_seen,
           r.seen_before AS days_before, r.seen_after AS days_after, r.mean_before, r.mean_after, r.ratio
    FROM rated r
    LEFT JOIN flow_outcomes.flow fl ON fl.org = r.org AND fl.flow_id = r.flow_id
    WHERE r.confidence >= CASE WHEN r.left_by_others < 0.5 THEN 0.65 ELSE 0.5 END
    $query$;
BEGIN
    -- The number of a bucket's day; for days in any time zone that of their noon. Of a month: that of its middle.
    query := regexp_replace(query, '<step ([a-z_.]+)>', $step$CASE <granularity \1>
        WHEN 'monthly' THEN (extract(year FROM (\1 + interval '15 days') AT TIME ZONE 'UTC') * 12
                             + extract(month FROM (\1 + interval '15 days') AT TIME ZONE 'UTC'))::integer
        WHEN 'daily' THEN floor((extract(epoch FROM \1) + 43200) / 86400)::integer
        ELSE floor(extract(epoch FROM \1) / 86400)::integer END$step$, 'g');
    query := replace(query, '<granularity g.last_start>', 'g.granularity');
    query := replace(query, '<granularity n.first_start>', 'g.granularity');
    query := regexp_replace(query, '<granularity [a-z_.]+>', 'p.granularity', 'g');
    EXECUTE 'CREATE VIEW flow_outcomes.alias_suggestion AS '
        || replace(replace(replace(query, '<org>', 'true'), '<flow>', 'true'), '<since>', $$'-infinity'::timestamptz$$);
    EXECUTE format(
        'CREATE FUNCTION flow_outcomes.alias_suggestion_since(p_org text, p_flow_id text, p_since timestamptz)'
        ' RETURNS SETOF flow_outcomes.alias_suggestion LANGUAGE sql STABLE AS %L',
        replace(replace(replace(query, '<org>', 'org.org = p_org'),
                        '<flow>', '(p_flow_id IS NULL OR o.flow_id = p_flow_id)'), '<since>', 'p_since'));
END
$do$;

COMMENT ON VIEW flow_outcomes.alias_suggestion IS
    'Pairs of outcome names that are probably one outcome before and after a rename; none is applied by itself';
COMMENT ON FUNCTION flow_outcomes.alias_suggestion_since(text, text, timestamptz) IS
    'alias_suggestion of one org, or of one flow, for names that were seen since an instant';
COMMENT ON COLUMN flow_outcomes.alias_suggestion.org IS 'The organisation, by its name in the configuration';
COMMENT ON COLUMN flow_outcomes.alias_suggestion.flow_id IS 'The id of the flow that reported both names';
COMMENT ON COLUMN flow_outcomes.alias_suggestion.flow_name IS 'The flow''s present name; null where the API gives none';
COMMENT ON COLUMN flow_outcomes.alias_suggestion.old_name IS 'The name that ended, after the aliases';
COMMENT ON COLUMN flow_outcomes.alias_suggestion.new_name IS 'The name that began, after the aliases';
COMMENT ON COLUMN flow_outcomes.alias_suggestion.confidence IS
    'From 0.5 to 1; a different level, days between and other pairs that fit lower it';
COMMENT ON COLUMN flow_outcomes.alias_suggestion.granularity IS
    'Of the figures that were compared; hours are added up to days';
COMMENT ON COLUMN flow_outcomes.alias_suggestion.last_seen IS 'Start of the last bucket that has the old name';
COMMENT ON COLUMN flow_outcomes.alias_suggestion.first_seen IS 'Start of the first bucket that has the new name';
COMMENT ON COLUMN flow_outcomes.alias_suggestion.days_before IS
    'Days with the old name, of the last 28; of monthly figures months, of 12';
COMMENT ON COLUMN flow_outcomes.alias_suggestion.days_after IS
    'Days with the new name, of the first 28; of monthly figures months, of 12';
COMMENT ON COLUMN flow_outcomes.alias_suggestion.mean_before IS 'Mean count of the old name on these days or months';
COMMENT ON COLUMN flow_outcomes.alias_suggestion.mean_after IS 'Mean count of the new name on these days or months';
COMMENT ON COLUMN flow_outcomes.alias_suggestion.ratio IS
    'The new name''s count over what the old name''s means of the same weekdays predict';

-- Suggestions that were logged; each pair is logged once.
CREATE TABLE flow_outcomes.alias_suggested (
    org          text NOT NULL,
    flow_id      text NOT NULL,
    old_name     text NOT NULL,
    new_name     text NOT NULL,
    suggested_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org, flow_id, old_name, new_name)
);
