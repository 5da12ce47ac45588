"""Every kind of database failure: no window fails, is stored twice, or is visible in part."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from service.clock import SystemClock
from service.errors import DatabaseUnavailableError
from service.model import FlowBucket, Granularity, NormalisedPage, OutcomeRow, Query, Scan, Span, Window
from service.postgres.lease.lease import Lease
from service.postgres.merge import MemoryBudget, ScanBuffer, ScanRecord, merge
from service.postgres.pool import Database
from service.simulator import Fault, Faults, SimulatedOrg, Simulator, SimulatorConfig
from tests.support.daemon import Daemon, Reader, assert_exact, wait_until_complete
from tests.support.databases import create_partitions
from tests.support.fake_clock import FakeClock
from tests.support.fault_harness import DAYS, LONG_FORM, FaultHarness

pytestmark = pytest.mark.acceptance

SLOW = SimulatedOrg(requests_per_second=None, flows=8, latency=0.04)
BACK_WITHIN = 12.0  # seconds from the database's return to the next progress


def source(org: SimulatedOrg = SLOW) -> Simulator:
    """A source with constant figures."""
    return Simulator(SimulatorConfig(orgs={"acme": org}), clock=FakeClock(SystemClock().now()))


async def midway(daemon: Daemon, windows: int = 3) -> None:
    """Wait until some windows are stored, and others are not."""
    await daemon.wait_for_event("window_complete", windows)
    assert daemon.count("window_complete") < DAYS


async def completes_exactly(daemon: Daemon, site: FaultHarness, simulator: Simulator, reader: Reader) -> None:
    """The daemon completes every window with the exact figures, and no window fails."""
    await wait_until_complete(daemon, DAYS - 1)
    assert_exact(site.program, simulator)
    assert daemon.count("window_failed") == 0
    assert daemon.count("unexpected_error") == 0, daemon.tail()
    assert simulator.in_flight_violations == 0
    assert reader.reads > 20
    assert reader.partial == []
    restated = site.program.rows("SELECT count(*) AS n FROM flow_outcomes.restatement")
    assert restated == [{"n": 0}]


@pytest.mark.short
async def test_unavailable_at_the_start(site: FaultHarness) -> None:
    """Without a database the daemon runs but is not ready; it starts work when the database becomes available."""
    site.server.stop()
    async with source() as simulator:
        site.configure(simulator)
        daemon = await Daemon.start(site.program)
        assert (await daemon.get("/healthz"))[0] == 200
        await daemon.wait_until_unready()
        await daemon.wait_for_event("database_unavailable")
        assert simulator.arrivals.maxlen
        assert not simulator.arrivals
        site.start_server()
        assert await daemon.wait_until_ready() < BACK_WITHIN
        async with Reader(lambda: site.dsn) as reader:
            await completes_exactly(daemon, site, simulator, reader)
        await daemon.end()


@pytest.mark.parametrize("how", [LONG_FORM("stopped"), "crashed"])
@pytest.mark.short
async def test_restarted_midway(site: FaultHarness, how: str) -> None:
    """The daemon continues within seconds of the database's return."""
    async with source() as simulator, Reader(lambda: site.dsn) as reader:
        site.configure(simulator)
        daemon = await Daemon.start(site.program)
        await midway(daemon)
        if how == "stopped":
            site.server.stop()
        else:
            site.server.crash()
        await daemon.wait_until_unready()
        stored = daemon.count("window_complete")
        await asyncio.sleep(1)
        site.start_server()
        assert await daemon.wait_until_ready() < BACK_WITHIN
        await daemon.wait_for_event("window_complete", stored + 1, within=BACK_WITHIN)
        await completes_exactly(daemon, site, simulator, reader)
        await daemon.end()
        assert site.sessions() == []


@pytest.mark.short
async def test_backends_terminated(site: FaultHarness) -> None:
    """Where all its backends are terminated, the daemon loses the org and acquires it again, each time."""
    async with source() as simulator, Reader(lambda: site.dsn) as reader:
        site.configure(simulator)
        daemon = await Daemon.start(site.program)
        for times in range(1, 4):
            await daemon.wait_for_event("org_acquired", times)
            await asyncio.sleep(0.3)
            ended = site.run(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                f" WHERE datname = '{site.name}' AND application_name LIKE 'flow-outcomes %'"
            )
            assert len(ended) >= 1
            await daemon.wait_for_event("org_lost", times, within=3)
        await completes_exactly(daemon, site, simulator, reader)
        await daemon.end()


