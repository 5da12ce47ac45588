"""The pool: how long a merge and a short statement wait for a connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from service.errors import DatabaseUnavailableError
from service.postgres import pool, probe
from service.postgres.pool import Connection, Database

pytestmark = pytest.mark.integration


async def test_a_merge_retries_a_failed_connection(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A merge requests a connection again after the pool's own attempts have ended."""
    monkeypatch.setattr(pool, "CONNECTION_TIMEOUT", 0.3)
    monkeypatch.setattr(pool, "RECONNECT_TIMEOUT", 0.1)
    rejected: list[str] = []
    connect = Connection.connect

    async def reject_at_first(conninfo: str = "", **how: Any) -> Connection:  # noqa: ANN401 - the driver's own
        if len(rejected) < 3:
            rejected.append(conninfo)
            raise psycopg.OperationalError("too many connections")
        return await connect(conninfo, **how)

    monkeypatch.setattr(Connection, "connect", reject_at_first)
    pool_of_four = Database(database, size=4, application_name="test")
    await pool_of_four.open()
    async with asyncio.timeout(10), pool_of_four.merge_transaction() as connection:
        await connection.execute("SELECT 1")
    assert len(rejected) == 3
    await pool_of_four.close()


async def test_short_statements_do_not_wait_for_merges(database: str) -> None:
    """Merges that wait take no connection from them; with none free, the error comes within the timeout."""
    pool_of_four = Database(database, size=4, application_name="test")
    await pool_of_four.open()
    go_on = asyncio.Event()
    merging = 0

    async def merge() -> None:
        nonlocal merging
        async with pool_of_four.merge_transaction():
            merging += 1
            await go_on.wait()

    async with asyncio.TaskGroup() as tasks:
        for _ in range(5):
            tasks.create_task(merge())
        async with asyncio.timeout(10):
            async with pool_of_four.connection() as one, pool_of_four.connection() as other:
                await one.execute("SELECT 1")
                await other.execute("SELECT 1")
                with pytest.raises(DatabaseUnavailableError, match="couldn't get a connection"):
                    async with pool_of_four.connection(timeout=0.3):
                        pass
        assert merging == 2
        go_on.set()
    assert merging == 5
    await pool_of_four.close()


async def test_an_aborted_reader_leaves_no_session(database: str) -> None:
    """A session that is sending rows ends with the connection, and does not wait until someone reads them."""
    with psycopg.connect(database, autocommit=True) as other:

        def sessions() -> list[tuple[str | None]]:
            return other.execute(
                "SELECT wait_event FROM pg_stat_activity WHERE application_name = 'abandoned'"
            ).fetchall()

        with pytest.raises(DatabaseUnavailableError):  # noqa: PT012 - the time limit ends the block
            async with (
                probe.open_connection(database, "abandoned", timeout=0.5) as connection,
                connection.cursor() as cursor,
                cursor.copy("COPY (SELECT repeat('x', 1000) FROM generate_series(1, 200000)) TO STDOUT") as rows,
            ):
                await rows.read()
                await _wait_for(lambda: sessions() == [("ClientWrite",)])
                await asyncio.sleep(0.6)
                async for _ in rows:
                    pass
        await _wait_for(lambda: not sessions())


async def _wait_for(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - no event comes from the server
            await asyncio.sleep(0.02)
