"""What is stored, in a few figures."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from service.postgres.probe import looking

WITHIN = 60.0  # seconds


class Summary(NamedTuple):
    """One org's figures at one granularity."""

    org: str
    granularity: str
    flows: int
    first: datetime
    last: datetime
    rows: int
    nulls: int
    counted: int


async def summary(dsn: str) -> list[Summary]:
    """What ``flow_outcome`` holds, for each org and granularity."""
    async with looking(dsn, "flow-outcomes", within=WITHIN) as connection:
        cursor = await connection.execute(
            "SELECT org, granularity, count(DISTINCT flow_id), min(bucket_start),"
            " max(bucket_end), count(*), count(*) - count(outcome_count), coalesce(sum(outcome_count), 0)::bigint"
            " FROM flow_outcomes.flow_outcome GROUP BY org, granularity ORDER BY org, granularity"
        )
        return [Summary(*row) for row in await cursor.fetchall()]
