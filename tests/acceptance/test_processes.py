"""Several processes on one database, none of them a daemon."""

from __future__ import annotations

import asyncio

from service.simulator import GeneratedCentre, SimulatedOrg, Simulator, SimulatorConfig
from tests.support.program import Program

SLOW = SimulatedOrg(centre=GeneratedCentre(seed=8, flows=6), requests_per_second=None, latency=0.2)


async def test_a_backfill_beside_another_process(program: Program) -> None:
    """A backfill beside ``run --once`` is extracted by one of the two processes, and both end."""
    async with Simulator(SimulatorConfig(orgs={"acme": SLOW})) as simulator:
        program.configure(
            simulator,
            orgs={"acme": {"page_size": 2, "concurrency": 1}},
            jobs={"daily": {"since": "P10D", "off_peak": None, "lookback": "P0D"}},
        )
        once = await program.start("run", "--once")
        async with asyncio.timeout(60):
            while not simulator.arrivals:  # noqa: ASYNC110 - there is no event for it
                await asyncio.sleep(0.01)
        spans = (("2024-01-01", "2024-01-03"), ("2024-02-01", "2024-02-03"))
        async with asyncio.timeout(60):
            ended = await asyncio.gather(
                once.end(),
                *(
                    program.run(
                        "backfill", "--org", "acme", "--from", start, "--to", end, "--granularity", "daily"
                    )
                    for start, end in spans
                ),
            )
        assert [each.code for each in ended] == [0, 0, 0], [each.err for each in ended]
        assert [each.out for each in ended[1:]] == ["stored 1 of 1 window\n"] * 2
        assert simulator.in_flight_violations == 0
    assert {each["state"] for each in program.windows()} == {"complete"}
