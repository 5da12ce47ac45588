"""How an answer goes over the wire, and how it breaks there."""

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

from service.simulator.faults import Occasion
from service.simulator.oauth import TokenRefusal
from service.simulator.refusal import Refusal

_RESET = struct.pack("ii", 1, 0)
_JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer before it is sent."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = _JSON

    def response(self) -> web.Response:
        """For aiohttp to send as it should be."""
        return web.Response(
            status=self.status, body=self.body, headers=self.headers, content_type=self.content_type
        )


class ConnectionGoneError(Exception):
    """The connection was broken on purpose; there is nothing left to answer on."""


def document(content: object, status: int = 200, **headers: str) -> Reply:
    """A JSON document."""
    return Reply(status, msgspec.json.encode(content), headers)


def refused(refusal: Refusal | TokenRefusal, headers: Mapping[str, str] | None = None) -> Reply:
    """A refusal as it is answered."""
    return Reply(refusal.status, msgspec.json.encode(refusal.body()), headers or {})


def reset(request: web.Request) -> None:
    """Break the connection with a reset, as a crashed peer or a firewall does; raises ConnectionGoneError."""
    transport = request.transport
    if transport is not None:
        connection = transport.get_extra_info("socket")
        if connection is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        transport.abort()
    raise ConnectionGoneError


async def send(request: web.Request, reply: Reply, occasion: Occasion) -> web.StreamResponse:
    """Send an answer, or what the faults of the wire leave of it."""
    if fault := occasion.strike("gzip_bomb"):
        bomb = _bomb(int(str(fault.value or 65)))
        return await _whole(request, bomb, {"Content-Encoding": "gzip"})
    if fault := occasion.strike("truncated"):
        return await _truncated(request, reply, chunked=fault.value == "chunked")
    if fault := occasion.strike("drip"):
        return await _dripped(request, reply, float(str(fault.value or 2)))
    return reply.response()


async def _whole(request: web.Request, body: bytes, headers: Mapping[str, str]) -> web.StreamResponse:
    """A body that aiohttp is not to encode again."""
    response = web.StreamResponse(headers=headers)
    response.content_type = _JSON
    response.content_length = len(body)
    await response.prepare(request)
    await response.write(body)
    return response


async def _truncated(request: web.Request, reply: Reply, *, chunked: bool) -> web.StreamResponse:
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


async def _dripped(request: web.Request, reply: Reply, seconds: float) -> web.StreamResponse:
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
def _bomb(mebibytes: int) -> bytes:
    """A gzip'd page, valid and empty but for a very long field."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    parts = [packer.compress(b'{"nextPageToken":null,"metrics":["flow-outcomes"],"data":[],"padding":"')]
    parts += [packer.compress(b"0" * 2**20) for _ in range(mebibytes)]
    return b"".join([*parts, packer.compress(b'"}'), packer.flush()])
