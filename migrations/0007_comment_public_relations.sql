-- What BI tools show beside each public view, function, table and column. A column that means the same everywhere is
-- described once; an entry for one relation takes precedence.
DO $do$
DECLARE
    described record;
BEGIN
    FOR described IN
        SELECT * FROM (VALUES
            ('VIEW', 'flow_outcome',
             'How often each outcome of a flow was reported in a bucket; the sum over dimensions'),
            ('VIEW', 'flow_outcome_detail',
             'flow_outcome by the dimensions of the job''s group_by; a row for each combination'),
            ('VIEW', 'flow_execution',
             'How often a flow ran and how long, in total and by exit reason; for jobs with measure executions'),
            ('VIEW', 'flow_milestone',
             'How often a milestone of a flow was reached; for jobs with measure milestones'),
            ('VIEW', 'restatement', 'Each count of flow_outcome that a later extraction changed'),
            ('VIEW', 'coverage', 'Whether each window of a job is complete, and what was restated in it'),
            ('VIEW', 'rejected_entry', 'Rejected outcomes: the reason, and the entry as received'),
            ('TABLE', 'outcome_alias', 'Other names for outcomes, applied to all stored figures; may be edited'),
            ('TABLE', 'extraction_window', 'The state of each window that a job must extract or that was requested'),
            ('TABLE', 'flow', 'Names and properties of flows, where the API gives them'),
            ('FUNCTION', 'flow_outcome_as_of(timestamptz)', 'flow_outcome as it was at an instant'),
            ('FUNCTION', 'flow_outcome_detail_as_of(timestamptz)', 'flow_outcome_detail as it was at an instant'),
            ('FUNCTION', 'flow_execution_as_of(timestamptz)', 'flow_execution as it was at an instant'),
            ('FUNCTION', 'flow_milestone_as_of(timestamptz)', 'flow_milestone as it was at an instant')
        ) AS relation (kind, name, description)
    LOOP
        EXECUTE format('COMMENT ON %s flow_outcomes.%s IS %L', described.kind, described.name, described.description);
    END LOOP;

    FOR described IN
        SELECT DISTINCT ON (c.relname, a.attname) c.relname, a.attname, entry.description
        FROM (VALUES
            (NULL, 'org', 'The organisation, by its name in the configuration'),
            (NULL, 'flow_id', 'The flow''s id, as the API spells it'),
            ('outcome_alias', 'flow_id', 'The flow for which the alias holds; null: all flows'),
            ('rejected_entry', 'flow_id', 'The flow''s id; null where the entry does not say'),
            (NULL, 'flow_name', 'The flow''s present name; null where the API gives none'),
            (NULL, 'granularity', 'Length of the bucket: hourly, daily or monthly. Filter by one, or figures count twice'),
            ('extraction_window', 'granularity', 'At which granularity the window is extracted'),
            ('coverage', 'granularity', 'At which granularity the window is extracted'),
            (NULL, 'bucket_start', 'Start of the bucket; days and months begin in the org''s reporting time zone'),
            (NULL, 'bucket_end', 'End of the bucket, exclusive'),
            (NULL, 'outcome_key', 'flow_id, an underscore and outcome_name'),
            (NULL, 'outcome_name', 'The outcome''s name after the aliases'),
            ('restatement', 'outcome_name', 'The name that the outcome had when the count changed'),
            ('rejected_entry', 'outcome_name', 'The outcome''s name or id as received; null where it is unknown'),
            (NULL, 'outcome_count', 'How often the outcome was reported. Null: expected and not reported, or rejected'),
            (NULL, 'outcome_percentage', 'The share as the API reported it, from 0 to 1; null where it reports none'),
            (NULL, 'outcome_share', 'outcome_count over the sum of the flow''s counts in the bucket, from 0 to 1; null '
                || 'where that sum is zero or unknown. A share of reported outcomes, not of calls'),
            ('flow_outcome_detail', 'outcome_share', 'outcome_count over the sum of all the flow''s counts in the '
                || 'bucket, whatever their dimensions, from 0 to 1; null where that sum is zero or unknown'),
            (NULL, 'extraction_timestamp', 'When the scan ran that brought this figure'),
            (NULL, 'outcome_id', 'The outcome''s id; null where the API knows names alone, or several ids share the name'),
            (NULL, 'success_count', 'How many of outcome_count succeeded; null where the API does not say'),
            (NULL, 'failure_count', 'How many of outcome_count failed; null where the API does not say'),
            (NULL, 'success_rate', 'success_count over outcome_count, from 0 to 1. Over several rows divide the sums'),
            (NULL, 'duration_count', 'How many durations were measured: of successes for outcomes, of all executions'),
            (NULL, 'duration_sum_ms', 'Sum of the durations in milliseconds; over duration_count it is the mean'),
            (NULL, 'duration_min_ms', 'The shortest duration in milliseconds'),
            (NULL, 'duration_max_ms', 'The longest duration in milliseconds'),
            (NULL, 'dimensions', 'The dimensions of group_by by the API''s names; null where the interaction lacks one'),
            (NULL, 'exit_reason', 'Why the executions ended; null for all executions of the flow'),
            (NULL, 'metric', 'The API''s metric: nFlow (with tFlow) for all executions, tFlowExit or tFlowDisconnect'),
            ('flow_execution', 'execution_count', 'How often the flow ran; null in rows by exit reason'),
            ('flow_milestone', 'execution_count', 'In how many executions it was reached; null where the API sends none'),
            (NULL, 'milestone_id', 'The milestone''s id'),
            (NULL, 'milestone_name', 'The milestone''s present name'),
            (NULL, 'milestone_count', 'How often the milestone was reached'),
            (NULL, 'old_count', 'The count before; null where there was none'),
            (NULL, 'new_count', 'The count after; null where the outcome is no longer reported'),
            (NULL, 'restated_at', 'When the count changed'),
            (NULL, 'job', 'The job''s name in the configuration; null for ad hoc requests'),
            (NULL, 'measure', 'What the window extracts: outcomes, executions or milestones'),
            (NULL, 'window_start', 'Start of the window'),
            (NULL, 'window_end', 'End of the window, exclusive'),
            (NULL, 'complete', 'Whether the window is complete: all its rows were stored in one transaction'),
            (NULL, 'complete_since', 'When the window was first complete'),
            (NULL, 'confirmed_at', 'When a scan last confirmed the figures'),
            (NULL, 'state', 'pending, running, complete or failed'),
            (NULL, 'doubted', 'Whether the last scan was empty and waits for a second one that says the same'),
            (NULL, 'last_error', 'Why the last scan failed, is doubted or kept the stored figures'),
            (NULL, 'restatements', 'How many counts of the window changed after its first extraction'),
            (NULL, 'restated_by', 'The sum of the absolute changes; a null counts as zero'),
            (NULL, 'last_restated_at', 'When a count of the window last changed'),
            (NULL, 'reason', 'Why the entry was rejected'),
            (NULL, 'entry', 'The entry as received: text from the API, unchecked'),
            (NULL, 'rejected_at', 'When it was rejected'),
            (NULL, 'old_name', 'The name that the API reports'),
            (NULL, 'new_name', 'The name to show instead; another alias may continue from it'),
            (NULL, 'name', 'The flow''s present name'),
            (NULL, 'flow_type', 'The flow''s type, such as INBOUNDCALL'),
            (NULL, 'division_id', 'The id of the flow''s division'),
            (NULL, 'division_name', 'The name of the flow''s division'),
            (NULL, 'deleted', 'Whether the flow was deleted'),
            ('flow', 'revision', 'The revision of the org that gave the flow its present name'),
            (NULL, 'work', 'The stream of windows: job:NAME or ad hoc'),
            (NULL, 'requested_granularity', 'The granularity that the job or the request names'),
            (NULL, 'query_hash', 'Digest of the query; windows that one query covers share it'),
            (NULL, 'attempts', 'How many scans were started'),
            (NULL, 'pages', 'Pages of the last stored scan'),
            (NULL, 'rows', 'Rows of the last stored scan'),
            (NULL, 'rejected', 'Rejected outcomes of the last stored scan'),
            (NULL, 'due_at', 'When the window is or was due'),
            (NULL, 'completed_at', 'When a scan last completed the window'),
            (NULL, 'requests', 'Internal: how often an ad hoc window was requested'),
            (NULL, 'requests_begun', 'Internal: how many of the requests the last started scan answers'),
            (NULL, 'requests_failed', 'Internal: how many of the requests the last failed scan answers'),
            (NULL, 'requests_read', 'Internal: how many of the requests the last stored scan answers'),
            (NULL, 'scan_number', 'Internal: number of the last stored scan, counted per org'),
            (NULL, 'flow_ids', 'The flows that the window requested; null: all'),
            (NULL, 'entries', 'Internal: entries of the last stored scan'),
            (NULL, 'isolated', 'Internal: whether it is requested alone, after an invalid page or a refusal'),
            (NULL, 'coarsened', 'Internal: whether the server rejected the next finer granularity'),
            (NULL, 'doubted_in', 'Internal: the cycle of an empty scan that is not confirmed yet'),
            (NULL, 'kept_stored', 'Internal: whether last_error is a note, since the window is older than the retention')
        ) AS entry (relation, attribute, description)
        JOIN pg_attribute a ON a.attname = entry.attribute AND a.attnum > 0 AND NOT a.attisdropped
        JOIN pg_class c ON c.oid = a.attrelid AND c.relnamespace = 'flow_outcomes'::regnamespace
                       AND c.relname = coalesce(entry.relation, c.relname)
        WHERE c.relkind = 'v' OR c.relname IN ('outcome_alias', 'extraction_window', 'flow')
        ORDER BY c.relname, a.attname, entry.relation NULLS LAST
    LOOP
        EXECUTE format('COMMENT ON COLUMN flow_outcomes.%I.%I IS %L',
                       described.relname, described.attname, described.description);
    END LOOP;
END
$do$;
