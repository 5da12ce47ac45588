"""The server: one front door where every request is stamped, and the ways that lead on from it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta
from email.utils import format_datetime
from types import TracebackType
from typing import Self

from aiohttp import web

from service.clock import Clock
from service.simulator import query_builder, token_endpoint
from service.simulator.admin import Admin
from service.simulator.engine import decode, digest_of
from service.simulator.fault_injection import MOVED, before_query, too_many
from service.simulator.faults import Fault
from service.simulator.flow_aggregates import JOBS
from service.simulator.oauth import TokenRefusal, basic_credentials, missing_permission
from service.simulator.organisation import LiveOrg, SimulatorConfig
from service.simulator.public import PUBLIC, PublicApi
from service.simulator.refusal import Refusal
from service.simulator.state import Arrival, SimulatorState
from service.simulator.wire import ConnectionGoneError, Reply, document, refused, send

ADMIN = "/_simulator/"
_DATE = web.RequestKey("date", Fault)
_EMPTY_PAGE = {"nextPageToken": None, "metrics": ["flow-outcomes"], "data": []}


class Simulator(SimulatorState):
    """The simulated Genesys Cloud, while the context lasts.

    Args:
        config: what is simulated.
        clock: wall time decides what has happened and settled; monotonic time what has expired.
        pace: the clock by which requests are counted, in seconds; real by default, whatever ``clock`` is.
    """

    def __init__(
        self,
        config: SimulatorConfig | None = None,
        clock: Clock | None = None,
        pace: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(config, clock, pace)
        self.base_url = ""
        self.public = PublicApi(self.orgs, self.tokens, self._hands)
        self._admin = Admin(self, self.public.jobs)
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_route("*", "/{tail:.*}", self._front_door)
        app.on_response_prepare.append(self._date)
        # A handler ends when its client hangs up: such a request is no longer in flight.
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

    async def _front_door(self, request: web.Request) -> web.StreamResponse:
        at = self._pace()
        if request.path.startswith(ADMIN):
            return await self._admin.answer(request)
        arrival = Arrival(at, request.path, _kind_of(request.path))
        self.arrivals.append(arrival)
        org = self._org_of(request)
        arrival.org = org.client_id if org else None
        within = True
        if org is not None:
            if fault := org.faults.occasion("date").strike("date"):
                request[_DATE] = fault
            org.hold.arrive(at)
            within = org.rate.arrive(at)
            if org.settings.latency:
                await asyncio.sleep(org.settings.latency)
        try:
            if org is not None and not within:
                await request.read()
                response: web.StreamResponse = too_many(org, self._pace()).response()
            else:
                response = await self._answer(request, arrival, org)
        except (Refusal, TokenRefusal) as refusal:
            response = refused(refusal).response()
        except ConnectionGoneError:
            return web.Response()
        arrival.status = response.status
        return response

    async def _date(self, request: web.Request, response: web.StreamResponse) -> None:
        """Date the response by the simulated clock, or as a fault has it."""
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
                return (await token_endpoint.answer_token(request, org, self.tokens, self._hands())).response()
            case "query":
                return await self._query(request, arrival)
            case "aggregates" | "jobs" | "names":
                return await self.public.answer(request, arrival)
            case "moved":
                return document(_EMPTY_PAGE).response()
        raise Refusal(404, "not.found", "The requested resource was not found")

    async def _query(self, request: web.Request, arrival: Arrival) -> web.StreamResponse:
        """Check who asks, and let the dialect answer."""
        body = await request.read()
        if request.method != "POST":
            raise Refusal(405, "method.not.allowed", "HTTP 405 Method Not Allowed")
        org = self.orgs[self.tokens.check(request.headers.get("Authorization"), self.clock.monotonic())]
        if not org.settings.permitted:
            raise missing_permission()
        if request.content_type != "application/json":
            raise Refusal(415, "unsupported.media.type", "The content type must be application/json")
        asked = decode(body)
        arrival.digest = digest_of(asked)
        arrival.page = query_builder.page_asked_for(org, asked)
        occasion = org.faults.occasion("query")
        occasion.page = arrival.page
        with org.flight.of(arrival.digest):
            if struck := await before_query(org, request, occasion, self._pace()):
                return struck.response()
            text = query_builder.answer(org, asked, occasion, self._hands())
            return await send(request, Reply(200, text), occasion)

    def _org_of(self, request: web.Request) -> LiveOrg | None:
        """The org that a request counts against: by its bearer token, good or not, or by its client id."""
        header = request.headers.get("Authorization")
        credentials = basic_credentials(header)
        client_id = credentials.client_id if credentials else self.tokens.owner(header)
        return self.orgs.get(client_id) if client_id else None


_KINDS = {token_endpoint.PATH: "token", query_builder.PATH: "query", MOVED: "moved", **PUBLIC}


def _kind_of(path: str) -> str:
    return "jobs" if path.startswith(f"{JOBS}/") else _KINDS.get(path, "other")
