"""Connections: a pool that gives up waiting, and one place where a driver's error becomes ours."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any, Self

import psycopg
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from service.errors import DatabaseUnavailableError
from service.postgres import session
from service.postgres.session import STATEMENT_TIMEOUT
from service.telemetry import REDACTED, redacted


class Connection(AsyncConnection[tuple[Any, ...]]):
    """A connection whose settings hold, and that is broken off where a wait on it is cancelled.

    The driver would ask the server, over a second connection, to cancel the statement, and then wait for the
    answer on the first: on a dead network ten seconds, and who cancels wants none.
    """

    @classmethod
    async def connect(cls, conninfo: str = "", **how: Any) -> Self:  # noqa: ANN401 - the driver's own
        """Connect as the driver does, to the host that served last, and give the session its ``settings``.

        Raises:
            OperationalError: it cannot be reached; or the session cannot have its settings.
        """
        settings: Mapping[str, str] = how.pop("settings", session.NONE)
        connection = await super().connect(session.served_first(conninfo), **how)
        try:
            with hung_up_after(connection, CHECK_TIMEOUT):
                await session.begin_async(connection, settings)
        except BaseException:
            await connection.close()
            raise
        session.note_served(conninfo, connection.info)
        return connection

    async def cancel_safe(self, *, timeout: float = 30.0) -> None:  # noqa: ARG002, ASYNC109 - the driver's own
        """Break it off."""
        abort(self)


# Seconds. A query on a dead network hangs without the server's limit, the socket's and the client's own.
CHECK_TIMEOUT = 3  # for a connection that was idle, before it is handed out
PATIENCE = 10  # for a connection, where all of them are in use
RECONNECT = 3  # a pool's pauses grow: rather have it begin anew, to be there soon after the server is
MERGE_TIMEOUT = 900

# How libpq quotes what it refuses: it may be a part of a password that was not escaped.
_INVALID = re.compile(r'(invalid (?:integer value|port number:|"?\w+"? value:) )".*?"(?=\s|$)')

# The server is there but cannot be used now: the wait is for it to come back, the fault is no window's.
_AWAY = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    psycopg.errors.ReadOnlySqlTransaction,  # a demoted primary
    psycopg.errors.IdleInTransactionSessionTimeout,  # this process stood still in the middle of it
    PoolTimeout,
    TimeoutError,
)


class Database:
    """Connections to the one database, each transaction with an end.

    Half of them are the merges' own: however many orgs merge, short statements get theirs meanwhile; and while one
    merge follows the other, it finds the tables that an earlier one made in its session.

    Args:
        dsn: any form that libpq takes.
        size: connections at most; the merges' are not counted where it is one.
        application_name: what the server calls this process; by it a process that stands still is cut off.
        read_only: nothing is written, so that a standby will do.

    Raises:
        ConfigError: the DSN asks for a server that takes no writes, and they are wanted.
    """

    def __init__(self, dsn: str, *, size: int, application_name: str, read_only: bool = False) -> None:
        self.dsn = dsn
        self.application_name = application_name
        self._conninfo = session.conninfo(dsn, application_name, writes=not read_only)
        self._settings = session.READ_ONLY if read_only else session.NONE
        self._pool = self._pool_of(size - size // 2)
        merging = max(1, size // 2)
        self._merging = self._pool_of(merging)
        # who merges waits here however long it takes: a scan that was read is not thrown away
        self._may_merge = asyncio.Semaphore(merging)
        self._in_use: set[Connection] = set()
        self.held = 0  # bytes of scans that wait in this process's memory for their merges

    def _pool_of(self, size: int) -> AsyncConnectionPool[Connection]:
        return AsyncConnectionPool(
            self._conninfo,
            connection_class=Connection,
            min_size=0,
            max_size=size,
            timeout=PATIENCE,
            max_idle=60,
            reconnect_timeout=RECONNECT,
            check=_check,
            kwargs={"autocommit": True, "prepare_threshold": None, "settings": self._settings},
            open=False,
        )

    async def open(self) -> None:
        """Begin to make connections; does not wait for the server to be there."""
        for pool in (self._pool, self._merging):
            await pool.open(wait=False)

    async def close(self) -> None:
        """Close every connection."""
        await asyncio.gather(*(pool.close(timeout=1) for pool in (self._pool, self._merging)))

    async def reset(self) -> None:
        """Trust no connection that is there: what waits on one ends now, and the next ones are new.

        For when the server was lost without a word: nothing but a time limit would tell it of each of them.
        """
        for connection in self._in_use:
            abort(connection)
        for pool in (self._pool, self._merging):
            await pool.drain()

    @asynccontextmanager
    async def connection(
        self, *, limit: float = STATEMENT_TIMEOUT + 15, patience: float = PATIENCE
    ) -> AsyncIterator[Connection]:
        """A connection in autocommit mode, for at most ``limit`` seconds.

        Args:
            limit: seconds; past these it is broken off.
            patience: seconds to wait for it, where all of them are in use.

        Raises:
            DatabaseUnavailableError: the server cannot be reached, or takes no writes.
        """
        async with self._checkout(self._pool, limit, patience) as connection:
            yield connection

    @asynccontextmanager
    async def _checkout(
        self, pool: AsyncConnectionPool[Connection], limit: float, patience: float
    ) -> AsyncIterator[Connection]:
        try:
            async with AsyncExitStack() as lent:
                connection = await _wait(lent, pool, min(patience, limit))
                self._in_use.add(connection)
                try:
                    with hung_up_after(connection, limit):
                        yield connection
                except psycopg.Error as error:
                    if isinstance(error, psycopg.errors.ReadOnlySqlTransaction):
                        await connection.close()  # what it is connected to is no primary any more
                    if connection.closed:
                        raise DatabaseUnavailableError(explain(error)) from error
                    raise
                finally:
                    self._in_use.discard(connection)
        except _AWAY as error:
            raise DatabaseUnavailableError(explain(error)) from error

    @asynccontextmanager
    async def transaction(
        self, *, limit: float = STATEMENT_TIMEOUT + 15, patience: float = PATIENCE
    ) -> AsyncIterator[Connection]:
        """A connection in one transaction, for at most ``limit`` seconds; both as in ``connection``.

        Raises:
            DatabaseUnavailableError: as ``connection``.
        """
        async with (
            self.connection(limit=limit, patience=patience) as connection,
            connection.transaction(),
        ):
            yield connection

    @asynccontextmanager
    async def merge_transaction(self) -> AsyncIterator[Connection]:
        """A connection of the merges' own in one transaction, for a little more than ``MERGE_TIMEOUT``.

        Raises:
            DatabaseUnavailableError: as ``connection``.
        """
        async with (
            self._may_merge,
            self._checkout(self._merging, MERGE_TIMEOUT + 30, MERGE_TIMEOUT) as connection,
            connection.transaction(),
        ):
            yield connection


async def _wait(lent: AsyncExitStack, pool: AsyncConnectionPool[Connection], patience: float) -> Connection:
    """Wait for a connection, asking again at times: a pool that could not connect tries again only when asked.

    Raises:
        PoolTimeout: there was none for so many seconds.
    """
    while patience > PATIENCE:
        with contextlib.suppress(PoolTimeout):
            return await lent.enter_async_context(pool.connection(timeout=PATIENCE))
        patience -= PATIENCE
    return await lent.enter_async_context(pool.connection(timeout=patience))


@contextmanager
def hung_up_after(connection: Connection, seconds: float) -> Iterator[None]:
    """Break the connection off where the block takes longer; what waits on it gets an OperationalError."""
    timer = asyncio.get_running_loop().call_later(seconds, abort, connection)
    try:
        yield
    finally:
        timer.cancel()


def abort(connection: Connection) -> None:
    """Break a connection off; who waits on it gets an OperationalError at once."""
    with contextlib.suppress(psycopg.Error, OSError), socket.socket(fileno=os.dup(connection.fileno())) as line:
        line.shutdown(socket.SHUT_RDWR)


async def _check(connection: Connection) -> None:
    with hung_up_after(connection, CHECK_TIMEOUT):
        await AsyncConnectionPool.check_connection(connection)


def explain(error: BaseException) -> str:
    """One line of what the driver says, without secrets and without the invalid value of a connection option."""
    return redacted(_INVALID.sub(rf"\1{REDACTED}", " ".join(str(error).split()))) or type(error).__name__
