"""The pool: who waits for a connection gets one as soon as there can be one."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
import pytest

from service.errors import DatabaseUnavailableError
from service.postgres import pool
from service.postgres.pool import Connection, Database

pytestmark = pytest.mark.integration


async def test_a_merge_asks_again_where_no_connection_could_be_made(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pool gives up soon, and tries again only when it is asked; a merge waits long."""
    monkeypatch.setattr(pool, "PATIENCE", 0.3)
    monkeypatch.setattr(pool, "RECONNECT", 0.1)
    refused: list[str] = []
    connect = Connection.connect

    async def refused_at_first(conninfo: str = "", **how: Any) -> Connection:  # noqa: ANN401 - the driver's own
        if len(refused) < 3:
            refused.append(conninfo)
            raise psycopg.OperationalError("too many connections")
        return await connect(conninfo, **how)

    monkeypatch.setattr(Connection, "connect", refused_at_first)
    mine = Database(database, size=4, application_name="test")
    await mine.open()
    async with asyncio.timeout(10), mine.merge_transaction() as connection:
        await connection.execute("SELECT 1")
    assert len(refused) == 3
    await mine.close()


async def test_short_statements_do_not_wait_for_merges(database: str) -> None:
    """However many merges wait for one of theirs; and who finds none of the others is told soon."""
    mine = Database(database, size=4, application_name="test")
    await mine.open()
    go_on = asyncio.Event()
    merging = 0

    async def merge() -> None:
        nonlocal merging
        async with mine.merge_transaction():
            merging += 1
            await go_on.wait()

    async with asyncio.TaskGroup() as tasks:
        for _ in range(5):
            tasks.create_task(merge())
        async with asyncio.timeout(10):
            async with mine.connection() as one, mine.connection() as other:
                await one.execute("SELECT 1")
                await other.execute("SELECT 1")
                with pytest.raises(DatabaseUnavailableError, match="couldn't get a connection"):
                    async with mine.connection(patience=0.3):
                        pass
        assert merging == 2
        go_on.set()
    assert merging == 5
    await mine.close()
