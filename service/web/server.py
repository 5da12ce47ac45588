"""The server: a few paths, all of them only read, none of them waiting long for the database."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Protocol

from aiohttp import web
from aiohttp.typedefs import Handler
from prometheus_client import CollectorRegistry, generate_latest

from service.clock import Clock, SystemClock
from service.config import Config
from service.errors import ConfigError, Fault, FlowOutcomesError
from service.status import Status
from service.telemetry import Warned
from service.web.connection import SERVER, Connection
from service.web.endpoints import Endpoints
from service.web.gauges import Gauges, Load
from service.web.outbox import Outbox
from service.web.overview import Rates
from service.web.page import page
from service.web.response_cache import ResponseCache
from service.web.status_cache import STATUS_AGE, STATUS_SPACING, StatusCache

METRICS_AGE = 3.0
PAGE_AGE = 30.0  # the table that its script replaces at once
METRICS_SPACING = 20.0
STOP_WITHIN = 1.0
BACKLOG = 128
PROMETHEUS_TEXT = "text/plain; version=0.0.4; charset=utf-8"
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self';"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none';"
        " require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Reached(Protocol):
    """What knows where the database is."""

    dsn: str


class WebServer:
    """Tells how it is, from before the database is there to the end.

    Args:
        registry: what the process counts.
        runtime: knows the database; None until it is there.
        config: the configuration as of now.
        load: what each org that this process holds is at.
        warned: the last warnings.
        clock: the time.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        runtime: Callable[[], Reached | None],
        config: Callable[[], Config],
        load: Callable[[], Mapping[str, Load]] = dict,
        warned: Callable[[], Sequence[Warned]] = tuple,
        clock: Clock | None = None,
    ) -> None:
        self._registry = registry
        self._runtime = runtime
        self._config = config
        self._load = load
        self._clock = clock or SystemClock()
        self._watch = StatusCache(self._dsn, config, self._clock)
        self._answers = ResponseCache(self._watch.there, self._clock)
        self._endpoints = Endpoints(
            self._watch, self._answers, config, load, warned, Rates(registry, self._clock), self._clock
        )
        self._listener: asyncio.Server | None = None
        self._runner: web.AppRunner | None = None
        self._rendering = asyncio.Lock()
        self._rendered = (0, b"")

    async def start(self, host: str, port: int) -> str:
        """Listen; gives ``host:port`` as it really is.

        Raises:
            ConfigError: it cannot listen there.
        """
        app = web.Application(middlewares=[Outbox().send, _only_read])
        app.on_response_prepare.append(_add_headers)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/api/status", self._status)
        app.router.add_get("/", self._page)
        self._endpoints.add_to(app)
        runner = web.AppRunner(app, handle_signals=False, shutdown_timeout=STOP_WITHIN)
        await runner.setup()
        server, loop = runner.server, asyncio.get_running_loop()
        assert server is not None  # noqa: S101 - since its setup
        try:
            listener = await loop.create_server(lambda: Connection(server, loop), host, port, backlog=BACKLOG)
        except (OSError, OverflowError) as error:
            await runner.cleanup()
            reason = getattr(error, "strerror", None) or str(error)
            raise ConfigError([Fault("http", f"cannot listen on {host} port {port}: {reason}")]) from error
        self._listener, self._runner = listener, runner
        address, bound = listener.sockets[0].getsockname()[:2]
        return f"[{address}]:{bound}" if ":" in address else f"{address}:{bound}"

    async def stop(self) -> None:
        """Listen no more."""
        if self._listener is not None:
            self._listener.close()
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()
        await self._answers.close()
        await self._watch.close()

    def _dsn(self) -> str | None:
        runtime = self._runtime()
        if runtime is not None:
            return runtime.dsn
        configured = self._config().database.dsn
        return None if configured is None else configured.get_secret_value()

    async def _healthz(self, _request: web.Request) -> web.Response:
        return web.Response(text="alive\n")

    async def _readyz(self, _request: web.Request) -> web.Response:
        reason = await self._watch.unready()
        if reason:
            return web.json_response({"ready": False, "reason": reason}, status=HTTPStatus.SERVICE_UNAVAILABLE)
        return web.json_response({"ready": True})

    async def _metrics(self, _request: web.Request) -> web.Response:
        """What was counted, and the status' figures: the last known ones where the database is away."""
        reachable = True
        try:
            await self._watch.status.get(age=METRICS_AGE, spacing=METRICS_SPACING)
        except FlowOutcomesError:
            reachable = False
        known = self._watch.status
        gauges = Gauges(known.last, known.age, dict(self._load()), self._clock.now(), reachable=reachable)
        text = await asyncio.to_thread(lambda: generate_latest(self._registry) + gauges.text())
        return web.Response(body=text, headers={"Content-Type": PROMETHEUS_TEXT})

    async def _status(self, _request: web.Request) -> web.Response:
        try:
            status = await self._watch.status.get(age=STATUS_AGE, spacing=STATUS_SPACING)
        except FlowOutcomesError as error:
            return web.json_response({"error": str(error)}, status=HTTPStatus.SERVICE_UNAVAILABLE)
        body = await self._status_body(status)
        return web.Response(body=body, content_type="application/json", charset="utf-8")

    async def _status_body(self, status: Status) -> bytes:
        """One body for all who get the same status: with a backlog of many orgs it has megabytes."""
        number = self._watch.status.made
        async with self._rendering:
            if self._rendered[0] < number:
                self._rendered = (number, (await asyncio.to_thread(json.dumps, status)).encode())
            return self._rendered[1]

    async def _page(self, _request: web.Request) -> web.Response:
        trouble = None
        try:
            await self._watch.status.get(age=PAGE_AGE, spacing=STATUS_SPACING)
        except FlowOutcomesError as error:
            trouble = str(error)
        text = await asyncio.to_thread(page, self._watch.status.last, trouble)
        return web.Response(text=text, content_type="text/html")


@web.middleware
async def _only_read(request: web.Request, handler: Handler) -> web.StreamResponse:
    if request.method not in {"GET", "HEAD"}:
        raise web.HTTPMethodNotAllowed(request.method, ["GET", "HEAD"])
    if request.can_read_body:
        refusal = web.Response(status=HTTPStatus.BAD_REQUEST, text="a request has no body here\n")
        refusal.force_close()
        return refusal
    return await handler(request)


async def _add_headers(_request: web.Request, response: web.StreamResponse) -> None:
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers["Server"] = SERVER