async def test_a_network_that_drops_all_packets(site: FaultHarness) -> None:
    """The daemon detects a network that drops packets without closing connections, and then reconnects."""
    async with source() as simulator, Reader(lambda: site.dsn) as reader:
        site.configure(simulator)
        daemon = await Daemon.start(site.program)
        await midway(daemon)
        site.proxy.stall()
        await daemon.wait_until_unready()
        await daemon.wait_for_event("org_lost", within=16)
        requests = len(simulator.arrivals)
        await asyncio.sleep(1)
        assert len(simulator.arrivals) == requests
        site.proxy.heal()
        assert await daemon.wait_until_ready() < BACK_WITHIN
        stored = daemon.count("window_complete")
        await daemon.wait_for_event("window_complete", stored + 1, within=BACK_WITHIN)
        await completes_exactly(daemon, site, simulator, reader)
        assert site.proxy.fired["stalled"] == 1
        await daemon.end()


@pytest.mark.chaos
async def test_a_short_network_failure(site: FaultHarness) -> None:
    """After a short failure the old connections stay dead; the daemon replaces them."""
    async with source() as simulator, Reader(lambda: site.dsn) as reader:
        site.configure(simulator)
        daemon = await Daemon.start(site.program)
        await midway(daemon)
        site.proxy.stall()
        site.proxy.heal()
        stored = daemon.count("window_complete")
        await daemon.wait_for_event("window_complete", stored + 1, within=BACK_WITHIN + 10)
        await completes_exactly(daemon, site, simulator, reader)
        await daemon.end()


@pytest.mark.short
async def test_the_answer_to_a_commit_is_lost(site: FaultHarness) -> None:
    """A scan whose commit was not confirmed is extracted again, and the figures stay exact."""
    async with source() as simulator, Reader(lambda: site.dsn) as reader:
        site.configure(simulator)
        site.proxy.commit_answers_to_lose = 3
        daemon = await Daemon.start(site.program)
        await daemon.wait_until(lambda: site.proxy.fired["answer to COMMIT lost"] == 3, "swallowed commits")
        await completes_exactly(daemon, site, simulator, reader)
        await daemon.end()


@pytest.mark.short
@pytest.mark.counts_days
async def test_a_read_only_database(site: FaultHarness) -> None:
    """While the database accepts no writes the daemon is not ready; no window fails, and it continues later."""
    async with source() as simulator, Reader(lambda: site.dsn) as reader:
        site.configure(simulator)
        daemon = await Daemon.start(site.program)
        await midway(daemon)
        site.server.run("ALTER SYSTEM SET default_transaction_read_only = on")
        site.server.run("SELECT pg_reload_conf()")
        await daemon.wait_until_unready()
        await asyncio.sleep(2)
        site.server.run("ALTER SYSTEM RESET ALL")
        site.server.run("SELECT pg_reload_conf()")
        assert await daemon.wait_until_ready() < BACK_WITHIN
        stored = daemon.count("window_complete")
        await daemon.wait_for_event("window_complete", stored + 1, within=BACK_WITHIN)
        assert daemon.count("database_unavailable") + daemon.count("org_interrupted") > 0
        await completes_exactly(daemon, site, simulator, reader)
        await daemon.end()


@pytest.mark.parametrize("state", ["53100", LONG_FORM("57014"), LONG_FORM("40P01"), "25P03", "XX000"])
@pytest.mark.short
async def test_errors_within_a_merge(site: FaultHarness, state: str) -> None:
    """A full disk, a cancelled statement and a deadlock fail no window; an internal error does, and is retried."""
    site.run("CREATE SEQUENCE public.rejected")
    site.run(
        "CREATE FUNCTION public.reject() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN"
        " IF nextval('public.rejected') BETWEEN 3 AND 6 THEN"
        f" RAISE EXCEPTION 'rejected' USING ERRCODE = '{state}'; END IF; RETURN NULL; END $$"
    )
    site.run(
        "CREATE TRIGGER reject AFTER INSERT ON flow_outcomes.figure"
        " FOR EACH STATEMENT EXECUTE FUNCTION public.reject()"
    )
    async with source(replace(SLOW, latency=0.01)) as simulator, Reader(lambda: site.dsn) as reader:
        job = {"retry_every": "PT1S"} if state == "XX000" else {}
        site.configure(simulator, jobs={"daily": {**site.job, **job}})
        daemon = await Daemon.start(site.program)
        await daemon.wait_until(lambda: _rejected(site) > 6, "rejected writes")
        if state == "XX000":  # an error of the database itself: the window fails, and the next cycle retries it
            await daemon.wait_for_event("window_failed")
            await wait_until_complete(daemon, DAYS - 1)
            assert_exact(site.program, simulator)
        else:
            await completes_exactly(daemon, site, simulator, reader)
        await daemon.end()


