"""A client of the simulator that returns responses unchecked."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import aiohttp

from service.model import instant
from service.simulator import (
    SimulatedOrg,
    Simulator,
    SimulatorConfig,
)
from tests.support.fake_clock import FakeClock

START = datetime(2024, 1, 1, tzinfo=UTC)
END = datetime(2024, 1, 8, tzinfo=UTC)
PATH = "/api/v2/analytics/query-builder/query"


def query_body(**changes: object) -> dict[str, object]:
    """Return a valid query over all days from ``START`` to ``END``, changed as given."""
    builder = {
        "queryType": "routing/engagement",
        "dateFrom": instant(START),
        "dateTo": instant(END),
        "metrics": ["flow-outcomes"],
        "filters": [],
        "groupBy": ["flow-id"],
        "timeGroup": "daily",
        "limit": 5,
    }
    return {"queryBuilder": builder | changes}


class Client:
    """A client that returns responses unchecked."""

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

    async def query(self, **changes: object) -> tuple[int, Any, Any]:
        """Return status, body and headers; the body is decoded if it is JSON."""
        async with self.session.post(
            self.simulator.base_url + PATH,
            json=query_body(**changes),
            headers={"Authorization": f"Bearer {self.token}"},
            allow_redirects=False,
        ) as response:
            body = await response.read()
            parsed = json.loads(body) if response.status != 307 and response.content_type != "text/html" else body
            return response.status, parsed, response.headers

    async def scan(self, **changes: object) -> list[Any]:
        """Return all pages."""
        pages: list[Any] = []
        token: dict[str, object] = {}
        while True:
            status, page, _ = await self.query(**changes, **token)
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
    figures_by_key = simulator.truth(START, END, "daily", timezone)
    return {(flow, instant(start), name): figure for (flow, start, name), figure in figures_by_key.items()}


@asynccontextmanager
async def connect(
    clock: FakeClock | None = None,
    *,
    authorize: bool = True,
    **settings: Any,  # noqa: ANN401 - fields of SimulatedOrg
) -> AsyncIterator[tuple[Simulator, Client]]:
    """Start a simulator with one org and a client of the org."""
    org = SimulatedOrg(**({"requests_per_second": None} | settings))
    async with (
        Simulator(SimulatorConfig(orgs={"acme": org}), clock) as simulator,
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(20)) as session,
    ):
        client = Client(simulator, session)
        if authorize:
            await client.authorize()
        yield simulator, client
