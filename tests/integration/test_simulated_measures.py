"""The simulated flow-aggregates API over HTTP: every dimension and metric, its faults, names of milestones."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import aiohttp
import pytest

from service.simulator import (
    Fault,
    Faults,
    GeneratedCentre,
    SimulatedOrg,
    Simulator,
    SimulatorConfig,
    StaticCentre,
)
from service.simulator.aggregates_query import DIMENSIONS
from service.simulator.flow_measures import METRICS
from service.simulator.record_traits import flow_traits

QUERY = "/api/v2/analytics/flows/aggregates/query"
JOBS = "/api/v2/analytics/flows/aggregates/jobs"
MILESTONES = "/api/v2/flows/milestones"
START, END = datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 31, tzinfo=UTC)
BODY = {"interval": "2024-01-01T00:00:00.000Z/2024-01-31T00:00:00.000Z", "granularity": "P1D"}
Answer = tuple[int, Any]


class Client:
    """A client of one org that returns responses unchecked."""

    def __init__(self, simulator: Simulator, session: aiohttp.ClientSession) -> None:
        self.simulator = simulator
        self.session = session
        self.headers: dict[str, str] = {}

    async def authorize(self) -> None:
        secret = aiohttp.encode_basic_auth("acme", "simulated-secret")
        form = {"grant_type": "client_credentials"}
        url = self.simulator.base_url + "/oauth/token"
        async with self.session.post(url, data=form, headers={"Authorization": secret}) as response:
            self.headers = {"Authorization": f"Bearer {(await response.json())['access_token']}"}

    async def get(self, path: str) -> Answer:
        async with self.session.get(self.simulator.base_url + path, headers=self.headers) as response:
            return response.status, json.loads(await response.read())

    async def post(self, path: str, group_by: object, metrics: object) -> Answer:
        body = {**BODY, "groupBy": group_by, "metrics": metrics}
        async with self.session.post(self.simulator.base_url + path, json=body, headers=self.headers) as response:
            return response.status, json.loads(await response.read())

    async def job(self, group_by: object, metrics: object) -> Answer:
        """Return a job's first page, or the refusal."""
        status, answer = await self.post(JOBS, group_by, metrics)
        return (status, answer) if "jobId" not in answer else await self.get(f"{JOBS}/{answer['jobId']}/results")


@asynccontextmanager
async def connect(**settings: Any) -> AsyncIterator[tuple[Simulator, Client]]:  # noqa: ANN401 - passed on
    org = SimulatedOrg(requests_per_second=None, requests_per_minute=None, job_polls=0, **settings)
    async with Simulator(SimulatorConfig(orgs={"acme": org})) as simulator, aiohttp.ClientSession() as session:
        client = Client(simulator, session)
        await client.authorize()
        yield simulator, client


def measures(answer: Any, dimensions: tuple[str, ...]) -> dict[tuple[tuple[str | None, ...], str, str], Any]:  # noqa: ANN401 - JSON
    """Return stats by group, start of the bucket, and metric."""
    return {
        (
            tuple(result["group"].get(name) for name in dimensions),
            datum["interval"].partition("/")[0],
            metric["metric"],
        ): metric["stats"]
        for result in answer["results"]
        for datum in result["data"]
        for metric in datum["metrics"]
    }


async def test_every_dimension_and_metric_is_accepted() -> None:
    """By queries and jobs; a name in neither enumeration is an invalid value."""
    async with connect(flows=3) as (_, client):
        for name in DIMENSIONS:
            for answer in (await client.post(QUERY, [name], ["nFlow"]), await client.job([name], ["nFlow"])):
                assert answer[0] == 200, name
        for metric in METRICS:
            status, answer = await client.post(QUERY, ["flowId"], [metric])
            [*groups] = answer["results"]
            assert (status, len(groups)) == (200, 3 if "Milestone" not in metric else len(groups)), metric
        for group_by, metrics in (
            (["flowID"], ["nFlow"]),
            (["flowOutcomeName"], ["nFlow"]),
            ([None], ["nFlow"]),
            (["flowId"], ["nFlows"]),
            (["flowId"], ["oFlow"]),
        ):
            for answer in (await client.post(QUERY, group_by, metrics), await client.job(group_by, metrics)):
                assert (answer[0], answer[1]["code"]) == (400, "invalid.value"), (group_by, metrics)


