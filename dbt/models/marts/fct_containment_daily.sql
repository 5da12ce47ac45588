-- Containment: the share of a flow's executions that ended in the flow (tFlowDisconnect) instead of going on elsewhere
-- (tFlowExit). An exit reason that is null was expected and not reported, as on a day without such exits, and adds
-- nothing; where no exit is known at all, the counts of exits are null.
with executions as (
    select *, coalesce(execution_count, duration_count) as executions
    from {{ ref('stg_flow_outcomes__flow_execution') }}
    where granularity = 'daily' and metric <> 'tFlow'
),

summed as (
    select
        org,
        flow_id,
        bucket_date,
        bucket_start,
        bucket_end,
        sum(executions) filter (where metric = 'nFlow') as execution_count,
        sum(executions) filter (where metric <> 'nFlow') as exit_count,
        sum(executions) filter (where metric = 'tFlowDisconnect') as ended_in_flow_count,
        sum(executions) filter (
            where metric = 'tFlowDisconnect'
            {%- for reason in var('flow_outcomes_not_contained') %}
            and exit_reason <> {{ dbt.string_literal(dbt.escape_single_quotes(reason)) }}
            {%- endfor %}
        ) as contained_count,
        sum(executions) filter (where metric = 'tFlowExit') as left_flow_count,
        max(extracted_at) as extracted_at
    from executions
    group by org, flow_id, bucket_date, bucket_start, bucket_end
),

known as (
    select
        org,
        flow_id,
        bucket_date,
        bucket_start,
        bucket_end,
        execution_count::bigint as execution_count,
        {% for name in ['ended_in_flow_count', 'contained_count', 'left_flow_count'] -%}
        case when exit_count is not null then coalesce({{ name }}, 0) end::bigint as {{ name }},
        {% endfor -%}
        extracted_at
    from summed
)

select
    org || ':' || flow_id as flow_key,
    org,
    flow_id,
    bucket_date as execution_date,
    bucket_start,
    bucket_end,
    execution_count,
    ended_in_flow_count,
    contained_count,
    left_flow_count,
    contained_count / nullif(execution_count, 0)::double precision as containment_rate,
    extracted_at
from known
