"""The HTTP server: a few read-only paths, none of which waits long for the database."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from http import HTTPStatus

from aiohttp import web
from aiohttp.typedefs import Handler

from service.clock import Clock, SystemClock
from service.errors import ConfigError, Fault, FlowOutcomesError
from service.status import Status
from service.web.connection import SERVER, Connection
from service.web.connection_limit import AcceptErrors, ConnectionLimit, connections_max
from service.web.daemon_view import DaemonView
from service.web.endpoints import Endpoints
from service.web.gauges import Gauges
from service.web.hosts import HostCheck
from service.web.outbox import Outbox
from service.web.page import render_page
from service.web.response_cache import ResponseCache
from service.web.scrape import Scrape, negotiate
from service.web.status_cache import STATUS_COST_FACTOR, STATUS_MAX_AGE, StatusCache

METRICS_MAX_AGE, METRICS_COST_FACTOR = 3.0, 20.0
PAGE_MAX_AGE = 30.0
"""Seconds that the page's table may be old: the script replaces it at once."""
VIEWS = ("/", "/flow", "/health")
"""One document, whose script shows what the path names."""
SHUTDOWN_TIMEOUT = 1.0
BACKLOG = 128
ACCEPTED_AT_ONCE = 8
"""Connections accepted before the limit on their number is applied; asyncio calls this the backlog, too."""
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


