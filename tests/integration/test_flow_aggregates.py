"""An org on the flow-aggregates API: the same figures, the same guarantees."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import psycopg
import pytest

from service.postgres.merge import MemoryBudget
from service.simulator import (
    Fault,
    Faults,
    GeneratedCentre,
    Measure,
    Simulator,
    SimulatorConfig,
    StaticCentre,
)
from service.simulator.record_traits import flow_traits
from tests.support.installation import FIRST, Installation
from tests.support.public_org import DAY, OPEN


async def test_both_apis_give_the_same_counts(installation: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    """Queries, jobs with small pages, groups split by an unrequested dimension, and the query builder.

    Also where little is held in memory.
    """
    monkeypatch.setattr(MemoryBudget, "PER_SCAN", 100)
    org = replace(OPEN, centre=GeneratedCentre(seed=5, flows=20, outcomes=2))
    orgs = {
        "builder": org,
        "query": org,
        "jobs": org,
        "media": replace(org, extra_dimension=True),
        "media_jobs": replace(org, extra_dimension=True),
    }
    async with Simulator(SimulatorConfig(orgs=orgs)) as simulator:
        code = await installation.run(
            simulator,
            {
                "builder": {"api": "query-builder"},
                "query": {},
                "jobs": {"aggregates": "jobs", "page_size": 70},
                "media": {},
                "media_jobs": {"aggregates": "jobs", "page_size": 70},
            },
        )
        assert (code, installation.events("window_failed")) == (0, [])
        jobs = simulator.public.jobs["media_jobs"]
        assert (jobs.begun, jobs.deleted, len(jobs.known)) == (1, 1, 0)
    expected = installation.counts("builder")
    assert len(expected) > 300
    for name in ("query", "jobs", "media", "media_jobs"):
        assert installation.counts(name) == expected, name
    span = FIRST, FIRST + 10 * DAY
    dimensions = ("flowId", "flowOutcomeId", "flowOutcomeValue")
    by_value = simulator.measure(span, "daily", dimensions, ["nFlowOutcome"], org="query")
    by_part = installation.stored("media_jobs")
    for key, row in installation.stored("query").items():
        other = by_part[key]
        for column in ("success_count", "failure_count", "outcome_id", "outcome_share", "outcome_percentage"):
            assert row[column] == other[column], (key, column)
        for column, value in (("success_count", "SUCCESS"), ("failure_count", "FAILURE")):
            group = (key[0], row["outcome_id"], value)
            stats = by_value.get(Measure(group, row["bucket_start"], "nFlowOutcome"), (0,))
            assert row[column] == stats[0], (key, column)
    assert {row["outcome_id"] for row in installation.stored("builder").values()} == {None}


async def test_hours_and_months_of_a_time_zone(installation: Installation) -> None:
    """Buckets follow the org's time zone across a change of daylight saving time."""
    centre = GeneratedCentre(seed=6, flows=4, outcomes=2)
    org = replace(OPEN, centre=centre, timezone="Europe/Berlin")
    orgs = {"builder": org, "query": org, "jobs": org}
    flows = [flow.id for flow in centre.flows()][:3]
    shape = {"timezone": "Europe/Berlin", "flows": flows}
    async with Simulator(SimulatorConfig(orgs=orgs)) as simulator:
        for granularity, days in (("hourly", 3), ("daily", 20), ("monthly", 60)):
            code = await installation.run(
                simulator,
                {
                    "builder": {**shape, "api": "query-builder"},
                    "query": shape,
                    "jobs": {**shape, "aggregates": "jobs"},
                },
                days=days,
                granularity=granularity,
                name=granularity,
                first=date(2024, 3, 30),
            )
            assert (code, installation.events("window_failed")) == (0, [])
    expected = installation.counts("builder")
    assert {key[0] for key in expected} == set(flows)
    assert installation.counts("query") == installation.counts("jobs") == expected


@pytest.mark.parametrize("aggregates", ["query", "jobs"])
async def test_an_empty_answer_is_no_fault(installation: Installation, aggregates: str) -> None:
    """Results absent or null: the window is complete, and empty."""
    orgs = {
        "absent": replace(OPEN, faults=Faults(missing_data=Fault())),
        "null": replace(OPEN, faults=Faults(null_results=Fault())),
    }
    shape = {"aggregates": aggregates, "page_size": 1000}
    async with Simulator(SimulatorConfig(orgs=orgs)) as simulator:
        assert await installation.run(simulator, dict.fromkeys(orgs, shape), days=2) == 0
        assert all(simulator.orgs[name].fired.total() >= 1 for name in orgs)
    assert {row["state"] for row in installation.rows("SELECT state FROM flow_outcomes.extraction_window")} == {
        "complete"
    }
    assert installation.stored("absent") == installation.stored("null") == {}


