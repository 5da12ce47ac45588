"""What the planner knows of an org that is new."""

from __future__ import annotations

import contextlib

import psycopg

from service.errors import DatabaseUnavailableError
from service.postgres.pool import Database

_FEW = 100


async def note_outcomes(database: Database, added: int, of: int) -> None:
    """Have the planner know of outcomes that are new, where these are many.

    Autovacuum sees to it too, but not before a tenth of the whole table is new. Until then a query for a new org's
    figures may go through all its outcomes for each. Where it cannot be done now, it is left to autovacuum.

    Args:
        database: where they were stored.
        added: how many a scan has added.
        of: how many it named.
    """
    if added <= max(_FEW, of // 10):
        return
    with contextlib.suppress(psycopg.Error, DatabaseUnavailableError):
        async with database.connection() as connection:
            await connection.execute("SELECT flow_outcomes.analyse_outcomes()")
