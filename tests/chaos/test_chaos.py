"""Random faults from a seed; in the end every row equals the source."""

from __future__ import annotations

import asyncio
import os
import secrets
from dataclasses import replace

import pytest

from service.simulator import Fault, Faults, SimulatedOrg, Simulator, SimulatorConfig
from tests.faults.test_database import SLOW, source
from tests.support.chaos import Chaos
from tests.support.daemon import Reader, assert_exact
from tests.support.fault_harness import DAYS, FaultHarness
from tests.support.kills import STAGES, Kills

SECONDS = float(os.environ.get("FLOW_OUTCOMES_CHAOS_SECONDS", "180"))
KILLS = int(os.environ.get("FLOW_OUTCOMES_CHAOS_KILLS", "200"))
SEED = int(os.environ.get("FLOW_OUTCOMES_CHAOS_SEED", "0")) or secrets.randbelow(2**31)
ORG = replace(SLOW, latency=0.05)


async def _chaos(site: FaultHarness, seed: int, seconds: float) -> Chaos:
    async with source(ORG) as simulator:
        site.configure(
            simulator,
            orgs={"acme": {"page_size": 6, "concurrency": 3, "breaker": {"failures": 20, "open_for": "PT1S"}}},
            jobs={"daily": {**site.job, "retry_every": "PT1S", "lookback": f"P{DAYS}D"}},
        )
        chaos = Chaos(seed, site, simulator)
        print(f"chaos: seed {seed}, {seconds:g} s")  # noqa: T201 - to repeat a run
        await chaos.run(seconds)
        print(f"chaos: {chaos.summary()}")  # noqa: T201 - what fired
        return chaos


@pytest.mark.acceptance
async def test_a_little_chaos(site: FaultHarness) -> None:
    """A short run with a fixed seed."""
    chaos = await _chaos(site, 11, 20)
    assert sum(chaos.fired.values()) > 10, chaos.summary()
    assert any(name.startswith("api ") for name in chaos.fired), chaos.summary()


@pytest.mark.chaos
async def test_chaos(site: FaultHarness) -> None:
    """A run of FLOW_OUTCOMES_CHAOS_SECONDS, with FLOW_OUTCOMES_CHAOS_SEED or a random seed."""
    chaos = await _chaos(site, SEED, SECONDS)
    assert sum(chaos.fired.values()) > SECONDS / 4, chaos.summary()


@pytest.mark.parametrize(
    "kills",
    [pytest.param(40, marks=pytest.mark.acceptance), pytest.param(KILLS, marks=pytest.mark.chaos)],
)
async def test_killed_at_random_instants(site: FaultHarness, kills: int) -> None:
    """No window is lost, doubled or partially visible, whenever programs are killed."""
    async with source(replace(ORG, latency=0.01)) as simulator, Reader(lambda: site.dsn) as reader:
        site.configure(simulator, jobs={"daily": {**site.job, "lookback": f"P{DAYS}D"}})
        kill_sequence = Kills(site, simulator, SEED)
        await kill_sequence.run(kills)
        print(f"chaos: seed {SEED}, killed {dict(kill_sequence.killed)}")  # noqa: T201 - to repeat a run
        assert min(kill_sequence.killed[stage] for stage in STAGES) >= kills // 20, kill_sequence.killed
        ended = await site.program.run("run", "--once")
        assert (ended.code, ended.err) == (0, ""), (SEED, ended)
        assert reader.reads > kills
        assert reader.partial == [], SEED
        assert_exact(site.program, simulator)
        assert site.program.rows("SELECT count(*) AS n FROM flow_outcomes.restatement") == [{"n": 0}]


@pytest.mark.chaos
async def test_each_class_of_api_fault_a_hundred_times(site: FaultHarness) -> None:
    """With each of twelve faults the figures become exact, and no request comes before its Retry-After."""
    classes: dict[str, Fault] = {
        "throttled": Fault("1", probability=0.3, times=100),
        "server_error": Fault(503, probability=0.3, times=100),
        "connection_reset": Fault(probability=0.3, times=100),
        "slow": Fault(0.05, probability=0.5, times=100),
        "drip": Fault(0.05, probability=0.5, times=100),
        "unauthorized": Fault(probability=0.3, times=100),
        "cursor_expired": Fault(410, probability=0.05, times=100),
        "missing_token": Fault(probability=0.05, times=100),
        "repeated_token": Fault(probability=0.05, times=100),
        "not_json": Fault(probability=0.05, times=100),
        "invalid_utf8": Fault(probability=0.05, times=100),
        "truncated": Fault("chunked", probability=0.2, times=100),
    }
    orgs = {
        name: SimulatedOrg(requests_per_second=None, flows=8, faults=Faults(**{name: fault}))
        for name, fault in classes.items()
    }
    async with Simulator(SimulatorConfig(orgs=orgs), clock=source().clock) as simulator:
        site.configure(
            simulator,
            orgs={
                name: {"page_size": 4, "concurrency": 2, "breaker": {"failures": 50, "open_for": "PT1S"}}
                for name in orgs
            },
            jobs={"daily": {**site.job, "lookback": f"P{DAYS}D"}},
        )
        loop = asyncio.get_running_loop()
        until = loop.time() + 20 * 60
        while any(simulator.orgs[name].fired[name] < 100 for name in classes):
            assert loop.time() < until, {name: simulator.orgs[name].fired[name] for name in classes}
            await site.program.run("run", "--once")
        ended = await site.program.run("run", "--once")
        assert ended.code == 0, ended
        for name in orgs:
            assert_exact(site.program, simulator, name)
        assert simulator.hold_violations == 0
        assert simulator.in_flight_violations == 0