@pytest.mark.parametrize("aggregates", ["query", "jobs"])
async def test_groups_that_report_nothing_are_skipped(installation: Installation, aggregates: str) -> None:
    """A group without data, a datum without metrics: nothing is rejected, and no other count is lost."""
    plain = replace(OPEN, centre=GeneratedCentre(seed=8, flows=6, outcomes=2))
    faults = Faults(group_without_data=Fault(), datum_without_metrics=Fault())
    orgs = {"plain": plain, "sparse": replace(plain, faults=faults)}
    async with Simulator(SimulatorConfig(orgs=orgs)) as simulator:
        assert await installation.run(simulator, {name: {"aggregates": aggregates} for name in orgs}, days=2) == 0
        assert set(simulator.orgs["sparse"].fired) == {"group_without_data", "datum_without_metrics"}
    assert installation.counts("sparse") == installation.counts("plain") != {}
    assert installation.rows("SELECT * FROM flow_outcomes.rejected_entry") == []


@pytest.mark.parametrize("aggregates", ["query", "jobs"])
async def test_a_contradiction_makes_the_split_null(installation: Installation, aggregates: str) -> None:
    """The count is stored; one warning a window; neither other parts nor an alias make up a split."""
    plain = replace(OPEN, centre=GeneratedCentre(seed=8, flows=6, outcomes=2), extra_dimension=True)
    orgs = {"plain": plain, "odd": replace(plain, faults=Faults(bad_failed=Fault(10**6, times=1)))}
    async with Simulator(SimulatorConfig(orgs=orgs)) as simulator:
        assert await installation.run(simulator, {name: {"aggregates": aggregates} for name in orgs}, days=2) == 0
        assert simulator.fired["bad_failed"] == 1
    assert installation.counts("odd") == installation.counts("plain") != {}
    expected = installation.stored("plain")
    [changed] = [key for key, row in installation.stored("odd").items() if row["success_count"] is None]
    for key, row in installation.stored("odd").items():
        split = (row["success_count"], row["failure_count"])
        known = (expected[key]["success_count"], expected[key]["failure_count"])
        assert split == ((None, None) if key == changed else known)
    [warning] = installation.events("split_contradicted")
    assert (warning["org"], warning["rows"]) == ("odd", 1)
    assert installation.events("entry_rejected") == []
    names = (
        "SELECT DISTINCT outcome_name AS name FROM flow_outcomes.flow_outcome WHERE org = 'odd' AND flow_id = %s"
    )
    for row in installation.rows(names, changed[0]):
        with psycopg.connect(installation.dsn) as connection:
            connection.execute(
                "INSERT INTO flow_outcomes.outcome_alias VALUES ('odd', %s, %s, 'All')", (changed[0], row["name"])
            )
    async with Simulator(SimulatorConfig(orgs={"odd": plain})) as simulator:
        assert await installation.run(simulator, {"odd": {}}, days=2) == 0
    folded = installation.stored("odd")[(*changed[:3], "All")]
    assert folded["outcome_count"] > 0
    assert (folded["success_count"], folded["failure_count"]) == (None, None)


async def test_equal_groups_count_once(installation: Installation) -> None:
    """A repeated part is not a second part; unknown fields are ignored."""
    org = replace(OPEN, centre=GeneratedCentre(seed=8, flows=6, outcomes=2))
    twice = replace(org, faults=Faults(duplicate_equal=Fault(), extra_fields=Fault()), extra_dimension=True)
    async with Simulator(SimulatorConfig(orgs={"plain": org, "twice": twice})) as simulator:
        assert await installation.run(simulator, {"plain": {}, "twice": {}}, days=2) == 0
        assert simulator.fired["duplicate_equal"] == simulator.fired["extra_fields"] == 1
    assert installation.counts("plain") == installation.counts("twice") != {}


