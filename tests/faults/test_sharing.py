"""The daemons of one database share the orgs: a later one requests some, and no org moves back and forth."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from dataclasses import replace

import pytest

from service.clock import SystemClock
from service.postgres.lease.rebalance import request_share
from service.postgres.pool import Connection
from service.postgres.session import conninfo
from service.simulator import Simulator, SimulatorConfig
from tests.faults.test_database import SLOW
from tests.support.daemon import Daemon, assert_exact
from tests.support.fake_clock import FakeClock
from tests.support.fault_harness import DAYS, FaultHarness

ORGS = ("acme", "beta", "gamma", "delta")


def held(site: FaultHarness) -> Counter[str]:
    """The number of orgs that each process holds."""
    rows = site.run("SELECT owner FROM flow_outcomes.org_lease WHERE expires_at > clock_timestamp()")
    return Counter(str(owner) for (owner,) in rows)


@pytest.mark.acceptance
async def test_a_later_daemon_gets_its_share(site: FaultHarness) -> None:
    """Amid a backlog two of four orgs move once, and no window is requested or stored twice."""
    orgs = dict.fromkeys(ORGS, replace(SLOW, latency=0.4))
    async with Simulator(SimulatorConfig(orgs=orgs), clock=FakeClock(SystemClock().now())) as simulator:
        site.configure(simulator, orgs={org: {"page_size": 3, "concurrency": 2} for org in ORGS})
        first = await Daemon.start(site.program)
        await first.wait_for_event("org_acquired", len(ORGS))
        await first.wait_for_event("window_complete", 2)
        assert list(held(site).values()) == [4]
        second = await Daemon.start(site.program)
        await second.wait_for_event("org_acquired", 2)
        windows = DAYS * len(ORGS)
        assert first.count("window_complete") < windows
        await second.wait_until(
            lambda: (
                site.run("SELECT count(*) FROM flow_outcomes.extraction_window WHERE state = 'complete'")
                >= [(windows,)]
            ),
            "everything",
        )
        assert sorted(held(site).values()) == [2, 2]
        await asyncio.sleep(11)  # two renewals, in which no more orgs may move
        assert sorted(held(site).values()) == [2, 2]
        assert (first.count("org_acquired"), second.count("org_acquired")) == (4, 2)
        assert first.count("org_released") == 2
        assert first.count("org_lost") + second.count("org_lost") == 0
        assert simulator.in_flight_violations == 0
        for org in ORGS:
            assert_exact(site.program, simulator, org)
        first.send(signal.SIGKILL)
        await second.wait_for_event("org_acquired", 4, within=30)


@pytest.mark.integration
@pytest.mark.short
async def test_pending_requests_count_as_held(database: str) -> None:
    """Requested orgs, and released ones that nobody holds yet, are neither requested again nor replaced."""
    orgs = ["acme", "beta", "delta", "gamma"]
    async with await Connection.connect(conninfo(database, "a"), autocommit=True) as connection:
        for org in orgs:
            await connection.execute(
                "INSERT INTO flow_outcomes.org_lease (org, owner, expires_at)"
                " VALUES (%s, 'b', clock_timestamp() + interval '1 minute')",
                (org,),
            )
        wanted = "SELECT org FROM flow_outcomes.org_lease WHERE wanted_by = 'a' ORDER BY org"
        for released in ([], ["acme"], ["acme", "beta"]):
            await connection.execute(
                "UPDATE flow_outcomes.org_lease SET owner = NULL, expires_at = NULL WHERE org = ANY (%s)",
                (released,),
            )
            await request_share(connection, "a", [], orgs)
            assert await (await connection.execute(wanted)).fetchall() == [("acme",), ("beta",)]


@pytest.mark.integration
@pytest.mark.parametrize(
    ("ours", "theirs", "requested"),
    [
        ([], {"b": "acme"}, []),  # one org for two processes
        ([], {"b": "acme beta"}, ["acme"]),
        ([], {"b": "acme beta gamma delta", "c": "x"}, ["acme", "beta"]),
        (["x"], {"b": "acme beta"}, []),
        (["x"], {"b": "acme beta gamma"}, ["acme"]),
        (["x", "y"], {"b": "acme", "c": "beta gamma"}, []),
        (["x", "y", "z"], {"b": "acme beta"}, []),  # a process that holds more requests none
        (["w", "x", "y", "z"], {"b": "acme beta gamma"}, []),
    ],
)
@pytest.mark.short
async def test_which_orgs_are_requested(
    database: str, ours: list[str], theirs: dict[str, str], requested: list[str]
) -> None:
    """Half of the difference, of the process that holds most; expired leases do not count."""
    async with await Connection.connect(conninfo(database, "a"), autocommit=True) as connection:
        insert = (
            "INSERT INTO flow_outcomes.org_lease (org, owner, expires_at)"
            " VALUES (%s, %s, clock_timestamp() + %s * interval '1 minute')"
        )
        wanted = [org for orgs in theirs.values() for org in orgs.split()]
        for owner, orgs in {"a": " ".join(ours), **theirs}.items():
            for org in orgs.split():
                await connection.execute(insert, (org, owner, 1))
        for org in ("late", "later", "latest", "last", "past"):
            await connection.execute(insert, (org, "d", -1))
        await request_share(connection, "a", ours, [*wanted, "late", "later", "latest", "last", "past"])
        cursor = await connection.execute(
            "SELECT org FROM flow_outcomes.org_lease WHERE wanted_by = 'a' ORDER BY org"
        )
        assert [org for (org,) in await cursor.fetchall()] == requested
