"""The page's files, and what its script requests, as bounded JSON with an ETag.

::

    /api/now           problems, progress, limits, queues
    /api/overview      org [measure]                                 every flow, this week beside the last
    /api/flows         org [q limit]                                 flows by name
    /api/flow          org flow [granularity from to at split]       one flow over time
    /api/instants      org flow [granularity from to]                when its figures changed
    /api/differences   org flow [granularity from to at with]        what differs between two instants
    /api/figures.csv   org [flow granularity from to at formulas]    figures as a file
    /api/strips        [batch]                                       90 days of each job, of 25 orgs
    /api/calendar      org [from to]                                 a letter a day for each job
    /api/day           org job day                                   one day's windows and restatements
    /api/timeline      [org]                                         what happened lately
    /api/suggestions   [org] [flow]                                  suggested aliases
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any

from aiohttp import hdrs, web
from aiohttp.helpers import ETag

from service.clock import Clock
from service.errors import FlowOutcomesError, ServerBusyError
from service.postgres.pool import Connection
from service.postgres.queries import flow_figures, suggestions
from service.web import coverage, day, flow, timeline
from service.web.assets import Asset, assets
from service.web.compression import accepts_gzip
from service.web.daemon_view import DaemonView
from service.web.figures_csv import FiguresCsv
from service.web.kept_suggestions import KeptSuggestions, listed
from service.web.kept_weeks import KeptWeeks
from service.web.overview import LocalState, RequestRates, overview
from service.web.parameters import ParameterError, Parameters
from service.web.response_cache import CachedResponse, ResponseCache, encode
from service.web.status_cache import STATUS_COST_FACTOR, STATUS_MAX_AGE, SharedValue, StatusCache

REVALIDATE = "no-cache"
OVERVIEW_COST = 40.0
_COST_FACTORS = {
    "/api/overview": OVERVIEW_COST,
    "/api/strips": 20.0,
    "/api/timeline": 20.0,
    "/api/suggestions": 20.0,
}
"""A response is kept for this many times as long as it took; 10 for the other paths."""
NOW_MAX_AGE, NOW_COST_FACTOR = 1.0, 4.0
RESTATED_MAX_AGE = 5.0
RETRY_AFTER = "3"
"""Seconds: no client waits longer than ``WAIT_TIMEOUT`` for one of the responses that are being queried."""

Query = Callable[[Connection], Awaitable[Any]]
Endpoint = Callable[[Parameters], Query]


class Endpoints:
    """Answers what the page's script requests.

    Args:
        daemon: the daemon.
        status: the status.
        responses: the last responses.
        clock: the time.
    """

    def __init__(self, daemon: DaemonView, status: StatusCache, responses: ResponseCache, clock: Clock) -> None:
        self._daemon = daemon
        self._status = status
        self._responses = responses
        self._rates = RequestRates(daemon.registry, clock)
        self._clock = clock
        self._present = SharedValue(self._compose_now, clock)
        self._weeks = KeptWeeks()
        self._suggested = KeptSuggestions()
        self._preparing: set[asyncio.Task[CachedResponse]] = set()
        self._files = FiguresCsv(status.require_dsn)

    def add_to(self, app: web.Application) -> None:
        """Add every path."""
        app.router.add_get("/static/{name}", _static)
        app.router.add_get("/api/now", self._now)
        app.router.add_get("/api/figures.csv", self._figures_csv)
        span = ("org", "flow", "granularity", "from", "to")
        endpoints: dict[str, tuple[Endpoint, tuple[str, ...]]] = {
            "/api/overview": (self._overview, ("org", "measure")),
            "/api/flows": (self._flows, ("org", "q", "limit")),
            "/api/flow": (self._flow, (*span, "at", "split")),
            "/api/instants": (self._instants, span),
            "/api/differences": (self._differences, (*span, "at", "with")),
            "/api/strips": (self._strips, ("batch",)),
            "/api/calendar": (self._calendar, ("org", "from", "to")),
            "/api/day": (self._day, ("org", "job", "day")),
            "/api/timeline": (self._timeline, ("org",)),
            "/api/suggestions": (self._suggestions, ("org", "flow")),
        }
        for path, (endpoint, known) in endpoints.items():
            app.router.add_get(path, self._handler(endpoint, frozenset(known)))

    def _handler(
        self, endpoint: Endpoint, known: frozenset[str]
    ) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handle(request: web.Request) -> web.Response:
            given = dict(request.query)
            try:
                query = endpoint(Parameters(given, known, self._daemon.config, self._clock))
            except ParameterError as error:
                return _error(HTTPStatus.BAD_REQUEST, str(error))
            try:
                key = f"{request.path} {sorted(given.items())}"
                response = await self._responses.get(key, query, cost_factor=_COST_FACTORS.get(request.path, 10.0))
            except ServerBusyError as error:
                return _error(HTTPStatus.SERVICE_UNAVAILABLE, str(error), {hdrs.RETRY_AFTER: RETRY_AFTER})
            except FlowOutcomesError as error:
                return _error(HTTPStatus.SERVICE_UNAVAILABLE, str(error))
            return _json(request, response)

        return handle

    def prepare_overview(self, org: str) -> None:
        """Read an org's overview while its page is on its way: the page's script requests it next."""
        parameters = Parameters({"org": org}, frozenset(("org",)), self._daemon.config, self._clock)
        key = f"/api/overview {[('org', org)]}"
        task = asyncio.create_task(self._responses.get(key, self._overview(parameters), cost_factor=OVERVIEW_COST))
        self._preparing.add(task)
        task.add_done_callback(self._prepared)

    def _prepared(self, task: asyncio.Task[CachedResponse]) -> None:
        self._preparing.discard(task)
        if not task.cancelled():
            task.exception()  # the script's own request reports it

    async def _now(self, request: web.Request) -> web.Response:
        try:
            Parameters(dict(request.query), frozenset(), self._daemon.config, self._clock)
            response = await self._present.get(max_age=NOW_MAX_AGE, cost_factor=NOW_COST_FACTOR)
        except ParameterError as error:
            return _error(HTTPStatus.BAD_REQUEST, str(error))
        except FlowOutcomesError as error:
            return _error(HTTPStatus.SERVICE_UNAVAILABLE, str(error))
        return _json(request, response)

    async def _compose_now(self) -> CachedResponse:
        """The state of every org, encoded once for all clients."""
        config = self._daemon.config
        status = await self._status.status.get(max_age=STATUS_MAX_AGE, cost_factor=STATUS_COST_FACTOR)
        # one after the other: on one connection
        paces = await self._status.paces.get(max_age=STATUS_MAX_AGE, cost_factor=STATUS_COST_FACTOR)
        restated = await self._status.restated.get(max_age=RESTATED_MAX_AGE, cost_factor=STATUS_COST_FACTOR)
        problem = await self._status.readiness_problem()
        local = LocalState(dict(self._daemon.load()), self._rates.measure(config.orgs), restated)
        return await asyncio.to_thread(
            lambda: encode(overview(status, config, paces, local) | {"problem": problem or None})
        )

    async def _figures_csv(self, request: web.Request) -> web.StreamResponse:
        known = frozenset(("org", "flow", "granularity", "from", "to", "at", "formulas"))
        try:
            parameters = Parameters(dict(request.query), known, self._daemon.config, self._clock)
            return await self._files.respond(request, parameters.file_request(parameters.org()))
        except ParameterError as error:
            return _error(HTTPStatus.BAD_REQUEST, str(error))
        except ServerBusyError as error:
            return _error(HTTPStatus.SERVICE_UNAVAILABLE, str(error), {hdrs.RETRY_AFTER: RETRY_AFTER})
        except FlowOutcomesError as error:
            return _error(HTTPStatus.SERVICE_UNAVAILABLE, str(error))

    def _overview(self, parameters: Parameters) -> Query:
        config, org, measure = self._daemon.config, parameters.org(), parameters.measure()
        return lambda connection: self._weeks.read(connection, config, org, self._clock.now(), measure)

    def _flow(self, parameters: Parameters) -> Query:
        request = parameters.flow_request(parameters.org())
        return lambda connection: flow.document(connection, request, self._clock.now())

    def _instants(self, parameters: Parameters) -> Query:
        request = parameters.flow_request(parameters.org())
        return lambda connection: flow.instants(connection, request)

    def _differences(self, parameters: Parameters) -> Query:
        request = parameters.flow_request(parameters.org())
        return lambda connection: flow.differences(connection, request)

    def _strips(self, parameters: Parameters) -> Query:
        config, batch = self._daemon.config, parameters.batch()
        return lambda connection: coverage.strips(connection, config, batch, self._clock.now())

    def _timeline(self, parameters: Parameters) -> Query:
        config, orgs = self._daemon.config, parameters.orgs()
        return lambda connection: timeline.document(connection, config, orgs, list(self._daemon.warned))

    def _suggestions(self, parameters: Parameters) -> Query:
        orgs, flow_id = parameters.orgs(), parameters.flow() if parameters.given("flow") else None
        if flow_id is None:
            return lambda connection: self._suggested.read(connection, orgs)
        org = parameters.org().name

        async def query(connection: Connection) -> Any:  # noqa: ANN401 - a document
            return {"suggestions": listed(await suggestions.suggestions(connection, org, flow_id))}

        return query

    def _calendar(self, parameters: Parameters) -> Query:
        org = parameters.org()
        first, end = parameters.calendar(org)
        jobs = parameters.jobs(org)
        return lambda connection: coverage.calendar(connection, org, jobs, first, end, self._clock.now())

    def _day(self, parameters: Parameters) -> Query:
        org, when = parameters.org(), parameters.day()
        job = parameters.job(org)
        return lambda connection: day.day(connection, org, job, when, self._clock.now())

    def _flows(self, parameters: Parameters) -> Query:
        org, search_text, limit = parameters.org(), parameters.search_text(), parameters.limit(100, 500)

        async def query(connection: Connection) -> Any:  # noqa: ANN401 - a document
            found = await flow_figures.flows(connection, org.name, search_text, limit + 1)
            return {
                "org": org.name,
                "flows": [each._asdict() for each in found[:limit]],
                "more": len(found) > limit,
            }

        return query


async def _static(request: web.Request) -> web.Response:
    asset = assets().get(request.match_info["name"])
    if asset is None or asset.content_type == "text/html":
        raise web.HTTPNotFound
    return _respond(request, asset, asset.content_type)


def _json(request: web.Request, response: CachedResponse) -> web.Response:
    return _respond(request, response, "application/json")


def _respond(request: web.Request, content: Asset | CachedResponse, content_type: str) -> web.Response:
    """The body, or 304 where the client has it."""
    known = request.if_none_match or ()
    if any(each.value in (content.etag, "*") for each in known):
        response = web.Response(status=HTTPStatus.NOT_MODIFIED)
    else:
        packed = content.packed and accepts_gzip(request.headers.get(hdrs.ACCEPT_ENCODING, ""))
        body = content.packed if packed else content.body
        response = web.Response(body=body, content_type=content_type, charset="utf-8")
        if packed:
            response.headers[hdrs.CONTENT_ENCODING] = "gzip"
    response.etag = ETag(content.etag, is_weak=True)  # one document, compressed or not
    response.headers[hdrs.CACHE_CONTROL] = REVALIDATE
    response.headers[hdrs.VARY] = hdrs.ACCEPT_ENCODING
    return response


def _error(status: HTTPStatus, reason: str, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.json_response({"error": reason}, status=status, headers=headers)
