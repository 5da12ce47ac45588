"""Outcomes that are renamed at the source while the daemon runs."""

from __future__ import annotations

import asyncio
import json
import signal
from datetime import timedelta

from service.simulator import SimulatedOrg, Simulator, SimulatorConfig, StaticCentre
from tests.support.program import SECRET, TIMEOUT, Program, today

WEEKS = {"daily": {"since": "P16D", "off_peak": None}}
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


async def test_a_rename_is_suggested_once(program: Program) -> None:
    """On query-builder a rename is logged by the process that extracted it, with --once too, and by no other."""
    figures = {
        ("f", today() - timedelta(days=day) + timedelta(hours=hour)): {
            "Paid" if day > 7 or (day == 7 and hour < 12) else "Settled": 10 + hour,
            "Lost": 5,
        }
        for day in range(1, 16)
        for hour in range(8, 18)
    }
    pair = {"org": "acme", "flow_id": "f", "old_name": "Paid", "new_name": "Settled"}
    orgs = {name: SimulatedOrg(client_secret=SECRET, centre=StaticCentre(figures)) for name in ("acme", "globex")}
    async with Simulator(SimulatorConfig(orgs=orgs)) as simulator:
        program.configure(simulator, orgs={"acme": {}}, jobs=WEEKS)
        ended = await program.run("run", "--once")
        assert ended.code == 0, ended.failures()
        [event] = ended.find_events("alias_suggested")
        assert pair.items() <= event.items()
        assert (event["days_before"], event["days_after"], event["granularity"]) == (9, 7, "daily")
        assert not (await program.run("run", "--once")).find_events("alias_suggested")
        suggested = await program.run("alias", "suggest", "--org", "acme", "--json")
        [suggestion] = json.loads(suggested.out)["suggestions"]
        assert pair.items() <= suggestion.items()
        assert suggestion["command"].endswith("--org=acme --flow=f -- Paid Settled")

        program.configure(simulator, jobs=WEEKS, http={"port": 0})
        running = await program.start("run")
        async with asyncio.timeout(TIMEOUT):
            while True:
                if any('"alias_suggested"' in line for line in running.out):
                    break
                await asyncio.sleep(0.1)
        running.process.terminate()
        ended = await running.end()
    [event] = ended.find_events("alias_suggested")
    assert (event["org"], event["old_name"], event["new_name"]) == ("globex", "Paid", "Settled")
    assert len(program.rows("SELECT * FROM flow_outcomes.alias_suggested")) == 2
