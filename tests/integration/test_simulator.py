"""The simulator over real HTTP on loopback."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from datetime import timedelta
from typing import Any

import aiohttp
import pytest

from service.model import instant
from service.simulator import (
    Fault,
    Faults,
    SimulatedOrg,
    Simulator,
    SimulatorConfig,
    StaticCentre,
)
from tests.support.fake_clock import FakeClock
from tests.support.simulator_client import END, PATH, START, Client, connect, figures, truth


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
async def test_a_scan_returns_the_figures_of_the_centre(settings: dict[str, Any]) -> None:
    """All pages together have the centre's figures, however the scan is ordered and split."""
    async with connect(**settings) as (simulator, client):
        pages = await client.scan()
        assert len(pages) > 10
        assert figures(pages) == truth(simulator)
        assert simulator.in_flight_violations == 0
        assert [arrival.page for arrival in simulator.arrivals] == [0, *range(1, len(pages) + 1)]


async def test_a_second_scan_is_equal() -> None:
    """Cached pages are equal, with new tokens."""
    async with connect() as (_, client):
        one, other = await client.scan(), await client.scan()
        assert [page["data"] for page in one] == [page["data"] for page in other]
        assert one[0]["nextPageToken"] != other[0]["nextPageToken"]


async def test_a_static_centre() -> None:
    """A scan returns the given figures exactly; the next scan returns a change."""
    centre = StaticCentre({("f1", START): {"A": 3, "B": 1}})
    async with connect(centre=centre) as (_, client):
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
    """A token needs the correct secret, and a query needs a valid token."""
    async with connect(authorize=False) as (simulator, client):
        assert (await client.query())[1]["code"] == "bad.credentials"
        status, answer = await client.authorize(secret="wrong")
        assert (status, answer["error"]) == (401, "invalid_client")
        assert (await client.authorize("nobody"))[0] == 401
        status, answer = await client.authorize()
        assert (status, answer["token_type"], answer["expires_in"]) == (200, "bearer", 86_400)
        assert (await client.query())[0] == 200
        simulator.revoke_tokens()
        assert (await client.query())[0] == 401
        assert simulator.tokens_issued == 1


async def test_tokens_and_cursors_expire() -> None:
    """Tokens and cursors expire by the simulator's clock."""
    clock = FakeClock()
    async with connect(clock, token_lifetime=1000) as (_, client):
        token = (await client.query())[1]["nextPageToken"]
        assert (await client.query(nextPageToken=token))[0] == 200
        clock.advance(timedelta(minutes=10))
        status, answer, _ = await client.query(nextPageToken=token)
        assert (status, answer["code"]) == (410, "cursor.expired")
        status, answer, _ = await client.query(nextPageToken=token, limit=6)
        assert (status, answer["code"]) == (400, "invalid.pageToken")
        clock.advance(timedelta(minutes=10))
        assert (await client.query())[0] == 401


async def test_a_scan_keeps_its_snapshot() -> None:
    """Records that settle during a scan are not in its later pages."""
    clock = FakeClock(at=END - timedelta(hours=1))
    async with connect(clock) as (simulator, client):
        expected = truth(simulator)
        _, first, _ = await client.query()
        clock.advance(timedelta(minutes=5))
        pages = [first]
        while token := pages[-1]["nextPageToken"]:
            pages.append((await client.query(nextPageToken=token))[1])
        assert figures(pages) == expected != truth(simulator)


async def test_rejected_requests() -> None:
    """Granularity, cardinality, permission, method, path and content type each have their error."""
    async with connect(cardinality=90, permitted=True) as (simulator, client):
        assert (await client.query(timeGroup="hourly", dateTo=instant(END + timedelta(hours=1))))[1] == {
            "status": 400,
            "code": "granularityTooFine",
            "message": "Invalid date range for the specified granularity",
        }
        assert (await client.query(timeGroup="hourly"))[1]["code"] == "cardinality.exceeded"
        headers = {"Authorization": f"Bearer {client.token}"}
        async with client.session.get(simulator.base_url + PATH, headers=headers) as response:
            assert response.status == 405
        async with client.session.post(simulator.base_url + PATH, headers=headers, data="{}") as response:
            assert response.status == 415
        async with client.session.get(simulator.base_url + "/") as response:
            assert response.status == 404
    async with connect(permitted=False) as (_, client):
        status, answer, _ = await client.query()
        assert (status, answer["code"]) == (403, "missing.any.permissions")
        assert "analytics:query:read" in answer["message"]


