"""The simulator over real HTTP on loopback."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest

from service.model import instant
from service.simulator import Fault, Faults, SimulatedOrg, Simulator, SimulatorConfig, StaticCentre
from service.simulator.faults import FAULT_NAMES, PUBLIC_FAULTS
from tests.support.fake_clock import FakeClock

START = datetime(2024, 1, 1, tzinfo=UTC)
END = datetime(2024, 1, 8, tzinfo=UTC)
PATH = "/api/v2/analytics/query-builder/query"


class Client:
    """A client that takes answers as they come."""

    def __init__(self, simulator: Simulator, session: aiohttp.ClientSession) -> None:
        self.simulator = simulator
        self.session = session
        self.token = ""

    async def authorize(self, client_id: str = "acme", secret: str = "simulated-secret") -> tuple[int, Any]:
        headers = {"Authorization": aiohttp.encode_basic_auth(client_id, secret)}
        form = {"grant_type": "client_credentials"}
        url = self.simulator.base_url + "/oauth/token"
        async with self.session.post(url, data=form, headers=headers) as response:
            answer = json.loads(await response.read())
            self.token = answer.get("access_token", "")
            return response.status, answer

    async def ask(self, **changes: object) -> tuple[int, Any, Any]:
        """Status, body and headers; the body as JSON where it is some."""
        builder = {
            "queryType": "routing/engagement",
            "dateFrom": instant(START),
            "dateTo": instant(END),
            "metrics": ["flow-outcomes"],
            "filters": [],
            "groupBy": ["flow-id"],
            "timeGroup": "daily",
            "limit": 5,
        } | changes
        async with self.session.post(
            self.simulator.base_url + PATH,
            json={"queryBuilder": builder},
            headers={"Authorization": f"Bearer {self.token}"},
            allow_redirects=False,
        ) as response:
            body = await response.read()
            parsed = json.loads(body) if response.status != 307 and response.content_type != "text/html" else body
            return response.status, parsed, response.headers

    async def scan(self, **changes: object) -> list[Any]:
        """All pages."""
        pages: list[Any] = []
        token: dict[str, object] = {}
        while True:
            status, page, _ = await self.ask(**changes, **token)
            assert status == 200, page
            pages.append(page)
            if page["nextPageToken"] is None:
                return pages
            token = {"nextPageToken": page["nextPageToken"]}


def figures(pages: list[Any]) -> dict[tuple[str, str, str], tuple[int, float]]:
    return {
        (entry["group"]["flow-id"], entry["interval"].split("/")[0], name): (
            figure["count"],
            figure["percentOfTotal"],
        )
        for page in pages
        for entry in page["data"]
        for name, figure in entry["metrics"]["flow-outcomes"].items()
    }


def truth(simulator: Simulator, *, timezone: str | None = None) -> dict[tuple[str, str, str], tuple[int, float]]:
    found = simulator.truth(START, END, "daily", timezone)
    return {(flow, instant(start), name): figure for (flow, start, name), figure in found.items()}


@asynccontextmanager
async def connected(
    clock: FakeClock | None = None,
    *,
    authorize: bool = True,
    **settings: Any,  # noqa: ANN401 - fields of SimulatedOrg
) -> AsyncIterator[tuple[Simulator, Client]]:
    """A simulator with one org and a client of it."""
    org = SimulatedOrg(**({"requests_per_second": None} | settings))
    async with (
        Simulator(SimulatorConfig(orgs={"acme": org}), clock) as simulator,
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(20)) as session,
    ):
        client = Client(simulator, session)
        if authorize:
            await client.authorize()
        yield simulator, client


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"order": "bucket"},
        {"split_entries": True},
        {"percent_of": "query"},
        {"timezone": "America/New_York"},
    ],
)
async def test_a_scan_tells_the_truth(settings: dict[str, Any]) -> None:
    """All pages together are what the centre knows, however they are cut."""
    async with connected(**settings) as (simulator, client):
        pages = await client.scan()
        assert len(pages) > 10
        assert figures(pages) == truth(simulator)
        assert simulator.in_flight_violations == 0
        assert [arrival.page for arrival in simulator.arrivals] == [0, *range(1, len(pages) + 1)]


async def test_a_second_scan_is_the_same() -> None:
    """What can never change is remembered, and answered the same with tokens of its own."""
    async with connected() as (_, client):
        one, other = await client.scan(), await client.scan()
        assert [page["data"] for page in one] == [page["data"] for page in other]
        assert one[0]["nextPageToken"] != other[0]["nextPageToken"]


async def test_a_static_centre_is_answered_to_the_letter() -> None:
    """A test's own figures come back, and its changes with the next scan."""
    centre = StaticCentre({("f1", START): {"A": 3, "B": 1}})
    async with connected(centre=centre) as (_, client):
        (page,) = await client.scan(filters=[])
        assert page == {
            "nextPageToken": None,
            "metrics": ["flow-outcomes"],
            "data": [
                {
                    "group": {"flow-id": "f1"},
                    "interval": "2024-01-01T00:00:00.000Z/2024-01-02T00:00:00.000Z",
                    "metrics": {
                        "flow-outcomes": {
                            "A": {"count": 3, "percentOfTotal": 0.75},
                            "B": {"count": 1, "percentOfTotal": 0.25},
                        }
                    },
                }
            ],
        }
        centre.correct("f1", START, "A", 4)
        assert figures(await client.scan())["f1", instant(START), "A"] == (4, 0.8)


