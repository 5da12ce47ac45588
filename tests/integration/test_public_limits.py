"""The public API's refusals, limits and jobs."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from itertools import pairwise
from typing import Any

import pytest

from service.clock import SystemClock
from service.runtime.preflight import TokenRecorder, check_org_without_lease
from service.simulator import (
    Fault,
    Faults,
    GeneratedCentre,
    Simulator,
    SimulatorConfig,
    StaticCentre,
)
from tests.support.installation import Installation
from tests.support.public_org import DAY, OPEN

JOB_FAULTS = {
    "expired": (Faults(job_state=Fault("EXPIRED", times=1)), 2, True),
    "failed": (Faults(job_state=Fault("FAILED", times=2)), 3, True),
    "cancelled": (Faults(job_state=Fault("CANCELLED")), 3, False),
    "cursor": (Faults(cursor_expired=Fault(times=1)), 2, True),
    "repeated": (Faults(repeated_token=Fault(page=2, times=1)), 1, False),
    "refused": (Faults(job_refused=Fault(times=1)), 1, True),
    "shapeless": (Faults(null_results=Fault({}, page=2, times=1)), 1, False),
    "unavailable": (Faults(server_error=Fault(503, page=2, times=2)), 1, True),
    "broken": (Faults(connection_reset=Fault(page=2, times=1)), 1, True),
}
"""Faults of a job, the jobs submitted because of each, and whether the window completes."""


async def test_a_query_that_is_too_large_is_split_and_the_split_remembered(installation: Installation) -> None:
    """Down to single buckets; the next cycle starts with the halves. A 504 is retried once, but not a job's."""
    centre = GeneratedCentre(seed=7, flows=3, outcomes=2)
    orgs = {
        "bound": replace(OPEN, centre=centre, cardinality=3),
        "slow": replace(OPEN, centre=centre, faults=Faults(server_error=Fault(504, times=1))),
        "large": replace(OPEN, centre=centre, faults=Faults(cardinality_refused=Fault(413, times=1))),
        "jobs": replace(OPEN, centre=centre, cardinality=6),
        "slow_jobs": replace(OPEN, centre=centre, faults=Faults(server_error=Fault(504, times=1))),
    }
    settings: dict[str, dict[str, object]] = {name: {"flows": []} for name in orgs}
    settings["jobs"] = settings["slow_jobs"] = {"aggregates": "jobs"}
    async with Simulator(SimulatorConfig(orgs=orgs)) as simulator:
        assert await installation.run(simulator, settings, days=4) == 0
        requests = {name: [a for a in simulator.arrivals if a.org == name] for name in orgs}
        queries = {name: [a.status for a in requests[name] if a.kind == "aggregates"] for name in orgs}
        assert queries["bound"] == [400, 400, 200, 200, 200, 200]
        assert queries["slow"] == [504, 200]
        assert queries["large"] == [413, 200, 200]
        assert simulator.public.jobs["jobs"].begun == simulator.public.jobs["slow_jobs"].begun == 2
        assert simulator.fired == {"server_error": 2, "cardinality_refused": 1}
        assert {event["org"] for event in installation.events("retry_scheduled")} == {"slow"}
        simulator.arrivals.clear()
        installation.commit("UPDATE flow_outcomes.extraction_window SET requests = requests + 1")
        assert await installation.run(simulator, settings, days=4) == 0
        assert {a.status for a in simulator.arrivals if a.kind == "aggregates"} == {200}
    assert len({tuple(sorted(installation.counts(name).items())) for name in orgs}) == 1


async def test_a_limit_of_results_splits_a_query(installation: Installation) -> None:
    """In the words that an operator saw; queries and jobs."""
    plain = replace(OPEN, centre=GeneratedCentre(seed=7, flows=3, outcomes=2))
    orgs = {"plain": plain, "bound": replace(plain, result_limit=20), "jobs": replace(plain, result_limit=20)}
    async with Simulator(SimulatorConfig(orgs=orgs)) as simulator:
        shape = {"plain": {}, "bound": {}, "jobs": {"aggregates": "jobs"}}
        assert await installation.run(simulator, shape, days=12) == 0
        statuses = [a.status for a in simulator.arrivals if a.org == "bound" and a.kind == "aggregates"]
        assert 400 in statuses
        assert statuses.count(200) > 1
    assert installation.counts("bound") == installation.counts("jobs") == installation.counts("plain") != {}


