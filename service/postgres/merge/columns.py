"""The columns of a figure's values, which are the same for every measure, for the statements of a merge."""

from __future__ import annotations

from typing import LiteralString

VALUES: LiteralString = (
    "outcome_count, outcome_percentage, success_count, failure_count,"
    " execution_count, duration_count, duration_sum_ms, duration_min_ms, duration_max_ms"
)


def values_of(alias: LiteralString) -> LiteralString:
    """The values of a table, by its alias in the statement."""
    return f"{alias}.{VALUES.replace(', ', f', {alias}.')}"


VALUE_DEFINITIONS: LiteralString = (
    "outcome_count bigint, outcome_percentage double precision, success_count bigint, failure_count bigint,"
    " execution_count bigint, duration_count bigint, duration_sum_ms bigint, duration_min_ms bigint,"
    " duration_max_ms bigint"
)
"""The values as columns of a temporary table."""
