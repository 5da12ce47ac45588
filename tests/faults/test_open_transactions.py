"""Transactions that other sessions leave open: a report, a dump, maintenance."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import psycopg
import pytest

from tests.faults.test_database import source
from tests.support.daemon import Daemon, assert_exact, wait_until_complete
from tests.support.fault_harness import DAYS, FaultHarness
from tests.support.program import today

pytestmark = [pytest.mark.acceptance, pytest.mark.short]

READ = "SELECT count(*) FROM flow_outcomes.flow_outcome"


class Dashboard:
    """Reads the view all the time, and measures the longest wait."""

    reads = 0
    longest = 0.0


@asynccontextmanager
async def dashboard(site: FaultHarness) -> AsyncIterator[Dashboard]:
    result = Dashboard()

    async def read() -> None:
        async with await psycopg.AsyncConnection.connect(site.dsn, autocommit=True) as connection:
            while True:
                began = time.monotonic()
                await connection.execute(READ.encode())
                result.longest = max(result.longest, time.monotonic() - began)
                result.reads += 1
                await asyncio.sleep(0.02)

    task = asyncio.create_task(read())
    try:
        yield result
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("partitions", ["none exists", "the last one is missing"])
async def test_a_report_that_stays_open(site: FaultHarness, partitions: str) -> None:
    """Every window is stored beside the open report, and no reader waits a second."""
    if partitions != "none exists":
        first = today() - timedelta(days=DAYS)
        site.run(f"SELECT flow_outcomes.ensure_partitions('{first}', now() + interval '1 month')")
    async with source() as simulator:
        site.configure(simulator)
        with psycopg.connect(site.dsn, application_name="night report") as report:
            report.execute(READ.encode())
            async with dashboard(site) as readers:
                daemon = await Daemon.start(site.program)
                await wait_until_complete(daemon, DAYS - 1)
                await daemon.end()
            pid = report.info.backend_pid
            assert site.run(f"SELECT state FROM pg_stat_activity WHERE pid = {pid}") == [("idle in transaction",)]
        assert_exact(site.program, simulator)
        assert readers.reads > 10
        assert readers.longest < 1
        assert daemon.count("database_unavailable") == 0
        assert daemon.count("partition_postponed") == 0
    ahead = (today() + timedelta(days=80)).strftime("figure_y%Ym%m")
    assert site.run(f"SELECT to_regclass('flow_outcomes.{ahead}') IS NOT NULL") == [(True,)]


@pytest.mark.parametrize("ahead", [True, False])
async def test_maintenance_that_stays_open(site: FaultHarness, *, ahead: bool) -> None:
    """ANALYZE in an open transaction delays only the windows whose own month is missing; the reason names it."""
    start = today() - timedelta(days=DAYS)
    if ahead:
        site.run(f"SELECT flow_outcomes.ensure_partitions('{start}', now())")
    async with source() as simulator:
        site.configure(simulator, jobs={"daily": {**site.job, "retry_every": "PT1S"}})
        with psycopg.connect(site.dsn, application_name="maintenance") as session:
            session.execute("ANALYZE flow_outcomes.figure")
            name = f"process {session.info.backend_pid} (maintenance) holds ShareUpdateExclusiveLock on figure"
            async with dashboard(site) as readers:
                daemon = await Daemon.start(site.program)
                if ahead:
                    await wait_until_complete(daemon, DAYS - 1)
                    event = await daemon.wait_for_event("partition_postponed")
                else:
                    event = await daemon.wait_for_event("window_failed")
                assert name in event["reason"]
            assert readers.longest < 1
        await wait_until_complete(daemon, DAYS - 1)
        assert_exact(site.program, simulator)
        assert daemon.count("database_unavailable") == 0
        await daemon.end()
