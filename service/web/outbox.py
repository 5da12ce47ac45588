"""Large bodies on their way to clients: sent in pieces as fast as each client reads, bounded in total."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

PIECE_SIZE = 32 * 1024
"""Bytes per write."""
TOTAL_SIZE_MAX = 16 * 2**20
"""Bytes of distinct bodies on their way; above it the oldest response is aborted."""


class _Sending(NamedTuple):
    body: bytes
    transport: asyncio.Transport | None


class Outbox:
    """Sends large bodies without copying them for each client."""

    def __init__(self) -> None:
        self._sending: list[_Sending] = []

    @property
    def size(self) -> int:
        """Bytes on their way; a body that several clients receive counts once."""
        return sum({id(each.body): len(each.body) for each in self._sending}.values())

    @web.middleware
    async def send(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Send the handler's response in pieces if it is large."""
        response = await handler(request)
        if not isinstance(response, web.Response) or not isinstance(response.body, bytes):
            return response
        body = response.body
        if len(body) <= PIECE_SIZE or request.method == hdrs.METH_HEAD:
            return response
        streamed = web.StreamResponse(status=response.status, headers=response.headers)
        streamed.content_length = len(body)
        if response.compression:
            streamed.enable_compression()  # removes the length if the client accepts compression
        with self._registered(body, request.transport), suppress(ConnectionError):
            await streamed.prepare(request)
            view = memoryview(body)
            last = (len(body) - 1) // PIECE_SIZE * PIECE_SIZE
            for start in range(0, last, PIECE_SIZE):
                await streamed.write(view[start : start + PIECE_SIZE])
            # aiohttp waits for the client every 64 KiB, and at the end only if write_eof has data
            await streamed.write_eof(bytes(view[last:]))
        return streamed

    @contextmanager
    def _registered(self, body: bytes, transport: asyncio.Transport | None) -> Iterator[None]:
        sending = _Sending(body, transport)
        self._sending.append(sending)
        while len(self._sending) > 1 and self.size > TOTAL_SIZE_MAX:
            oldest = self._sending.pop(0)
            if oldest.transport is not None:
                oldest.transport.abort()
        try:
            yield
        finally:
            self._sending = [each for each in self._sending if each is not sending]
