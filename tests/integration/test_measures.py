"""Outcomes by dimensions, executions and milestones of an org on the flow-aggregates API."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from service.postgres.merge import loader
from service.simulator import Fault, Faults, GeneratedCentre, Simulator, SimulatorConfig
from tests.support.installation import Installation, Row, Sections
from tests.support.public_org import OPEN

DAYS = 4
CENTRE = GeneratedCentre(seed=5, flows=6, outcomes=2)
ORG = replace(OPEN, centre=CENTRE)


async def run(
    installation: Installation,
    simulator: Simulator,
    jobs: Sections,
    ad_hoc: Sections | None = None,
    org: Mapping[str, object] | None = None,
) -> int:
    """Run what is due of the last days; the exit code."""
    daily = {name: {"since": f"P{DAYS}D", **job} for name, job in jobs.items()}
    return await installation.run_due(
        installation.configure(simulator, {"acme": org or {}}, jobs=daily, ad_hoc=ad_hoc)
    )


def dimensions(installation: Installation) -> set[tuple[str, ...]]:
    """The names of the dimensions that the details of outcomes have."""
    return {tuple(sorted(row["dimensions"])) for row in installation.view("flow_outcome_detail")}


Truth = dict[tuple[tuple[str | None, ...], datetime], tuple[int, ...]]


def truth(simulator: Simulator, rows: list[Row], dimensions: tuple[str, ...], metric: str) -> Truth:
    """What the simulated centre counted in the buckets of these rows: count, sum, minimum and maximum."""
    span = min(row["bucket_start"] for row in rows), max(row["bucket_end"] for row in rows)
    measured = simulator.measure(span, "daily", dimensions, [metric], org="acme")
    return {
        (key.group, key.bucket_start): (stats[0], *(() if stats[1] is None else stats[1:]))
        for key, stats in measured.items()
    }


def durations(row: Row) -> tuple[int, ...]:
    return tuple(row[f"duration_{name}"] for name in ("count", "sum_ms", "min_ms", "max_ms"))


BY_MEDIUM = {"group_by": ["mediaType", "flowVersion"]}


@pytest.mark.parametrize("settings", [{}, {"aggregates": "jobs", "page_size": 20}])
async def test_outcomes_by_dimensions(installation: Installation, settings: dict[str, object]) -> None:
    """Each combination as the API counted it, with durations; flow_outcome is their sum."""
    async with Simulator(SimulatorConfig(orgs={"acme": replace(ORG, extra_dimension=True)})) as simulator:
        assert await run(installation, simulator, {"daily": BY_MEDIUM}, org=settings) == 0
        detail, total = installation.view("flow_outcome_detail"), installation.view("flow_outcome")
        keys = ("flowId", "flowOutcomeId", "mediaType", "flowVersion")
        counted = truth(simulator, detail, keys, "nFlowOutcome")
        timed = truth(simulator, detail, (*keys, "flowOutcomeValue"), "tFlowOutcome")
        by_outcome = truth(simulator, detail, keys[:2], "nFlowOutcome")
    assert dimensions(installation) == {("flowVersion", "mediaType")}
    stored = {}
    for row in detail:
        medium, version = row["dimensions"]["mediaType"], row["dimensions"]["flowVersion"]
        key = (row["flow_id"], row["outcome_id"], medium, version), row["bucket_start"]
        if row["outcome_count"] is not None:
            stored[key] = (row["outcome_count"],)
            successes = timed.get(((*key[0], "SUCCESS"), key[1]), (None,) * 4)
            assert durations(row) == successes
    assert stored == counted
    assert len(stored) > len(total) > 30
    seen = {((row["flow_id"], row["outcome_id"]), row["bucket_start"]): (row["outcome_count"],) for row in total}
    assert seen == by_outcome
    sums: Counter[tuple[Any, ...]] = Counter()
    for row in detail:
        sums[row["outcome_key"], row["bucket_start"]] += row["outcome_count"] or 0
    assert sums == {(row["outcome_key"], row["bucket_start"]): row["outcome_count"] for row in total}
    for row in total:
        if row["outcome_count"]:
            assert row["success_rate"] == row["success_count"] / row["outcome_count"]


async def test_executions(installation: Installation) -> None:
    """All executions of a flow, and those that ended by each reason; nothing is stored as an outcome."""
    async with Simulator(SimulatorConfig(orgs={"acme": ORG})) as simulator:
        jobs = {"runs": {"measure": "executions"}}
        assert await run(installation, simulator, jobs) == 0
        rows = installation.view("flow_execution")
        started, spent = (truth(simulator, rows, ("flowId",), metric) for metric in ("nFlow", "tFlow"))
        ended = {
            metric: truth(simulator, rows, ("flowId", "exitReason"), metric)
            for metric in ("tFlowDisconnect", "tFlowExit")
        }
        at = installation.rows("SELECT clock_timestamp() AS at")[0]["at"]
    assert started
    all_runs = [row for row in rows if row["exit_reason"] is None]
    assert {((row["flow_id"],), row["bucket_start"]): (row["execution_count"],) for row in all_runs} == started
    assert {((row["flow_id"],), row["bucket_start"]): durations(row) for row in all_runs} == spent
    for metric, counted in ended.items():
        of_metric = [row for row in rows if row["metric"] == metric and row["duration_count"] is not None]
        assert {
            ((row["flow_id"], row["exit_reason"]), row["bucket_start"]): durations(row) for row in of_metric
        } == counted
        assert {row["execution_count"] for row in of_metric} == {None}
    assert {row["flow_name"] for row in rows} >= {flow.name for flow in CENTRE.flows()}
    assert all(row["dimensions"] == {} for row in rows)
    assert installation.view("flow_outcome") == installation.view("restatement") == []
    assert Counter(map(repr, installation.rows("SELECT * FROM flow_outcomes.flow_execution_as_of(%s)", at))) == (
        Counter(map(repr, rows))
    )
    assert {row["measure"] for row in installation.view("extraction_window")} == {"executions"}


@pytest.mark.parametrize("observed", [False, True])
async def test_milestones(installation: Installation, observed: bool) -> None:
    """By their present names; executions are null where oFlowMilestone has no count."""
    faults = Faults(milestones_observed=Fault()) if observed else Faults()
    async with Simulator(SimulatorConfig(orgs={"acme": replace(ORG, faults=faults)})) as simulator:
        jobs = {"reached": {"measure": "milestones", "group_by": ["mediaType"]}}
        assert await run(installation, simulator, jobs) == 0
        assert bool(simulator.fired["milestones_observed"]) == observed
        rows = [row for row in installation.view("flow_milestone") if row["milestone_count"] is not None]
        keys = ("flowId", "flowMilestoneId", "mediaType")
        reached, executions = (truth(simulator, rows, keys, f"{kind}FlowMilestone") for kind in "no")
        names = {each.id: each.name for each in simulator.orgs["acme"].milestones}

    def key(row: Row) -> tuple[tuple[str, ...], datetime]:
        return (row["flow_id"], row["milestone_id"], row["dimensions"]["mediaType"]), row["bucket_start"]

    assert {key(row): (row["milestone_count"],) for row in rows} == reached
    if observed:
        assert {row["execution_count"] for row in rows} == {None}
    else:
        assert {key(row): (row["execution_count"],) for row in rows} == executions
    assert {row["milestone_name"] for row in rows} <= set(names.values())
    assert all(names[row["milestone_id"]] == row["milestone_name"] for row in rows)


async def test_a_grouping_that_changes(installation: Installation) -> None:
    """In no version does a bucket have series of two groupings; totals change for nobody."""
    async with Simulator(SimulatorConfig(orgs={"acme": ORG})) as simulator:
        totals: list[dict[str, int]] = []
        instants: list[tuple[datetime, tuple[str, ...]]] = []
        groupings: list[list[str]] = [[], ["mediaType"], ["flowVersion"], ["flowVersion", "mediaType"], []]
        for group_by in groupings:
            assert await run(installation, simulator, {"daily": {"group_by": group_by}}) == 0
            assert dimensions(installation) == {tuple(group_by)}
            at = installation.rows("SELECT clock_timestamp() AS at")[0]["at"]
            totals.append({row["outcome_key"]: row["outcome_count"] for row in installation.view("flow_outcome")})
            instants.append((at, tuple(group_by)))
    assert totals[0]
    assert all(total == totals[0] for total in totals)
    assert installation.view("restatement") == []
    for at, names in instants:
        versions = installation.rows("SELECT dimensions FROM flow_outcomes.flow_outcome_detail_as_of(%s)", at)
        assert {tuple(sorted(row["dimensions"])) for row in versions} == {names}
        total = installation.rows("SELECT * FROM flow_outcomes.flow_outcome_as_of(%s)", at)
        assert {row["outcome_key"]: row["outcome_count"] for row in total} == totals[0]


async def test_a_job_whose_measure_changes(installation: Installation) -> None:
    """Its windows are due again; what was stored stays."""
    async with Simulator(SimulatorConfig(orgs={"acme": ORG})) as simulator:
        assert await run(installation, simulator, {"daily": {}}) == 0
        stored = installation.view("flow_outcome")
        assert await run(installation, simulator, {"daily": {"measure": "milestones"}}) == 0
    assert installation.view("flow_outcome") == stored
    assert installation.view("flow_milestone")
    windows = Counter(row["measure"] for row in installation.view("extraction_window"))
    assert windows["outcomes"] == windows["milestones"] >= DAYS - 1  # yesterday is due after 01:00 UTC


async def test_ad_hoc_work_runs_for_every_measure(installation: Installation) -> None:
    """That a job of the org has, grouped as its jobs are; ``measure`` limits it."""
    start = (datetime.now(UTC) - timedelta(days=30)).date()
    span = {"org": "acme", "from": start, "to": start + timedelta(days=1), "granularity": "daily"}
    jobs: Sections = {
        "daily": {"group_by": ["mediaType"]},
        "reached": {"measure": "milestones", "group_by": ["flowVersion"]},
        "runs": {"measure": "executions"},
    }
    windows = "SELECT measure FROM flow_outcomes.extraction_window WHERE job IS NULL ORDER BY 1"
    async with Simulator(SimulatorConfig(orgs={"acme": ORG})) as simulator:
        limited = {"one": {**span, "measure": "milestones"}}
        assert await run(installation, simulator, jobs, limited) == 0
        assert [row["measure"] for row in installation.rows(windows)] == ["milestones"]
        assert await run(installation, simulator, jobs, {"every": span}) == 0
    assert [row["measure"] for row in installation.rows(windows)] == ["executions", "milestones", "outcomes"]
    for relation, names in (("flow_outcome_detail", ["mediaType"]), ("flow_milestone", ["flowVersion"])):
        found = installation.rows(
            f"SELECT * FROM flow_outcomes.{relation} WHERE bucket_start < %s", start + timedelta(1)
        )
        assert {tuple(row["dimensions"]) for row in found} == {tuple(names)}


async def test_too_many_series(installation: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    """The window fails with a reason that names the dimensions; without dimensions there is no bound."""
    monkeypatch.setattr(loader, "SERIES_MAX", 20)
    async with Simulator(SimulatorConfig(orgs={"acme": ORG})) as simulator:
        assert await run(installation, simulator, {"daily": BY_MEDIUM}) == 1
        assert installation.view("flow_outcome_detail") == []
        errors = {row["last_error"] for row in installation.view("extraction_window")}
        assert await run(installation, simulator, {"daily": {}}) == 0
    assert all("flowVersion, mediaType" in error and "at most 20" in error for error in errors)