async def test_a_width_after_an_outage_is_not_remembered(installation: Installation) -> None:
    """A 504 down to a single bucket fails the window; the next cycle starts with the complete query."""
    org = replace(OPEN, faults=Faults(server_error=Fault(504)))
    async with Simulator(SimulatorConfig(orgs={"acme": org})) as simulator:
        assert await installation.run(simulator, {"acme": {}}, days=4) == 1
        [row] = installation.rows("SELECT * FROM flow_outcomes.query_width")
        assert (row["served"], row["refused"]) == (None, None)
        simulator.switch("server_error", None)
        simulator.arrivals.clear()
        assert await installation.run(simulator, {"acme": {}}, days=4) == 0
        assert [a.status for a in simulator.arrivals if a.kind == "aggregates"] == [200]


async def test_one_bucket_that_is_too_large_fails_with_the_reason(installation: Installation) -> None:
    """``last_error`` and the log have the context id that Genesys support needs."""
    orgs = {"acme": replace(OPEN, centre=GeneratedCentre(seed=7, flows=3, outcomes=2), cardinality=1)}
    async with Simulator(SimulatorConfig(orgs=orgs)) as simulator:
        assert await installation.run(simulator, {"acme": {}}, days=2) == 1
    [window] = installation.rows("SELECT * FROM flow_outcomes.extraction_window")
    [failed] = installation.events("window_failed")
    assert window["state"] == "failed"
    assert "response.entity.too.large" in window["last_error"]
    assert f"[contextId {failed['context_id']}]" in window["last_error"]
    assert (failed["code"], failed["status"]) == ("response.entity.too.large", 400)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"permitted": False}, "analytics:flowAggregate:view"),
        ({"client_secret": "another-secret"}, "client_secret"),
    ],
)
async def test_a_missing_permission_or_wrong_secret_is_reported(
    installation: Installation, settings: dict[str, Any], reason: str
) -> None:
    """``last_error`` names it."""
    async with Simulator(SimulatorConfig(orgs={"acme": replace(OPEN, **settings)})) as simulator:
        code = await installation.run(simulator, {"acme": {"client_secret": "simulated-secret"}}, days=1)
    assert code == 1
    [window] = installation.rows("SELECT * FROM flow_outcomes.extraction_window")
    assert reason in window["last_error"]


async def test_a_lost_submission_is_sent_once(installation: Installation) -> None:
    """It is not retried; the window fails with the reason, and a later run completes it."""
    org = replace(OPEN, faults=Faults(job_lost=Fault(times=1)))
    async with Simulator(SimulatorConfig(orgs={"acme": org})) as simulator:
        jobs = simulator.public.jobs["acme"]
        assert await installation.run(simulator, {"acme": {"aggregates": "jobs"}}, days=1) == 1
        assert simulator.fired["job_lost"] == jobs.begun == jobs.most_alike == 1
        [failed] = installation.events("window_failed")
        assert "submission was lost" in failed["reason"]
        assert await installation.run(simulator, {"acme": {"aggregates": "jobs"}}, days=1) == 0
        assert (jobs.begun, jobs.deleted) == (2, 1)


async def test_a_balancer_that_resets_kept_connections(installation: Installation) -> None:
    """A job is submitted on a new connection, so that no submission is lost; polls and pages use kept ones."""
    org = replace(OPEN, faults=Faults(idle_reset=Fault()))
    async with Simulator(SimulatorConfig(orgs={"acme": org})) as simulator:
        jobs = simulator.public.jobs["acme"]
        for day in range(6, 10):
            first, name = date(2024, 5, day), f"day{day}"
            orgs = {"acme": {"aggregates": "jobs", "concurrency": 1}}
            assert await installation.run(simulator, orgs, days=1, name=name, first=first) == 0
        assert jobs.begun == jobs.most_alike * 4 == 4
        assert simulator.fired["idle_reset"] == 0
        assert await installation.run(simulator, {"acme": {"aggregates": "query"}}, days=4, name="query") == 0
        assert simulator.fired["idle_reset"] > 0


