"""``jobs.X.deep_lookback``: now and then, windows further back than the lookback are extracted again."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from service.simulator import Fault, SimulatedOrg, Simulator, SimulatorConfig, StaticCentre
from tests.support.program import TIMEOUT, Program, today

DAY = timedelta(days=1)
OPEN = SimulatedOrg(requests_per_second=None, requests_per_minute=None)
DEEP = {"span": "P14D", "every": "P7D"}


def centre(days: int = 20) -> StaticCentre:
    return StaticCentre({("f", today() - age * DAY): {"o1": age} for age in range(1, days + 1)})


def configure(program: Program, simulator: Simulator, org: dict[str, Any] | None = None, **job: object) -> None:
    defaults = {"since": (today() - 20 * DAY).date(), "lookback": "P3D", "off_peak": None, "deep_lookback": DEEP}
    program.configure(simulator, orgs={"acme": org or {}}, jobs={"daily": {**defaults, **job}})


def count(program: Program, age: int) -> int | None:
    """The count of a day; None where it is not stored yet, or null."""
    found = [row for key, row in program.stored("acme", "daily").items() if key[1] == today() - age * DAY]
    return found[0]["outcome_count"] if found else None


def is_counted(program: Program, number: int) -> bool:
    return count(program, 12) == number


def attempts(program: Program) -> dict[int, int]:
    return {(today() - each["window_start"]).days: each["attempts"] for each in program.windows()}


def let_days_pass(program: Program, days: int) -> None:
    """Move what the database has noted of the deep lookback into the past."""
    with psycopg.connect(program.dsn) as connection:
        connection.execute(
            "UPDATE flow_outcomes.extraction_window SET complete_since = complete_since - %s", (days * DAY,)
        )
        connection.execute("UPDATE flow_outcomes.deep_pass SET completed_at = completed_at - %s", (days * DAY,))


async def wait_for(holds: Callable[[], bool]) -> None:
    """Look every 0.2 s."""
    async with asyncio.timeout(TIMEOUT):
        while not await asyncio.to_thread(holds):  # noqa: ASYNC110 - another process changes it
            await asyncio.sleep(0.2)


@pytest.mark.parametrize("org", [{}, {"api": "flow-aggregates"}])
async def test_a_pass_is_due_every_so_often(program: Program, org: dict[str, Any]) -> None:
    """First ``every`` after the job began, then after the last complete pass; ``plan`` shows it."""
    figures = centre()
    async with Simulator(SimulatorConfig(orgs={"acme": replace(OPEN, centre=figures)})) as simulator:
        configure(program, simulator, org)
        assert (await program.run("run", "--once")).code == 0
        figures.correct("f", today() - 12 * DAY, "o1", 100)
        assert (await program.run("run", "--once")).code == 0
        assert count(program, 12) == 12
        once = dict.fromkeys(range(5, 21), 1)
        assert attempts(program) == {**once, **dict.fromkeys(range(1, 5), 2)}

        let_days_pass(program, 7)
        plan = await program.run("plan", "--json")
        assert '"deep_lookback": 11' in plan.out
        assert (await program.run("run", "--once")).code == 0
        assert count(program, 12) == 100
        deep = dict.fromkeys(range(5, 16), 2)
        assert attempts(program) == {**once, **deep, **dict.fromkeys(range(1, 5), 3)}

        assert '"deep_lookback": 0' in (await program.run("plan", "--json")).out
        assert (await program.run("run", "--once")).code == 0
        assert attempts(program) == {**once, **deep, **dict.fromkeys(range(1, 5), 4)}
        let_days_pass(program, 7)
        assert (await program.run("run", "--once")).code == 0
        assert attempts(program)[12] == 3


async def test_a_pass_of_another_measure(program: Program) -> None:
    """A job of executions has passes of its own, beside one of outcomes with the same span."""
    org = {"api": "flow-aggregates"}
    async with Simulator(SimulatorConfig(orgs={"acme": replace(OPEN, centre=centre())})) as simulator:
        configure(program, simulator, org, measure="executions")
        assert (await program.run("run", "--once")).code == 0
        let_days_pass(program, 7)
        assert '"deep_lookback": 11' in (await program.run("plan", "--json")).out
        assert (await program.run("run", "--once")).code == 0
        assert {attempts(program)[age] for age in range(5, 16)} == {2}
        assert '"deep_lookback": 0' in (await program.run("plan", "--json")).out


async def test_a_pass_ends_when_each_of_its_windows_was_read(program: Program) -> None:
    """What failed is requested again in the next run, and nothing else of the pass."""
    figures = centre()
    async with Simulator(SimulatorConfig(orgs={"acme": replace(OPEN, centre=figures)})) as simulator:
        configure(program, simulator, {"page_size": 1, "concurrency": 1})
        assert (await program.run("run", "--once")).code == 0
        let_days_pass(program, 7)
        figures.correct("f", today() - 12 * DAY, "o1", 100)
        simulator.switch("not_json", Fault())
        assert (await program.run("run", "--once")).code == 1
        assert simulator.fired["not_json"] >= 1
        simulator.switch("not_json", None)
        before = attempts(program)
        assert (await program.run("run", "--once")).code == 0
        assert count(program, 12) == 100
        assert {age for age, number in attempts(program).items() if number > before[age]} == set(range(1, 16))
        before = attempts(program)
        assert (await program.run("run", "--once")).code == 0
        assert {age for age, number in attempts(program).items() if number > before[age]} == set(range(1, 5))


@pytest.mark.counts_days
async def test_a_pass_ends_at_the_limit_of_the_retention(program: Program) -> None:
    """What may be partial is not requested again."""
    async with Simulator(SimulatorConfig(orgs={"acme": replace(OPEN, centre=centre())})) as simulator:
        configure(program, simulator, {"api": "flow-aggregates", "retention": "P10D"})
        assert (await program.run("run", "--once")).code == 0
        let_days_pass(program, 7)
        assert (await program.run("run", "--once")).code == 0
    assert {age for age, number in attempts(program).items() if number > 1} == set(range(1, 9))


async def test_the_daemon_runs_a_pass_when_it_is_due(program: Program) -> None:
    """Between two windows of the job, again and again; a restart begins with what is due."""
    figures = centre()
    async with Simulator(SimulatorConfig(orgs={"acme": replace(OPEN, centre=figures)})) as simulator:
        configure(program, simulator, deep_lookback={"span": "P14D", "every": "PT3S"})
        for number in (100, 200):
            daemon = await program.start("run")
            await wait_for(lambda: attempts(program).get(12, 0) > 0)
            figures.correct("f", today() - 12 * DAY, "o1", number)
            await wait_for(functools.partial(is_counted, program, number))
            daemon.process.terminate()
            assert (await daemon.end()).code == 0
        assert attempts(program)[18] == 1


async def test_the_key(program: Program) -> None:
    """A variable sets it, and null removes it."""
    async with Simulator(SimulatorConfig(orgs={"acme": OPEN})) as simulator:
        configure(program, simulator)
        for name, text in (("", "null"), ("", '{"span": "P9D", "every": "P1D"}'), ("__SPAN", "P9D")):
            variable = {f"FLOW_OUTCOMES_JOBS__DAILY__DEEP_LOOKBACK{name}": text}
            ended = await program.run("plan", environment=variable)
            assert ended.code == 0, ended.err
