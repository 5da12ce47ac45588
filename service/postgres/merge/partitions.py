"""Monthly partitions, created before the figures that go into them, with no lock that a reader waits for."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import LiteralString, NamedTuple

import psycopg

from service.clock import Clock
from service.errors import PartitionLockedError, StorageError
from service.model import Span
from service.postgres.pool import Connection, Database, explain
from service.telemetry import Emit, Event

AHEAD = timedelta(days=92)
"""How far past a scan partitions are created."""
AHEAD_RETRY = 60.0
"""Seconds until the next attempt at partitions that no scan needs yet."""
_LOCK_TIMEOUT, _LOCK_TIMEOUT_AHEAD = "2s", "50ms"


class _Holder(NamedTuple):
    pid: int | None
    application_name: str | None
    relation: str
    mode: str
    seconds: float | None

    def __str__(self) -> str:
        session = "a prepared transaction" if self.pid is None else f"process {self.pid}"
        name = f" ({self.application_name})" if self.application_name else ""
        since = "" if self.seconds is None else f" in a transaction that began {self.seconds:.0f} s ago"
        return f"{session}{name} holds {self.mode} on {self.relation}{since}"


class Partitions:
    """Creates partitions. A month that no scan needs yet is postponed where its lock is not free at once."""

    def __init__(self, database: Database, clock: Clock, emit: Emit) -> None:
        self._database = database
        self._clock = clock
        self._emit = emit
        self._lock = asyncio.Lock()
        self._ahead_at = clock.monotonic()  # the earliest next attempt at months that no scan needs yet

    async def ensure(self, span: Span) -> None:
        """Create the partitions for the buckets of a span and for the months after it, where they do not exist.

        Raises:
            StorageError: a partition of the span cannot be created.
            DatabaseUnavailableError: the database cannot be reached.
        """
        async with self._database.connection() as connection:
            months = await _missing(connection, span)
        if not months or (months[0] >= span.end and self._clock.monotonic() < self._ahead_at):
            return
        async with self._lock, self._database.connection() as connection:  # a waiting scan holds no connection
            for month in await _missing(connection, span):
                if month < span.end:
                    await _create(connection, month, _LOCK_TIMEOUT)
                elif self._clock.monotonic() >= self._ahead_at:
                    await self._create_ahead(connection, month)

    async def _create_ahead(self, connection: Connection, month: datetime) -> None:
        try:
            await _create(connection, month, _LOCK_TIMEOUT_AHEAD)
        except StorageError as error:
            self._ahead_at = self._clock.monotonic() + AHEAD_RETRY
            self._emit(Event.PARTITION_POSTPONED, month=f"{month:%Y-%m}", reason=str(error))


async def _missing(connection: Connection, span: Span) -> list[datetime]:
    return await connection.fetch_values(_MISSING, {"start": span.start, "end": span.end + AHEAD})


async def _create(connection: Connection, month: datetime, lock_timeout: LiteralString) -> None:
    """Create the partitions of one month.

    Raises:
        StorageError: they cannot be created.
    """
    try:
        async with connection.transaction():
            await connection.execute(f"SET LOCAL lock_timeout = '{lock_timeout}'")
            await connection.execute(_CREATE, {"month": month})
    except psycopg.errors.LockNotAvailable as error:
        holders = await connection.fetch_all(_Holder, _HOLDERS)
        reason = "; ".join(map(str, holders)) or "another process creates partitions"
        raise PartitionLockedError(f"the partitions of {month:%Y-%m} cannot be created: {reason}") from error
    except psycopg.OperationalError:
        raise  # the database is unavailable
    except psycopg.Error as error:
        raise StorageError(f"the partitions of {month:%Y-%m} cannot be created: {explain(error)}") from error


_MISSING = "SELECT DISTINCT month FROM flow_outcomes.missing_partitions(%(start)s, %(end)s) ORDER BY month"
_CREATE = "SELECT flow_outcomes.ensure_partitions(%(month)s, %(month)s + interval '1 microsecond')"

# Locks that conflict with SHARE UPDATE EXCLUSIVE. The time is null where the role may not see it.
_HOLDERS = """
    SELECT l.pid, a.application_name, c.relname AS relation, l.mode,
           extract(epoch FROM clock_timestamp() - a.xact_start)::float8 AS seconds
    FROM pg_locks l
    JOIN pg_class c ON c.oid = l.relation AND c.relkind = 'p'
    LEFT JOIN pg_stat_activity a ON a.pid = l.pid
    WHERE l.granted AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
      AND c.relnamespace = to_regnamespace('flow_outcomes')
      AND l.mode IN ('ShareUpdateExclusiveLock', 'ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock',
                     'AccessExclusiveLock')
    ORDER BY a.xact_start, l.pid
    LIMIT 3
"""
