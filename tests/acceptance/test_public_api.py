"""An org on the public API as it is: what it no longer keeps, what it corrects late, what it rejects."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from service.simulator import (
    Fault,
    Faults,
    GeneratedCentre,
    Simulator,
    SimulatorConfig,
    StaticCentre,
)
from tests.support.program import Program, today
from tests.support.public_org import DAY, OPEN, configure

HOUR = timedelta(hours=1)


def centre(days: int, count: int = 24) -> StaticCentre:
    """One flow and one outcome: so many a day, an equal part in each hour."""
    hours = {("f", today() - hour * HOUR): {"o1": count // 24} for hour in range(1, days * 24 + 1)}
    return StaticCentre(hours)


def counts(program: Program) -> dict[datetime, int]:
    return {row["bucket_start"]: row["outcome_count"] for row in program.stored("acme", "daily").values()}


def errors(program: Program) -> dict[int, str]:
    """``last_error`` of each window that has one, by its age in days."""
    return {
        (today() - each["window_start"]).days: each["last_error"]
        for each in program.windows()
        if each["last_error"] is not None
    }


@pytest.mark.counts_days
@pytest.mark.parametrize(
    ("org", "settings"),
    [
        ({}, {"retention_days": 10}),
        ({"retention": "P10D"}, {"retention_days": 10, "retention_permitted": False}),
        ({"retention": "P10D", "aggregates": "jobs"}, {"retention_days": 10, "retention_permitted": False}),
    ],
)
async def test_what_the_org_no_longer_keeps_changes_no_figure(
    program: Program, org: dict[str, Any], settings: dict[str, Any]
) -> None:
    """The limit comes from the API or from the configuration; lookback and backfill keep what is stored."""
    async with Simulator(SimulatorConfig(orgs={"acme": replace(OPEN, centre=centre(20))})) as simulator:
        configure(program, simulator)
        ended = await program.run("run", "--once")
        assert (ended.code, ended.err) == (0, "")
    before, began = counts(program), datetime.now(UTC)
    assert set(before.values()) == {24}

    grown = centre(20)
    partial = today() - 10 * DAY  # the day at the limit
    grown.correct("f", partial + 23 * HOUR, "o2", 5)
    grown.correct("f", today() - 5 * DAY, "o1", 4)
    plain = replace(OPEN, centre=grown)
    async with Simulator(SimulatorConfig(orgs={"acme": replace(plain, **settings)})) as simulator:
        configure(program, simulator, org, lookback="P15D")
        for _ in range(3):
            ended = await program.run("run", "--once")
            assert (ended.code, ended.find_events("window_doubted")) == (0, []), ended.failures()
        start = (today() - 20 * DAY).date().isoformat()
        end = today().date().isoformat()
        ended = await program.run(
            "backfill", "--org", "acme", "--from", start, "--to", end, "--granularity", "daily"
        )
        assert ended.code == 0, ended.err
        assert simulator.fired == {}
    after = {key[1:]: row["outcome_count"] for key, row in program.stored("acme", "daily").items()}
    assert {day: count for (day, name), count in after.items() if name == "o1"} == {
        **before,
        today() - 5 * DAY: 27,
    }
    added = {day: count for (day, name), count in after.items() if name == "o2" and count}
    if began < today() + 23 * HOUR:
        assert added == {partial: 5}
    else:  # in the last hour of a day the simulator drops these records one by one
        assert added.keys() <= {partial}
    assert set(errors(program)) == {*range(9, 17), 20}  # the lookback's windows, and the one of the backfill
    assert all("limit of the org's retention" in reason for reason in errors(program).values())
    status = await program.run("status")
    assert "retention" not in status.out


@pytest.mark.counts_days
async def test_an_old_empty_window_is_never_accepted_where_the_retention_is_unknown(program: Program) -> None:
    """Past 90 days, whoever requests it and however often; a younger one is accepted when it is confirmed."""
    days = (80, 89, 92, 120)
    hours = StaticCentre({("f", today() - age * DAY): {"o1": age} for age in days})
    org = replace(OPEN, centre=hours)
    async with Simulator(SimulatorConfig(orgs={"acme": org})) as simulator:
        configure(program, simulator, lookback="P200D", days=130)
        assert (await program.run("run", "--once")).code == 0
        simulator.switch("empty_answer", Fault())
        for _ in range(3):
            ended = await program.run("run", "--once")
            assert ended.code == 0, ended.failures()
        assert simulator.fired["empty_answer"] >= 3
    stored = {age: counts(program).get(today() - age * DAY) for age in days}
    assert stored == {80: None, 89: None, 92: 92, 120: 120}
    assert set(errors(program)) == {92, 120}
    assert all("orgs.acme.retention" in reason for reason in errors(program).values())


async def test_retention_is_a_key_of_this_api_alone(program: Program) -> None:
    """On the other one it is a fault, and so is a value that is no duration; null is the default."""
    async with Simulator(SimulatorConfig(orgs={"acme": OPEN})) as simulator:
        for org, fault in (
            ({"api": "query-builder", "retention": "P30D"}, "orgs.acme.retention: applies only to"),
            ({"retention": "thirty days"}, "orgs.acme.retention: must be"),
            ({"retention": "PT1H"}, "orgs.acme.retention: must be"),
        ):
            configure(program, simulator, org)
            ended = await program.run("status")
            assert (ended.code, ended.out) == (2, "")
            assert fault in ended.err
        configure(program, simulator, {"api": "query-builder", "retention": None})
        assert (await program.run("plan", environment={"FLOW_OUTCOMES_ORGS__ACME__RETENTION": "null"})).code == 0


async def test_check_and_plan_warn_of_a_job_that_begins_before_the_limit(program: Program) -> None:
    """From the API's value, which ``plan`` reads from the last run, and from the configuration's."""
    async with Simulator(SimulatorConfig(orgs={"acme": replace(OPEN, retention_days=10)})) as simulator:
        configure(program, simulator)
        ended = await program.run("check")
        assert ended.code == 0
        [line] = [line for line in ended.out.splitlines() if line.startswith("WARN acme retention")]
        assert "data is kept for 10 days, says the API; job daily begins at " in line
        assert "set since" in line
        assert "warning" not in (await program.run("plan")).out
        assert (await program.run("run", "--once")).code == 0
        plan = await program.run("plan")
        assert "acme: warning: job daily begins at " in plan.out
        configure(program, simulator, {"retention": "P30D"})
        assert "data is kept for 30 days, says orgs.acme.retention" in (await program.run("check")).out
        assert "warning" not in (await program.run("plan")).out


@pytest.mark.parametrize(
    "settings", [{"retention_permitted": False, "retention_days": 10}, {"retention_days": None}]
)
async def test_check_warns_once_where_the_retention_is_not_known(
    program: Program, settings: dict[str, Any]
) -> None:
    """A 403 and a 404: a warning that names the permission and the key, and exit code 0."""
    async with Simulator(SimulatorConfig(orgs={"acme": replace(OPEN, **settings)})) as simulator:
        configure(program, simulator)
        ended = await program.run("check")
    assert ended.code == 0
    [line] = [line for line in ended.out.splitlines() if "not known" in line]
    assert "analytics:dataRetention:view" in line
    assert "orgs.acme.retention" in line


async def test_late_corrections_of_the_nightly_pipeline_are_found(program: Program) -> None:
    """The default lookback re-reads the days on which the pipeline works."""
    figures = centre(20)
    org = replace(OPEN, centre=figures, nightly_corrections=True)
    async with Simulator(SimulatorConfig(orgs={"acme": org})) as simulator:
        simulator.set_now(today() - 4 * DAY + timedelta(hours=4))
        configure(program, simulator)
        first = await program.run("run", "--once")
        assert first.code in (0, 1)
        early = counts(program)
        simulator.set_now(today() + timedelta(hours=4))
        assert (await program.run("run", "--once")).code == 0
    late = counts(program)
    changed = {(today() - day).days for day in early if early[day] != late[day]}
    assert changed
    assert changed <= {4, 5, 6, 7, 8}


async def test_check_names_the_divisions_of_the_role(program: Program) -> None:
    """A warning where the listed flows are in others, or the API says that there are others; exit code 0."""
    figures = GeneratedCentre(seed=3, flows=6, outcomes=2)
    plain = replace(OPEN, centre=figures, divisions=("Home", "Sales", "Service"))
    orgs = {
        "all": plain,
        "some": replace(plain, permitted_divisions=("Home", "Sales")),
        "nameless": replace(plain, permitted_divisions=("Home", "Sales"), names_permitted=False),
        "many": replace(OPEN, divisions=tuple(f"Division {number:03}" for number in range(130))),
    }
    async with Simulator(SimulatorConfig(orgs=orgs)) as simulator:
        configure(program, simulator, days=3)
        ended = await program.run("check")
        assert ended.code == 0, ended.out
        assert (await program.run("run", "--once")).code == 0
    lines = {line.split()[1]: line for line in ended.out.splitlines() if " divisions: " in line}
    assert lines["all"] == "ok   all divisions: the role sees 3 divisions: Home, Sales, Service"
    assert "the role sees 2 divisions: Home, Sales; not those of other flows: Service ->" in lines["some"]
    assert "assign the role for all divisions" in lines["some"]
    assert "Home, Sales; the org has others ->" in lines["nameless"]
    assert "the role sees 130 divisions: Division 000, " in lines["many"]
    assert "names cannot be read: architect:flow:view is missing" in ended.out
    seen = {org: {key[0] for key in program.stored(org, "daily")} for org in ("all", "some")}
    hidden = {flow.id for flow in figures.flows()[2::3]}
    assert (len(seen["all"]), seen["some"]) == (6, seen["all"] - hidden)


@pytest.mark.parametrize("answer", [[], [1], {"entities": 1}, {"retentionDays": 1.5}, "text", 17])
async def test_check_survives_any_answer_about_divisions_and_retention(program: Program, answer: object) -> None:
    """Each is a warning of its own."""
    orgs = {"acme": replace(OPEN, retention_days=10, faults=Faults(settings_body=Fault(answer)))}
    async with Simulator(SimulatorConfig(orgs=orgs)) as simulator:
        configure(program, simulator)
        ended = await program.run("check")
        assert simulator.fired["settings_body"] >= 2
    assert (ended.code, ended.err) == (0, "")
    assert "acme retention: not known: " in ended.out
    assert ("acme divisions: not known: " in ended.out) != isinstance(answer, list)


@pytest.mark.parametrize("api", ["flow-aggregates", "query-builder"])
@pytest.mark.parametrize("fault", ["forbidden", "not_json", "null_results"])
async def test_an_error_names_the_response_for_the_support(program: Program, api: str, fault: str) -> None:
    """``ININ-Correlation-Id`` is in the log beside the context id, and in ``last_error``; of a 2xx too."""
    if (api, fault) == ("query-builder", "null_results"):
        fault = "outcomes_array"
    org = replace(OPEN, centre=centre(2), faults=Faults(**{fault: Fault({} if fault == "null_results" else None)}))
    async with Simulator(SimulatorConfig(orgs={"acme": org})) as simulator:
        configure(program, simulator, {"api": api}, days=1, off_peak=None)
        ended = await program.run("run", "--once")
        assert simulator.fired[fault] >= 1
    assert ended.code == 1
    [failed] = ended.find_events("window_failed")
    assert len(failed["correlation_id"]) == 36
    assert (failed["context_id"] is not None) == (api == "flow-aggregates" and fault == "forbidden")
    [reason] = errors(program).values()
    assert f"[ININ-Correlation-Id {failed['correlation_id']}]" in reason
