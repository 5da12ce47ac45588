"""The official Python SDK against the simulator, and the program's requests against the SDK's models.

`make conformance` installs the SDK, which is large and not a dependency, and runs these tests. The SDK drops
unknown fields, so the tests check what it decoded.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import re
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import pytest

from service.genesys.aggregates_jobs import AggregatesJobs
from service.genesys.flow_aggregates import FlowAggregates
from service.model import DIMENSIONS as GROUP_BY
from service.model import Granularity, Measure, Query, Span
from service.simulator import Fault, Faults, GeneratedCentre, SimulatedOrg, Simulator, SimulatorConfig
from service.simulator.aggregates_query import DIMENSIONS
from service.simulator.flow_measures import METRICS
from service.simulator.record_traits import flow_traits

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    sdk = pytest.importorskip("PureCloudPlatformClientV2")

pytestmark = pytest.mark.filterwarnings("ignore")

T = TypeVar("T")
START = datetime(2024, 1, 1, tzinfo=UTC)
CENTRE = GeneratedCentre(seed=3, flows=5, outcomes=4)
FLOWS = [flow.id for flow in CENTRE.flows()]
SPAN = Span(START, START + timedelta(days=2))


def query(granularity: Granularity = Granularity.DAILY, flows: tuple[str, ...] = ()) -> Query:
    return Query("acme", SPAN, granularity, "Europe/Berlin", flows, 7, None, SPAN)


class Client:
    """The SDK with one simulated org; its calls block, so they run in threads."""

    def __init__(self, url: str) -> None:
        self.client = sdk.api_client.ApiClient(host=url)
        self.analytics = sdk.AnalyticsApi(self.client)
        self.architect = sdk.ArchitectApi(self.client)

    async def authorize(self, secret: str = "simulated-secret") -> None:
        await self.call(self.client.get_client_credentials_token, "acme", secret)

    async def call(self, function: Callable[..., T], *arguments: object, **options: object) -> T:
        return await asyncio.to_thread(function, *arguments, **options)

    async def call_rejected(self, function: Callable[..., object], *arguments: object, **options: object) -> Any:  # noqa: ANN401 - the SDK has no types
        """Make a call that is rejected and return its exception."""
        with pytest.raises(sdk.rest.ApiException) as raised:
            await self.call(function, *arguments, **options)
        return raised.value


@asynccontextmanager
async def connect(**settings: Any) -> AsyncIterator[tuple[Simulator, Client]]:  # noqa: ANN401 - passed on
    org = SimulatedOrg(centre=CENTRE, requests_per_second=None, **settings)
    async with Simulator(SimulatorConfig(orgs={"acme": org})) as simulator:
        client = Client(simulator.base_url)
        await client.authorize()
        yield simulator, client


def model(name: str, value: object) -> Any:  # noqa: ANN401 - the SDK has no types
    """Build the SDK's model of a JSON value; fails for an unknown field or an invalid value."""
    if match := re.fullmatch(r"list\[(.+)\]", name):
        assert isinstance(value, list), (name, value)
        return [model(match[1], each) for each in value]
    kind = getattr(sdk, name, None)
    if kind is None:
        assert name in ("str", "int", "bool"), name
        assert type(value).__name__ == name, (name, value)
        return value
    assert isinstance(value, dict), (name, value)
    built = kind()
    fields = {key: field for field, key in built.attribute_map.items()}
    for key, each in value.items():
        assert key in fields, f"{name} has no field {key}"
        setattr(built, fields[key], model(built.swagger_types[fields[key]], each))
        assert "outdated_sdk_version" not in str(getattr(built, fields[key])), (name, key, each)
    return built


def counts(results: Any) -> dict[tuple[str, str, str, str], int]:  # noqa: ANN401 - the SDK has no types
    """Return nFlowOutcome by flow, outcome, value and interval, as the SDK decoded it."""
    totals: dict[tuple[str, str, str, str], int] = {}
    for result in results or []:
        group = result.group
        for datum in result.data:
            for metric in datum.metrics:
                if metric.metric == "nFlowOutcome":
                    key = (
                        group["flowId"],
                        group["flowOutcomeId"],
                        group["flowOutcomeValue"],
                        str(datum.interval),
                    )
                    totals[key] = totals.get(key, 0) + metric.stats.count
    return totals


