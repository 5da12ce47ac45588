select
    org,
    flow_id,
    granularity,
    bucket_start,
    bucket_end,
    {{ flow_outcomes_local_date('org', 'bucket_start') }} as bucket_date,
    exit_reason,
    dimensions,
    metric,
    execution_count,
    duration_count,
    duration_sum_ms,
    duration_min_ms,
    duration_max_ms,
    extraction_timestamp as extracted_at
from {{ source('flow_outcomes', 'flow_execution') }}
