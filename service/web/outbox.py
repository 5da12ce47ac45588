"""What is on its way to clients: written piece by piece, as fast as each reads, and bounded in sum."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

PIECE = 32 * 1024
"""Bytes that are written at a time."""
MOST_BYTES = 16 * 2**20
"""Bytes of different bodies past which the response that was begun first is cut off."""


class _Sending(NamedTuple):
    body: bytes
    transport: asyncio.Transport | None


class Outbox:
    """Sends large bodies without a copy for each client."""

    def __init__(self) -> None:
        self._sending: list[_Sending] = []

    @property
    def size(self) -> int:
        """Bytes on their way; a body that several clients read counts once."""
        return sum({id(each.body): len(each.body) for each in self._sending}.values())

    @web.middleware
    async def send(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Write the handler's response piece by piece where it is large."""
        response = await handler(request)
        if not isinstance(response, web.Response) or not isinstance(response.body, bytes):
            return response
        body = response.body
        if len(body) <= PIECE or request.method == hdrs.METH_HEAD:
            return response
        streamed = web.StreamResponse(status=response.status, headers=response.headers)
        streamed.content_length = len(body)
        if response.compression:
            streamed.enable_compression()  # takes the length back where the client takes it packed
        with self._counted(body, request.transport), suppress(ConnectionError):
            await streamed.prepare(request)
            view = memoryview(body)
            last = (len(body) - 1) // PIECE * PIECE
            for start in range(0, last, PIECE):
                await streamed.write(view[start : start + PIECE])
            # aiohttp waits for the client after 64 KiB of a response, and at its end only where the end has data
            await streamed.write_eof(bytes(view[last:]))
        return streamed

    @contextmanager
    def _counted(self, body: bytes, transport: asyncio.Transport | None) -> Iterator[None]:
        sending = _Sending(body, transport)
        self._sending.append(sending)
        while len(self._sending) > 1 and self.size > MOST_BYTES:
            first = self._sending.pop(0)
            if first.transport is not None:
                first.transport.abort()
        try:
            yield
        finally:
            self._sending = [each for each in self._sending if each is not sending]
