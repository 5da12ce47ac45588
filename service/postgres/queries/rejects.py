"""Refused entries, read back as they were kept."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from service.postgres.pool import Connection


class RejectedEntry(NamedTuple):
    """One refused outcome; ``flow_id``, ``bucket_start`` and ``outcome_name`` are None where they cannot be told.

    ``entry`` is the whole entry as it came, JSON text with NUL and lone surrogates escaped.
    """

    org: str
    window_start: datetime
    window_end: datetime
    reason: str
    flow_id: str | None
    bucket_start: datetime | None
    outcome_name: str | None
    rejected_at: datetime
    entry: str


async def count(connection: Connection, org: str | None) -> int:
    """How many there are, of one org or (None) of all."""
    cursor = await connection.execute(
        "SELECT count(*) FROM flow_outcomes.rejected_outcome WHERE org = coalesce(%s, org)", (org,)
    )
    row = await cursor.fetchone()
    return row[0] if row else 0


async def latest(connection: Connection, org: str | None, limit: int) -> list[RejectedEntry]:
    """The latest so many, newest first, of one org or (None) of all."""
    cursor = await connection.execute(
        "SELECT org, window_start, window_end, reason, flow_id, bucket_start, outcome_name, rejected_at, entry"
        " FROM flow_outcomes.rejected_entry WHERE org = coalesce(%s, org)"
        " ORDER BY rejected_at DESC, org, window_start, flow_id, outcome_name, reason LIMIT %s",
        (org, limit),
    )
    return [RejectedEntry(*row) async for row in cursor]