async def test_rate_limit() -> None:
    """A request over the limit gets a 429, token requests count, and a request before Retry-After is recorded."""
    async with connect(requests_per_second=10, retry_after=2) as (simulator, client):
        statuses = [(await client.query())[0] for _ in range(10)]
        assert statuses == [200] * 9 + [429]
        assert simulator.peak_per_second() == 11
        await asyncio.sleep(0.15)
        status, answer, headers = await client.query()
        assert (status, answer["code"], headers["Retry-After"]) == (429, "too.many.requests", "2")
        assert simulator.hold_violations == 1


async def test_orgs_are_separate() -> None:
    """Each org has its own limit and figures; a token is valid for its own org."""
    orgs = {"one": SimulatedOrg(requests_per_second=3), "two": SimulatedOrg(flows=3, timezone="Asia/Tokyo")}
    async with Simulator(SimulatorConfig(orgs=orgs)) as simulator, aiohttp.ClientSession() as session:
        one, two = Client(simulator, session), Client(simulator, session)
        await one.authorize("one")
        await two.authorize("two")
        assert [(await one.query())[0] for _ in range(3)] == [200, 200, 429]
        (page,) = await two.scan(
            limit=1000, dateFrom="2023-12-31T15:00:00.000Z", dateTo="2024-01-01T15:00:00.000Z"
        )
        assert len(page["data"]) == 3
        assert (simulator.peak_per_second("one"), simulator.peak_per_second("two")) == (4, 2)


async def test_single_flight_violations() -> None:
    """The same query twice at once is a violation; after its client disconnects it is no longer in flight."""
    async with connect(faults=Faults(slow=Fault(0.2))) as (simulator, client):
        await asyncio.gather(client.query(), client.query(limit=6))
        assert simulator.in_flight_violations == 0
        await asyncio.gather(client.query(), client.query())
        assert simulator.in_flight_violations == 1
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.query(), 0.05)
        await asyncio.sleep(0.05)
        await client.query()
        assert simulator.in_flight_violations == 1


async def test_admin_endpoints() -> None:
    """Statistics, truth, faults and the clock are available over HTTP and do not count as requests."""
    async with connect() as (simulator, client):

        async def admin(method: str, path: str, **options: Any) -> Any:  # noqa: ANN401 - JSON
            url = f"{simulator.base_url}/_simulator/{path}"
            async with client.session.request(method, url, **options) as response:
                return response.status, await response.json()

        switched = await admin("POST", "faults", json={"name": "server_error", "value": 502, "times": 1})
        assert switched == (200, {"name": "server_error", "on": True})
        assert (await client.query())[0] == 502
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
        _, clock = await admin("POST", "clock", json={"now": "2024-01-01T12:00:00Z"})
        assert clock["now"].startswith("2024-01-01T12:00:00")
        assert len(await client.scan()) < 10
        assert (await admin("POST", "revoke"))[0] == 200
        assert (await client.query())[0] == 401
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
async def test_the_command_serves_until_a_signal(number: int) -> None:
    """The command prints its address as one line of JSON, serves, and exits with 0."""
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
    started = json.loads(await process.stdout.readline())
    assert started["orgs"] == [{"client_id": "a", "client_secret": "s1", "timezone": "UTC"}]
    async with aiohttp.ClientSession() as session, session.get(started["url"] + "/_simulator/stats") as response:
        assert (await response.json())["now"].startswith("2024-01-05T00:0")
    process.send_signal(number)
    assert await asyncio.wait_for(process.wait(), 10) == 0
