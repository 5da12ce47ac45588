"""Rejected entries, as they were received."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from service.postgres.pool import Connection


class RejectedEntry(NamedTuple):
    """One rejected outcome of an entry.

    Attributes:
        org, window_start, window_end: the window of its scan.
        reason: what is invalid.
        flow_id, bucket_start, outcome_name: None where they are unknown.
        rejected_at: when it was stored.
        entry: the complete entry, JSON text in which NUL and lone surrogates are escaped.
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
    """The number of rejected entries of one org, or of all where ``org`` is None."""
    total: int = await connection.fetch_value(
        "SELECT count(*) FROM flow_outcomes.rejected_outcome WHERE org = coalesce(%(org)s, org)", {"org": org}
    )
    return total


async def latest(connection: Connection, org: str | None, limit: int) -> list[RejectedEntry]:
    """The newest rejected entries of one org, or of all where ``org`` is None, newest first."""
    return await connection.fetch_all(
        RejectedEntry,
        """
        SELECT org, window_start, window_end, reason, flow_id, bucket_start, outcome_name, rejected_at, entry
        FROM flow_outcomes.rejected_entry
        WHERE org = coalesce(%(org)s, org)
        ORDER BY rejected_at DESC, org, window_start, flow_id, outcome_name, reason
        LIMIT %(limit)s
        """,
        {"org": org, "limit": limit},
    )
