"""The lease on the export: one process exports at a time, and the next one sees how the last export ended.

As for an org (``postgres/lease``), a session's advisory lock shows that the owner is alive, and a row with an
expiry that it makes progress. A held lock with an expired row means that the owner is suspended: its sessions are
terminated.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import NamedTuple

import psycopg

from service.clock import Clock, SystemClock
from service.errors import DatabaseUnavailableError, ExportBusyError, LeaseLostError
from service.postgres.pool import Connection, abort_after
from service.postgres.probe import open_connection

_LIFETIME = 30.0  # seconds from a renewal to the expiry
_RENEW_EVERY = 5.0  # seconds
_ANSWER_WITHIN = 10.0  # seconds for a statement
_TIMEOUT = 86_400.0  # seconds, for a complete export
_ATTEMPTS, _RETRY_AFTER = 10, 0.2  # for the lock of a terminated owner, seconds apart


class ExportState(NamedTuple):
    """The last export.

    Attributes:
        target: the warehouse and namespace that it wrote to; None before the first.
        number: of the newest export; None before the first.
        exported_at: the time of the newest database snapshot that is exported completely.
        exported_ago: seconds since then, by the database's clock.
        failed_at: when the last run failed; None where it succeeded.
        failed_ago: seconds since then.
        last_error: why it failed.
        owner: the process that exports now; None where none does.
    """

    target: str | None = None
    number: int | None = None
    exported_at: datetime | None = None
    exported_ago: float | None = None
    failed_at: datetime | None = None
    failed_ago: float | None = None
    last_error: str | None = None
    owner: str | None = None


async def read_state(connection: Connection) -> ExportState:
    """The last export."""
    rows = await connection.fetch_all(
        ExportState,
        """
        SELECT l.target, l.export AS number, l.exported_at, l.failed_at, l.last_error,
               extract(epoch FROM clock_timestamp() - l.exported_at)::float8 AS exported_ago,
               extract(epoch FROM clock_timestamp() - l.failed_at)::float8 AS failed_ago,
               CASE WHEN l.expires_at > clock_timestamp() THEN l.owner END AS owner
        FROM flow_outcomes.export_lease l WHERE l.org = ''
        """,
    )
    return rows[0] if rows else ExportState()


class ExportLease:
    """The right to export, held for one export.

    Args:
        connection: the session that holds the lock.
        owner: its application_name.
        clock: the clock of the lease's expiry.
    """

    def __init__(self, connection: Connection, owner: str, clock: Clock) -> None:
        self._connection = connection
        self._owner = owner
        self._clock = clock
        self._good_until = 0.0
        self._turn = asyncio.Lock()  # one statement at a time on the connection

    def check(self) -> None:
        """Check that this process still holds the lease; called immediately before each commit and removal.

        Raises:
            LeaseLostError: it has expired, or its session was lost.
        """
        if self._connection.closed or self._clock.monotonic() >= self._good_until:
            raise LeaseLostError("this process no longer holds the lease on the export")

    async def record_success(self, target: str, number: int, at: datetime) -> None:
        """Store where the newest export is, its number, and the time of the database snapshot that it holds."""
        await self._execute(_RECORD_SUCCESS, {"owner": self._owner, "target": target, "number": number, "at": at})

    async def record_failure(self, reason: str) -> None:
        """Store why this export failed."""
        await self._execute(_RECORD_FAILURE, {"owner": self._owner, "reason": reason})

    async def acquire(self) -> None:
        """Enter this process as the owner.

        Raises:
            ExportBusyError: another process exports.
        """
        for attempt in range(_ATTEMPTS):
            if attempt:
                await asyncio.sleep(_RETRY_AFTER)
            if await self._connection.fetch_value(_TRY_LOCK):
                break
            terminated = await self._connection.fetch_value(_TERMINATE_EXPIRED, {"owner": self._owner})
            if not terminated and not attempt:
                state = await read_state(self._connection)
                raise ExportBusyError(f"another process exports: {state.owner or 'it has just begun'}")
        else:
            raise ExportBusyError("another process exports, and its session does not end")
        await self._renew(_TAKE_OVER)

    async def keep(self) -> None:
        """Renew the lease until cancelled, or until the session is lost."""
        while True:
            await asyncio.sleep(_RENEW_EVERY)
            try:
                await self._renew(_RENEW)
            except (psycopg.Error, OSError, DatabaseUnavailableError):
                return  # check() sees that it is not renewed

    async def release(self) -> None:
        """Give the lease up."""
        await self._execute(_RELEASE, {"owner": self._owner})

    async def _renew(self, statement: str) -> None:
        good_until = self._clock.monotonic() + _LIFETIME
        await self._execute(statement, {"owner": self._owner, "lifetime": _LIFETIME})
        self._good_until = good_until

    async def _execute(self, statement: str, values: dict[str, object]) -> None:
        async with self._turn:
            with abort_after(self._connection, _ANSWER_WITHIN):
                await self._connection.execute(statement, values)


@asynccontextmanager
async def held_lease(dsn: str, clock: Clock | None = None) -> AsyncIterator[ExportLease]:
    """Hold the lease on the export.

    Raises:
        ExportBusyError: another process exports.
        DatabaseUnavailableError, SchemaError: as ``open_connection``.
    """
    owner = f"flow-outcomes export {socket.gethostname()[:20]}:{os.getpid()}:{secrets.token_hex(4)}"
    async with open_connection(dsn, owner, timeout=_TIMEOUT, read_only=False) as connection:
        lease = ExportLease(connection, owner, clock or SystemClock())
        await lease.acquire()
        keeping = asyncio.create_task(lease.keep(), name="export lease")
        try:
            yield lease
        finally:
            keeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await keeping
            with contextlib.suppress(psycopg.Error, OSError):
                await lease.release()


_TRY_LOCK = "SELECT pg_try_advisory_lock(hashtextextended('flow_outcomes.export', 0))"

# The number of terminated sessions.
_TERMINATE_EXPIRED = """
    SELECT count(pg_terminate_backend(a.pid))
    FROM pg_stat_activity a
    JOIN flow_outcomes.export_lease l ON l.owner = a.application_name
    WHERE l.org = '' AND l.owner <> %(owner)s AND l.expires_at < clock_timestamp()
      AND a.datname = current_database()
"""

_TAKE_OVER = """
    INSERT INTO flow_outcomes.export_lease AS l (org, owner, expires_at)
    SELECT '', %(owner)s, clock_timestamp() + make_interval(secs => %(lifetime)s)
    ON CONFLICT (org) DO UPDATE SET owner = EXCLUDED.owner, expires_at = EXCLUDED.expires_at
"""
_RENEW = """
    UPDATE flow_outcomes.export_lease SET expires_at = clock_timestamp() + make_interval(secs => %(lifetime)s)
    WHERE org = '' AND owner = %(owner)s
"""
_RELEASE = """
    UPDATE flow_outcomes.export_lease SET owner = NULL, expires_at = NULL WHERE org = '' AND owner = %(owner)s
"""
_RECORD_SUCCESS = """
    UPDATE flow_outcomes.export_lease
    SET target = %(target)s, export = %(number)s, exported_at = %(at)s, failed_at = NULL, last_error = NULL
    WHERE org = '' AND owner = %(owner)s
"""
_RECORD_FAILURE = """
    UPDATE flow_outcomes.export_lease SET failed_at = clock_timestamp(), last_error = %(reason)s
    WHERE org = '' AND owner = %(owner)s
"""