async def test_a_response_has_the_measures_of_the_centre() -> None:
    """Queries and jobs, and the simulator's own endpoint; a dimension that a group lacks is absent."""
    dimensions = ("flowId", "flowOutcomeId", "flowVersion", "messageType")
    metrics = ["nFlowOutcome", "tFlowOutcome"]
    async with connect(centre=GeneratedCentre(3, flows=12, outcomes=2)) as (simulator, client):
        status, answer = await client.post(QUERY, dimensions, metrics)
        assert status == 200
        found = measures(answer, dimensions)
        truth = simulator.measure((START, END), "daily", dimensions, metrics)
        assert {key: stats["count"] for key, stats in found.items()} == {
            (each.group, each.bucket_start.strftime("%Y-%m-%dT%H:%M:%S.000Z"), each.metric): stats[0]
            for each, stats in truth.items()
        }
        assert all(None not in result["group"].values() for result in answer["results"])
        assert {len(result["group"]) for result in answer["results"]} == {3, 4}
        for (_, _, metric), stats in found.items():
            assert list(stats) == (["count"] if metric[0] == "n" else ["max", "min", "count", "sum"])
        for result in answer["results"]:
            assert [name for name in sorted(DIMENSIONS) if name in result["group"]] == list(result["group"])
        pages = await client.post(JOBS, dimensions, metrics)
        assert pages[0] == 202
        query = "&".join(
            [
                "org=acme&from=2024-01-01T00:00Z&to=2024-01-31T00:00Z&granularity=daily",
                *(f"group_by={name}" for name in dimensions),
                *(f"metric={name}" for name in metrics),
            ]
        )
        status, rows = await client.get(f"/_simulator/measures?{query}")
        assert (status, len(rows)) == (200, len(found))
        for row in rows:
            key = tuple(row["group"][name] for name in dimensions), row["bucket_start"], row["metric"]
            assert row["stats"] == found[key]


async def test_counts_agree_with_the_query_builder() -> None:
    """Outcome by outcome, summed over every further dimension."""
    async with connect(centre=GeneratedCentre(3, flows=6, outcomes=3)) as (simulator, client):
        by_id = {outcome.id: outcome.name for outcome in simulator.orgs["acme"].centre.outcomes(2**42)}
        truth = simulator.truth(START, END, "daily")
        campaigns = {name for _, _, name in truth} - set(by_id.values())
        dimensions = ("flowId", "flowOutcomeId", "mediaType", "flowVersion", "startingLanguage")
        _, answer = await client.post(QUERY, dimensions, ["nFlowOutcome"])
        counts: dict[tuple[str | None, str, str], int] = {}
        for (group, start, _), stats in measures(answer, dimensions).items():
            key = group[0], start, by_id[str(group[1])]
            counts[key] = counts.get(key, 0) + stats["count"]
        expected = {
            (flow, start.strftime("%Y-%m-%dT%H:%M:%S.000Z"), name): count
            for (flow, start, name), (count, _) in truth.items()
            if count and name not in campaigns
        }
        assert expected.items() <= counts.items()
        assert sum(counts.values()) == sum(count for count, _ in truth.values())


@pytest.mark.parametrize(
    ("fault", "metrics", "stats"),
    [
        ("bad_duration", ["tFlow"], {"sum": "12"}),
        ("no_extremes", ["tFlow"], {"min": None, "max": None}),
        ("milestones_observed", ["oFlowMilestone"], {"count": None}),
    ],
)
async def test_faults_of_measures(fault: str, metrics: list[str], stats: dict[str, object]) -> None:
    """Each fires where its metric is sent, by queries and jobs."""
    faults = Faults(**{fault: Fault()})
    async with connect(centre=GeneratedCentre(3, flows=6, outcomes=2), faults=faults) as (simulator, client):
        for answer in (await client.post(QUERY, ["flowId"], metrics), await client.job(["flowId"], metrics)):
            first = answer[1]["results"][0]["data"][0]["metrics"][0]["stats"]
            assert {name: first.get(name) for name in stats} == stats
        assert simulator.fired == {fault: 2}
        await client.post(QUERY, ["flowId"], ["nFlow"])
        assert simulator.fired == {fault: 2}


async def test_milestones_are_listed() -> None:
    """Page by page, under their present names, with a permission of their own."""
    centre = StaticCentre({(f"f{number}", START): {"A": 90} for number in range(9)})
    async with connect(centre=centre) as (simulator, client):
        names: dict[str, str] = {}
        number = pages = 1
        while number <= pages:
            status, page = await client.get(f"{MILESTONES}?pageNumber={number}&pageSize=4")
            assert status == 200
            names |= {entity["id"]: entity["name"] for entity in page["entities"]}
            pages, number = page["pageCount"], number + 1
        reached = {each for flow in centre.flows() for each in flow_traits(flow.id).milestones}
        assert reached <= names.keys()
        assert pages > 1
        renamed = min(reached)
        simulator.orgs["acme"].rename_milestone(renamed, "Paid")
        _, page = await client.get(f"{MILESTONES}?pageSize=100")
        assert {entity["id"]: entity["name"] for entity in page["entities"]} == names | {renamed: "Paid"}
        assert (await client.get(f"{MILESTONES}?deleted=true"))[0] == 400
        with pytest.raises(KeyError):
            simulator.orgs["acme"].rename_milestone("nobody", "Paid")
    async with connect(names_permitted=False) as (_, client):
        status, error = await client.get(MILESTONES)
        assert (status, error["code"]) == (403, "missing.any.permissions")
        assert "architect:flowMilestone:view" in error["message"]
