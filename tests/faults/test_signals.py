"""Signals at difficult moments, and many at once."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
import yaml

from service.simulator import Fault, Faults
from tests.faults.test_database import SLOW, completes_exactly, midway, source
from tests.support.daemon import Daemon, Reader, assert_exact, wait_until_complete
from tests.support.fault_harness import DAYS, LONG_FORM, FaultHarness
from tests.support.program import Running

pytestmark = pytest.mark.acceptance

GRACE = 20.0
RELOADS = int(os.environ.get("FLOW_OUTCOMES_TEST_RELOADS", "60"))


@pytest.mark.short
async def test_sigterm_during_a_page(site: FaultHarness) -> None:
    """Scans in flight are completed and stored, no new one begins, and the process exits in order."""
    async with source(replace(SLOW, latency=0.3)) as simulator:
        site.configure(simulator)
        daemon = await Daemon.start(site.program)
        await daemon.wait_until(lambda: len(simulator.arrivals) > 3, "requests")
        took = await daemon.end()
        assert took < GRACE
        assert daemon.count("daemon_stopped") == 1
        assert daemon.count("window_failed") == 0
        states = [window["state"] for window in site.program.windows()]
        assert set(states) <= {"complete", "pending"}
        assert states.count("complete") >= 1
        assert site.sessions() == []


@pytest.mark.parametrize("twice", [LONG_FORM(False, id="once"), pytest.param(True, id="twice")])
async def test_sigterm_during_a_wait_for_retry_after(site: FaultHarness, *, twice: bool) -> None:
    """The daemon exits within the grace, or at once at a second signal; the pause stays stored."""
    faults = Faults(throttled=Fault(value="90", request=3))
    async with source(replace(SLOW, latency=0.0, faults=faults)) as simulator:
        site.configure(simulator)
        daemon = await Daemon.start(site.program)
        await daemon.wait_for_event("rate_limited")
        loop = asyncio.get_running_loop()
        began = loop.time()
        daemon.send(signal.SIGTERM)
        if twice:
            await asyncio.sleep(0.3)
            daemon.send(signal.SIGTERM)
        took = await daemon.wait_until_ended(began, within=GRACE + 6)
        assert took < 4 if twice else took < GRACE + 5
        assert simulator.hold_violations == 0
        (held,) = site.program.rows("SELECT paused_until - now() AS left FROM flow_outcomes.org_lease")
        assert held["left"] > timedelta(seconds=30)
        assert {window["state"] for window in site.program.windows()} <= {"complete", "pending"}


@pytest.mark.parametrize(
    "how",
    [
        "stopped from the start",
        "unreachable from the start",
        "stopped",
        LONG_FORM("unreachable"),
        "unreachable, twice",
    ],
)
async def test_sigterm_during_an_outage(site: FaultHarness, how: str) -> None:
    """The daemon exits with 0 without a database."""
    async with source() as simulator:
        site.configure(simulator)
        if how == "stopped from the start":
            site.server.stop()
        elif how == "unreachable from the start":
            site.proxy.stall()
        daemon = await Daemon.start(site.program)
        if how in ("stopped", "unreachable", "unreachable, twice"):
            await midway(daemon)
            if how == "stopped":
                site.server.stop()
            else:
                site.proxy.stall()
        await asyncio.sleep(0.5)
        loop = asyncio.get_running_loop()
        began = loop.time()
        daemon.send(signal.SIGTERM)
        if how.endswith("twice"):
            await asyncio.sleep(0.2)
            daemon.send(signal.SIGTERM)
            assert (took := await daemon.wait_until_ended(began)) < 5, took
        else:
            assert await daemon.wait_until_ended(began) < (5 if "start" in how else GRACE + 5)
        site.proxy.heal()
        site.start_server()
        daemon = await Daemon.start(site.program)
        await wait_until_complete(daemon, DAYS - 1)
        assert_exact(site.program, simulator)
        await daemon.end()


async def test_killed_at_start_up_and_shutdown(site: FaultHarness) -> None:
    """After a kill at any moment, also while migrating, the next start completes the work."""
    site.run("DROP SCHEMA flow_outcomes CASCADE")
    chance = random.Random(5)  # noqa: S311 - no secret
    async with source(replace(SLOW, latency=0.01)) as simulator, Reader(lambda: site.dsn) as reader:
        site.configure(simulator)
        for _ in range(4):  # at start-up, and in the middle of migrating
            daemon = await Daemon.start(site.program, ready=False)
            await asyncio.sleep(chance.uniform(0.4, 1.6))
            assert await _killed(daemon.running)
        for _ in range(2):  # at shutdown
            daemon = await Daemon.start(site.program)
            await daemon.wait_for_event("org_acquired")
            daemon.send(signal.SIGTERM)
            await asyncio.sleep(chance.uniform(0.0, 0.1))
            await _killed(daemon.running)
        daemon = await Daemon.start(site.program)
        await completes_exactly(daemon, site, simulator, reader)
        await daemon.end()


async def _killed(running: Running) -> bool:
    """Kill it; return whether it was still running."""
    was_running = running.process.returncode is None
    running.kill()
    await running.end()
    return was_running


@pytest.mark.short
async def test_many_signals_at_once(site: FaultHarness) -> None:
    """Many SIGHUPs and SIGUSR1s cause no double work, and SIGTERM among them ends the daemon."""
    async with source(replace(SLOW, latency=0.02)) as simulator, Reader(lambda: site.dsn) as reader:
        site.configure(simulator)
        daemon = await Daemon.start(site.program)
        await daemon.wait_for_event("cycle_started")
        for number in range(200):
            daemon.send(signal.SIGUSR1 if number % 2 else signal.SIGHUP)
        await completes_exactly(daemon, site, simulator, reader)
        assert daemon.count("config_reloaded") >= 1
        for _ in range(20):
            daemon.send(signal.SIGUSR1)
            daemon.send(signal.SIGHUP)
        assert await daemon.end() < GRACE


async def test_sigusr1_while_the_database_is_unavailable(site: FaultHarness) -> None:
    """The request is kept until the database is available; outside the off-peak hours nothing else runs."""
    closed = {"off_peak": "00:00-00:01" if datetime.now(UTC).hour else "12:00-12:01"}
    site.server.stop()
    async with source(replace(SLOW, latency=0.02)) as simulator, Reader(lambda: site.dsn) as reader:
        site.configure(simulator, jobs={"daily": {**site.job, **closed}})
        daemon = await Daemon.start(site.program)
        await daemon.wait_for_event("database_unavailable")
        daemon.send(signal.SIGUSR1)
        await asyncio.sleep(0.3)
        site.start_server()
        await midway(daemon, 2)
        site.run(  # and the rest of it is kept while the org is lost
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{site.name}'"
            " AND application_name LIKE 'flow-outcomes %'"
        )
        await daemon.wait_for_event("org_lost")
        await completes_exactly(daemon, site, simulator, reader)
        await daemon.end()


async def test_sigusr1_without_the_schema(site: FaultHarness) -> None:
    """A signal while the schema is gone, as during a restore, does not end the daemon, which then goes on."""
    async with source(replace(SLOW, latency=0.0)) as simulator:
        site.configure(simulator)
        daemon = await Daemon.start(site.program)
        await wait_until_complete(daemon, DAYS - 1)
        site.run("ALTER SCHEMA flow_outcomes RENAME TO moved")
        await daemon.wait_for_event("org_lost")
        daemon.send(signal.SIGUSR1)
        await daemon.wait_for_event("run_not_requested")
        site.run("ALTER SCHEMA moved RENAME TO flow_outcomes")
        await daemon.wait_for_event("org_acquired", 2)
        await daemon.wait_for_event("cycle_finished", 2)
        await daemon.end()


async def test_reloads_under_load(site: FaultHarness) -> None:
    """Valid reloads apply, invalid ones are rejected, and no scan in flight is lost."""
    bad = ["jobs: [", "orgs: 7\n", "\0\xff", "nonsense: true\n", ""]
    async with source(replace(SLOW, latency=0.02)) as simulator, Reader(lambda: site.dsn) as reader:
        site.configure(simulator)
        good = site.program.config.read_text()
        daemon = await Daemon.start(site.program)
        await daemon.wait_for_event("cycle_started")
        applied = rejected = 0
        for number in range(RELOADS):
            if number % 3 == 2:
                site.program.config.write_text(bad[number % len(bad)])
                rejected += 1
            else:
                tree = yaml.safe_load(good)
                tree["orgs"]["acme"]["concurrency"] = 1 + number % 4
                tree["orgs"]["acme"]["requests_per_second"] = 100 + number % 100
                tree["jobs"]["daily"]["retry_every"] = f"PT{10 + number}M"
                site.program.config.write_text(yaml.safe_dump(tree))
                applied += 1
            daemon.send(signal.SIGHUP)
            event = "config_rejected" if number % 3 == 2 else "config_reloaded"
            await daemon.wait_for_event(event, rejected if number % 3 == 2 else applied)
        site.program.config.write_text(good)
        await completes_exactly(daemon, site, simulator, reader)
        assert (daemon.count("config_reloaded"), daemon.count("config_rejected")) == (applied, rejected)
        # an org that was removed is released after its scans in flight; a new one is acquired
        tree = yaml.safe_load(good)
        tree["orgs"]["other"] = {**tree["orgs"].pop("acme"), "client_id": "acme"}
        site.program.config.write_text(yaml.safe_dump(tree))
        daemon.send(signal.SIGHUP)
        await daemon.wait_for_event("org_released", org="acme")
        await daemon.wait_for_event("org_acquired", org="other")
        await daemon.end()


async def test_many_sigterms(site: FaultHarness) -> None:
    """However many SIGTERMs arrive, the exit code is 0."""
    async with source() as simulator:
        site.configure(simulator)
        daemon = await Daemon.start(site.program)
        await midway(daemon, 1)
        for _ in range(30):
            if daemon.running.process.returncode is None:
                daemon.send(signal.SIGTERM)
            await asyncio.sleep(0.01)
        assert await daemon.wait_until_ended(asyncio.get_running_loop().time()) < 5
        with psycopg.connect(site.dsn) as connection:
            row = connection.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'").fetchone()
        assert row == (0,)