async def test_a_rename_applies_to_the_complete_series(installation: Installation) -> None:
    """By id, without an alias; it can be reverted; aliases apply afterwards; an old name can be used again."""
    centre = StaticCentre({("f", FIRST + day * DAY): {"o1": 3, "o2": 1} for day in range(2)})
    centre.rename_by_id("o1", "Paid")
    async with Simulator(SimulatorConfig(orgs={"acme": replace(OPEN, centre=centre)})) as simulator:

        async def extract(**names: str) -> set[tuple[str, int]]:
            for outcome, name in names.items():
                centre.rename_by_id(outcome, name)
            installation.commit("UPDATE flow_outcomes.extraction_window SET requests = requests + 1")
            assert await installation.run(simulator, {"acme": {}}, days=2) == 0
            return {(key[3], count) for key, count in installation.counts("acme").items()}

        assert await extract() == {("Paid", 3), ("o2", 1)}
        assert installation.rows("SELECT flow_id, name FROM flow_outcomes.flow") == [{"flow_id": "f", "name": "f"}]
        [before] = installation.rows("SELECT clock_timestamp() AS at")
        assert await extract(o1="Settled") == {("Settled", 3), ("o2", 1)}
        assert installation.events("outcomes_renamed") == [{"org": "acme", "outcomes": 1}]
        then = installation.rows(
            "SELECT DISTINCT outcome_name FROM flow_outcomes.flow_outcome_as_of(%s)", before["at"]
        )
        assert {row["outcome_name"] for row in then} == {"Paid", "o2"}
        assert await extract(o1="Paid") == {("Paid", 3), ("o2", 1)}
        assert await extract(o1="Settled", o2="Paid") == {("Settled", 3), ("Paid", 1)}
        assert await extract(o1="Paid") == {("Paid", 4)}
        installation.commit("INSERT INTO flow_outcomes.outcome_alias VALUES ('acme', NULL, 'Settled', 'Done')")
        assert await extract(o1="Settled", o2="Other") == {("Done", 3), ("Other", 1)}
        centre.put("f", FIRST + DAY, {"o1": 3, "o2": 1, "o3": 9})
        assert await extract(o3="Settled") == {("Done", 3), ("Done", 12), ("Other", 1)}
    assert installation.rows("SELECT * FROM flow_outcomes.restatement WHERE outcome_name <> 'Done'") == []
    ids = installation.rows("SELECT DISTINCT outcome_id FROM flow_outcomes.series ORDER BY 1")
    assert [row["outcome_id"] for row in ids] == ["o1", "o2", "o3"]


async def test_a_deleted_flow_keeps_its_name(installation: Installation) -> None:
    """With its type, its division and a mark; the mark goes when the flow is restored."""
    org = replace(OPEN, centre=GeneratedCentre(seed=8, flows=3, outcomes=2))
    query = "SELECT * FROM flow_outcomes.flow ORDER BY deleted, name"
    async with Simulator(SimulatorConfig(orgs={"acme": replace(org, deleted_flows=1)})) as simulator:
        assert await installation.run(simulator, {"acme": {}}, days=1) == 0
    rows = installation.rows(query)
    types = [flow_traits(row["flow_id"]).flow_type for row in rows]
    assert [(row["flow_type"], row["division_name"]) for row in rows] == [(each, "Home") for each in types]
    assert [row["deleted"] for row in rows] == [False, False, True]
    assert [bool(row["name"]) for row in rows] == [True] * 3
    assert installation.events("names_unavailable") == []
    async with Simulator(SimulatorConfig(orgs={"acme": org})) as simulator:
        assert await installation.run(simulator, {"acme": {}}, days=1, name="again") == 0
    assert [row["deleted"] for row in installation.rows(query)] == [False] * 3


async def test_without_permission_the_ids_serve_as_names(installation: Installation) -> None:
    """One warning names both permissions, and nothing fails; once permitted, the names apply."""
    centre = StaticCentre({("f", FIRST): {"o1": 3}})
    centre.rename_by_id("o1", "Paid")
    org = replace(OPEN, centre=centre)
    async with Simulator(SimulatorConfig(orgs={"acme": replace(org, names_permitted=False)})) as simulator:
        assert await installation.run(simulator, {"acme": {}}, days=1) == 0
    assert {key[3] for key in installation.counts("acme")} == {"o1"}
    [warning] = installation.events("names_unavailable")
    assert "architect:flow:view" in warning["reason"]
    assert "architect:flowOutcome:view" in warning["reason"]
    async with Simulator(SimulatorConfig(orgs={"acme": org})) as simulator:
        installation.commit("UPDATE flow_outcomes.extraction_window SET requests = requests + 1")
        assert await installation.run(simulator, {"acme": {}}, days=1) == 0
    assert {key[3] for key in installation.counts("acme")} == {"Paid"}
    assert installation.events("names_unavailable") == []
