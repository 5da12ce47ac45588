"""Several processes on one database: an org has one owner, and a former owner writes nothing more."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from service.clock import SystemClock
from service.errors import DatabaseUnavailableError, LeaseLostError
from service.model import FlowBucket, Granularity, NormalisedPage, OutcomeRow, Query, Scan, Span, Window
from service.postgres.lease import Acquired, Disconnected, Lease, LeaseEvent, LeaseManager
from service.postgres.merge import Partitions, ScanBuffer, ScanRecord, merge
from service.postgres.pool import Database
from service.simulator import Simulator, SimulatorConfig
from service.telemetry import Reporter
from tests.faults.test_database import SLOW, midway, source
from tests.support.daemon import Daemon, Reader, assert_exact, wait_until_complete
from tests.support.fake_clock import FakeClock
from tests.support.fault_harness import DAYS, FaultHarness

HANDOVERS = 50
CLOCK = SystemClock()
FIRST = datetime(2024, 1, 1, tzinfo=UTC)


def owners(site: FaultHarness) -> dict[str, str]:
    """The owner of each org in the database."""
    return {
        str(org): str(owner)
        for org, owner in site.run("SELECT org, owner FROM flow_outcomes.org_lease WHERE owner IS NOT NULL")
    }


def owner_of(daemons: list[Daemon], site: FaultHarness, org: str = "acme") -> tuple[Daemon, Daemon]:
    """The daemon of the two that holds the org, and the other one."""
    owner = owners(site)[org]
    first, second = daemons
    return (first, second) if f":{first.pid}:" in owner else (second, first)


@pytest.mark.acceptance
@pytest.mark.short
@pytest.mark.alone
async def test_one_of_two_is_killed(site: FaultHarness) -> None:
    """The other one takes over at once; the limit and the single flight hold for both, the figures are exact."""
    limited = replace(SLOW, requests_per_second=40, latency=0.02)
    orgs = {"acme": limited, "beta": limited}
    async with (
        Simulator(SimulatorConfig(orgs=orgs), clock=FakeClock(CLOCK.now())) as simulator,
        Reader(lambda: site.dsn) as reader,
    ):
        site.configure(
            simulator, orgs={org: {"page_size": 3, "concurrency": 3, "requests_per_second": 40} for org in orgs}
        )
        daemons = [await Daemon.start(site.program) for _ in range(2)]
        await daemons[0].wait_until(lambda: len(owners(site)) == 2, "owners")
        owner, other = owner_of(daemons, site)
        await owner.wait_for_event("window_complete", org="acme")
        loop = asyncio.get_running_loop()
        began, before = loop.time(), other.count("org_acquired", org="acme")
        owner.running.kill()
        await other.wait_for_event("org_acquired", before + 1, org="acme", within=30)
        assert loop.time() - began < 10
        for org in orgs:
            await wait_until_complete(other, DAYS - 1, org)
            assert_exact(site.program, simulator, org)
            assert simulator.peak_per_second(org) <= 40
        assert simulator.in_flight_violations == 0
        assert reader.partial == []
        await other.end()


@pytest.mark.acceptance
async def test_a_suspended_owner(site: FaultHarness) -> None:
    """Another process takes over within 30 s; the suspended one, once resumed, sends and commits nothing."""
    async with source(replace(SLOW, latency=0.1)) as simulator, Reader(lambda: site.dsn) as reader:
        site.configure(simulator)
        daemons = [await Daemon.start(site.program) for _ in range(2)]
        await daemons[0].wait_until(lambda: bool(owners(site)), "an owner")
        owner, other = owner_of(daemons, site)
        await midway(owner, 1)
        loop = asyncio.get_running_loop()
        began = loop.time()
        owner.send(signal.SIGSTOP)
        await other.wait_for_event("org_acquired", within=30)
        assert loop.time() - began > 5, "the org was taken from an owner that was running"
        await wait_until_complete(other, DAYS - 1)
        assert_exact(site.program, simulator)
        requests, before = len(simulator.arrivals), site.run("SELECT epoch, revision FROM flow_outcomes.org")
        owner.send(signal.SIGCONT)
        await owner.wait_for_event("org_lost", within=5)
        await asyncio.sleep(3)
        assert len(simulator.arrivals) == requests
        assert site.run("SELECT epoch, revision FROM flow_outcomes.org") == before
        assert simulator.in_flight_violations == 0
        assert reader.partial == []
        await owner.end()
        await other.end()


@pytest.mark.acceptance
@pytest.mark.short
async def test_an_orderly_shutdown(site: FaultHarness) -> None:
    """A waiting process acquires the org within two seconds of the owner's shutdown."""
    async with source() as simulator:
        site.configure(simulator)
        daemons = [await Daemon.start(site.program) for _ in range(2)]
        await daemons[0].wait_until(lambda: bool(owners(site)), "an owner")
        owner, other = owner_of(daemons, site)
        await owner.wait_for_event("cycle_started")
        await owner.end()
        await other.wait_for_event("org_acquired", within=2)
        await wait_until_complete(other, DAYS - 1)
        assert_exact(site.program, simulator)
        await other.end()