async def test_credentials() -> None:
    """Only the right secret gets a token, and only a good token an answer."""
    async with connected(authorize=False) as (simulator, client):
        assert (await client.ask())[1]["code"] == "bad.credentials"
        status, answer = await client.authorize(secret="wrong")
        assert (status, answer["error"]) == (401, "invalid_client")
        assert (await client.authorize("nobody"))[0] == 401
        status, answer = await client.authorize()
        assert (status, answer["token_type"], answer["expires_in"]) == (200, "bearer", 86_400)
        assert (await client.ask())[0] == 200
        simulator.revoke_tokens()
        assert (await client.ask())[0] == 401
        assert simulator.tokens_issued == 1


async def test_tokens_and_cursors_expire() -> None:
    """Both end with their lifetime, by the simulator's clock."""
    clock = FakeClock()
    async with connected(clock, token_lifetime=1000) as (_, client):
        token = (await client.ask())[1]["nextPageToken"]
        assert (await client.ask(nextPageToken=token))[0] == 200
        clock.advance(timedelta(minutes=10))
        status, answer, _ = await client.ask(nextPageToken=token)
        assert (status, answer["code"]) == (410, "cursor.expired")
        status, answer, _ = await client.ask(nextPageToken=token, limit=6)
        assert (status, answer["code"]) == (400, "invalid.pageToken")
        clock.advance(timedelta(minutes=10))
        assert (await client.ask())[0] == 401


async def test_a_scan_is_not_moved_by_the_clock() -> None:
    """Records that settle while a scan runs do not slip into its later pages."""
    clock = FakeClock(at=END - timedelta(hours=1))
    async with connected(clock) as (simulator, client):
        expected = truth(simulator)
        _, first, _ = await client.ask()
        clock.advance(timedelta(minutes=5))
        pages = [first]
        while token := pages[-1]["nextPageToken"]:
            pages.append((await client.ask(nextPageToken=token))[1])
        assert figures(pages) == expected != truth(simulator)


async def test_what_the_engine_refuses() -> None:
    """Granularity, cardinality, permission, method, path and type each have their answer."""
    async with connected(cardinality=90, permitted=True) as (simulator, client):
        assert (await client.ask(timeGroup="hourly", dateTo=instant(END + timedelta(hours=1))))[1] == {
            "status": 400,
            "code": "granularityTooFine",
            "message": "Invalid date range for the specified granularity",
        }
        assert (await client.ask(timeGroup="hourly"))[1]["code"] == "cardinality.exceeded"
        headers = {"Authorization": f"Bearer {client.token}"}
        async with client.session.get(simulator.base_url + PATH, headers=headers) as response:
            assert response.status == 405
        async with client.session.post(simulator.base_url + PATH, headers=headers, data="{}") as response:
            assert response.status == 415
        async with client.session.get(simulator.base_url + "/") as response:
            assert response.status == 404
    async with connected(permitted=False) as (_, client):
        status, answer, _ = await client.ask()
        assert (status, answer["code"]) == (403, "missing.any.permissions")
        assert "analytics:query:read" in answer["message"]


