"""A worker whose org was taken over."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import cast

import pytest

from service.clock import SystemClock
from service.config import config_from
from service.errors import LeaseLostError
from service.extraction import Cycle, CyclePolicy, CycleRequest, OrgWorker
from service.genesys import GenesysClient
from service.genesys.server_clock import ServerClock
from service.postgres.lease.lease import Lease
from service.postgres.pool import Database

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
