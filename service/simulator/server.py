"""The server: one front door where every request is stamped, and the ways that lead on from it."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.utils import format_datetime
from types import TracebackType
from typing import Self
from zoneinfo import ZoneInfo

from aiohttp import web

from service.clock import Clock, SystemClock
from service.simulator import query_builder, token_endpoint
from service.simulator.admin import Admin
from service.simulator.buckets import TimeGroup
from service.simulator.engine import decode, digest_of
from service.simulator.faults import Fault
from service.simulator.flow_aggregates import JOBS
from service.simulator.instants import Hands, milliseconds, moment
from service.simulator.limits import peak_per_second
from service.simulator.oauth import TokenRefusal, Tokens, basic_credentials, missing_permission
from service.simulator.organisation import LiveOrg, SimulatorConfig
from service.simulator.pages import open_scan
from service.simulator.public import PUBLIC, PublicApi
from service.simulator.refusal import Refusal
from service.simulator.sabotage import MOVED, before_query, too_many
from service.simulator.wire import ConnectionGoneError, Reply, document, refused, send

ADMIN = "/_simulator/"
_ARRIVALS = 200_000
_EMPTY_PAGE = {"nextPageToken": None, "metrics": ["flow-outcomes"], "data": []}


@dataclass(slots=True)
class Arrival:
    """A request as it came; what is not known yet fills in as it is answered.

    Attributes:
        at: seconds of the pacing clock, taken before anything else.
        path: what was asked for.
        kind: ``token``, ``query``, ``aggregates``, ``jobs``, ``names``, ``moved`` (a redirect that was followed)
            or ``other``.
        org: the client id, or None where it cannot be told.
        digest: of the query without its page token; empty for anything else.
        page: of the scan, from 1; 0 for anything else.
        status: as answered; 0 where the connection broke first.
    """

    at: float
    path: str
    kind: str
    org: str | None = None
    digest: str = ""
    page: int = 0
    status: int = 0


class Simulator:
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
        self.config = config or SimulatorConfig()
        self.clock: Clock = clock or SystemClock()
        self.shift = timedelta(0)
        self.orgs = {
            client_id: LiveOrg(client_id, settings, self.config.seed)
            for client_id, settings in self.config.orgs.items()
        }
        self.arrivals: deque[Arrival] = deque(maxlen=_ARRIVALS)
        self.tokens = Tokens()
        self.base_url = ""
        self._pace = pace
        self._admin = Admin(self)
        self.public = PublicApi(self.orgs, self.tokens, self._hands)
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

    def now(self) -> datetime:
        """The simulated wall time."""
        return self.clock.now() + self.shift

    def set_now(self, at: datetime) -> None:
        """Set the simulated wall time; it goes on from there."""
        self.shift = at - self.clock.now()

    @property
    def fired(self) -> Counter[str]:
        """How often each fault struck, over all orgs."""
        return sum((org.fired for org in self.orgs.values()), Counter())

    @property
    def in_flight_violations(self) -> int:
        """How often a query was asked while the same one was still being answered."""
        return sum(org.flight.violations for org in self.orgs.values())

    @property
    def hold_violations(self) -> int:
        """How many requests came before the Retry-After of a 429 had passed."""
        return sum(org.hold.violations for org in self.orgs.values())

    @property
    def tokens_issued(self) -> int:
        """How many access tokens were given out."""
        return self.tokens.issued

    def revoke_tokens(self, client_id: str | None = None) -> None:
        """Make the access tokens of a client, or all, worthless from now on."""
        self.tokens.revoke(client_id)

    def switch(self, name: str, fault: Fault | None, *, org: str | None = None) -> None:
        """Turn a fault on or off, in one org or in all; KeyError for an unknown fault or org."""
        for live in self.orgs.values() if org is None else (self.orgs[org],):
            live.faults.switch(name, fault)

    def peak_per_second(self, org: str | None = None) -> int:
        """The most requests in any second, wherever it began; of one org, or of the busiest one."""
        if org is None:
            return max((self.peak_per_second(client_id) for client_id in self.orgs), default=0)
        return peak_per_second(arrival.at for arrival in self.arrivals if arrival.org == org)

    def truth(
        self,
        span_start: datetime,
        span_end: datetime,
        granularity: TimeGroup,
        timezone: str | None = None,
        *,
        flows: Sequence[str] | None = None,
        at: datetime | None = None,
        org: str | None = None,
    ) -> Mapping[tuple[str, datetime, str], tuple[int, float]]:
        """What the org's figures are, straight from its centre.

        Args:
            span_start: of the span, aware.
            span_end: likewise; buckets at either end are cut to the span.
            granularity: ``hourly``, ``daily`` or ``monthly``.
            timezone: IANA name; None is the org's.
            flows: flow ids; None is all.
            at: as seen at this instant; None is now.
            org: a client id; None is the first.

        Returns:
            count and percentOfTotal by (flow id, the bucket's start in UTC, outcome name).
        """
        live = self.orgs[org] if org is not None else next(iter(self.orgs.values()))
        scan = open_scan(
            live.centre,
            start=milliseconds(span_start),
            end=milliseconds(span_end),
            step=granularity,
            timezone=live.timezone if timezone is None else ZoneInfo(timezone),
            at=milliseconds(at or self.now()),
            flows=None if flows is None else frozenset(flows),
            percent_of=live.settings.percent_of,
        )
        return {
            (flow, moment(start), name): (int(str(figure["count"])), float(str(figure["percentOfTotal"])))
            for flow, (start, _), outcomes in scan.figures()
            for name, figure in outcomes.items()
        }

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
            request["date"] = org.faults.occasion("date").strike("date")
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
        fault: Fault | None = request.get("date")
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

    def _hands(self) -> Hands:
        return Hands(milliseconds(self.now()), self._pace(), self.clock.monotonic())

    def _org_of(self, request: web.Request) -> LiveOrg | None:
        """The org that a request counts against: by its bearer token, good or not, or by its client id."""
        header = request.headers.get("Authorization")
        credentials = basic_credentials(header)
        client_id = credentials.client_id if credentials else self.tokens.owner(header)
        return self.orgs.get(client_id) if client_id else None


_KINDS = {token_endpoint.PATH: "token", query_builder.PATH: "query", MOVED: "moved", **PUBLIC}


def _kind_of(path: str) -> str:
    return "jobs" if path.startswith(f"{JOBS}/") else _KINDS.get(path, "other")