async def test_the_rate_is_kept_to() -> None:
    """The request over the rate is a 429, tokens count, and what comes before its time is noted."""
    async with connected(requests_per_second=10, retry_after=2) as (simulator, client):
        statuses = [(await client.ask())[0] for _ in range(10)]
        assert statuses == [200] * 9 + [429]
        assert simulator.peak_per_second() == 11
        await asyncio.sleep(0.15)
        status, answer, headers = await client.ask()
        assert (status, answer["code"], headers["Retry-After"]) == (429, "too.many.requests", "2")
        assert simulator.hold_violations == 1


async def test_each_org_has_its_own() -> None:
    """Rates and figures are each org's own; a client's token opens its org alone."""
    orgs = {"one": SimulatedOrg(requests_per_second=3), "two": SimulatedOrg(flows=3, timezone="Asia/Tokyo")}
    async with Simulator(SimulatorConfig(orgs=orgs)) as simulator, aiohttp.ClientSession() as session:
        one, two = Client(simulator, session), Client(simulator, session)
        await one.authorize("one")
        await two.authorize("two")
        assert [(await one.ask())[0] for _ in range(3)] == [200, 200, 429]
        (page,) = await two.scan(
            limit=1000, dateFrom="2023-12-31T15:00:00.000Z", dateTo="2024-01-01T15:00:00.000Z"
        )
        assert len(page["data"]) == 3
        assert (simulator.peak_per_second("one"), simulator.peak_per_second("two")) == (4, 2)


async def test_two_flights_of_one_query_are_seen() -> None:
    """The same query twice at once is a violation; once its client has hung up it is no longer in flight."""
    async with connected(faults=Faults(slow=Fault(0.2))) as (simulator, client):
        await asyncio.gather(client.ask(), client.ask(limit=6))
        assert simulator.in_flight_violations == 0
        await asyncio.gather(client.ask(), client.ask())
        assert simulator.in_flight_violations == 1
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.ask(), 0.05)
        await asyncio.sleep(0.05)
        await client.ask()
        assert simulator.in_flight_violations == 1


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        ("server_error", 503),
        ("throttled", 429),
        ("unauthorized", 401),
        ("forbidden", 403),
        ("hostile_error", 400),
        ("redirect", 307),
        ("granularity_refused", 400),
        ("cardinality_refused", 400),
    ],
)
async def test_errors_in_place_of_an_answer(fault: str, status: int) -> None:
    """Each strikes as often as it was told to, and is counted."""
    async with connected(faults=Faults(**{fault: Fault(times=1)})) as (simulator, client):
        assert (await client.ask())[0] == status
        assert (await client.ask())[0] == 200
        assert simulator.fired == {fault: 1}


@pytest.mark.parametrize(
    ("value", "told"), [(None, "1"), (7, "7"), ("-5", "-5"), ("soon", "soon"), ("absent", None)]
)
async def test_retry_after_is_as_told(value: object, told: str | None) -> None:
    """Whatever the header is to say, or that it is not there."""
    async with connected(faults=Faults(throttled=Fault(value))) as (_, client):
        assert (await client.ask())[2].get("Retry-After") == told


async def test_an_error_repeats_the_secret() -> None:
    """A hostile server gives the client's token back in its text, and a client's secret."""
    async with connected(faults=Faults(hostile_error=Fault(), token_hostile=Fault(request=2))) as (_, client):
        assert client.token in (await client.ask())[1]["message"]
        assert "Basic " in (await client.authorize())[1]["message"]


@pytest.mark.parametrize("fault", ["connection_reset", "truncated", "token_reset"])
async def test_connections_break(fault: str) -> None:
    """The client sees a broken connection, and the next request passes."""
    async with connected(authorize=False, faults=Faults(**{fault: Fault(times=1)})) as (simulator, client):

        async def both() -> None:
            await client.authorize()
            await client.ask()

        with pytest.raises(aiohttp.ClientError):
            await both()
        await client.authorize()
        assert (await client.ask())[0] == 200
        assert simulator.fired == {fault: 1}


async def test_a_chunked_body_is_cut() -> None:
    """Cut without a length too."""
    async with connected(faults=Faults(truncated=Fault("chunked"))) as (_, client):
        with pytest.raises(aiohttp.ClientError):
            await client.ask()


