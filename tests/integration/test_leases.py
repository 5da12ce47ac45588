"""The events that a lease manager reports."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
import pytest

from service.clock import SystemClock
from service.postgres.lease import Acquired, Disconnected, LeaseEvent, LeaseManager, Lost, Released, Requested
from service.postgres.lease import manager as module
from service.runtime import process

pytestmark = pytest.mark.integration


class Events:
    """The events of one manager."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[LeaseEvent] = asyncio.Queue()

    async def put(self, event: LeaseEvent) -> None:
        self._queue.put_nowait(event)

    async def next(self) -> LeaseEvent:
        async with asyncio.timeout(10):
            return await self._queue.get()


@asynccontextmanager
async def running(dsn: str, events: Events, *, shares: bool = False) -> AsyncIterator[LeaseManager]:
    manager = LeaseManager(dsn, "mine", SystemClock(), events.put, shares=shares)
    task = asyncio.create_task(manager.run())
    try:
        yield manager
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def execute(dsn: str, statement: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(statement.encode())


async def test_a_release(database: str) -> None:
    """A release ends the lease before it is reported; so does the end of the manager."""
    events = Events()
    async with running(database, events) as manager:
        manager.acquire("acme")
        acquired = await events.next()
        assert isinstance(acquired, Acquired)
        assert (acquired.lease.org, acquired.lease.epoch) == ("acme", 1)
        manager.release("acme")
        assert await events.next() == Released("acme")
        assert acquired.lease.lost.is_set()
        manager.acquire("acme")
        assert isinstance(await events.next(), Acquired)
    assert await events.next() == Released("acme")


async def test_the_end_of_the_manager_during_a_release(database: str) -> None:
    """The release ends first, and the other orgs are released too: none is reported as lost, none has an owner."""
    events = Events()
    manager = LeaseManager(database, "mine", SystemClock(), events.put)
    task = asyncio.create_task(manager.run())
    for org in ("acme", "beta"):
        manager.acquire(org)
        assert isinstance(await events.next(), Acquired)
    async with await psycopg.AsyncConnection.connect(database) as other:
        await other.execute("SELECT FROM flow_outcomes.org_lease WHERE org = 'acme' FOR UPDATE")
        manager.release("acme")
        assert await events.next() == Released("acme")
        async with asyncio.timeout(10):  # until the release waits for the row
            waiting = "SELECT FROM pg_locks WHERE NOT granted"
            while not await (await other.execute(waiting)).fetchall():  # noqa: ASYNC110 - PostgreSQL sends no event
                await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
    await asyncio.gather(task, return_exceptions=True)
    assert await events.next() == Released("beta")
    with psycopg.connect(database) as connection:
        owned = connection.execute("SELECT org FROM flow_outcomes.org_lease WHERE owner IS NOT NULL").fetchall()
    assert owned == []


async def test_a_lost_connection(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lost connection loses each lease first; then the org is acquired again under the next epoch."""
    monkeypatch.setattr(module, "RECONNECT_AFTER", 0.01)
    events = Events()
    async with running(database, events) as manager:
        manager.acquire("acme")
        assert isinstance(await events.next(), Acquired)
        execute(database, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'mine'")
        assert await events.next() == Lost("acme")
        assert await events.next() == Disconnected()
        again = await events.next()
        assert isinstance(again, Acquired)
        assert again.lease.epoch == 2


@pytest.mark.parametrize("shares", [True, False])
async def test_a_request(database: str, monkeypatch: pytest.MonkeyPatch, *, shares: bool) -> None:
    """Another process's request is reported at the next renewal, where orgs are shared."""
    monkeypatch.setattr(module, "RENEW_EVERY", 0.0)
    events = Events()
    async with running(database, events, shares=shares) as manager:
        manager.acquire("acme")
        assert isinstance(await events.next(), Acquired)
        execute(database, "UPDATE flow_outcomes.org_lease SET wanted_by = 'another'")
        if shares:
            assert await events.next() == Requested("acme")
        else:
            execute(database, "UPDATE flow_outcomes.org_lease SET owner = 'another'")
            assert await events.next() == Lost("acme")


async def test_an_unexpected_error(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is reported and costs the leases; the process acquires its orgs again once the cause is gone."""
    monkeypatch.setattr(process, "LEASES_RETRY_AFTER", 0.1)
    execute(database, "CREATE FUNCTION skip() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
    skip = "CREATE TRIGGER skip BEFORE UPDATE ON flow_outcomes.org_lease FOR EACH ROW EXECUTE FUNCTION skip()"
    execute(database, skip)
    reported: asyncio.Queue[str] = asyncio.Queue()
    async with (
        asyncio.timeout(20),
        process.Process(database, 4, lambda event, **_: reported.put_nowait(event)).running() as running,
    ):
        acquiring = asyncio.create_task(running.lease("acme"))
        assert await reported.get() == "unexpected_error"
        execute(database, "DROP TRIGGER skip ON flow_outcomes.org_lease")
        assert (await acquiring).org == "acme"
