"""Responses, and the faults of their transmission."""

from __future__ import annotations

import asyncio
import socket
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

import msgspec
from aiohttp import web

from service.simulator.api_error import ApiError
from service.simulator.faults import RequestFaults
from service.simulator.oauth import TokenError

_RESET = struct.pack("ii", 1, 0)
_JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Reply:
    """A response before it is sent."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = _JSON

    def response(self) -> web.Response:
        """Convert to a response of aiohttp."""
        is_html = self.body.lstrip()[:1] == b"<"
        content_type = "text/html" if is_html else self.content_type
        return web.Response(status=self.status, body=self.body, headers=self.headers, content_type=content_type)


REUSED = web.RequestKey("reused", bool)
"""The key of a request whose connection has carried another before."""


class ConnectionGoneError(Exception):
    """The connection was broken on purpose, so no response can be sent."""


def json_reply(content: object, status: int = 200, **headers: str) -> Reply:
    """Build a JSON response."""
    return Reply(status, msgspec.json.encode(content), headers)


def error_reply(error: ApiError | TokenError, headers: Mapping[str, str] | None = None) -> Reply:
    """Build the response of an error."""
    return Reply(error.status, msgspec.json.encode(error.body()), headers or {})


def reset_connection(request: web.Request) -> None:
    """Reset the connection, as a crashed peer or a firewall does; raises ConnectionGoneError."""
    transport = request.transport
    if transport is not None:
        connection = transport.get_extra_info("socket")
        if connection is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        transport.abort()
    raise ConnectionGoneError


async def send(request: web.Request, reply: Reply, faults: RequestFaults) -> web.StreamResponse:
    """Send a response, with the transmission faults that fire."""
    if fault := faults.fire("gzip_bomb"):
        bomb = _gzip_bomb(int(str(fault.value or 65)))
        return await _send_encoded(request, bomb, {"Content-Encoding": "gzip"})
    if fault := faults.fire("truncated"):
        return await _send_truncated(request, reply, chunked=fault.value == "chunked")
    if fault := faults.fire("drip"):
        return await _send_slowly(request, reply, float(str(fault.value or 2)))
    return reply.response()


async def _send_encoded(request: web.Request, body: bytes, headers: Mapping[str, str]) -> web.StreamResponse:
    """Send a body that aiohttp must not encode again."""
    response = web.StreamResponse(headers=headers)
    response.content_type = _JSON
    response.content_length = len(body)
    await response.prepare(request)
    await response.write(body)
    return response


async def _send_truncated(request: web.Request, reply: Reply, *, chunked: bool) -> web.StreamResponse:
    response = web.StreamResponse(status=reply.status, headers=reply.headers)
    response.content_type = _JSON
    if chunked:
        response.enable_chunked_encoding()
    else:
        response.content_length = len(reply.body)
    await response.prepare(request)
    await response.write(reply.body[: len(reply.body) // 2])
    if request.transport is not None:
        request.transport.close()
    raise ConnectionGoneError


async def _send_slowly(request: web.Request, reply: Reply, seconds: float) -> web.StreamResponse:
    response = web.StreamResponse(status=reply.status, headers=reply.headers)
    response.content_type = _JSON
    response.content_length = len(reply.body)
    await response.prepare(request)
    step = max(1, -(-len(reply.body) // 10))
    for start in range(0, len(reply.body), step):
        await asyncio.sleep(seconds / 10)
        await response.write(reply.body[start : start + step])
    return response


@cache
def _gzip_bomb(mebibytes: int) -> bytes:
    """Build a gzipped page: valid and empty except for a very long field."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    parts = [packer.compress(b'{"nextPageToken":null,"metrics":["flow-outcomes"],"data":[],"padding":"')]
    parts += [packer.compress(b"0" * 2**20) for _ in range(mebibytes)]
    return b"".join([*parts, packer.compress(b'"}'), packer.flush()])