async def test_a_slow_body_arrives_whole() -> None:
    """Drip by drip."""
    async with connected(faults=Faults(drip=Fault(0.1))) as (simulator, client):
        begun = time.monotonic()
        assert (await client.ask())[0] == 200
        assert time.monotonic() - begun >= 0.1
        assert simulator.fired == {"drip": 1}


async def test_a_gzip_bomb_is_small_on_the_wire() -> None:
    """A few KiB that unpack to more than was asked for, and are a page then."""
    async with connected(faults=Faults(gzip_bomb=Fault(3))) as (simulator, client):
        session = aiohttp.ClientSession(auto_decompress=False)
        async with (
            session,
            session.post(
                simulator.base_url + PATH,
                json={
                    "queryBuilder": {
                        "queryType": "routing/engagement",
                        "dateFrom": instant(START),
                        "dateTo": instant(END),
                        "metrics": ["flow-outcomes"],
                        "filters": [],
                        "groupBy": ["flow-id"],
                        "timeGroup": "daily",
                        "limit": 5,
                    }
                },
                headers={"Authorization": f"Bearer {client.token}"},
            ) as response,
        ):
            body = await response.read()
        assert len(body) < 2**14
        assert len(gzip.decompress(body)) > 3 * 2**20


async def test_cursors_that_mislead() -> None:
    """Tokens that are missing, repeated, looping or expired, where they were told to be."""
    faults = Faults(missing_token=Fault(page=2, times=1))
    async with connected(faults=faults) as (simulator, client):
        one = (await client.ask())[1]["nextPageToken"]
        assert "nextPageToken" not in (await client.ask(nextPageToken=one))[1]
        simulator.switch("repeated_token", Fault(times=1))
        assert (await client.ask(nextPageToken=one))[1]["nextPageToken"] == one
        simulator.switch("cursor_expired", Fault(400, page=2, times=1))
        status, answer, _ = await client.ask(nextPageToken=one)
        assert (status, answer["code"]) == (400, "cursor.expired")
        two = (await client.ask(nextPageToken=one))[1]["nextPageToken"]
        simulator.switch("cursor_loop", Fault(page=3))
        assert (await client.ask(nextPageToken=two))[1]["nextPageToken"] == one
        assert simulator.fired == {"missing_token": 1, "repeated_token": 1, "cursor_expired": 1, "cursor_loop": 1}


async def test_pages_without_entries() -> None:
    """An empty page leads on to all the rest; an empty answer ends there."""
    async with connected(faults=Faults(empty_page=Fault(page=2), empty_answer=Fault(times=1))) as (
        simulator,
        client,
    ):
        assert figures(await client.scan()) == {}
        pages = await client.scan()
        assert pages[1]["data"] == []
        assert figures(pages) == truth(simulator)


async def test_days_cut_in_utc() -> None:
    """An engine that cuts in UTC says so in each interval."""
    async with connected(timezone="America/New_York", faults=Faults(utc_cut=Fault())) as (simulator, client):
        assert figures(await client.scan()) == truth(simulator, timezone="UTC") != truth(simulator)


@pytest.mark.parametrize(("value", "told"), [(None, -1), (1e15, 1e15), ("soon", "soon"), ("absent", None)])
async def test_expires_in_is_as_told(value: object, told: object) -> None:
    """Whatever the token endpoint is to say of the lifetime, or that it says nothing."""
    async with connected(authorize=False, faults=Faults(expires_in=Fault(value))) as (_, client):
        assert (await client.authorize())[1].get("expires_in") == told
        assert (await client.ask())[0] == 200


@pytest.mark.parametrize(
    ("fault", "status"), [("token_error", 500), ("token_throttled", 429), ("token_missing", 200)]
)
async def test_the_token_endpoint_fails(fault: str, status: int) -> None:
    """It fails once, and then gives a token."""
    async with connected(authorize=False, faults=Faults(**{fault: Fault(times=1)})) as (simulator, client):
        assert (await client.authorize())[0] == status
        assert client.token == ""
        await client.authorize()
        assert client.token
        assert simulator.fired == {fault: 1}


