"""A collector of traces: receives OTLP over HTTP on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web
from aiohttp.test_utils import TestServer
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

Value = str | int | float | bool


@dataclass(frozen=True)
class Received:
    """One span.

    Attributes:
        parent: the span's parent; empty without one.
        error: the status, where it is an error.
        seconds: from its start to its end.
    """

    name: str
    trace: bytes
    id: bytes
    parent: bytes
    attributes: dict[str, Value]
    error: str
    seconds: float


@dataclass
class Collector:
    """The spans so far.

    Attributes:
        url: for ``OTEL_EXPORTER_OTLP_ENDPOINT``.
        status: what it answers; None for no answer.
        requests: the requests so far.
        bodies: their bodies.
        services: the resources' attributes.
        released: set to end the requests that get no answer.
    """

    url: str = ""
    status: int | None = 200
    requests: int = 0
    bodies: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    services: list[dict[str, Value]] = field(default_factory=list)
    spans: list[Received] = field(default_factory=list)
    released: asyncio.Event = field(default_factory=asyncio.Event)

    def named(self, name: str) -> list[Received]:
        """The spans of this name."""
        return [span for span in self.spans if span.name == name]

    def parent_of(self, span: Received) -> Received | None:
        """The span's parent; None for the first of a trace."""
        return next((each for each in self.spans if each.id == span.parent), None)

    async def receive(self, request: web.Request) -> web.Response:
        """Answer one export."""
        self.requests += 1
        body = await request.read()
        if self.status is None:
            await self.released.wait()
        if self.status == 200:
            self._keep(body, dict(request.headers))
        return web.Response(status=self.status or 500)

    def _keep(self, body: bytes, headers: dict[str, str]) -> None:
        self.bodies.append(body)
        self.headers.append(headers)
        message = ExportTraceServiceRequest.FromString(body)
        for group in message.resource_spans:
            self.services.append(_attributes(group.resource.attributes))
            for span in (span for scope in group.scope_spans for span in scope.spans):
                seconds = (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9
                error = span.status.message if span.status.code == span.status.STATUS_CODE_ERROR else ""
                attributes = _attributes(span.attributes)
                received = Received(
                    span.name, span.trace_id, span.span_id, span.parent_span_id, attributes, error, seconds
                )
                self.spans.append(received)


def _attributes(pairs: object) -> dict[str, Value]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}  # type: ignore[attr-defined]


@asynccontextmanager
async def collecting() -> AsyncIterator[Collector]:
    """A collector that listens on loopback."""
    collector = Collector()
    app = web.Application()
    app.router.add_post("/v1/traces", collector.receive)
    server = TestServer(app)
    await server.start_server()
    try:
        collector.url = str(server.make_url("")).rstrip("/")
        yield collector
    finally:
        collector.released.set()
        await server.close()
