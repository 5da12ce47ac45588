select
    org,
    flow_id,
    name as flow_name,
    flow_type,
    division_id,
    division_name,
    deleted as is_deleted
from {{ source('flow_outcomes', 'flow') }}
