"""``check`` beside a daemon that holds the org: a token of its own, and what it did not try."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from typing import Any

import pytest

from service.simulator import SimulatedOrg, Simulator, SimulatorConfig
from tests.support.daemon import Daemon
from tests.support.program import Ended, Program

RATE = 5


def states(ended: Ended) -> dict[str, str]:
    """The state of each check of a JSON document."""
    document: dict[str, list[dict[str, Any]]] = json.loads(ended.out)
    assert all(set(each) == {"subject", "state", "detail", "fix"} for each in document["checks"])
    return {each["subject"]: each["state"] for each in document["checks"]}


def tokens(simulator: Simulator) -> int:
    """The requests for a token so far."""
    return sum(each.kind == "token" for each in simulator.arrivals)


@pytest.mark.alone
async def test_a_token_in_a_slot_of_the_limit(program: Program) -> None:
    """The token is requested while the daemon works a backlog at the limit, which no second exceeds."""
    org = SimulatedOrg(flows=10, requests_per_second=RATE)
    async with Simulator(SimulatorConfig(orgs={"acme": org})) as simulator:
        program.configure(
            simulator,
            orgs={"acme": {"requests_per_second": RATE, "page_size": 1}},
            jobs={"daily": {"since": "P60D", "off_peak": None}},
            http={"port": 0},
        )
        daemon = await Daemon.start(program)
        await daemon.wait_until(lambda: len(simulator.arrivals) > 3 * RATE, "work at the limit")
        before = tokens(simulator)
        checked = await program.run("check", "--json")
        assert checked.code == 0, checked.out
        assert states(checked) == {
            "configuration": "ok",
            "database": "ok",
            "schema": "ok",
            "acme": "ok",
            "acme token": "ok",
            "acme query": "skipped",
        }
        assert tokens(simulator) == before + 1
        await asyncio.sleep(2)
        assert simulator.peak_per_second("acme") <= RATE
        assert daemon.count("rate_limited") == 0
        for line, state in zip(
            (await program.run("check")).out.splitlines()[-3:], ("ok", "ok", "SKIP"), strict=True
        ):
            assert line.startswith(f"{state:<4} acme")
        daemon.running.kill()  # the end of its scan would take its grace period


async def test_a_rotated_secret(program: Program) -> None:
    """A secret that the login server rejects is found, although the daemon's token is still good."""
    async with Simulator(SimulatorConfig(orgs={"acme": SimulatedOrg(flows=2)})) as simulator:
        program.configure(simulator, jobs={"daily": {"since": "P2D", "off_peak": None}}, http={"port": 0})
        daemon = await Daemon.start(program)
        await daemon.wait_for_event("cycle_finished")
        wrong = {"FLOW_OUTCOMES_ORGS__ACME__CLIENT_SECRET": "another-secret"}
        checked = await program.run("check", "--json", environment=wrong)
        assert (checked.code, states(checked)["acme token"]) == (1, "failed")
        assert "another-secret" not in checked.out + checked.err
        await daemon.end()


async def test_a_holder_that_stands_still(program: Program) -> None:
    """Where the holder leaves out no slot, the token is skipped, and no request is sent."""
    async with Simulator(SimulatorConfig(orgs={"acme": SimulatedOrg(flows=2)})) as simulator:
        program.configure(simulator, jobs={"daily": {"since": "P2D", "off_peak": None}}, http={"port": 0})
        daemon = await Daemon.start(program)
        await daemon.wait_for_event("cycle_finished")
        before = len(simulator.arrivals)
        checking = await program.start("check", "--json")
        os.kill(daemon.pid, signal.SIGSTOP)
        try:
            checked = await checking.end()
        finally:
            os.kill(daemon.pid, signal.SIGCONT)
        assert len(simulator.arrivals) >= before
        if states(checked).get("acme") == "ok":  # otherwise check took over the org of the suspended process
            assert states(checked)["acme token"] == "skipped"
        await daemon.end()
