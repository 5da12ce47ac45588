"""The page's files, and what its script requests, as bounded JSON with an ETag.

::

    /api/now           limits, queues, progress, gaps, warnings
    /api/calendar      org [from to]                        a letter a day for each job
    /api/day           org job day                          one day's windows and restatements
    /api/flows         org [q limit]                        flows by name
    /api/shares        org flow [granularity from to]       a flow's outcomes over time
    /api/changes       [org limit]                          the last restatements and renames
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
from service.web import coverage, details
from service.web.assets import assets
from service.web.daemon_view import DaemonView
from service.web.overview import LocalState, RequestRates, overview
from service.web.parameters import ParameterError, Parameters
from service.web.response_cache import CachedResponse, ResponseCache, encode
from service.web.status_cache import STATUS_COST_FACTOR, STATUS_MAX_AGE, StatusCache

REVALIDATE = "no-cache"
COMPRESSED_SIZE_MIN = 1024
"""Bytes from which a response is compressed."""
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

    def add_to(self, app: web.Application) -> None:
        """Add every path."""
        app.router.add_get("/static/{name}", _static)
        app.router.add_get("/api/now", self._now)
        endpoints: dict[str, tuple[Endpoint, tuple[str, ...]]] = {
            "/api/calendar": (self._calendar, ("org", "from", "to")),
            "/api/day": (self._day, ("org", "job", "day")),
            "/api/flows": (self._flows, ("org", "q", "limit")),
            "/api/shares": (self._shares, ("org", "flow", "granularity", "from", "to")),
            "/api/changes": (self._changes, ("org", "limit")),
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
                response = await self._responses.get(f"{request.path} {sorted(given.items())}", query)
            except ServerBusyError as error:
                return _error(HTTPStatus.SERVICE_UNAVAILABLE, str(error), {hdrs.RETRY_AFTER: RETRY_AFTER})
            except FlowOutcomesError as error:
                return _error(HTTPStatus.SERVICE_UNAVAILABLE, str(error))
            return _json(request, response)

        return handle

    async def _now(self, request: web.Request) -> web.Response:
        config = self._daemon.config
        try:
            Parameters(dict(request.query), frozenset(), config, self._clock)
            status = await self._status.status.get(max_age=STATUS_MAX_AGE, cost_factor=STATUS_COST_FACTOR)
            paces = await self._status.paces.get(max_age=STATUS_MAX_AGE, cost_factor=STATUS_COST_FACTOR)
        except ParameterError as error:
            return _error(HTTPStatus.BAD_REQUEST, str(error))
        except FlowOutcomesError as error:
            return _error(HTTPStatus.SERVICE_UNAVAILABLE, str(error))
        rates = self._rates.measure(config.orgs)
        local = LocalState(dict(self._daemon.load()), rates, list(self._daemon.warned))
        problem = await self._status.readiness_problem()
        document = overview(status, config, paces, local) | {"problem": problem or None}
        return _json(request, await asyncio.to_thread(encode, document))

    def _calendar(self, parameters: Parameters) -> Query:
        org = parameters.org()
        first, end = parameters.calendar(org)
        jobs = parameters.jobs(org)
        return lambda connection: coverage.calendar(connection, org, jobs, first, end, self._clock.now())

    def _day(self, parameters: Parameters) -> Query:
        org, day = parameters.org(), parameters.day()
        job = parameters.job(org)
        return lambda connection: details.day(connection, org, job, day, self._clock.now())

    def _flows(self, parameters: Parameters) -> Query:
        org, search_text, limit = parameters.org(), parameters.search_text(), parameters.limit(100, 500)
        return lambda connection: details.flows(connection, org.name, search_text, limit)

    def _shares(self, parameters: Parameters) -> Query:
        org, flow, granularity = parameters.org(), parameters.flow(), parameters.granularity()
        first, end = parameters.chart(org, granularity)
        return lambda connection: details.shares(connection, org, flow, granularity, first, end, self._clock.now())

    def _changes(self, parameters: Parameters) -> Query:
        orgs, limit = parameters.orgs(), parameters.limit(20, 100)
        return lambda connection: details.changes(connection, orgs, limit)


async def _static(request: web.Request) -> web.Response:
    asset = assets().get(request.match_info["name"])
    if asset is None or asset.content_type == "text/html":
        raise web.HTTPNotFound
    return _respond(request, asset.body, asset.etag, asset.content_type)


def _json(request: web.Request, response: CachedResponse) -> web.Response:
    return _respond(request, response.body, response.etag, "application/json")


def _respond(request: web.Request, body: bytes, etag: str, content_type: str) -> web.Response:
    """The body, or 304 where the client has it."""
    known = request.if_none_match or ()
    if any(each.value in (etag, "*") for each in known):
        response = web.Response(status=HTTPStatus.NOT_MODIFIED)
    else:
        response = web.Response(body=body, content_type=content_type, charset="utf-8")
        if len(body) >= COMPRESSED_SIZE_MIN:
            response.enable_compression()
    response.etag = ETag(etag, is_weak=True)  # one document, compressed or not
    response.headers[hdrs.CACHE_CONTROL] = REVALIDATE
    return response


def _error(status: HTTPStatus, reason: str, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.json_response({"error": reason}, status=status, headers=headers)