def test_dimensions_and_metrics_are_those_of_the_enumerations() -> None:
    """The query's model takes any text in groupBy and metrics; the view and the predicate do not."""
    dimensions = enumeration("FlowAggregateQueryPredicate", "dimension")
    metrics = enumeration("FlowAggregationView", "target")
    for dialect in (FlowAggregates(), AggregatesJobs(timedelta(minutes=1))):
        body = dialect.body(query(flows=tuple(FLOWS[:2])))
        assert set(body["groupBy"]) <= dimensions
        assert set(body["metrics"]) <= metrics
        for predicate in body["filter"]["predicates"]:
            assert predicate["dimension"] in dimensions
            assert predicate["type"] in enumeration("FlowAggregateQueryPredicate", "type")
            assert predicate["operator"] in enumeration("FlowAggregateQueryPredicate", "operator")


async def test_retention_and_divisions() -> None:
    """The SDK decodes both, the divisions as a list and in pages."""
    divisions = tuple(f"Division {number:03}" for number in range(30))
    async with connect(retention_days=400, divisions=divisions, permitted_divisions=divisions[:27]) as (_, client):
        analytics, authorization = client.analytics, sdk.AuthorizationApi(client.client)
        assert (await client.call(analytics.get_analytics_dataretention_settings)).retention_days == 400
        listed = await client.call(
            authorization.get_authorization_divisionspermitted_me, "analytics:flowAggregate:view"
        )
        assert [each.name for each in listed] == list(divisions[:27])
        page = await client.call(
            authorization.get_authorization_divisionspermitted_paged_me,
            "analytics:flowAggregate:view",
            page_number=2,
            page_size=25,
        )
        assert [each.name for each in page.entities] == list(divisions[25:27])
        assert (page.page_count, page.total, page.all_divs_permitted) == (2, 27, False)


@pytest.mark.parametrize("measure", list(Measure))
@pytest.mark.parametrize("group_by", [(), GROUP_BY])
def test_requests_of_each_measure_use_known_names(measure: Measure, group_by: tuple[str, ...]) -> None:
    """The models take any text, so that dimensions and metrics are compared with the enumerations."""
    body = FlowAggregates().body(replace(query(), measure=measure, group_by=group_by))
    model("FlowAggregationQuery", body)
    assert set(body["groupBy"]) <= enumeration("FlowAggregateQueryPredicate", "dimension")
    assert set(body["metrics"]) <= enumeration("FlowAggregationView", "target")


@pytest.mark.parametrize("granularity", list(Granularity))
@pytest.mark.parametrize("flows", [(), tuple(FLOWS[:1]), tuple(FLOWS[:3])])
def test_requests_match_the_models(granularity: Granularity, flows: tuple[str, ...]) -> None:
    """The SDK knows every field, accepts every value, and serialises the same request."""
    client = sdk.api_client.ApiClient(host="http://127.0.0.1")
    request = query(granularity, flows)
    for name, body in (
        ("FlowAggregationQuery", FlowAggregates().body(request)),
        ("FlowAsyncAggregationQuery", AggregatesJobs(timedelta(minutes=1)).body(request)),
    ):
        assert client.sanitize_for_serialization(model(name, body)) == body


def enumeration(model_name: str, field: str) -> set[str]:
    """Return the values that the SDK knows for a field."""
    source = inspect.getsource(getattr(sdk, model_name).__dict__[field].fset)
    return set(json.loads(source[source.index("[") : source.index("]") + 1]))


def test_the_simulator_knows_the_same_names() -> None:
    """Every dimension and metric of the SDK's predicate and view, and no other."""
    assert set(DIMENSIONS) == enumeration("FlowAggregateQueryPredicate", "dimension")
    assert set(METRICS) == enumeration("FlowAggregationView", "target")
    types = {flow_traits(flow.id).flow_type for flow in GeneratedCentre(seed=3, flows=40).flows()}
    assert types <= enumeration("Flow", "type")
    assert len(types) == 3


async def test_a_query() -> None:
    """The SDK sends the program's request and decodes the response."""
    body = model("FlowAggregationQuery", FlowAggregates().body(query(flows=tuple(FLOWS[:3]))))
    async with connect() as (simulator, client):
        answer = await client.call(client.analytics.post_analytics_flows_aggregates_query, body)
        result = counts(answer.results)
        assert {key[0] for key in result} == set(FLOWS[:3])
        truth = simulator.truth(SPAN.start, SPAN.end, "daily", "Europe/Berlin", flows=FLOWS[:3])
        assert sum(result.values()) == sum(count for count, _ in truth.values())
        assert {key[2] for key in result} <= {"SUCCESS", "FAILURE", "UNKNOWN"}


