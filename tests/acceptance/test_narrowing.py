"""Queries that are too wide for a gateway, or for an API that says so in any words, are narrowed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta

import pytest

from service.simulator import Fault, Faults, SimulatedOrg, Simulator, SimulatorConfig, StaticCentre
from tests.acceptance.test_clocks import wait_until
from tests.support.program import Program, today

DAYS = 12
FLOWS = [f"flow-{number}" for number in range(3)]
OPEN = SimulatedOrg(requests_per_second=None, requests_per_minute=None, job_polls=0)
APIS = ("query-builder", "flow-aggregates")
OPERATOR = {"over": 3, "code": "bad.request", "message": "Result set is larger than result limit of 30000"}
UNFORESEEN = {"over": 3}


def centre(days: int = DAYS) -> StaticCentre:
    """Each flow reached an outcome once a day, so that a day has three results on either API."""
    return StaticCentre(
        {
            (flow, today() - timedelta(days=back) + timedelta(hours=1)): {"A": 1}
            for flow in FLOWS
            for back in range(1, days + 2)
        }
    )


def refusals() -> dict[str, Faults]:
    """A server for each kind of refusal of more than one day."""
    one_day = {"hours": 25}  # a day of 25 hours passes
    return {
        "operator": Faults(result_limit=Fault(OPERATOR)),
        "quota": Faults(result_limit=Fault(UNFORESEEN)),
        "quota_span": Faults(span_limit=Fault({**one_day, "status": 400})),
        "gateway_504": Faults(span_limit=Fault(one_day)),
        "gateway_413": Faults(span_limit=Fault({**one_day, "status": 413})),
        "reset": Faults(span_limit=Fault({**one_day, "status": "reset"})),
        "two_days": Faults(span_limit=Fault({"hours": 49})),
        "three_days": Faults(span_limit=Fault({"hours": 73, "status": 400})),
    }


LEAST = Counter({"two_days": DAYS // 2, "three_days": DAYS // 3})
FIRED = {"operator": "result_limit", "quota": "result_limit"}


def queries(simulator: Simulator, org: str) -> list[tuple[str, int]]:
    """Digest and status of each query of an org."""
    kinds = ("query", "aggregates")
    return [(each.digest, each.status) for each in simulator.arrivals if each.org == org and each.kind in kinds]


def configure(program: Program, simulator: Simulator, api: str, **job: object) -> None:
    """An org for each server, and one daily job."""
    program.configure(
        simulator,
        orgs={name: {"api": api, "breaker": {"failures": 2, "open_for": "PT30S"}} for name in simulator.orgs},
        jobs={"daily": {"since": f"P{DAYS}D", "off_peak": None, "lookback": "P3D", **job}},
    )


def assert_complete(program: Program, simulator: Simulator, org: str) -> None:
    """Every due window is complete, with the source's figures."""
    windows = program.windows(org)
    assert {each["state"] for each in windows} == {"complete"}, (org, windows)
    start, end = windows[0]["window_start"], windows[-1]["window_end"]
    truth = simulator.truth(start, end, "daily", org=org)
    names = {row["outcome_name"] for row in program.stored(org, "daily").values()}
    stored = {
        (key[0], key[1]): row["outcome_count"]
        for key, row in program.stored(org, "daily").items()
        if row["outcome_count"] is not None
    }
    assert stored == {(flow, at): count for (flow, at, _), (count, _) in truth.items()}, (org, names)
    assert len(stored) >= 3 * (DAYS - 1)