def _rejected(site: FaultHarness) -> int:
    with psycopg.connect(site.dsn) as connection:
        row = connection.execute("SELECT last_value FROM public.rejected").fetchone()
    return 0 if row is None else int(row[0])


@pytest.mark.short
async def test_errors_before_the_first_cycle(site: FaultHarness) -> None:
    """An org whose worker could not start is released and acquired again."""
    site.run("CREATE SEQUENCE public.rejected")
    site.run(
        "CREATE FUNCTION public.reject() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN"
        " IF nextval('public.rejected') < 3 THEN"
        " RAISE EXCEPTION 'rejected' USING ERRCODE = '53100'; END IF; RETURN NULL; END $$"
    )
    site.run(
        "CREATE TRIGGER reject BEFORE DELETE ON flow_outcomes.staging"
        " FOR EACH STATEMENT EXECUTE FUNCTION public.reject()"
    )
    async with source(replace(SLOW, latency=0.0)) as simulator, Reader(lambda: site.dsn) as reader:
        site.configure(simulator)
        daemon = await Daemon.start(site.program)
        await daemon.wait_for_event("org_interrupted", 2)
        await completes_exactly(daemon, site, simulator, reader)
        await daemon.end()


async def test_a_pause_that_cannot_be_stored(site: FaultHarness) -> None:
    """A 429's pause is kept in the process too: after the org was lost and acquired again, it still applies."""
    site.run(
        "CREATE FUNCTION public.reject() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " RAISE EXCEPTION 'rejected' USING ERRCODE = '53100'; END $$"
    )
    site.run(
        "CREATE TRIGGER reject BEFORE UPDATE OF paused_until ON flow_outcomes.org_lease"
        " FOR EACH ROW WHEN (NEW.paused_until IS DISTINCT FROM OLD.paused_until) EXECUTE FUNCTION public.reject()"
    )
    throttled = Faults(throttled=Fault(value="6", request=4, times=1))
    async with source(replace(SLOW, latency=0.0, faults=throttled)) as simulator:
        site.configure(simulator)
        daemon = await Daemon.start(site.program)
        await daemon.wait_for_event("rate_limited")
        site.run(
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{site.name}'"
            " AND application_name LIKE 'flow-outcomes %'"
        )
        await daemon.wait_for_event("org_acquired", 2)
        await wait_until_complete(daemon, DAYS - 1)
        assert simulator.orgs["acme"].fired["throttled"] == 1
        assert simulator.hold_violations == 0
        assert_exact(site.program, simulator)
        await daemon.end()


@pytest.mark.integration
@pytest.mark.short
async def test_a_truncated_staging_table(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash of the server empties unlogged tables; a scan that was spilled there is not stored."""
    monkeypatch.setattr(MemoryBudget, "PER_SCAN", 1)
    span = Span(datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 2, tzinfo=UTC))
    clock = SystemClock()
    create_partitions(database, span.start, span.end)
    pool = Database(database, size=2, application_name="test")
    await pool.open()
    try:
        async with pool.transaction() as connection:
            await connection.execute("INSERT INTO flow_outcomes.org (org, epoch) VALUES ('acme', 1)")
        buffer = ScanBuffer(pool, "acme")
        rows = [
            OutcomeRow(FlowBucket(f"f{number}", *span), "Paid", 1, None, rejected=False) for number in range(3)
        ]
        await buffer.add(NormalisedPage(rows, []))
        assert buffer.spill.used
        async with pool.transaction() as connection:
            await connection.execute("TRUNCATE flow_outcomes.staging, flow_outcomes.staging_reject")
        query = Query("acme", span, Granularity.DAILY, "UTC", (), 100, None, span)
        window = Window("acme", "ad hoc", None, span, "daily", Granularity.DAILY, span.start)
        record = ScanRecord(
            Scan((window,), (query,), timedelta(0)),
            [span],
            (),
            "hash",
            clock.now(),
            1,
            3,
            "cycle",
            1,
            clock.monotonic(),
        )
        lease = Lease("acme", 1, 0.0, clock.monotonic() + 60, clock, asyncio.Event())
        with pytest.raises(DatabaseUnavailableError):
            await merge(pool, lease, buffer, record)
    finally:
        await pool.close()
