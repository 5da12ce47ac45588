"""The connection pool, and the one place that turns a driver's error into one of the program's."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any, Self, TypeVar

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import kwargs_row, scalar_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from service.errors import DatabaseUnavailableError
from service.postgres import session
from service.postgres.session import STATEMENT_TIMEOUT
from service.telemetry import REDACTED, redacted

T = TypeVar("T")
Parameters = Mapping[str, Any] | Sequence[Any]

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER: on, for no time

# Seconds. On a dead network a query hangs without a limit of the server's, the socket's and the client's.
_CHECK_TIMEOUT = 3  # for the check of an idle connection before it is used
CONNECTION_TIMEOUT = 10  # for a free connection
RECONNECT_TIMEOUT = 3  # the pool's pauses grow: a new attempt starts over, soon after the server's return
MERGE_TIMEOUT = 900
STORAGE_PROBLEM_TIMEOUT = 60
"""Seconds for which a failed write is reported, unless a later merge succeeds."""

# The value that libpq quotes in an error: it may be a part of a password that was not escaped.
_INVALID = re.compile(r'(invalid (?:integer value|port number:|"?\w+"? value:) )".*?"(?=\s|$)')

# The database cannot be used for now: the operation is retried, and no window has failed.
_UNAVAILABLE = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    psycopg.errors.ReadOnlySqlTransaction,  # a demoted primary
    psycopg.errors.IdleInTransactionSessionTimeout,  # this process was suspended within a transaction
    PoolTimeout,
    TimeoutError,
)


class Connection(AsyncConnection[tuple[Any, ...]]):
    """A connection with the session's settings, which is aborted where a wait on it is cancelled.

    The driver would send a cancel request over a second connection and wait for the answer on the first. On a
    dead network that takes ten seconds.
    """

    @classmethod
    async def connect(cls, conninfo: str = "", **kwargs: Any) -> Self:
        """Connect, trying first the host that last accepted a connection, and apply ``settings``.

        Raises:
            OperationalError: the server is unreachable, or a setting cannot be set.
        """
        settings: Mapping[str, str] = kwargs.pop("settings", {})
        connection = await super().connect(session.prefer_last_host(conninfo), **kwargs)
        try:
            with abort_after(connection, _CHECK_TIMEOUT):
                await session.configure_async(connection, settings)
        except BaseException:
            await connection.close()
            raise
        session.remember_host(conninfo, connection.info)
        return connection

    async def cancel_safe(self, *, timeout: float = 30.0) -> None:  # noqa: ARG002 - the driver's signature
        """Abort the connection instead of cancelling its statement."""
        abort(self)

    async def fetch_all(self, row: Callable[..., T], statement: str, values: Parameters | None = None) -> list[T]:
        """Every row, as ``row(**columns)``."""
        async with self.cursor(row_factory=kwargs_row(row)) as cursor:
            await cursor.execute(statement, values)
            return await cursor.fetchall()

    async def fetch_values(self, statement: str, values: Parameters | None = None) -> list[Any]:
        """The first column of every row."""
        async with self.cursor(row_factory=scalar_row) as cursor:
            await cursor.execute(statement, values)
            return await cursor.fetchall()

    async def fetch_value(self, statement: str, values: Parameters | None = None) -> Any:
        """The first column of the first row; None where there is no row."""
        return next(iter(await self.fetch_values(statement, values)), None)


class Database:
    """The pool of connections to the database; each transaction has a time limit.

    Half of the connections are for merges, so that short statements get one however many orgs merge. While merges
    follow one another, each finds the temporary tables that an earlier one made in its session.

    Args:
        dsn: any form that libpq accepts.
        size: the maximum number of connections; with 1, merges have one of their own in addition.
        application_name: this process's name in ``pg_stat_activity``, by which a takeover ends its backends.
        read_only: nothing is written, so a standby will do.

    Raises:
        ConfigError: the DSN selects a server that accepts no writes, and ``read_only`` is False.
    """

    def __init__(self, dsn: str, *, size: int, application_name: str, read_only: bool = False) -> None:
        self.dsn = dsn
        self.application_name = application_name
        self._conninfo = session.conninfo(dsn, application_name, writes=not read_only)
        self._settings = session.READ_ONLY if read_only else {}
        merges = max(1, size // 2)
        self._pool = self._make_pool(size - size // 2)
        self._merge_pool = self._make_pool(merges)
        # a merge waits here without a limit: its scan has been read and must not be lost
        self._merge_slots = asyncio.Semaphore(merges)
        self._in_use: set[Connection] = set()
        self._storage_problem, self._storage_problem_at = "", 0.0

    def _make_pool(self, size: int) -> AsyncConnectionPool[Connection]:
        return AsyncConnectionPool(
            self._conninfo,
            connection_class=Connection,
            min_size=0,
            max_size=size,
            timeout=CONNECTION_TIMEOUT,
            max_idle=60,
            reconnect_timeout=RECONNECT_TIMEOUT,
            check=_check,
            kwargs={"autocommit": True, "prepare_threshold": None, "settings": self._settings},
            open=False,
        )

    async def open(self) -> None:
        """Start the pool, without waiting for the server."""
        for pool in (self._pool, self._merge_pool):
            await pool.open(wait=False)

    async def close(self) -> None:
        """Close every connection."""
        await asyncio.gather(*(pool.close(timeout=1) for pool in (self._pool, self._merge_pool)))

    async def reset(self) -> None:
        """Abort the connections in use and discard the idle ones.

        Called when the server was lost. Otherwise each connection would only end at its own time limit.
        """
        for connection in self._in_use:
            abort(connection)
        for pool in (self._pool, self._merge_pool):
            await pool.drain()

    @property
    def storage_problem(self) -> str:
        """Why nothing can be stored: the last write failed for lack of room or an I/O error; or empty."""
        age = time.monotonic() - self._storage_problem_at
        return self._storage_problem if age < STORAGE_PROBLEM_TIMEOUT else ""

    def note_storage_problem(self, problem: str) -> None:
        """Record why nothing can be stored; empty where something was."""
        self._storage_problem, self._storage_problem_at = problem, time.monotonic()

    def connection(
        self, *, limit: float = STATEMENT_TIMEOUT + 15, timeout: float | None = None
    ) -> AbstractAsyncContextManager[Connection]:
        """A connection in autocommit mode.

        Args:
            limit: seconds after which the connection is aborted.
            timeout: seconds to wait for a free connection; None: ``CONNECTION_TIMEOUT``.

        Raises:
            DatabaseUnavailableError: the server is unreachable or accepts no writes, or no connection was free.
        """
        return self._checkout(self._pool, limit, CONNECTION_TIMEOUT if timeout is None else timeout)

    @asynccontextmanager
    async def _checkout(
        self, pool: AsyncConnectionPool[Connection], limit: float, timeout: float
    ) -> AsyncIterator[Connection]:
        try:
            async with AsyncExitStack() as stack:
                connection = await _get_connection(stack, pool, min(timeout, limit))
                self._in_use.add(connection)
                try:
                    with abort_after(connection, limit):
                        yield connection
                except psycopg.Error as error:
                    if problem := storage_problem(error):
                        self.note_storage_problem(problem)
                    if isinstance(error, psycopg.errors.ReadOnlySqlTransaction):
                        await connection.close()  # its server is no longer the primary
                    if connection.closed:
                        raise DatabaseUnavailableError(explain(error)) from error
                    raise
                finally:
                    self._in_use.discard(connection)
        except _UNAVAILABLE as error:
            raise DatabaseUnavailableError(explain(error)) from error

    @asynccontextmanager
    async def transaction(self, *, limit: float = STATEMENT_TIMEOUT + 15) -> AsyncIterator[Connection]:
        """A connection in one transaction, aborted after ``limit`` seconds.

        Raises:
            DatabaseUnavailableError: as ``connection``.
        """
        async with self.connection(limit=limit) as connection, connection.transaction():
            yield connection

    @asynccontextmanager
    async def merge_transaction(self) -> AsyncIterator[Connection]:
        """A connection for merges in one transaction, aborted soon after ``MERGE_TIMEOUT``.

        Raises:
            DatabaseUnavailableError: as ``connection``.
        """
        async with (
            self._merge_slots,
            self._checkout(self._merge_pool, MERGE_TIMEOUT + 30, MERGE_TIMEOUT) as connection,
            connection.transaction(),
        ):
            yield connection
        self.note_storage_problem("")


async def _get_connection(
    stack: AsyncExitStack, pool: AsyncConnectionPool[Connection], timeout: float
) -> Connection:
    """Wait for a connection, in several requests: after failed attempts the pool connects only for a new one.

    Raises:
        PoolTimeout: none was free within ``timeout`` seconds.
    """
    while timeout > CONNECTION_TIMEOUT:
        with contextlib.suppress(PoolTimeout):
            return await stack.enter_async_context(pool.connection(timeout=CONNECTION_TIMEOUT))
        timeout -= CONNECTION_TIMEOUT
    return await stack.enter_async_context(pool.connection(timeout=timeout))


@contextmanager
def abort_after(connection: Connection, seconds: float) -> Iterator[None]:
    """Abort the connection where the block takes longer; a pending wait on it raises OperationalError."""
    timer = asyncio.get_running_loop().call_later(seconds, abort, connection)
    try:
        yield
    finally:
        timer.cancel()


def abort(connection: Connection) -> None:
    """Shut the connection's socket down; a pending wait on it raises OperationalError at once.

    Once it is closed, the server gets a reset: without one a session that is sending rows would wait, for many
    minutes, until someone reads them.
    """
    with contextlib.suppress(psycopg.Error, OSError), socket.socket(fileno=os.dup(connection.fileno())) as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        line.shutdown(socket.SHUT_RDWR)


async def _check(connection: Connection) -> None:
    with abort_after(connection, _CHECK_TIMEOUT):
        await AsyncConnectionPool.check_connection(connection)


def explain(error: BaseException) -> str:
    """The driver's message on one line, without secrets and without the invalid value of a connection option."""
    return redacted(_INVALID.sub(rf"\1{REDACTED}", " ".join(str(error).split()))) or type(error).__name__


def storage_problem(error: BaseException) -> str:
    """Why nothing can be stored, where the server reports a full disk or an I/O error; otherwise empty."""
    if isinstance(error, psycopg.errors.DiskFull | psycopg.errors.IoError):
        return f"nothing can be stored: {explain(error)}"
    return ""
