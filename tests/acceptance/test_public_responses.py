"""Responses of the public API that are right and look wrong: each with the installed program, by both ways."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from service.simulator import (
    Fault,
    Faults,
    GeneratedCentre,
    Simulator,
    SimulatorConfig,
    StaticCentre,
)
from tests.support.program import Key, Program, today
from tests.support.public_org import DAY, OPEN, configure

WAYS = pytest.mark.parametrize("aggregates", ["query", "jobs"])
DAYS = 3


def counts(program: Program, org: str) -> dict[Key, int | None]:
    return {key: row["outcome_count"] for key, row in program.stored(org, "daily").items()}


@WAYS
async def test_an_empty_response_is_complete(program: Program, aggregates: str) -> None:
    """``{}`` and ``{"results": null}``: every window is complete, and ``check`` finds nothing wrong."""
    orgs = {
        "absent": replace(OPEN, faults=Faults(missing_data=Fault())),
        "null": replace(OPEN, faults=Faults(null_results=Fault())),
    }
    async with Simulator(SimulatorConfig(orgs=orgs)) as simulator:
        configure(program, simulator, {"aggregates": aggregates}, days=DAYS)
        ended = await program.run("run", "--once")
        checked = await program.run("check")
        assert all(simulator.orgs[name].fired.total() >= 1 for name in orgs)
    assert (ended.code, ended.find_events("window_failed"), checked.code) == (0, [], 0)
    assert "FAIL" not in checked.out
    assert {each["state"] for each in program.windows()} == {"complete"}
    assert program.rows("SELECT 1 FROM flow_outcomes.flow_outcome") == []


@WAYS
async def test_a_group_that_reports_nothing_is_skipped(program: Program, aggregates: str) -> None:
    """A group without data and a datum without metrics take no other count along."""
    plain = replace(OPEN, centre=GeneratedCentre(seed=4, flows=3, outcomes=2))
    orgs = {
        "plain": plain,
        "group": replace(plain, faults=Faults(group_without_data=Fault())),
        "datum": replace(plain, faults=Faults(datum_without_metrics=Fault())),
    }
    async with Simulator(SimulatorConfig(orgs=orgs)) as simulator:
        configure(program, simulator, {"aggregates": aggregates}, days=DAYS)
        ended = await program.run("run", "--once")
        assert all(simulator.orgs[name].fired.total() >= 1 for name in ("group", "datum"))
    assert (ended.code, ended.find_events("entry_rejected")) == (0, [])
    assert counts(program, "group") == counts(program, "datum") == counts(program, "plain") != {}
    assert None not in counts(program, "group").values()


@WAYS
async def test_a_contradiction_takes_the_split_alone(program: Program, aggregates: str) -> None:
    """A failed count that is not the FAILURE group's: the count is stored, and one warning a window."""
    plain = replace(OPEN, centre=GeneratedCentre(seed=4, flows=3, outcomes=2))
    orgs = {"plain": plain, "acme": replace(plain, faults=Faults(bad_failed=Fault(9)))}
    async with Simulator(SimulatorConfig(orgs=orgs)) as simulator:
        configure(program, simulator, {"aggregates": aggregates}, days=DAYS)
        ended = await program.run("run", "--once")
        assert simulator.orgs["acme"].fired["bad_failed"] >= 1
    assert ended.code == 0
    assert counts(program, "acme") == counts(program, "plain") != {}
    without = [row for row in program.stored("acme", "daily").values() if row["success_count"] is None]
    assert without
    assert all(row["failure_count"] is None and row["outcome_count"] is not None for row in without)
    warned = [line["window_start"] for line in ended.find_events("split_contradicted", org="acme")]
    assert warned
    assert len(warned) == len(set(warned))


async def test_corrections_of_the_last_week_are_found(program: Program) -> None:
    """Without a lookback in the job; on the other API's default they are not."""
    figures = StaticCentre({("f", today() - age * DAY): {"o1": 3} for age in range(1, 13)})
    orgs = {name: replace(OPEN, centre=figures) for name in ("public", "other")}
    async with Simulator(SimulatorConfig(orgs=orgs)) as simulator:
        program.configure(
            simulator,
            orgs={"public": {"api": "flow-aggregates"}, "other": {}},
            jobs={"daily": {"since": (today() - 12 * DAY).date()}},
        )
        assert (await program.run("run", "--once")).code == 0
        for age in (5, 8):
            figures.correct("f", today() - age * DAY, "o1", 5)
        assert (await program.run("run", "--once")).code == 0
    found = {
        org: {(today() - start).days for (_, start, _), count in counts(program, org).items() if count == 5}
        for org in orgs
    }
    assert found == {"public": {5, 8}, "other": set()}


async def test_the_smaller_of_two_limits_applies(program: Program) -> None:
    """One a second stays one a second where the API allows 300 a minute."""
    org = replace(OPEN, requests_per_minute=300)
    async with Simulator(SimulatorConfig(orgs={"acme": org})) as simulator:
        configure(program, simulator, {"requests_per_second": 1}, days=1)
        assert (await program.run("run", "--once")).code == 0
        times = [arrival.at for arrival in simulator.arrivals]
    assert len(times) >= 4
    assert all(after - before > 0.95 for before, after in pairwise(times))


async def test_a_deleted_flow_keeps_its_name(program: Program) -> None:
    """With a mark, its type and its division."""
    figures = GeneratedCentre(seed=4, flows=4, outcomes=2)
    org = replace(OPEN, centre=figures, deleted_flows=1, divisions=("Home", "Sales"))
    async with Simulator(SimulatorConfig(orgs={"acme": org})) as simulator:
        configure(program, simulator, days=DAYS)
        assert (await program.run("run", "--once")).code == 0
    flows = {row["flow_id"]: row for row in program.rows("SELECT * FROM flow_outcomes.flow")}
    assert {flow.id: flow.name for flow in figures.flows()} == {key: row["name"] for key, row in flows.items()}
    assert [flows[flow.id]["deleted"] for flow in figures.flows()] == [False, False, False, True]
    assert [flows[flow.id]["division_name"] for flow in figures.flows()] == ["Home", "Sales", "Home", "Sales"]
    assert all(row["flow_type"] for row in flows.values())