@pytest.mark.acceptance
async def test_the_lock_connection_alone_is_cut(site: FaultHarness) -> None:
    """The owner loses the org at once, and acquires it again."""
    async with source() as simulator, Reader(lambda: site.dsn) as reader:
        site.configure(simulator)
        daemon = await Daemon.start(site.program)
        await midway(daemon, 1)
        cut = site.run(
            "SELECT pg_terminate_backend(pid) FROM pg_locks l JOIN pg_database d ON d.oid = l.database"
            f" WHERE locktype = 'advisory' AND d.datname = '{site.name}'"
        )
        assert cut == [(True,)]
        await daemon.wait_for_event("org_lost", within=1.5)
        await daemon.wait_for_event("org_acquired", 2, within=5)
        await wait_until_complete(daemon, DAYS - 1)
        assert_exact(site.program, simulator)
        assert reader.partial == []
        await daemon.end()


@dataclass
class Holder:
    """A process that keeps the org once it has acquired it, and merges all the time."""

    name: str
    dsn: str
    database: Database
    manager: LeaseManager
    leases: list[Lease] = field(default_factory=list)
    days: list[int] = field(default_factory=list)
    rejected: int = 0

    async def work(self) -> None:
        """Merge under the last lease that it acquired, lost or not, again and again."""
        while True:
            await asyncio.sleep(0.005)
            if self.leases:
                await self.merge_under(self.leases[-1])

    async def merge_under(self, lease: Lease) -> bool:
        """Merge one day's scan, whose only outcome is named after the epoch; return whether it was stored."""
        day = self.days[0]
        self.days[0] += 1
        span = Span(FIRST + timedelta(days=day), FIRST + timedelta(days=day + 1))
        window = Window("acme", "job:daily", "daily", span, "daily", Granularity.DAILY, FIRST)
        query = Query("acme", span, Granularity.DAILY, "UTC", (), 100, None, span)
        scan = Scan((window,), (query,), timedelta(0))
        record = ScanRecord(scan, [span], (), "hash", CLOCK.now(), 1, 1, "cycle", day, CLOCK.monotonic())
        buffer = ScanBuffer(self.database, "acme")
        row = OutcomeRow(FlowBucket(f"{self.name}{day}", *span), str(lease.epoch), 1, None, rejected=False)
        await buffer.add(NormalisedPage([row], []))
        try:
            await Partitions(self.database, CLOCK, Reporter().emit).ensure(span)
            await merge(self.database, lease, buffer, record)
        except LeaseLostError:
            self.rejected += 1
            return False
        except DatabaseUnavailableError:
            return False
        return True


@asynccontextmanager
async def holder(name: str, dsn: str, days: list[int]) -> AsyncIterator[Holder]:
    """A holder that merges."""
    database = Database(dsn, size=2, application_name=f"holder {name}")
    leases: list[Lease] = []

    async def on_event(event: LeaseEvent) -> None:
        match event:
            case Acquired(lease):
                leases.append(lease)
            case Disconnected():
                await database.reset()

    manager = LeaseManager(dsn, f"holder {name}", CLOCK, on_event)
    await database.open()
    keeping = asyncio.create_task(manager.run())
    held = Holder(name, dsn, database, manager, leases, days)
    working = asyncio.create_task(held.work())
    try:
        yield held
    finally:
        for task in (working, keeping):
            task.cancel()
        await asyncio.gather(working, keeping, return_exceptions=True)
        await database.close()


@pytest.mark.integration
async def test_fifty_handovers(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fifty releases and lost connections under load: no merge commits under an earlier epoch."""
    monkeypatch.setattr("service.postgres.lease.manager.POLL_EVERY", 0.02)
    monkeypatch.setattr("service.postgres.lease.manager.RECONNECT_AFTER", 0.02)
    days = [0]

    async def rows(query: str) -> list[tuple[Any, ...]]:
        async with await psycopg.AsyncConnection.connect(database, autocommit=True) as connection:
            return await (await connection.execute(query.encode())).fetchall()

    async with holder("a", database, days) as one, holder("b", database, days) as other:
        one.manager.acquire("acme")
        other.manager.acquire("acme")
        for number in range(HANDOVERS):
            async with asyncio.timeout(20):
                while not (held := [each for each in (one, other) if each.manager.held]):  # noqa: ASYNC110
                    await asyncio.sleep(0.005)
                before = held[0]
                epoch = before.manager.held["acme"].epoch
                while not await rows(  # noqa: ASYNC110 - there is no event for it
                    f"SELECT 1 FROM flow_outcomes.series WHERE outcome_name = '{epoch}'"
                ):
                    await asyncio.sleep(0.005)
                if number % 2:
                    before.manager.release("acme")
                else:
                    await rows(
                        "SELECT pg_terminate_backend(pid) FROM pg_locks l JOIN pg_database d ON d.oid = l.database"
                        " WHERE locktype = 'advisory' AND d.datname = current_database()"
                    )
                while max(lease.epoch for each in (one, other) for lease in each.leases) == epoch:  # noqa: ASYNC110
                    await asyncio.sleep(0.005)
            before.manager.acquire("acme")
            late = next(lease for lease in before.leases if lease.epoch == epoch)
            assert not await before.merge_under(late)
        epochs = await rows("SELECT outcome_name::int FROM flow_outcomes.series ORDER BY revision")
    assert epochs == sorted(epochs)
    assert len({epoch for (epoch,) in epochs}) >= HANDOVERS
    assert one.rejected + other.rejected >= HANDOVERS // 2
    assert len(one.leases) > 5
    assert len(other.leases) > 5
