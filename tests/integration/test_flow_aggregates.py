"""An org reached through the public API: the same figures, the same guarantees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from psycopg.rows import dict_row

from service.clock import SystemClock
from service.config import Config, load_config
from service.postgres.merge import staging
from service.runtime.once import run_once
from service.runtime.preflight import Steps, ask_alone
from service.simulator import (
    Fault,
    Faults,
    GeneratedCentre,
    SimulatedOrg,
    Simulator,
    SimulatorConfig,
    StaticCentre,
)
from service.simulator.flow_aggregates import split
from service.simulator.instants import milliseconds

FIRST = datetime(2024, 5, 6, tzinfo=UTC)
DAY = timedelta(days=1)
OPEN = SimulatedOrg(requests_per_second=None, requests_per_minute=None, job_polls=1)
Row = dict[str, Any]
Key = tuple[str, str, datetime, str]


class Desk:
    """Runs what is due with one configuration, and reads what is stored."""

    def __init__(self, folder: Path, dsn: str) -> None:
        self.file = folder / "flow-outcomes.yaml"
        self.dsn = dsn
        self.told: list[tuple[str, Row]] = []

    def configure(
        self, simulator: Simulator, orgs: Mapping[str, Mapping[str, object]], **ad_hoc: Mapping[str, object]
    ) -> Config:
        """Write the configuration, and read it."""
        tree = {
            "database": {"dsn": self.dsn},
            "orgs": {
                org: {
                    "api": "flow-aggregates",
                    "base_url": simulator.base_url,
                    "login_url": simulator.base_url,
                    "client_id": org,
                    "client_secret": simulator.orgs[org].settings.client_secret,
                    "requests_per_second": 500,
                    **settings,
                }
                for org, settings in orgs.items()
            },
            "ad_hoc": ad_hoc,
        }
        self.file.write_text(yaml.safe_dump(tree))
        return load_config(self.file, {})

    async def run(
        self,
        simulator: Simulator,
        orgs: Mapping[str, Mapping[str, object]],
        *,
        days: int = 10,
        granularity: str = "daily",
        name: str = "span",
        first: date = date(2024, 5, 6),
    ) -> int:
        """One catch-up of an ad hoc span for each org; the exit code."""
        span = {"from": first, "to": first + timedelta(days=days), "granularity": granularity}
        config = self.configure(simulator, orgs, **{f"{name}_{org}": {"org": org, **span} for org in orgs})
        self.told = []
        return await run_once(config, lambda event, **context: self.told.append((event, context)))

    def events(self, event: str) -> list[Row]:
        return [context for told, context in self.told if told == event]

    def rows(self, query: str, *parameters: object) -> list[Row]:
        with psycopg.connect(self.dsn, row_factory=dict_row, options="-c timezone=UTC") as connection:
            return connection.execute(query.encode(), parameters).fetchall()

    def stored(self, org: str) -> dict[Key, Row]:
        return {
            (row["flow_id"], row["granularity"], row["bucket_start"], row["outcome_name"]): row
            for row in self.rows("SELECT * FROM flow_outcomes.flow_outcome WHERE org = %s", org)
        }

    def counts(self, org: str) -> dict[Key, int]:
        """What was counted, zeros left out: one API tells them and the other does not."""
        return {key: row["outcome_count"] for key, row in self.stored(org).items() if row["outcome_count"]}

    def commit(self, statement: str) -> None:
        with psycopg.connect(self.dsn) as connection:
            connection.execute(statement.encode())


@pytest.fixture
def desk(tmp_path: Path, database: str) -> Desk:
    return Desk(tmp_path, database)


async def test_either_api_gives_the_same_counts(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Query, jobs with small pages, groups split by what was not asked for, and the query builder.

    However much of it is held in memory.
    """
    monkeypatch.setattr(staging, "MEMORY", 100)
    org = replace(OPEN, centre=GeneratedCentre(seed=5, flows=20, outcomes=2))
    orgs = {
        "builder": org,
        "query": org,
        "jobs": org,
        "media": replace(org, extra_dimension=True),
        "media_jobs": replace(org, extra_dimension=True),
    }
    async with Simulator(SimulatorConfig(orgs=orgs)) as simulator:
        code = await desk.run(
            simulator,
            {
                "builder": {"api": "query-builder"},
                "query": {},
                "jobs": {"aggregates": "jobs", "page_size": 70},
                "media": {},
                "media_jobs": {"aggregates": "jobs", "page_size": 70},
            },
        )
        assert (code, desk.events("window_failed")) == (0, [])
        jobs = simulator.public.jobs["media_jobs"]
        assert (jobs.begun, jobs.deleted, len(jobs.known)) == (1, 1, 0)
    expected = desk.counts("builder")
    assert len(expected) > 300
    for name in ("query", "jobs", "media", "media_jobs"):
        assert desk.counts(name) == expected, name
    by_part = desk.stored("media_jobs")
    for key, row in desk.stored("query").items():
        other = by_part[key]
        for column in ("success_count", "failure_count", "outcome_id", "outcome_share", "outcome_percentage"):
            assert row[column] == other[column], (key, column)
        bucket = milliseconds(row["bucket_start"]), milliseconds(row["bucket_end"])
        values = split(org.centre or simulator.orgs["query"].centre, key[0], bucket, 2**60)[row["outcome_id"]]
        assert (row["success_count"], row["failure_count"]) == (
            values.get("SUCCESS", 0),
            values.get("FAILURE", 0),
        )
    assert {row["outcome_id"] for row in desk.stored("builder").values()} == {None}


