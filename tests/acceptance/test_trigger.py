"""``trigger``, and SIGUSR1 to a process without orgs: what is due now, whichever process holds the org."""

from __future__ import annotations

import asyncio
import os
import signal
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from service.simulator import Fault, SimulatedOrg, Simulator, SimulatorConfig
from tests.support.daemon import Daemon
from tests.support.program import Program

FLOWS = 2
HOUR = timedelta(hours=1)


def closed_hours() -> str:
    """Off-peak hours that do not begin while a test runs."""
    opens = datetime.now(UTC) + 12 * HOUR
    return f"{opens:%H:%M}-{opens + HOUR:%H:%M}"


def configure(program: Program, simulator: Simulator, **org: object) -> None:
    """One org with three due days, and a daemon that extracts none of them by itself."""
    program.configure(
        simulator,
        orgs=dict.fromkeys(simulator.orgs, org),
        jobs={"daily": {"since": "P3D", "off_peak": closed_hours()}},
        http={"port": 0},
    )


def simulator_of(*orgs: str) -> Simulator:
    """A simulator with two flows for each org."""
    return Simulator(SimulatorConfig(orgs={name: SimulatedOrg(flows=FLOWS) for name in orgs}))


def states(program: Program) -> set[Any]:
    """The states of all windows."""
    return {each["state"] for each in program.windows()}


@pytest.mark.counts_days
async def test_where_no_process_holds_the_org(program: Program) -> None:
    """The command itself extracts what is due, outside the off-peak hours too."""
    async with simulator_of("acme") as simulator:
        configure(program, simulator)
        ended = await program.run("trigger", "--org", "acme")
        assert (ended.code, ended.out) == (0, "acme: everything due is complete\n"), ended.err
    assert states(program) == {"complete"}
    assert len(program.windows()) == 3


async def test_where_a_daemon_holds_the_org(program: Program) -> None:
    """The daemon extracts what is due, a second time too; the command sends no request and follows it."""
    async with simulator_of("acme") as simulator:
        configure(program, simulator)
        daemon = await Daemon.start(program)
        await daemon.wait_for_event("org_acquired")
        for cycle in (1, 2):
            ended = await program.run("trigger")
            assert (ended.code, ended.out) == (0, "acme: everything due is complete\n"), ended.err
            assert "held by another process" in ended.err
            assert daemon.count("cycle_finished", job="daily") >= cycle
            assert not ended.find_events("token_renewed")
        assert states(program) == {"complete"}
        await daemon.end()
        assert simulator.in_flight_violations == 0


@pytest.mark.counts_days
async def test_a_window_that_does_not_complete(program: Program) -> None:
    """Exit code 1 where a due window is not complete, whoever extracts it."""
    async with simulator_of("acme") as simulator:
        configure(program, simulator)
        simulator.switch("forbidden", Fault(probability=1))
        here = await program.run("trigger")
        assert here.code == 1
        assert "3 due windows not complete" in here.out
        daemon = await Daemon.start(program)
        await daemon.wait_for_event("org_acquired")
        there = await program.run("trigger")
        assert (there.code, there.out) == (1, here.out), there.err
        assert simulator.fired["forbidden"] > 0
        await daemon.end()


async def test_the_holder_dies(program: Program) -> None:
    """Where the holder dies before it has run what is due, the command does it."""
    async with simulator_of("acme") as simulator:
        configure(program, simulator)
        daemon = await Daemon.start(program)
        await daemon.wait_for_event("org_acquired")
        os.kill(daemon.pid, signal.SIGSTOP)  # it holds the org and runs nothing
        trigger = await program.start("trigger")
        async with asyncio.timeout(60):
            while not program.rows("SELECT 1 FROM flow_outcomes.owner_request"):  # noqa: ASYNC110 - no event for it
                await asyncio.sleep(0.1)
        os.kill(daemon.pid, signal.SIGKILL)
        ended = await trigger.end()
        assert (ended.code, ended.out) == (0, "acme: everything due is complete\n"), ended.err
        assert ended.find_events("token_renewed")
    assert states(program) == {"complete"}


async def test_an_unknown_org(program: Program) -> None:
    """An org that is not configured is a usage error."""
    async with simulator_of("acme") as simulator:
        configure(program, simulator)
        ended = await program.run("trigger", "--org", "acne")
        assert (ended.code, ended.out) == (2, "")
        assert ended.err == "--org: no org 'acne'; did you mean acme? configured: acme\n"


async def test_sigusr1_to_a_process_without_orgs(program: Program) -> None:
    """It is logged, and passed on to the process that holds the orgs."""
    async with simulator_of("acme") as simulator:
        configure(program, simulator)
        holder = await Daemon.start(program)
        await holder.wait_for_event("org_acquired")
        other = await Daemon.start(program)
        await asyncio.sleep(1)  # it must have opened its database
        other.send(signal.SIGUSR1)
        await other.wait_for_event("run_requested")
        async with asyncio.timeout(60):
            while states(program) != {"complete"}:  # noqa: ASYNC110 - no event for it
                await asyncio.sleep(0.1)
        assert other.count("token_renewed") == 0
        await other.end()
        await holder.end()