async def test_jobs_that_are_not_fulfilled(installation: Installation) -> None:
    """Restarted twice at most; no partial result is stored, and every job is deleted."""
    plain = replace(OPEN, centre=GeneratedCentre(seed=8, flows=6, outcomes=2))
    orgs = {name: replace(plain, faults=faults) for name, (faults, _, _) in JOB_FAULTS.items()}
    async with Simulator(SimulatorConfig(orgs={**orgs, "plain": plain})) as simulator:
        shape = {"aggregates": "jobs", "page_size": 10}
        assert await installation.run(simulator, {**dict.fromkeys(orgs, shape), "plain": {}}, days=2) == 1
        assert simulator.in_flight_violations == 0
        for name, (_, begun, completes) in JOB_FAULTS.items():
            jobs = simulator.public.jobs[name]
            assert (jobs.begun, len(jobs.known), jobs.most_alike) == (begun, 0, 1), name
            assert simulator.orgs[name].fired.total() >= 1, name
            assert installation.counts(name) == (installation.counts("plain") if completes else {}), name


async def test_an_invalid_page_stores_nothing(installation: Installation) -> None:
    """The window fails, and no part of it is stored."""
    elsewhere = "2024-05-06T01:00:00.000Z/2024-05-07T01:00:00.000Z"
    orgs = {
        name: replace(OPEN, faults=faults)
        for name, faults in {
            "shapeless": Faults(null_results=Fault({})),
            "html": Faults(not_json=Fault()),
            "differing": Faults(duplicate_different=Fault()),
            "garbage": Faults(bad_entry=Fault()),
            "zone": Faults(bad_interval=Fault(elsewhere)),
        }.items()
    }
    async with Simulator(SimulatorConfig(orgs=orgs)) as simulator:
        assert await installation.run(simulator, {name: {} for name in orgs}, days=1) == 1
        for name in orgs:
            assert simulator.orgs[name].fired.total() >= 1, name
            assert installation.stored(name) == {}, name
    assert {row["state"] for row in installation.rows("SELECT state FROM flow_outcomes.extraction_window")} == {
        "failed"
    }
    [html] = installation.rows("SELECT last_error FROM flow_outcomes.extraction_window WHERE org = 'html'")
    assert 'an HTML page came instead of JSON (text/html, "Please stand by' in html["last_error"]


async def test_an_invalid_entry_affects_only_its_figure(installation: Installation) -> None:
    """It is kept unchanged, its figure is null (a sum without a part would be wrong), the rest is stored."""
    plain = replace(OPEN, centre=GeneratedCentre(seed=8, flows=6, outcomes=2))
    orgs = {
        name: replace(plain, faults=Faults(**{fault: Fault(value, times=1)}))
        for name, fault, value in (
            ("count_text", "bad_count", "12"),
            ("count_null", "bad_count", "null"),
            ("count_below", "bad_count", -1),
            ("count_part", "bad_count", 1.5),
            ("metrics", "datum_without_metrics", 17),
            ("interval", "bad_interval", None),
            ("outside", "bucket_outside", None),
            ("flow", "missing_flow", None),
        )
    }
    async with Simulator(SimulatorConfig(orgs={**orgs, "plain": plain})) as simulator:
        assert await installation.run(simulator, {name: {} for name in [*orgs, "plain"]}, days=1) == 0
        assert [simulator.orgs[name].fired.total() for name in orgs] == [1] * len(orgs)
    complete = installation.counts("plain")
    for name in orgs:
        kept = installation.counts(name)
        assert len(complete) - len(kept) == 1, name
        assert kept.items() <= complete.items(), name
        assert len(installation.rows("SELECT * FROM flow_outcomes.rejected_entry WHERE org = %s", name)) == 1, name
        assert [event["org"] for event in installation.events("entry_rejected")].count(name) == 1, name