SLOW = {"slow": Fault(0.01), "token_slow": Fault(0.01), "drip": Fault(0.01), "gzip_bomb": Fault(1)}
TOKEN_FAULTS = sorted(name for name in FAULT_NAMES if name.startswith("token_") or name == "expires_in")


@pytest.mark.parametrize("name", sorted(FAULT_NAMES - PUBLIC_FAULTS))
async def test_every_fault_strikes_and_passes(name: str) -> None:
    """Each switch takes effect once when told to, is counted, and leaves the server whole."""
    faults = Faults(**{name: SLOW.get(name, Fault(times=1))})
    async with connected(authorize=False, timezone="Asia/Tokyo", faults=faults) as (simulator, client):
        for _ in range(3):
            try:
                await client.authorize()
                _, page, _ = await client.ask()
                await client.ask(nextPageToken=page["nextPageToken"])
            except (aiohttp.ClientError, ValueError, KeyError, TypeError, RecursionError):
                continue
        assert simulator.fired[name]
        simulator.switch(name, None)
        await client.authorize()
        assert figures(await client.scan()) == truth(simulator)


async def test_the_outside_may_look_and_switch() -> None:
    """Statistics, truth, faults and the clock over HTTP; none of it counts as a client's request."""
    async with connected() as (simulator, client):

        async def admin(method: str, path: str, **options: Any) -> Any:  # noqa: ANN401 - JSON
            url = f"{simulator.base_url}/_simulator/{path}"
            async with client.session.request(method, url, **options) as response:
                return response.status, await response.json()

        switched = await admin("POST", "faults", json={"name": "server_error", "value": 502, "times": 1})
        assert switched == (200, {"name": "server_error", "on": True})
        assert (await client.ask())[0] == 502
        _, stats = await admin("GET", "stats")
        assert (stats["requests"], stats["fired"], stats["statuses"]) == (
            2,
            {"server_error": 1},
            {"200": 1, "502": 1},
        )
        query = {
            "org": "acme",
            "from": "2024-01-01T00:00:00Z",
            "to": "2024-01-02T00:00:00Z",
            "granularity": "daily",
        }
        _, rows = await admin("GET", "truth", params=query)
        assert {(row["flow_id"], row["outcome_name"]) for row in rows} <= {
            (flow, name) for flow, _, name in truth(simulator)
        }
        assert len(rows) > 12
        assert len((await admin("GET", "flows", params={"org": "acme"}))[1]) == 12
        _, told = await admin("POST", "clock", json={"now": "2024-01-01T12:00:00Z"})
        assert told["now"].startswith("2024-01-01T12:00:00")
        assert len(await client.scan()) < 10
        assert (await admin("POST", "revoke"))[0] == 200
        assert (await client.ask())[0] == 401
        for method, path, options in (
            ("POST", "faults", {"json": {"name": "nonsense"}}),
            ("POST", "faults", {"data": b"{"}),
            ("POST", "clock", {"json": {"now": "x"}}),
            ("GET", "truth", {"params": query | {"granularity": "weekly"}}),
            ("GET", "truth", {"params": query | {"from": "2024-01-01"}}),
            ("GET", "truth", {}),
        ):
            assert (await admin(method, path, **options))[0] == 400
        assert (await admin("GET", "nothing"))[0] == 404


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_command_serves_until_it_is_told_to_stop(number: int) -> None:
    """It says where it listens in one line of JSON, answers, and ends with 0."""
    code = (
        "import argparse, asyncio, sys\n"
        "from service.simulator.command import add_arguments\n"
        "from service.simulator.runner import run\n"
        "parser = argparse.ArgumentParser()\n"
        "add_arguments(parser)\n"
        "sys.exit(asyncio.run(run(parser.parse_args())))\n"
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code, "--orgs", "a:s1", "--now", "2024-01-05T00:00:00Z"),
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout is not None
    told = json.loads(await process.stdout.readline())
    assert told["orgs"] == [{"client_id": "a", "client_secret": "s1", "timezone": "UTC"}]
    async with aiohttp.ClientSession() as session, session.get(told["url"] + "/_simulator/stats") as response:
        assert (await response.json())["now"].startswith("2024-01-05T00:0")
    process.send_signal(number)
    assert await asyncio.wait_for(process.wait(), 10) == 0
