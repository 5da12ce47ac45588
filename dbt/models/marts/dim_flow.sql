-- Every flow that the API named or that has a figure: the query-builder API reports ids alone.
with figures as (
    select org, flow_id, bucket_start, bucket_end from {{ ref('stg_flow_outcomes__flow_outcome') }}
    union all
    select org, flow_id, bucket_start, bucket_end from {{ ref('stg_flow_outcomes__flow_execution') }}
),

with_figures as (
    select org, flow_id, min(bucket_start) as first_bucket_start, max(bucket_end) as last_bucket_end
    from figures
    group by org, flow_id
)

select
    org || ':' || flow_id as flow_key,
    org,
    flow_id,
    coalesce(flow.flow_name, flow_id) as flow_name,
    flow.flow_type,
    flow.division_id,
    flow.division_name,
    flow.is_deleted,
    with_figures.first_bucket_start,
    with_figures.last_bucket_end
from {{ ref('stg_flow_outcomes__flow') }} as flow
full join with_figures using (org, flow_id)