class WebServer:
    """Serves health, metrics, the status and the page, also before the database is available.

    Args:
        daemon: the daemon.
        clock: the time.
    """

    def __init__(self, daemon: DaemonView, clock: Clock | None = None) -> None:
        self._daemon = daemon
        self._clock = clock or SystemClock()
        self._status = StatusCache(daemon, self._clock)
        self._responses = ResponseCache(self._status.require_dsn, self._clock)
        self._endpoints = Endpoints(daemon, self._status, self._responses, self._clock)
        self._listener: asyncio.Server | None = None
        self._runner: web.AppRunner | None = None
        self._hosts = HostCheck(())
        self._encoding = asyncio.Lock()
        self._encoded = (0, b"")
        self._page: tuple[tuple[int, str, str] | None, bytes] = (None, b"")

    async def start(self, host: str, port: int) -> str:
        """Start listening; returns ``host:port`` as bound.

        Raises:
            ConfigError: the address cannot be bound.
        """
        app = web.Application(middlewares=[Outbox().send, self._check_host, _read_only])
        app.on_response_prepare.append(_add_headers)
        app.router.add_get("/healthz", self._serve_health)
        app.router.add_get("/readyz", self._serve_readiness)
        app.router.add_get("/metrics", self._serve_metrics)
        app.router.add_get("/api/status", self._serve_status)
        for path in VIEWS:
            app.router.add_get(path, self._serve_page)
        self._endpoints.add_to(app)
        limit = ConnectionLimit(connections_max())
        runner = web.AppRunner(app, handle_signals=False, shutdown_timeout=SHUTDOWN_TIMEOUT)
        await runner.setup()
        server, loop = runner.server, asyncio.get_running_loop()
        assert server is not None  # noqa: S101 - set by setup()
        loop.set_exception_handler(AcceptErrors(loop.get_exception_handler()))
        try:
            listener = await loop.create_server(
                lambda: Connection(server, loop, limit), host, port, backlog=ACCEPTED_AT_ONCE
            )
            for each in listener.sockets:
                _set_backlog(each.fileno())
        except (OSError, OverflowError) as error:
            await runner.cleanup()
            reason = getattr(error, "strerror", None) or str(error)
            raise ConfigError([Fault("http", f"cannot listen on {host} port {port}: {reason}")]) from error
        self._hosts = HostCheck.for_sockets(self._daemon.config.http.allowed_hosts, listener.sockets)
        self._listener, self._runner = listener, runner
        address, bound = listener.sockets[0].getsockname()[:2]
        return f"[{address}]:{bound}" if ":" in address else f"{address}:{bound}"

    async def stop(self) -> None:
        """Stop listening and close every connection."""
        if self._listener is not None:
            self._listener.close()
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()
        await self._responses.close()
        await self._status.close()

    @web.middleware
    async def _check_host(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        return await self._hosts.check(request, handler)

    async def _serve_health(self, _request: web.Request) -> web.Response:
        return web.Response(text="alive\n")

    async def _serve_readiness(self, _request: web.Request) -> web.Response:
        reason = await self._status.readiness_problem()
        if reason:
            return web.json_response({"ready": False, "reason": reason}, status=HTTPStatus.SERVICE_UNAVAILABLE)
        return web.json_response({"ready": True})

    async def _serve_metrics(self, request: web.Request) -> web.Response:
        """The process's metrics and the status as gauges; the last known status if the database is unavailable."""
        try:
            await self._status.status.get(max_age=METRICS_MAX_AGE, cost_factor=METRICS_COST_FACTOR)
            usable = not await self._status.readiness_problem()
        except FlowOutcomesError:
            usable = False
        status, load = self._status.status, dict(self._daemon.load())
        gauges = Gauges(status.last, status.age, load, self._clock.now(), usable=usable)
        encode, content_type = negotiate(",".join(request.headers.getall("Accept", ())))
        body = await asyncio.to_thread(encode, Scrape(self._daemon.registry, gauges))
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def _serve_status(self, _request: web.Request) -> web.Response:
        try:
            status = await self._status.status.get(max_age=STATUS_MAX_AGE, cost_factor=STATUS_COST_FACTOR)
        except FlowOutcomesError as error:
            return web.json_response({"error": str(error)}, status=HTTPStatus.SERVICE_UNAVAILABLE)
        body = await self._encode(status)
        return web.Response(body=body, content_type="application/json", charset="utf-8")

    async def _encode(self, status: Status) -> bytes:
        """The status as JSON, encoded once for all clients: with a backlog of many orgs it has megabytes."""
        version = self._status.status.version
        async with self._encoding:
            if self._encoded[0] < version:
                self._encoded = (version, (await asyncio.to_thread(json.dumps, status)).encode())
            return self._encoded[1]

    async def _serve_page(self, request: web.Request) -> web.Response:
        orgs, org = self._daemon.config.orgs, request.query.get("org", "")
        org = org if org in orgs else next(iter(orgs), "")
        if request.path == VIEWS[0] and orgs and "measure" not in request.query:
            self._endpoints.prepare_overview(org)
        try:
            _, problem = await asyncio.gather(
                self._status.status.get(max_age=PAGE_MAX_AGE, cost_factor=STATUS_COST_FACTOR),
                self._status.readiness_problem(),
            )
        except FlowOutcomesError as error:
            problem = str(error)
        return web.Response(body=await self._render(problem, org), content_type="text/html", charset="utf-8")

    async def _render(self, problem: str, org: str) -> bytes:
        """The page of an org, rendered once for each status."""
        key = self._status.status.version, problem, org
        if self._page[0] != key:
            text = await asyncio.to_thread(render_page, self._status.status.last, problem, org)
            self._page = key, text.encode("utf-8", "backslashreplace")
        return self._page[1]


def _set_backlog(descriptor: int) -> None:
    with socket.socket(fileno=os.dup(descriptor)) as listener:
        listener.listen(BACKLOG)


@web.middleware
async def _read_only(request: web.Request, handler: Handler) -> web.StreamResponse:
    if request.method not in {"GET", "HEAD"}:
        raise web.HTTPMethodNotAllowed(request.method, ["GET", "HEAD"])
    if request.can_read_body:
        response = web.Response(status=HTTPStatus.BAD_REQUEST, text="requests must not have a body\n")
        response.force_close()
        return response
    return await handler(request)


async def _add_headers(_request: web.Request, response: web.StreamResponse) -> None:
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers["Server"] = SERVER
