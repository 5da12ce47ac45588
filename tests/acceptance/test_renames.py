"""Outcomes that are renamed at the source while the daemon runs."""

from __future__ import annotations

import asyncio
import signal
from datetime import timedelta

from service.simulator import SimulatedOrg, Simulator, SimulatorConfig, StaticCentre
from tests.support.program import SECRET, TIMEOUT, Program, today

JOB = {"daily": {"since": "P6D", "off_peak": None}}


async def test_sigusr1_fetches_new_names(program: Program) -> None:
    """SIGUSR1 fetches the names again, and every stored figure gets the new name."""
    centre = StaticCentre({("f", today() - timedelta(days=day)): {"o1": 3} for day in range(2, 5)})
    centre.rename_by_id("o1", "Paid")
    org = SimulatedOrg(client_secret=SECRET, centre=centre)

    async def wait_for_name(name: str) -> None:
        async with asyncio.timeout(TIMEOUT):
            while True:
                names = program.rows(
                    "SELECT outcome_name FROM flow_outcomes.flow_outcome WHERE outcome_count IS NOT NULL"
                )
                if [row["outcome_name"] for row in names] == [name] * 3:
                    return
                await asyncio.sleep(0.1)

    async with Simulator(SimulatorConfig(orgs={"acme": org})) as simulator:
        program.configure(simulator, orgs={"acme": {"api": "flow-aggregates"}}, jobs=JOB, http={"port": 0})
        running = await program.start("run")
        await wait_for_name("Paid")
        centre.rename_by_id("o1", "Settled")
        running.process.send_signal(signal.SIGUSR1)
        await wait_for_name("Settled")
        running.process.terminate()
        ended = await running.end()
    assert ended.find_events("outcomes_renamed", org="acme")
