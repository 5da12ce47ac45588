"""The page's kept connections: used again, and never a reason for an error."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest

from service.errors import DatabaseUnavailableError
from service.postgres import kept_connections
from service.postgres.kept_connections import KeptConnections
from tests.support.proxy import Proxy

NAME = "kept"


@pytest.fixture
async def kept(database: str) -> AsyncIterator[KeptConnections]:
    connections = KeptConnections(lambda: database, NAME, 2)
    yield connections
    await connections.close()


async def backend(connections: KeptConnections, timeout: float = 5) -> int:
    """The process that answers."""
    async with connections.connection(timeout=timeout) as connection:
        pid: int = await connection.fetch_value("SELECT pg_backend_pid()")
    return pid


def sessions(dsn: str) -> int:
    with psycopg.connect(dsn) as connection:
        row: Any = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s", [NAME]
        ).fetchone()
    return int(row[0])


async def test_a_connection_is_used_again(kept: KeptConnections, database: str) -> None:
    """Readers one after the other share a connection; of those at the same time two are kept."""
    assert await backend(kept) == await backend(kept)
    async with asyncio.TaskGroup() as group:
        for _ in range(5):
            group.create_task(backend(kept))
    async with asyncio.timeout(10):
        while sessions(database) != 2:  # noqa: ASYNC110 - the server ends the others by itself
            await asyncio.sleep(0.01)


async def test_the_session_s_settings(kept: KeptConnections) -> None:
    """Each reader has its own limit for a statement, and none writes."""
    await backend(kept)
    async with kept.connection(timeout=0.7) as connection:
        assert await connection.fetch_value("SHOW statement_timeout") == "700ms"
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            await connection.execute("CREATE TABLE flow_outcomes.page ()")


async def test_a_connection_that_failed_is_not_kept(kept: KeptConnections) -> None:
    """Nor one that is left within a transaction."""
    first = await backend(kept)
    with pytest.raises(DatabaseUnavailableError):
        async with kept.connection(timeout=0.2) as connection:
            await connection.execute("SELECT pg_sleep(5)")
    second = await backend(kept)
    async with kept.connection(timeout=5) as connection:
        await connection.execute("BEGIN")
    assert len({first, second, await backend(kept)}) == 3


async def test_a_server_that_restarted(kept: KeptConnections, database: str) -> None:
    """A connection that the server ended is replaced, without an error for the reader."""
    first = await backend(kept)
    with psycopg.connect(database, autocommit=True) as connection:
        assert connection.execute("SELECT pg_terminate_backend(%s, 5000)", [first]).fetchone() == (True,)
    assert await backend(kept) != first


async def test_a_firewall_that_lost_its_state(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections over which nothing passes any more are replaced, all of them after one wait."""
    monkeypatch.setattr(kept_connections, "CHECK_TIMEOUT", 0.2)
    async with Proxy(database) as proxy:
        connections = KeptConnections(lambda: proxy.dsn, NAME, 2)
        async with asyncio.TaskGroup() as group:
            for _ in range(2):
                group.create_task(backend(connections))
        assert proxy.opened == 2
        proxy.stall()
        proxy.heal()
        began = asyncio.get_running_loop().time()
        await backend(connections)
        assert proxy.fired["stalled"] == 1
        assert proxy.opened == 3
        assert 0.2 <= asyncio.get_running_loop().time() - began < 2
        await connections.close()


async def test_another_dsn(database: str, empty_database: str) -> None:
    """A connection to another database is not used."""
    names = [database, empty_database]
    connections = KeptConnections(lambda: names[0], NAME, 1)
    first = await backend(connections)
    names.reverse()
    assert await backend(connections) != first
    await connections.close()


@pytest.mark.parametrize("limit", ["IDLE_MAX", "AGE_MAX"])
async def test_connections_end(
    kept: KeptConnections, database: str, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    """An idle connection is closed after a moment, and one that is used again and again after its time."""
    monkeypatch.setattr(kept_connections, limit, 0.05)
    first = await backend(kept)
    if limit == "AGE_MAX":
        async with asyncio.timeout(10):
            while await backend(kept) == first:  # noqa: ASYNC110 - time has to pass
                await asyncio.sleep(0.01)
        return
    assert sessions(database) in {0, 1}
    async with asyncio.timeout(10):
        while sessions(database):  # noqa: ASYNC110 - the server ends it by itself
            await asyncio.sleep(0.01)


async def test_closed_connections(kept: KeptConnections, database: str) -> None:
    """After ``close`` nothing stays open, neither what was idle nor what was in use."""
    async with kept.connection(timeout=5) as connection:
        await connection.execute("SELECT 1")
        await kept.close()
    async with asyncio.timeout(10):
        while sessions(database):  # noqa: ASYNC110 - the server ends it by itself
            await asyncio.sleep(0.01)
