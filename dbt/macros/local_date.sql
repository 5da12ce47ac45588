{#- The org's date on which a bucket begins. Buckets are cut in the org's reporting time zone. -#}
{% macro flow_outcomes_local_date(org, instant) -%}
    (({{ instant }}) at time zone
        {%- set zones = var('flow_outcomes_time_zones') %}
        {%- if zones %}
        case {{ org }}
            {%- for name, zone in zones.items() %}
            when {{ dbt.string_literal(dbt.escape_single_quotes(name)) }}
                then {{ dbt.string_literal(dbt.escape_single_quotes(zone)) }}
            {%- endfor %}
            else 'UTC'
        end
        {%- else %} 'UTC'
        {%- endif -%}
    )::date
{%- endmacro %}
