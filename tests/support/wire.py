"""A server on loopback with prepared responses, and the client that it answers."""

from __future__ import annotations

import asyncio
import math
import socket
import struct
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

from service.genesys import GenesysClient
from service.genesys.dialect import ApiRequest
from service.genesys.limiter import OrgLimiter
from service.genesys.query_builder import PATH, QueryBuilder
from service.model import Granularity, Query, Span

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
DAY = Span(datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 2, tzinfo=UTC))
QUERY = Query("acme", DAY, Granularity.DAILY, "UTC", (), 100, None, DAY)
REQUEST = ApiRequest("POST", PATH, b"{}")
EMPTY = b'{"nextPageToken":null,"data":[]}'
SECRET = "hunter2hunter2"


class Wire:
    """A server that gives prepared responses in order, and its client."""

    def __init__(self) -> None:
        self.responses: list[Handler] = []
        self.arrivals: list[float] = []
        self.lease_check: Callable[[], None] = lambda: None
        self.events: list[tuple[str, dict[str, Any]]] = []
        app = web.Application()
        app.router.add_post("/oauth/token", self._token)
        app.router.add_route("*", PATH, self._respond)
        self.server = TestServer(app)

    async def start(self) -> None:
        await self.server.start_server()
        url = str(self.server.make_url("")).rstrip("/")
        self.client = GenesysClient(
            "acme",
            base_url=url,
            login_url=url,
            credentials=lambda: ("id", SECRET),
            dialect=QueryBuilder(),
            requests_per_second=100,
            query_timeout=timedelta(seconds=20),
            breaker_failures=50,
            breaker_open_for=timedelta(seconds=30),
            lease_check=self._check,
            on_pause=lambda _: None,
            emit=lambda event, **context: self.events.append((event, context)),
        )
        self.client.limiter = OrgLimiter(100, spent_ago=math.inf)  # no other process used the limit

    def _check(self) -> None:
        self.lease_check()

    async def close(self) -> None:
        await self.client.close()
        await self.server.close()

    async def call(self, request: ApiRequest = REQUEST) -> bytes:
        return (await self.client.call(request)).body

    async def _token(self, _request: web.Request) -> web.Response:
        self.arrivals.append(time.monotonic())
        return web.json_response({"access_token": "the-token-itself", "expires_in": 3600})

    async def _respond(self, request: web.Request) -> web.StreamResponse:
        self.arrivals.append(time.monotonic())
        if not self.responses:
            return web.Response(body=EMPTY)
        return await self.responses.pop(0)(request)


def plain(body: bytes, status: int = 200, **headers: str) -> Handler:
    async def respond(_request: web.Request) -> web.Response:
        return web.Response(body=body, status=status, headers={k.replace("_", "-"): v for k, v in headers.items()})

    return respond


def raw(*parts: bytes, reset: bool = False, pause: float = 0) -> Handler:
    """Writes bytes to the connection, then ends it."""

    async def respond(request: web.Request) -> web.StreamResponse:
        transport = request.transport
        assert transport is not None
        for part in parts:
            if transport.is_closing():
                break
            transport.write(part)
            await asyncio.sleep(pause)
        if reset:
            transport.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
            transport.abort()
        else:
            transport.close()
        return web.Response()

    return respond
