"""The prune date of an org: nothing before it is stored, due or missing."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from service.postgres.pool import Connection, Database


class _PruneDate(NamedTuple):
    org: str
    pruned_before: datetime


async def prune_dates(connection: Connection) -> dict[str, datetime]:
    """The prune date of each org that has one."""
    rows = await connection.fetch_all(
        _PruneDate, "SELECT o.org, o.pruned_before FROM flow_outcomes.org o WHERE o.pruned_before IS NOT NULL"
    )
    return dict(rows)


async def prune_date(connection: Connection, org: str) -> datetime | None:
    """The prune date of an org; None where nothing of it was pruned."""
    date: datetime | None = await connection.fetch_value(
        "SELECT o.pruned_before FROM flow_outcomes.org o WHERE o.org = %(org)s", {"org": org}
    )
    return date


async def current_prune_date(database: Database, org: str) -> datetime | None:
    """The same, read from the pool.

    Raises:
        DatabaseUnavailableError: the database is unavailable.
    """
    async with database.connection() as connection:
        return await prune_date(connection, org)