@pytest.mark.parametrize("api", APIS)
async def test_a_backlog_that_is_refused_in_any_words_is_complete(program: Program, api: str) -> None:
    """With at most twice the requests that the least needs; the second run sends nothing that is refused."""
    orgs = {name: replace(OPEN, centre=centre(), faults=faults) for name, faults in refusals().items()}
    async with Simulator(SimulatorConfig(orgs=orgs)) as simulator:
        configure(program, simulator, api)
        ended = await program.run("run", "--once")
        assert (ended.code, ended.err) == (0, ""), ended.failures()
        assert ended.find_events("circuit_opened") == []
        for name in orgs:
            assert simulator.orgs[name].fired[FIRED.get(name, "span_limit")], name
            assert_complete(program, simulator, name)
            sent = queries(simulator, name)
            assert len({digest for digest, _ in sent}) <= 2 * (LEAST[name] or DAYS), (name, sent)
            repeated = Counter(digest for digest, _ in sent)
            gateway = name.startswith(("gateway", "reset", "two_days"))
            assert max(repeated.values()) == (2 if gateway else 1), name
        simulator.arrivals.clear()
        assert (await program.run("run", "--once")).code == 0
        for name in orgs:
            assert {status for _, status in queries(simulator, name)} == {200}, name
            assert_complete(program, simulator, name)


@pytest.mark.parametrize("api", APIS)
async def test_an_org_that_is_up_to_date_meets_a_gateway(program: Program, api: str) -> None:
    """Its new day is joined with the lookback; in the daemon all of it is read, and the breaker stays closed."""
    orgs = {name: replace(OPEN, centre=centre()) for name in ("gateway_504", "reset", "quota_span")}
    async with Simulator(SimulatorConfig(orgs=orgs)) as simulator:
        configure(program, simulator, api, retry_every="PT1S")
        assert (await program.run("run", "--once")).code == 0
        for name in orgs:
            simulator.switch("span_limit", refusals()[name].span_limit, org=name)
        program.rows(
            """
            UPDATE flow_outcomes.extraction_window SET state = 'pending', completed_at = NULL
            WHERE window_start = (SELECT max(window_start) FROM flow_outcomes.extraction_window) RETURNING 1
            """
        )
        simulator.arrivals.clear()
        running = await program.start("run")
        await wait_until(lambda: {each["state"] for each in program.windows()} == {"complete"}, "all complete")
        running.process.terminate()
        ended = await running.end()
        assert ended.code == 0
        assert ended.find_events("circuit_opened") == []
        for name in orgs:
            assert simulator.orgs[name].fired["span_limit"], name
            assert ended.find_events("query_narrowed", org=name)
            assert_complete(program, simulator, name)


@pytest.mark.parametrize("api", APIS)
async def test_a_refusal_that_is_no_matter_of_width(program: Program, api: str) -> None:
    """No flood: one bucket is refused, the others are not narrowed; the next cycle begins with one window."""
    words: Mapping[str, Mapping[str, object]] = {
        "always": {"hours": 0},
        "syntax": {"hours": 25, "code": "bad.request", "message": "Invalid query: unknown field groupBy"},
        "permission": {"hours": 25, "message": "You do not have the permission to see this much"},
        "credentials": {"hours": 25, "message": "The client credentials are not valid for this span"},
    }
    orgs = {
        name: replace(OPEN, centre=centre(), faults=Faults(span_limit=Fault({"status": 400, **value})))
        for name, value in words.items()
    }
    async with Simulator(SimulatorConfig(orgs=orgs)) as simulator:
        configure(program, simulator, api)
        first = await program.run("run", "--once")
        assert first.code == 1
        assert len(queries(simulator, "always")) <= 3
        for name in ("syntax", "permission", "credentials"):
            assert [status for _, status in queries(simulator, name)] == [200, 400], name
            assert first.find_events("query_narrowed", org=name) == []
        simulator.arrivals.clear()
        assert (await program.run("run", "--once")).code == 1
        assert len(queries(simulator, "always")) <= 3
        simulator.switch("span_limit", None)
        assert (await program.run("run", "--once")).code == 0
        for name in orgs:
            assert_complete(program, simulator, name)


