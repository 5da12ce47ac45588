select
    org,
    job,
    measure::text as measure,
    granularity,
    window_start,
    window_end,
    state,
    complete as is_complete,
    doubted as is_doubted,
    complete_since,
    confirmed_at,
    restatements,
    last_restated_at,
    last_error
from {{ source('flow_outcomes', 'coverage') }}
