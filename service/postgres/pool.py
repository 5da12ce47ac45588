"""Connections: a pool that gives up waiting, and one place where a driver's error becomes ours."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from psycopg import AsyncConnection
from psycopg.conninfo import make_conninfo
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from service.errors import DatabaseAwayError

Connection = AsyncConnection[tuple[Any, ...]]

# Seconds. A query on a dead network hangs without the server's limit, the socket's and the client's own.
CONNECT_TIMEOUT = 5
STATEMENT_TIMEOUT = 60
MERGE_TIMEOUT = 900
_SETTINGS = {
    "statement_timeout": f"{STATEMENT_TIMEOUT}s",
    "lock_timeout": "30s",
    "idle_in_transaction_session_timeout": "10s",
    "timezone": "UTC",  # intervals are then absolute, whatever zone the role was given
    "client_encoding": "UTF8",
    "search_path": "pg_catalog",
    "jit": "off",  # compiling a merge's statements took longer than running them
}

# The server is there but cannot be used now: the wait is for it to come back, the fault is no window's.
_AWAY = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    psycopg.errors.ReadOnlySqlTransaction,  # a demoted primary
    PoolTimeout,
    TimeoutError,
)


def conninfo(dsn: str, application_name: str, **settings: str) -> str:
    """The DSN with our time limits and settings, whatever form it came in."""
    options = " ".join(f"-c {key}={value}" for key, value in {**_SETTINGS, **settings}.items())
    return make_conninfo(
        dsn,
        application_name=application_name,
        connect_timeout=CONNECT_TIMEOUT,
        keepalives_idle=10,
        keepalives_interval=5,
        keepalives_count=3,
        tcp_user_timeout=20_000,
        options=options,
    )


class Database:
    """A pool of connections to the one database, each transaction with an end.

    Args:
        dsn: any form that libpq takes.
        size: connections at most.
        application_name: what the server calls this process; by it a process that stands still is cut off.
    """

    def __init__(self, dsn: str, *, size: int, application_name: str) -> None:
        self.dsn = dsn
        self.application_name = application_name
        self._pool = AsyncConnectionPool(
            conninfo(dsn, application_name),
            connection_class=AsyncConnection[tuple[Any, ...]],
            min_size=0,
            max_size=size,
            timeout=10,
            max_idle=60,
            reconnect_timeout=3,  # its pauses grow: rather begin anew, to be there soon after the server is
            check=AsyncConnectionPool.check_connection,
            kwargs={"autocommit": True, "prepare_threshold": None},
            open=False,
        )

    async def open(self) -> None:
        """Begin to make connections; does not wait for the server to be there."""
        await self._pool.open(wait=False)

    async def close(self) -> None:
        """Close every connection."""
        await self._pool.close(timeout=5)

    @asynccontextmanager
    async def connection(self, *, limit: float = STATEMENT_TIMEOUT + 15) -> AsyncIterator[Connection]:
        """A connection in autocommit mode, for at most ``limit`` seconds.

        Raises:
            DatabaseAwayError: the server cannot be reached, or takes no writes.
        """
        try:
            async with asyncio.timeout(limit), self._pool.connection() as connection:
                try:
                    yield connection
                except psycopg.errors.ReadOnlySqlTransaction:
                    await connection.close()  # what it is connected to is no primary any more
                    raise
        except _AWAY as error:
            raise DatabaseAwayError(explain(error)) from error

    @asynccontextmanager
    async def transaction(self, *, limit: float = STATEMENT_TIMEOUT + 15) -> AsyncIterator[Connection]:
        """A connection in one transaction, for at most ``limit`` seconds.

        Raises:
            DatabaseAwayError: as ``connection``.
        """
        async with self.connection(limit=limit) as connection, connection.transaction():
            yield connection


def explain(error: BaseException) -> str:
    """One line of what the driver says; its messages name hosts and roles, never a password."""
    return " ".join(str(error).split()) or type(error).__name__