async def test_corrections_five_days_back_are_found(installation: Installation) -> None:
    """The default lookback of this API finds them; the other API's stays at three days."""
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    centre = StaticCentre({("f", today - day * DAY): {"o1": 3} for day in range(1, 12)})
    corrected = today - 6 * DAY
    async with Simulator(
        SimulatorConfig(orgs={name: replace(OPEN, centre=centre) for name in ("public", "own")})
    ) as (simulator):
        orgs = {"public": {}, "own": {"api": "query-builder"}}
        jobs = {"daily": {"since": (today - 11 * DAY).date()}}
        config = installation.configure(simulator, orgs, jobs=jobs)
        assert await installation.run_due(config) == 0
        centre.put("f", corrected, {"o1": 5})
        assert await installation.run_due(config) == 0
    for org, count in (("public", 5), ("own", 3)):
        [found] = [row for row in installation.stored(org).values() if row["bucket_start"] == corrected]
        assert found["outcome_count"] == count, org


async def test_a_configured_limit_is_not_raised_by_the_headers(installation: Installation) -> None:
    """One a second stays one a second where the API allows five."""
    org = replace(OPEN, requests_per_minute=300)
    async with Simulator(SimulatorConfig(orgs={"acme": org})) as simulator:
        assert await installation.run(simulator, {"acme": {"requests_per_second": 1}}, days=1) == 0
        times = [arrival.at for arrival in simulator.arrivals]
    assert installation.events("rate_limit_changed") == []
    assert len(times) >= 4
    assert all(after - before > 0.95 for before, after in pairwise(times))


async def test_the_limit_in_the_headers_applies(installation: Installation) -> None:
    """No 429 follows where it is far below the configured limit."""
    org = replace(
        OPEN, requests_per_minute=120, cardinality=1, centre=GeneratedCentre(seed=1, flows=1, outcomes=2)
    )
    async with Simulator(SimulatorConfig(orgs={"acme": org})) as simulator:
        assert await installation.run(simulator, {"acme": {}}, days=4) == 0
        assert [event["requests_per_second"] for event in installation.events("rate_limit_changed")] == [2]
        assert installation.events("rate_limited") == []
        times = [a.at for a in simulator.arrivals if a.kind != "token"][1:]
        assert len(times) == 8
        assert all(after - before > 1 for before, after in zip(times, times[2:], strict=False))


async def test_invalid_limit_headers_are_ignored(installation: Installation) -> None:
    """They change neither the limit nor the pace."""
    invalid = {"inin-ratelimit-allowed": "many", "inin-ratelimit-count": "-5", "inin-ratelimit-reset": "1e9"}
    org = replace(OPEN, faults=Faults(rate_headers=Fault(invalid)))
    async with Simulator(SimulatorConfig(orgs={"acme": org})) as simulator:
        assert await installation.run(simulator, {"acme": {}}, days=1) == 0
        assert simulator.fired["rate_headers"] > 1
    assert installation.events("rate_limit_changed") == installation.events("rate_limit_exhausted") == []


@pytest.mark.parametrize("aggregates", ["query", "jobs"])
async def test_check_reports_what_is_missing(installation: Installation, aggregates: str) -> None:
    """The lines of the other API with this API's permission; a job submitted for it is deleted."""
    orgs = {
        "acme": OPEN,
        "nameless": replace(OPEN, names_permitted=False),
        "forbidden": replace(OPEN, permitted=False),
    }
    async with Simulator(SimulatorConfig(orgs=orgs)) as simulator:
        config = installation.configure(simulator, {name: {"aggregates": aggregates} for name in orgs})
        found = [
            finding
            for org in config.orgs.values()
            for finding in await check_org_without_lease(org, SystemClock(), TokenRecorder())
        ]
        assert simulator.public.jobs["acme"].known == {}
    assert [(each.subject, each.ok) for each in found] == [
        ("acme token", True),
        ("acme permission", True),
        ("acme query", True),
        ("acme flow names", True),
        ("acme divisions", True),
        ("acme outcome names", True),
        ("acme retention", True),
        ("forbidden token", True),
        ("forbidden permission", False),
        ("nameless token", True),
        ("nameless permission", True),
        ("nameless query", True),
        ("nameless flow names", True),
        ("nameless divisions", True),
        ("nameless outcome names", True),
        ("nameless retention", True),
    ]
    assert "analytics:flowAggregate:view" in found[8].fix
    assert [bool(each.fix) for each in found[:6]] == [False] * 6
    for each, permission in ((found[-4], "architect:flow:view"), (found[-2], "architect:flowOutcome:view")):
        assert f"names cannot be read: {permission} is missing" in each.detail
        assert permission in each.fix
