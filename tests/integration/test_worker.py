"""A worker whose org was taken over, and one whose database has no room."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import cast

import pytest

from service.clock import SystemClock
from service.config import config_from
from service.errors import DatabaseUnavailableError, LeaseLostError
from service.extraction import Cycle, CyclePolicy, CycleRequest, OrgWorker
from service.genesys import GenesysClient
from service.genesys.server_clock import ServerClock
from service.postgres import storage
from service.postgres.lease.lease import Lease
from service.postgres.pool import Connection, Database

CLOCK = SystemClock()
CONFIG = config_from(
    {
        "database": {"dsn": "postgresql://nowhere/none"},
        "orgs": {"acme": {"region": "mypurecloud.com", "client_id": "c", "client_secret": "a-secret"}},
        "jobs": {"daily": {"since": "P10D", "off_peak": None}},
    }
)


async def test_a_former_owner_enqueues_nothing(database: str) -> None:
    """A worker under an earlier epoch cannot enqueue windows and raises, though its lease has not expired."""
    pool = Database(database, size=2, application_name="test")
    await pool.open()
    try:
        async with pool.transaction() as connection:
            await connection.execute("INSERT INTO flow_outcomes.org (org, epoch) VALUES ('acme', 2)")
        lease = Lease("acme", 1, 0.0, CLOCK.monotonic() + 60, CLOCK, asyncio.Event())
        worker = OrgWorker(
            CONFIG.orgs["acme"],
            cast(GenesysClient, SimpleNamespace(server_clock=ServerClock(CLOCK))),
            lease,
            pool,
            CLOCK,
            lambda *_, **__: None,
        )
        job = CONFIG.jobs["daily"]
        with pytest.raises(LeaseLostError):
            await worker.run_cycle(job, Cycle(CyclePolicy.of(job), CycleRequest(), CLOCK))
        async with pool.connection() as reading:
            found = await (await reading.execute("SELECT 1 FROM flow_outcomes.extraction_window")).fetchall()
        assert found == []
    finally:
        await pool.close()


async def test_nothing_is_requested_while_there_is_no_room(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a write that failed, a scan begins when there is room; the client here could send nothing."""
    rooms: list[str] = []

    async def full_disk(_connection: Connection, megabytes: int) -> str:
        rooms.append(f"nothing can be stored: no room for {megabytes} MB")
        return rooms[-1]

    pool = Database(database, size=2, application_name="test")
    await pool.open()
    try:
        async with pool.transaction() as connection:
            await connection.execute("INSERT INTO flow_outcomes.org (org, epoch) VALUES ('acme', 1)")
        lease = Lease("acme", 1, 0.0, CLOCK.monotonic() + 60, CLOCK, asyncio.Event())
        dialect = SimpleNamespace(by_id=False, query_hash=lambda _query: "hash")
        client = cast(GenesysClient, SimpleNamespace(server_clock=ServerClock(CLOCK), dialect=dialect))
        worker = OrgWorker(CONFIG.orgs["acme"], client, lease, pool, CLOCK, lambda *_, **__: None)
        job = CONFIG.jobs["daily"]
        pool.note_storage_problem("nothing can be stored: No space left on device")
        monkeypatch.setattr(storage, "full_disk", full_disk)
        with pytest.raises(DatabaseUnavailableError, match="no room for 16 MB"):
            await worker.run_cycle(job, Cycle(CyclePolicy.of(job), CycleRequest(), CLOCK))
        assert rooms
        assert pool.storage_problem == rooms[-1]
        async with pool.connection() as reading:
            started = "SELECT count(*) FROM flow_outcomes.extraction_window WHERE attempts > 0"
            assert await reading.fetch_values(started) == [0]
    finally:
        await pool.close()
