"""Migrations by several processes at once."""

from __future__ import annotations

import asyncio

from service.simulator import SimulatedOrg, Simulator, SimulatorConfig
from tests.support.program import Program


async def test_concurrent_migrations(new_program: Program) -> None:
    """Several processes on an empty database apply each migration once; a later one applies none."""
    async with Simulator(SimulatorConfig(orgs={"acme": SimulatedOrg(requests_per_second=None)})) as simulator:
        new_program.configure(simulator, ad_hoc={"one": {"org": "acme", "from": "2024-01-01", "to": "2024-01-03"}})
        ended = await asyncio.gather(
            new_program.run("migrate"),
            new_program.run("migrate"),
            new_program.run("run", "--once"),
        )
        assert [each.code for each in ended] == [0, 0, 0], ended
        assert [each.err for each in ended] == ["", "", ""]
        applied = [line for each in ended[:2] for line in each.out.splitlines() if line.startswith("applied ")]
        applied += [name for line in ended[2].find_events("schema_migrated") for name in line["applied"]]
        assert len(applied) == len({line.removeprefix("applied ") for line in applied}) > 0
        again = await new_program.run("migrate")
    assert (again.code, again.out, again.err) == (0, "the schema is up to date\n", "")
    assert {each["state"] for each in new_program.windows()} == {"complete"}
