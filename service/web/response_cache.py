"""Responses kept for a moment: however many clients request a document, the database is queried for it once."""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from service.clock import Clock
from service.errors import ServerBusyError
from service.postgres.kept_connections import KeptConnections
from service.postgres.pool import Connection
from service.web.assets import etag_of
from service.web.compression import pack
from service.web.status_cache import SharedValue

MAX_CONNECTIONS = 3
"""Database connections of the page; they do not come from the pool."""
QUERY_TIMEOUT = 5.0
"""Seconds for one response."""
MAX_ENTRIES = 64
MAX_BYTES = 8 * 2**20
"""Bytes of all kept responses."""
MAX_AGE, COST_FACTOR = 1.5, 10.0


class CachedResponse(NamedTuple):
    """A document as it is sent; ``packed`` is the body as gzip, empty where that is not worth it."""

    body: bytes
    packed: bytes
    etag: str

    @property
    def size(self) -> int:
        """Bytes that it occupies."""
        return len(self.body) + len(self.packed)


class ResponseCache:
    """The last responses by request.

    Args:
        dsn: returns the database's DSN, or raises DatabaseUnavailableError.
        clock: measures ages.
    """

    def __init__(self, dsn: Callable[[], str], clock: Clock) -> None:
        self._connections = KeptConnections(dsn, "flow-outcomes page", MAX_CONNECTIONS)
        self._clock = clock
        self._entries: OrderedDict[str, SharedValue[CachedResponse]] = OrderedDict()
        self._slots = asyncio.Semaphore(MAX_CONNECTIONS)

    async def get(
        self, key: str, make: Callable[[Connection], Awaitable[Any]], *, cost_factor: float = COST_FACTOR
    ) -> CachedResponse:
        """The response for a request: the kept one if it is young enough, otherwise a new one.

        Args:
            key: identifies the request.
            make: queries the document.
            cost_factor: a response is kept for this many times as long as it took.

        Raises:
            DatabaseUnavailableError, SchemaError: the document cannot be queried now, or not in time.
            ServerBusyError: clients wait for as many other documents as can be kept.
        """
        shared = self._entries.get(key)
        if shared is None:
            self._make_room()
            shared = self._entries[key] = SharedValue(lambda: self._make(make), self._clock)
        self._entries.move_to_end(key)
        response = await shared.get(max_age=MAX_AGE, cost_factor=cost_factor)
        self._evict(MAX_BYTES)
        return response

    def _make_room(self) -> None:
        """Drop the least recently requested response that no client waits for, a finished one first."""
        if len(self._entries) < MAX_ENTRIES:
            return
        unread = [key for key, shared in self._entries.items() if not shared.readers]
        if not unread:
            raise ServerBusyError(f"{MAX_ENTRIES} different requests are being answered; try again in a moment")
        key = next((key for key in unread if not self._entries[key].running), unread[0])
        self._entries.pop(key).cancel()

    def _evict(self, maximum: int) -> None:
        """Drop the least recently requested responses until the rest fits into this many bytes."""
        size = sum(each.last.size for each in self._entries.values() if each.last)
        for each in self._entries.values():
            if size > maximum and each.last:
                size -= each.last.size
                each.last = None

    async def close(self) -> None:
        """Cancel running queries."""
        for shared in self._entries.values():
            await shared.close()
        self._entries.clear()
        await self._connections.close()

    async def _make(self, make: Callable[[Connection], Awaitable[Any]]) -> CachedResponse:
        async with self._connection() as connection:
            document = await make(connection)
        return await asyncio.to_thread(encode, document)

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        async with self._slots, self._connections.connection(timeout=QUERY_TIMEOUT) as connection:
            yield connection


def encode(document: object) -> CachedResponse:
    """The document as JSON, compressed too, with its digest; one that is encoded already is returned as it is."""
    if isinstance(document, CachedResponse):
        return document
    body = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace")
    return CachedResponse(body, pack(body), etag_of(body))
