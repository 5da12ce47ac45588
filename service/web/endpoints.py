"""The page's paths: its files, and what it asks for, as bounded JSON with an ETag.

::

    /api/now           how it stands at this moment
    /api/calendar      org [from to]                        a letter a day for each job
    /api/day           org job day                          one day's windows and restatements
    /api/flows         org [q limit]                        flows by name
    /api/shares        org flow [granularity from to]       a flow's outcomes over time
    /api/changes       [org limit]                          what was restated and renamed lately
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from aiohttp import hdrs, web
from aiohttp.helpers import ETag

from service.clock import Clock
from service.config import Config
from service.errors import FlowOutcomesError
from service.postgres.pool import Connection
from service.telemetry import Warned
from service.web import coverage, figures
from service.web import overview as moment
from service.web.assets import assets
from service.web.gauges import Load
from service.web.parameters import ParameterError, Parameters
from service.web.response_cache import Answer, ResponseCache, answer
from service.web.status_cache import STATUS_AGE, STATUS_SPACING, StatusCache

REVALIDATE = "no-cache"
SMALLEST_PACKED = 1024  # bytes; smaller answers gain nothing from being compressed

Make = Callable[[Connection], Awaitable[Any]]
Ask = Callable[[Parameters], Make]


class Endpoints:
    """Answers what the page asks for.

    Args:
        watch: the status.
        answers: what was asked before.
        config: the configuration as of now.
        load: what each org that this process holds is at.
        warned: the last warnings.
        rates: requests a second.
        clock: the time.
    """

    def __init__(
        self,
        watch: StatusCache,
        answers: ResponseCache,
        config: Callable[[], Config],
        load: Callable[[], Mapping[str, Load]],
        warned: Callable[[], Sequence[Warned]],
        rates: moment.Rates,
        clock: Clock,
    ) -> None:
        self._watch = watch
        self._answers = answers
        self._config = config
        self._load = load
        self._warned = warned
        self._rates = rates
        self._clock = clock

    def add_to(self, app: web.Application) -> None:
        """Add every path."""
        app.router.add_get("/static/{name}", _static)
        app.router.add_get("/api/now", self._now)
        asks: dict[str, tuple[Ask, tuple[str, ...]]] = {
            "/api/calendar": (self._calendar, ("org", "from", "to")),
            "/api/day": (self._day, ("org", "job", "day")),
            "/api/flows": (self._flows, ("org", "q", "limit")),
            "/api/shares": (self._shares, ("org", "flow", "granularity", "from", "to")),
            "/api/changes": (self._changes, ("org", "limit")),
        }
        for path, (ask, known) in asks.items():
            app.router.add_get(path, self._answering(ask, frozenset(known)))

    def _answering(self, ask: Ask, known: frozenset[str]) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def answered(request: web.Request) -> web.Response:
            given = dict(request.query)
            try:
                make = ask(Parameters(given, known, self._config(), self._clock))
            except ParameterError as error:
                return _refused(HTTPStatus.BAD_REQUEST, str(error))
            try:
                found = await self._answers.get(f"{request.path} {sorted(given.items())}", make)
            except FlowOutcomesError as error:
                return _refused(HTTPStatus.SERVICE_UNAVAILABLE, str(error))
            return _sent(request, found)

        return answered

    async def _now(self, request: web.Request) -> web.Response:
        config = self._config()
        try:
            Parameters(dict(request.query), frozenset(), config, self._clock)
            status = await self._watch.status.get(age=STATUS_AGE, spacing=STATUS_SPACING)
            paces = await self._watch.paces.get(age=STATUS_AGE, spacing=STATUS_SPACING)
        except ParameterError as error:
            return _refused(HTTPStatus.BAD_REQUEST, str(error))
        except FlowOutcomesError as error:
            return _refused(HTTPStatus.SERVICE_UNAVAILABLE, str(error))
        here = moment.LocalState(dict(self._load()), self._rates.measured(config.orgs), list(self._warned()))
        document = moment.now(status, config, paces, here)
        return _sent(request, await asyncio.to_thread(answer, document))

    def _calendar(self, asked: Parameters) -> Make:
        org = asked.org()
        first, past = asked.calendar(org)
        jobs = asked.jobs(org)
        return lambda connection: coverage.calendar(connection, org, jobs, first, past, self._clock.now())

    def _day(self, asked: Parameters) -> Make:
        org, day = asked.org(), asked.day()
        job = asked.job(org)
        return lambda connection: figures.day(connection, org, job, day, self._clock.now())

    def _flows(self, asked: Parameters) -> Make:
        org, sought, most = asked.org(), asked.sought(), asked.limit(100, 500)
        return lambda connection: figures.flows(connection, org.name, sought, most)

    def _shares(self, asked: Parameters) -> Make:
        org, flow, granularity = asked.org(), asked.flow(), asked.granularity()
        first, past = asked.figures(org, granularity)
        return lambda connection: figures.shares(
            connection, org, flow, granularity, first, past, self._clock.now()
        )

    def _changes(self, asked: Parameters) -> Make:
        orgs, most = asked.orgs(), asked.limit(20, 100)
        return lambda connection: figures.changes(connection, orgs, most)


async def _static(request: web.Request) -> web.Response:
    asset = assets().get(request.match_info["name"])
    if asset is None or asset.content_type == "text/html":
        raise web.HTTPNotFound
    return sent(request, asset.body, asset.etag, asset.content_type)


def _sent(request: web.Request, found: Answer) -> web.Response:
    return sent(request, found.body, found.etag, "application/json")


def sent(request: web.Request, body: bytes, etag: str, content_type: str) -> web.Response:
    """These bytes, or that they have not changed."""
    known = request.if_none_match or ()
    if any(each.value in (etag, "*") for each in known):
        response = web.Response(status=HTTPStatus.NOT_MODIFIED)
    else:
        response = web.Response(body=body, content_type=content_type, charset="utf-8")
        if len(body) >= SMALLEST_PACKED:
            response.enable_compression()
    response.etag = ETag(etag, is_weak=True)  # the same document, packed or not
    response.headers[hdrs.CACHE_CONTROL] = REVALIDATE
    return response


def _refused(status: HTTPStatus, reason: str) -> web.Response:
    return web.json_response({"error": reason}, status=status)