async def test_a_job() -> None:
    """A job, read page by page, has the same results as the query."""
    request = query()
    async with connect(job_polls=2, extra_dimension=True) as (simulator, client):
        api = client.analytics
        synchronous = await client.call(
            api.post_analytics_flows_aggregates_query,
            model("FlowAggregationQuery", FlowAggregates().body(request)),
        )
        body = model("FlowAsyncAggregationQuery", AggregatesJobs(timedelta(minutes=1)).body(request))
        job = (await client.call(api.post_analytics_flows_aggregates_jobs, body)).job_id
        states = [(await client.call(api.get_analytics_flows_aggregates_job, job)).state for _ in range(3)]
        assert states == ["QUEUED", "PENDING", "FULFILLED"]
        results, cursor, pages = [], None, 0
        while pages == 0 or cursor:
            more: dict[str, object] = {"cursor": cursor} if cursor else {}
            page = await client.call(api.get_analytics_flows_aggregates_job_results, job, **more)
            results += page.results
            cursor, pages = page.cursor, pages + 1
        assert pages > 3
        assert counts(results) == counts(synchronous.results) != {}
        await client.call(api.delete_analytics_flows_aggregates_job, job)
        assert simulator.public.jobs["acme"].known == {}
        error = await client.call_rejected(api.get_analytics_flows_aggregates_job, job)
        assert error.status == 404


@pytest.mark.parametrize("state", ["FAILED", "CANCELLED", "EXPIRED"])
async def test_other_final_states_of_a_job(state: str) -> None:
    """The SDK knows each final state."""
    body = model("FlowAsyncAggregationQuery", AggregatesJobs(timedelta(minutes=1)).body(query()))
    async with connect(faults=Faults(job_state=Fault(state))) as (_, client):
        job = (await client.call(client.analytics.post_analytics_flows_aggregates_jobs, body)).job_id
        status = await client.call(client.analytics.get_analytics_flows_aggregates_job, job)
        assert status.state == state


async def test_names() -> None:
    """The SDK lists flows, outcomes and milestones page by page."""
    async with connect() as (simulator, client):
        for function, expected in (
            (client.architect.get_flows, CENTRE.flows()),
            (client.architect.get_flows_outcomes, CENTRE.outcomes(2**42)),
            (client.architect.get_flows_milestones, simulator.orgs["acme"].milestones),
        ):
            result: dict[str, str] = {}
            number = pages = 1
            while number <= pages:
                page = await client.call(function, page_number=number, page_size=3)
                result |= {entity.id: entity.name for entity in page.entities}
                pages, number = page.page_count, number + 1
            assert result.keys() == {each.id for each in expected}
            assert pages == -(-len(expected) // 3)


async def test_errors() -> None:
    """The SDK's exceptions have status, code, message and context id."""
    body = FlowAggregates().body(query())
    request = model("FlowAggregationQuery", body)
    async with connect(cardinality=3, names_permitted=False) as (simulator, client):
        post_query = client.analytics.post_analytics_flows_aggregates_query
        bad = model("FlowAggregationQuery", {**body, "interval": "yesterday"})
        cases = [
            (await client.call_rejected(post_query, request), 400, "response.entity.too.large"),
            (await client.call_rejected(post_query, bad), 400, "invalid.date"),
            (await client.call_rejected(client.architect.get_flows), 403, "missing.any.permissions"),
        ]
        simulator.revoke_tokens()
        cases.append((await client.call_rejected(post_query, request), 401, "bad.credentials"))
        for error, status, code in cases:
            response = json.loads(error.body)
            assert (error.status, response["status"], response["code"]) == (status, status, code)
            assert response["message"]
            assert response["contextId"]
        with pytest.raises(sdk.rest.ApiException):
            await client.authorize("another secret")


async def test_the_limit_per_minute() -> None:
    """A request over the limit gets a 429 whose headers have the limit and the wait."""
    body = model("FlowAggregationQuery", FlowAggregates().body(query(flows=tuple(FLOWS[:1]))))
    async with connect(requests_per_minute=2) as (_, client):
        pools = client.client.get_http_client().rest_client.pool_manager
        pools.connection_pool_kw["retries"] = False  # otherwise the SDK retries a 429
        pools.clear()
        post_query = client.analytics.post_analytics_flows_aggregates_query
        await client.call(post_query, body)
        await client.call(post_query, body)
        error = await client.call_rejected(post_query, body)
        headers = {key.lower(): value for key, value in error.headers.items()}
        assert error.status == 429
        assert 0 < int(headers["retry-after"]) <= 60
        assert (headers["inin-ratelimit-allowed"], headers["inin-ratelimit-count"]) == ("2", "3")
