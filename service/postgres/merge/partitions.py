"""Monthly partitions, created before the figures that go into them."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

from service.model import Span
from service.postgres.pool import Database

AHEAD = timedelta(days=92)
"""How far past a scan partitions are created."""


class Partitions:
    """Creates partitions, and remembers which months have them."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._created: set[tuple[int, int]] = set()
        self._lock = asyncio.Lock()

    async def ensure(self, span: Span) -> None:
        """Create the partitions for the buckets of a span and for the months after it, where they do not exist.

        Raises:
            DatabaseUnavailableError: the database cannot be reached.
        """
        months = _months(Span(span.start, span.end + AHEAD))
        async with self._lock:
            if self._created.issuperset(months):
                return
            async with self._database.transaction() as connection:
                await connection.execute(
                    "SELECT flow_outcomes.ensure_partitions(%s, %s)", (span.start, span.end + AHEAD)
                )
            self._created |= months


def _months(span: Span) -> set[tuple[int, int]]:
    month, months = span.start.replace(day=1), set()
    while month < span.end:
        months.add((month.year, month.month))
        month = _next(month)
    return months


def _next(month: datetime) -> datetime:
    return (month + timedelta(days=32)).replace(day=1)
