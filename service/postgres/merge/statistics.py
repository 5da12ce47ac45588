"""Statistics for readers, after a scan that added many outcomes."""

from __future__ import annotations

import contextlib

import psycopg

from service.errors import DatabaseUnavailableError
from service.postgres.pool import Database

_MIN_ADDED = 100
_MIN_SHARE = 10  # one in so many reported outcomes


async def analyze_series(database: Database, *, added: int, reported: int) -> None:
    """Analyze ``series`` where a scan added many rows to it.

    Autovacuum does so only when a tenth of the table is new. Until then a query for a new org's figures may read
    all of its series for each of them. A failure is ignored; autovacuum remains.

    Args:
        database: where the outcomes are.
        added: outcomes that the scan added.
        reported: outcomes that it reported.
    """
    if added <= max(_MIN_ADDED, reported // _MIN_SHARE):
        return
    with contextlib.suppress(psycopg.Error, DatabaseUnavailableError):
        async with database.connection() as connection:
            await connection.execute("SELECT flow_outcomes.analyze_series()")