@pytest.mark.parametrize("api", [*APIS, "jobs"])
async def test_windows_that_are_wider_than_what_passes(program: Program, api: str) -> None:
    """A week at a server that allows a day, a day of hours at one that allows six; also as jobs."""
    settings = {"api": "flow-aggregates", "aggregates": "jobs"} if api == "jobs" else {"api": api}
    limits: Mapping[str, Mapping[str, object]] = {
        "quota": {"status": 400},
        "gateway": {},
        "reset": {"status": "reset"},
    }
    shapes = {
        "week": ({"window": "week", "since": "P14D"}, 25),
        "hourly": ({"window": "day", "granularity": "hourly", "since": "P3D"}, 6),
    }
    orgs = {
        f"{name}_{shape}": replace(
            OPEN, centre=centre(21), faults=Faults(span_limit=Fault({**limit, "hours": hours}))
        )
        for name, limit in limits.items()
        for shape, (_, hours) in shapes.items()
    }
    async with Simulator(SimulatorConfig(orgs=orgs)) as simulator:
        program.configure(
            simulator,
            orgs=dict.fromkeys(orgs, settings),
            jobs={
                shape: {"orgs": [org for org in orgs if org.endswith(shape)], "off_peak": None, **job}
                for shape, (job, _) in shapes.items()
            },
        )
        ended = await program.run("run", "--once")
        assert (ended.code, ended.err) == (0, ""), ended.failures()
        assert ended.find_events("circuit_opened") == []
        for name in orgs:
            assert simulator.orgs[name].fired["span_limit"], name
            windows = program.windows(name)
            truth = simulator.truth(
                windows[0]["window_start"], windows[-1]["window_end"], windows[0]["granularity"], org=name
            )
            counts = [row["outcome_count"] for row in program.stored(name, windows[0]["granularity"]).values()]
            assert sum(count for count in counts if count) == sum(count for count, _ in truth.values()) > 0, name
        fired = Counter(simulator.fired)
        assert (await program.run("run", "--once")).code == 0
        assert simulator.fired == fired, "what was learned was forgotten"


async def test_jobs_that_fail_in_unforeseen_words(program: Program) -> None:
    """A job over more than a day fails after it was accepted: its query is narrowed, and the width is kept."""
    orgs = {
        "acme": replace(OPEN, centre=centre(), faults=Faults(job_result_limit=Fault(3))),
        "never": replace(OPEN, centre=centre(), faults=Faults(job_state=Fault("FAILED"))),
    }
    async with Simulator(SimulatorConfig(orgs=orgs)) as simulator:
        program.configure(
            simulator,
            orgs={name: {"api": "flow-aggregates", "aggregates": "jobs"} for name in orgs},
            jobs={"daily": {"since": f"P{DAYS}D", "off_peak": None, "lookback": "P3D"}},
        )
        assert (await program.run("run", "--once")).code == 1
        assert_complete(program, simulator, "acme")
        begun = {name: simulator.public.jobs[name].begun for name in orgs}
        assert begun["acme"] <= 2 * DAYS
        refused = simulator.orgs["acme"].fired["job_result_limit"]
        assert 1 <= refused <= 4, "by halves"
        assert begun["never"] <= 3 * (DAYS + 1), "no flood"
        assert {each["state"] for each in program.windows("never")} == {"failed"}
        assert "the query could not be run" in program.windows("never")[0]["last_error"]
        assert (await program.run("run", "--once")).code == 1
        assert simulator.orgs["acme"].fired["job_result_limit"] == refused, "what was learned was forgotten"


@pytest.mark.parametrize("api", [*APIS, "jobs"])
async def test_a_query_without_a_response_is_narrower_in_the_next_run(program: Program, api: str) -> None:
    """Not in the same one; it counts for the breaker."""
    settings = {"api": "flow-aggregates", "aggregates": "jobs"} if api == "jobs" else {"api": api}
    org = replace(OPEN, centre=centre(), faults=Faults(span_limit=Fault({"hours": 25, "status": "none"})))
    async with Simulator(SimulatorConfig(orgs={"acme": org})) as simulator:
        program.configure(
            simulator,
            orgs={"acme": {**settings, "query_timeout": "PT1S"}},
            jobs={"daily": {"since": f"P{DAYS}D", "off_peak": None, "lookback": "P3D"}},
        )
        assert (await program.run("run", "--once")).code == 1
        assert simulator.fired == {"span_limit": 1}
        ended = await program.run("run", "--once")
        assert (ended.code, ended.err) == (0, ""), ended.failures()
        assert simulator.fired == {"span_limit": 1}
        assert_complete(program, simulator, "acme")