async def test_hours_and_months_of_a_time_zone(desk: Desk) -> None:
    """Cut where the org's time zone does, over a change of the clocks, flows named or not."""
    centre = GeneratedCentre(seed=6, flows=4, outcomes=2)
    org = replace(OPEN, centre=centre, timezone="Europe/Berlin")
    orgs = {"builder": org, "query": org, "jobs": org}
    flows = [flow.id for flow in centre.flows()][:3]
    shape = {"timezone": "Europe/Berlin", "flows": flows}
    async with Simulator(SimulatorConfig(orgs=orgs)) as simulator:
        for granularity, days in (("hourly", 3), ("daily", 20), ("monthly", 60)):
            code = await desk.run(
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
            assert (code, desk.events("window_failed")) == (0, [])
    expected = desk.counts("builder")
    assert {key[0] for key in expected} == set(flows)
    assert desk.counts("query") == desk.counts("jobs") == expected


async def test_what_is_too_large_is_halved_and_remembered(desk: Desk) -> None:
    """Down to single buckets, for 413 and 504 alike; the next cycle does not ask the whole again."""
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
        assert await desk.run(simulator, settings, days=4) == 0
        asked = {name: [a for a in simulator.arrivals if a.org == name] for name in orgs}
        queries = {name: [a.status for a in asked[name] if a.kind == "aggregates"] for name in orgs}
        assert queries["bound"] == [400, 400, 200, 200, 400, 200, 200]
        assert queries["slow"] == [504, 200, 200]
        assert queries["large"] == [413, 200, 200]
        assert simulator.public.jobs["jobs"].begun == simulator.public.jobs["slow_jobs"].begun == 2
        assert simulator.fired == {"server_error": 2, "cardinality_refused": 1}
        assert not desk.events("retry_scheduled")
        simulator.arrivals.clear()
        desk.commit("UPDATE flow_outcomes.extraction_window SET requests = requests + 1")
        assert await desk.run(simulator, settings, days=4) == 0
        assert {a.status for a in simulator.arrivals if a.kind == "aggregates"} == {200}
    assert len({tuple(sorted(desk.counts(name).items())) for name in orgs}) == 1


async def test_a_bad_hour_of_the_servers_is_not_remembered(desk: Desk) -> None:
    """A 504 down to a single bucket fails the window; the next cycle asks the whole again."""
    org = replace(OPEN, faults=Faults(server_error=Fault(504)))
    async with Simulator(SimulatorConfig(orgs={"acme": org})) as simulator:
        assert await desk.run(simulator, {"acme": {}}, days=4) == 1
        assert desk.rows("SELECT * FROM flow_outcomes.query_cut") == []
        simulator.switch("server_error", None)
        simulator.arrivals.clear()
        assert await desk.run(simulator, {"acme": {}}, days=4) == 0
        assert [a.status for a in simulator.arrivals if a.kind == "aggregates"] == [200]


async def test_one_bucket_that_is_too_large_fails_with_the_reason(desk: Desk) -> None:
    """With what support asks for in last_error and in the log."""
    orgs = {"acme": replace(OPEN, centre=GeneratedCentre(seed=7, flows=3, outcomes=2), cardinality=1)}
    async with Simulator(SimulatorConfig(orgs=orgs)) as simulator:
        assert await desk.run(simulator, {"acme": {}}, days=2) == 1
    [window] = desk.rows("SELECT * FROM flow_outcomes.extraction_window")
    [failed] = desk.events("window_failed")
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
async def test_who_may_not_ask_is_told_what_is_missing(desk: Desk, settings: dict[str, Any], reason: str) -> None:
    """In plain words."""
    async with Simulator(SimulatorConfig(orgs={"acme": replace(OPEN, **settings)})) as simulator:
        code = await desk.run(simulator, {"acme": {"client_secret": "simulated-secret"}}, days=1)
    assert code == 1
    [window] = desk.rows("SELECT * FROM flow_outcomes.extraction_window")
    assert reason in window["last_error"]


async def test_a_job_whose_answer_was_lost_is_begun_once(desk: Desk) -> None:
    """It is not sent again blindly; the window fails with the reason, and a later run brings it in."""
    org = replace(OPEN, faults=Faults(job_lost=Fault(times=1)))
    async with Simulator(SimulatorConfig(orgs={"acme": org})) as simulator:
        jobs = simulator.public.jobs["acme"]
        assert await desk.run(simulator, {"acme": {"aggregates": "jobs"}}, days=1) == 1
        assert simulator.fired["job_lost"] == jobs.begun == jobs.most_alike == 1
        [failed] = desk.events("window_failed")
        assert "submission was lost" in failed["reason"]
        assert await desk.run(simulator, {"acme": {"aggregates": "jobs"}}, days=1) == 0
        assert (jobs.begun, jobs.deleted) == (2, 1)


JOB_FAULTS = {
    "expired": (Faults(job_state=Fault("EXPIRED", times=1)), 2, True),
    "failed": (Faults(job_state=Fault("FAILED", times=2)), 3, True),
    "cancelled": (Faults(job_state=Fault("CANCELLED")), 3, False),
    "cursor": (Faults(cursor_expired=Fault(times=1)), 2, True),
    "repeated": (Faults(repeated_token=Fault(page=2, times=1)), 1, False),
    "refused": (Faults(job_refused=Fault(times=1)), 1, True),
    "shapeless": (Faults(missing_data=Fault(page=2, times=1)), 1, False),
    "unavailable": (Faults(server_error=Fault(503, page=2, times=2)), 1, True),
    "broken": (Faults(connection_reset=Fault(page=2, times=1)), 1, True),
}
"""What befalls a job, how many are begun for it, and whether it ends well."""


async def test_jobs_that_end_otherwise(desk: Desk) -> None:
    """Begun again, twice at most; nothing is stored in part, and every job is deleted."""
    plain = replace(OPEN, centre=GeneratedCentre(seed=8, flows=6, outcomes=2))
    orgs = {name: replace(plain, faults=faults) for name, (faults, _, _) in JOB_FAULTS.items()}
    async with Simulator(SimulatorConfig(orgs={**orgs, "plain": plain})) as simulator:
        shape = {"aggregates": "jobs", "page_size": 10}
        assert await desk.run(simulator, {**dict.fromkeys(orgs, shape), "plain": {}}, days=2) == 1
        assert simulator.in_flight_violations == 0
        for name, (_, begun, ends_well) in JOB_FAULTS.items():
            jobs = simulator.public.jobs[name]
            assert (jobs.begun, len(jobs.known), jobs.most_alike) == (begun, 0, 1), name
            assert simulator.orgs[name].fired.total() >= 1, name
            assert desk.counts(name) == (desk.counts("plain") if ends_well else {}), name


async def test_a_page_at_fault_stores_nothing(desk: Desk) -> None:
    """The window fails, and is not believed in part."""
    elsewhere = "2024-05-06T01:00:00.000Z/2024-05-07T01:00:00.000Z"
    orgs = {
        name: replace(OPEN, faults=faults)
        for name, faults in {
            "shapeless": Faults(missing_data=Fault()),
            "html": Faults(not_json=Fault()),
            "differing": Faults(duplicate_different=Fault()),
            "garbage": Faults(bad_entry=Fault()),
            "zone": Faults(bad_interval=Fault(elsewhere)),
        }.items()
    }
    async with Simulator(SimulatorConfig(orgs=orgs)) as simulator:
        assert await desk.run(simulator, {name: {} for name in orgs}, days=1) == 1
        for name in orgs:
            assert simulator.orgs[name].fired.total() >= 1, name
            assert desk.stored(name) == {}, name
    assert {row["state"] for row in desk.rows("SELECT state FROM flow_outcomes.extraction_window")} == {"failed"}


async def test_an_entry_at_fault_costs_its_figure_alone(desk: Desk) -> None:
    """It is kept as it came, what lacks it is null (a sum without a part is no figure), the rest is stored."""
    plain = replace(OPEN, centre=GeneratedCentre(seed=8, flows=6, outcomes=2))
    orgs = {
        name: replace(plain, faults=Faults(**{fault: Fault(value, times=1)}))
        for name, fault, value in (
            ("count_text", "bad_count", "12"),
            ("count_null", "bad_count", "null"),
            ("count_below", "bad_count", -1),
            ("count_part", "bad_count", 1.5),
            ("failed", "bad_failed", None),
            ("interval", "bad_interval", None),
            ("outside", "bucket_outside", None),
            ("flow", "missing_flow", None),
        )
    }
    async with Simulator(SimulatorConfig(orgs={**orgs, "plain": plain})) as simulator:
        assert await desk.run(simulator, {name: {} for name in [*orgs, "plain"]}, days=1) == 0
        assert [simulator.orgs[name].fired.total() for name in orgs] == [1] * len(orgs)
    whole = desk.counts("plain")
    for name in orgs:
        kept = desk.counts(name)
        assert len(whole) - len(kept) == 1, name
        assert kept.items() <= whole.items(), name
        assert len(desk.rows("SELECT * FROM flow_outcomes.rejected_entry WHERE org = %s", name)) == 1, name
        assert [event["org"] for event in desk.events("entry_rejected")].count(name) == 1, name


async def test_equal_groups_count_once(desk: Desk) -> None:
    """The same part twice is no second part; fields that nobody knows do no harm."""
    org = replace(OPEN, centre=GeneratedCentre(seed=8, flows=6, outcomes=2))
    twice = replace(org, faults=Faults(duplicate_equal=Fault(), extra_fields=Fault()), extra_dimension=True)
    async with Simulator(SimulatorConfig(orgs={"plain": org, "twice": twice})) as simulator:
        assert await desk.run(simulator, {"plain": {}, "twice": {}}, days=2) == 0
        assert simulator.fired["duplicate_equal"] == simulator.fired["extra_fields"] == 1
    assert desk.counts("plain") == desk.counts("twice") != {}


async def test_a_rename_takes_hold_of_the_whole_series(desk: Desk) -> None:
    """By id, without an alias; back again is no circle; aliases apply after; an old name may be taken anew."""
    centre = StaticCentre({("f", FIRST + day * DAY): {"o1": 3, "o2": 1} for day in range(2)})
    centre.entitle("o1", "Paid")
    async with Simulator(SimulatorConfig(orgs={"acme": replace(OPEN, centre=centre)})) as simulator:

        async def again(**names: str) -> set[tuple[str, int]]:
            for outcome, name in names.items():
                centre.entitle(outcome, name)
            desk.commit("UPDATE flow_outcomes.extraction_window SET requests = requests + 1")
            assert await desk.run(simulator, {"acme": {}}, days=2) == 0
            return {(key[3], count) for key, count in desk.counts("acme").items()}

        assert await again() == {("Paid", 3), ("o2", 1)}
        assert desk.rows("SELECT flow_id, name FROM flow_outcomes.flow") == [{"flow_id": "f", "name": "f"}]
        [before] = desk.rows("SELECT clock_timestamp() AS at")
        assert await again(o1="Settled") == {("Settled", 3), ("o2", 1)}
        assert desk.events("outcomes_renamed") == [{"org": "acme", "outcomes": 1}]
        then = desk.rows("SELECT DISTINCT outcome_name FROM flow_outcomes.flow_outcome_as_of(%s)", before["at"])
        assert {row["outcome_name"] for row in then} == {"Paid", "o2"}
        assert await again(o1="Paid") == {("Paid", 3), ("o2", 1)}
        assert await again(o1="Settled", o2="Paid") == {("Settled", 3), ("Paid", 1)}
        assert await again(o1="Paid") == {("Paid", 4)}
        desk.commit("INSERT INTO flow_outcomes.outcome_alias VALUES ('acme', NULL, 'Settled', 'Done')")
        assert await again(o1="Settled", o2="Other") == {("Done", 3), ("Other", 1)}
        centre.put("f", FIRST + DAY, {"o1": 3, "o2": 1, "o3": 9})
        assert await again(o3="Settled") == {("Done", 3), ("Done", 12), ("Other", 1)}
    assert desk.rows("SELECT * FROM flow_outcomes.restatement WHERE outcome_name <> 'Done'") == []
    ids = desk.rows("SELECT DISTINCT outcome_id FROM flow_outcomes.outcome ORDER BY 1")
    assert [row["outcome_id"] for row in ids] == ["o1", "o2", "o3"]


async def test_without_permission_the_ids_serve(desk: Desk) -> None:
    """One warning that names both permissions, and nothing fails; with it, later, the names take hold."""
    centre = StaticCentre({("f", FIRST): {"o1": 3}})
    centre.entitle("o1", "Paid")
    org = replace(OPEN, centre=centre)
    async with Simulator(SimulatorConfig(orgs={"acme": replace(org, names_permitted=False)})) as simulator:
        assert await desk.run(simulator, {"acme": {}}, days=1) == 0
    assert {key[3] for key in desk.counts("acme")} == {"o1"}
    [warning] = desk.events("names_unavailable")
    assert "architect:flow:view" in warning["reason"]
    assert "architect:flowOutcome:view" in warning["reason"]
    async with Simulator(SimulatorConfig(orgs={"acme": org})) as simulator:
        desk.commit("UPDATE flow_outcomes.extraction_window SET requests = requests + 1")
        assert await desk.run(simulator, {"acme": {}}, days=1) == 0
    assert {key[3] for key in desk.counts("acme")} == {"Paid"}
    assert desk.events("names_unavailable") == []


async def test_what_the_answers_say_of_the_limit_rules(desk: Desk) -> None:
    """For the org as a whole: no 429 comes of a limit that is far below the configured one."""
    org = replace(
        OPEN, requests_per_minute=120, cardinality=1, centre=GeneratedCentre(seed=1, flows=1, outcomes=2)
    )
    async with Simulator(SimulatorConfig(orgs={"acme": org})) as simulator:
        assert await desk.run(simulator, {"acme": {}}, days=4) == 0
        assert [event["requests_per_second"] for event in desk.events("rate_limit_changed")] == [2]
        assert desk.events("rate_limited") == []
        told = [a.at for a in simulator.arrivals if a.kind != "token"][1:]
        assert len(told) == 8
        assert all(after - before > 1 for before, after in zip(told, told[2:], strict=False))


async def test_headers_that_make_no_sense_are_ignored(desk: Desk) -> None:
    """They neither stop nor hasten anything."""
    junk = {"inin-ratelimit-allowed": "many", "inin-ratelimit-count": "-5", "inin-ratelimit-reset": "1e9"}
    org = replace(OPEN, faults=Faults(rate_headers=Fault(junk)))
    async with Simulator(SimulatorConfig(orgs={"acme": org})) as simulator:
        assert await desk.run(simulator, {"acme": {}}, days=1) == 0
        assert simulator.fired["rate_headers"] > 1
    assert desk.events("rate_limit_changed") == desk.events("rate_limit_exhausted") == []


@pytest.mark.parametrize("aggregates", ["query", "jobs"])
async def test_check_says_what_is_missing(desk: Desk, aggregates: str) -> None:
    """The same lines as for the other API, with this one's permission; a job that was begun for it is deleted."""
    orgs = {"acme": OPEN, "forbidden": replace(OPEN, permitted=False)}
    async with Simulator(SimulatorConfig(orgs=orgs)) as simulator:
        config = desk.configure(simulator, {name: {"aggregates": aggregates} for name in orgs})
        found = [
            finding for org in config.orgs.values() for finding in await ask_alone(org, SystemClock(), Steps())
        ]
        assert simulator.public.jobs["acme"].known == {}
    assert [(each.about, each.good) for each in found] == [
        ("acme token", True),
        ("acme permission", True),
        ("acme query", True),
        ("forbidden token", True),
        ("forbidden permission", False),
    ]
    assert "analytics:flowAggregate:view" in found[-1].mend
