"""How much is stored, by org and granularity."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from service.postgres.probe import open_connection

TIMEOUT = 60.0  # seconds


class Summary(NamedTuple):
    """One org's figures at one granularity.

    Attributes:
        org, granularity: whose figures.
        flows: distinct flows.
        first: the first bucket's start.
        last: the last bucket's end.
        rows: rows of ``flow_outcome``.
        nulls: of these, the ones without a count.
        counted: the sum of the counts.
    """

    org: str
    granularity: str
    flows: int
    first: datetime
    last: datetime
    rows: int
    nulls: int
    counted: int


async def summary(dsn: str) -> list[Summary]:
    """How much ``flow_outcome`` holds, by org and granularity.

    Raises:
        DatabaseUnavailableError, SchemaError: as ``open_connection``.
    """
    async with open_connection(dsn, "flow-outcomes", timeout=TIMEOUT) as connection:
        return await connection.fetch_all(
            Summary,
            """
            SELECT org, granularity, count(DISTINCT flow_id) AS flows, min(bucket_start) AS first,
                   max(bucket_end) AS last, count(*) AS rows, count(*) - count(outcome_count) AS nulls,
                   coalesce(sum(outcome_count), 0)::bigint AS counted
            FROM flow_outcomes.flow_outcome
            GROUP BY org, granularity
            ORDER BY org, granularity
            """,
        )
