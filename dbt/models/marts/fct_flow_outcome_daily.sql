select
    org || ':' || flow_id as flow_key,
    org,
    flow_id,
    bucket_date as outcome_date,
    bucket_start,
    bucket_end,
    outcome_name,
    outcome_count,
    outcome_share,
    outcome_percentage,
    success_count,
    failure_count,
    success_rate,
    duration_count,
    duration_sum_ms,
    duration_sum_ms / nullif(duration_count, 0)::double precision as duration_mean_ms,
    extracted_at
from {{ ref('stg_flow_outcomes__flow_outcome') }}
where granularity = 'daily'
