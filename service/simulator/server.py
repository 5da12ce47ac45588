"""The HTTP server: records each request, applies the org's limits, and routes it."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable
from datetime import timedelta
from email.utils import format_datetime
from types import TracebackType
from typing import Self
from weakref import WeakSet

from aiohttp import web

from service.clock import Clock
from service.simulator import query_builder, token_endpoint
from service.simulator.admin import Admin
from service.simulator.api_error import ApiError
from service.simulator.builder_query import decode, digest_of
from service.simulator.fault_injection import MOVED, inject_query_fault, too_many_requests
from service.simulator.faults import Fault
from service.simulator.flow_aggregates import JOBS
from service.simulator.oauth import TokenError, basic_credentials, missing_permission
from service.simulator.organisation import LiveOrg, SimulatorConfig
from service.simulator.public_api import PUBLIC, PublicApi
from service.simulator.state import Arrival, SimulatorState
from service.simulator.wire import REUSED, ConnectionGoneError, Reply, error_reply, json_reply, send

ADMIN = "/_simulator/"
_DATE = web.RequestKey("date", Fault)
_EMPTY_PAGE = {"nextPageToken": None, "metrics": ["flow-outcomes"], "data": []}


class Simulator(SimulatorState):
    """The simulated Genesys Cloud; serves while its context is entered.

    Args:
        config: the simulated orgs.
        clock: its wall time decides what has happened and settled, its monotonic time what has expired.
        pace: the clock that counts requests, in seconds; real time by default, whatever ``clock`` is.
    """

    def __init__(
        self,
        config: SimulatorConfig | None = None,
        clock: Clock | None = None,
        pace: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(config, clock, pace)
        self.base_url = ""
        self.public = PublicApi(self.orgs, self.tokens, self._read_clocks)
        self._admin = Admin(self, self.public.jobs)
        self._runner: web.AppRunner | None = None
        self._connections: WeakSet[asyncio.Transport] = WeakSet()

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_route("*", "/{tail:.*}", self._handle)
        app.on_response_prepare.append(self._set_date)
        # A handler is cancelled when its client disconnects: the request is no longer in flight.
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self.config.host, self.config.port)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.base_url = f"http://{host}:{port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        at = self._pace()
        request[REUSED] = request.transport in self._connections
        if request.transport is not None:
            self._connections.add(request.transport)
        if request.path.startswith(ADMIN):
            return await self._admin.answer(request)
        arrival = Arrival(at, request.path, _kind_of(request.path))
        self.arrivals.append(arrival)
        org = self._org_of(request)
        arrival.org = org.client_id if org else None
        within_limit = True
        if org is not None:
            if fault := org.fault_plan.for_request("date").fire("date"):
                request[_DATE] = fault
            org.retry_after_watch.arrive(at)
            within_limit = org.rate_limit.arrive(at)
            if org.settings.latency:
                await asyncio.sleep(org.settings.latency)
        try:
            if org is not None and not within_limit:
                await request.read()
                response: web.StreamResponse = too_many_requests(org, self._pace()).response()
            else:
                response = await self._answer(request, arrival, org)
        except (ApiError, TokenError) as error:
            response = error_reply(error).response()
        except ConnectionGoneError:
            return web.Response()
        arrival.status = response.status
        return response

    async def _set_date(self, request: web.Request, response: web.StreamResponse) -> None:
        """Set the Date header from the simulated clock, or from a fault; and an id of the request."""
        response.headers["ININ-Correlation-Id"] = str(uuid.uuid4())
        fault = request.get(_DATE)
        ahead = fault.value if fault else 0
        if fault and ahead in (None, "absent"):
            response.headers.popall("Date", None)
        elif isinstance(ahead, (int, float)):
            response.headers["Date"] = format_datetime(self.now() + timedelta(seconds=ahead), usegmt=True)
        else:
            response.headers["Date"] = str(ahead)

    async def _answer(self, request: web.Request, arrival: Arrival, org: LiveOrg | None) -> web.StreamResponse:
        match arrival.kind:
            case "token":
                reply = await token_endpoint.answer_token(request, org, self.tokens, self._read_clocks())
                return reply.response()
            case "query":
                return await self._query(request, arrival)
            case "aggregates" | "jobs" | "names" | "settings":
                return await self.public.answer(request, arrival)
            case "moved":
                return json_reply(_EMPTY_PAGE).response()
        raise ApiError(404, "not.found", "The requested resource was not found")

    async def _query(self, request: web.Request, arrival: Arrival) -> web.StreamResponse:
        """Authorize a query-builder request and answer it."""
        body = await request.read()
        if request.method != "POST":
            raise ApiError(405, "method.not.allowed", "HTTP 405 Method Not Allowed")
        org = self.orgs[self.tokens.check(request.headers.get("Authorization"), self.clock.monotonic())]
        if not org.settings.permitted:
            raise missing_permission()
        if request.content_type != "application/json":
            raise ApiError(415, "unsupported.media.type", "The content type must be application/json")
        document = decode(body)
        arrival.digest = digest_of(document)
        arrival.page = query_builder.requested_page(org, document)
        faults = org.fault_plan.for_request("query")
        faults.page = arrival.page
        with org.single_flight.track(arrival.digest):
            if reply := await inject_query_fault(org, request, faults, self._pace(), document=document):
                return reply.response()
            text = query_builder.answer(org, document, faults, self._read_clocks())
            return await send(request, Reply(200, text), faults)

    def _org_of(self, request: web.Request) -> LiveOrg | None:
        """Return the org of a request's bearer token, valid or not, or of its client id."""
        header = request.headers.get("Authorization")
        credentials = basic_credentials(header)
        client_id = credentials.client_id if credentials else self.tokens.owner(header)
        return self.orgs.get(client_id) if client_id else None


_KINDS = {token_endpoint.PATH: "token", query_builder.PATH: "query", MOVED: "moved", **PUBLIC}


def _kind_of(path: str) -> str:
    return "jobs" if path.startswith(f"{JOBS}/") else _KINDS.get(path, "other")
