-- The freshness of the source is that of the newest window of all. This test looks at each org and job: it returns those
-- that have incomplete windows, and no complete one that ended within the last three days.
{{ config(severity='warn') }}

select org, job, measure, max(window_end) filter (where is_complete) as newest_complete
from {{ ref('stg_flow_outcomes__coverage') }}
where job is not null
group by org, job, measure
having coalesce(max(window_end) filter (where is_complete), '-infinity') < now() - interval '3 days'
   and max(window_end) filter (where not is_complete) is not null
