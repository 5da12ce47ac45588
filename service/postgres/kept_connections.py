"""Connections that only read and are kept for the next reader: a new one costs more than most statements."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

import psycopg
from psycopg.pq import TransactionStatus

from service.postgres.pool import Connection, abort_after
from service.postgres.probe import connect, read_only_settings, translate_errors

IDLE_MAX = 30.0
"""Seconds after which an idle connection is closed."""
AGE_MAX = 300.0
"""Seconds after which a connection is not kept: a changed address, role or password takes effect."""
CHECK_TIMEOUT = 1.0
"""Seconds for the first statement on a kept connection; after that it is replaced by a new one."""


class _Kept(NamedTuple):
    connection: Connection
    dsn: str
    opened: float
    returned: float


class KeptConnections:
    """Read-only connections, the idle ones kept for a moment.

    Args:
        dsn: returns the database's DSN, or raises DatabaseUnavailableError.
        application_name: this process's name in ``pg_stat_activity``.
        maximum: idle connections that are kept.
    """

    def __init__(self, dsn: Callable[[], str], application_name: str, maximum: int) -> None:
        self._dsn = dsn
        self._name = application_name
        self._maximum = maximum
        self._idle: list[_Kept] = []
        self._sweep: asyncio.TimerHandle | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._open = True

    @asynccontextmanager
    async def connection(self, *, timeout: float) -> AsyncIterator[Connection]:
        """A connection in autocommit mode, aborted after ``timeout`` seconds; each statement has this limit too.

        Raises:
            DatabaseUnavailableError, SchemaError: as ``open_connection``.
        """
        dsn, loop = self._dsn(), asyncio.get_running_loop()
        async with translate_errors(timeout) as deadline:
            connection, opened = await self._take(dsn, timeout) or (None, loop.time())
            if connection is None:
                connection = await connect(dsn, self._name, read_only_settings(timeout))
            deadline.reschedule(None)
            try:
                with abort_after(connection, timeout):
                    yield connection
            except BaseException:
                await _close(connection)
                raise
            await self._put(_Kept(connection, dsn, opened, loop.time()))

    async def close(self) -> None:
        """Close the idle connections; those in use are closed as they are returned."""
        self._open = False
        if self._sweep is not None:
            self._sweep.cancel()
        idle, self._idle = self._idle, []
        for each in idle:
            await _close(each.connection)

    async def _take(self, dsn: str, timeout: float) -> tuple[Connection, float] | None:
        """An idle connection that answers, with the time when it was opened; None where there is none."""
        now, answers = asyncio.get_running_loop().time(), True
        limit = read_only_settings(timeout)["statement_timeout"]
        while self._idle:
            kept = self._idle.pop()
            if answers and kept.dsn == dsn and not self._expired(kept, now):
                try:
                    with abort_after(kept.connection, CHECK_TIMEOUT):
                        await kept.connection.execute(f"SET statement_timeout TO '{limit}'".encode())
                except (psycopg.Error, OSError):
                    answers = False  # nor will the others: the server restarted, or the network is down
                else:
                    return kept.connection, kept.opened
            await _close(kept.connection)
        return None

    async def _put(self, kept: _Kept) -> None:
        """Keep a connection, or close it."""
        idle = kept.connection.info.transaction_status == TransactionStatus.IDLE
        if not (self._open and idle and len(self._idle) < self._maximum):
            await _close(kept.connection)
            return
        self._idle.append(kept)
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(IDLE_MAX, self._close_expired)

    def _close_expired(self) -> None:
        loop = asyncio.get_running_loop()
        expired = [each for each in self._idle if self._expired(each, loop.time())]
        self._idle = [each for each in self._idle if each not in expired]
        for each in expired:
            task = loop.create_task(_close(each.connection))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
        self._sweep = loop.call_later(IDLE_MAX / 2, self._close_expired) if self._idle else None

    @staticmethod
    def _expired(kept: _Kept, now: float) -> bool:
        return now - kept.returned >= IDLE_MAX or now - kept.opened >= AGE_MAX


async def _close(connection: Connection) -> None:
    with contextlib.suppress(psycopg.Error, OSError):
        await connection.close()
