"""Answers kept for a moment: however many look, the database is asked once for each question and never by many."""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from service.clock import Clock
from service.postgres.pool import Connection
from service.postgres.probe import open_connection
from service.web.assets import etag_of
from service.web.status_cache import Shared

AT_ONCE = 3  # connections of the page's own
WITHIN = 5.0  # seconds that one answer may take
MOST_KEPT = 64
MOST_BYTES = 8 * 2**20  # of the answers that are kept
AGE, SPACING = 1.5, 10.0


class Answer(NamedTuple):
    """A document as it goes over the wire."""

    body: bytes
    etag: str


class ResponseCache:
    """The last answers by what was asked.

    Args:
        dsn: of the database; raises where there is none yet.
        clock: the time.
    """

    def __init__(self, dsn: Callable[[], str], clock: Clock) -> None:
        self._dsn = dsn
        self._clock = clock
        self._kept: OrderedDict[str, Shared[Answer]] = OrderedDict()
        self._places = asyncio.Semaphore(AT_ONCE)

    async def get(self, question: str, make: Callable[[Connection], Awaitable[Any]]) -> Answer:
        """The answer to a question, young enough or made anew.

        Raises:
            DatabaseUnavailableError, SchemaError: it cannot be made now, or takes longer than one waits.
        """
        shared = self._kept.get(question)
        if shared is None:
            shared = self._kept[question] = Shared(lambda: self._made(make), self._clock)
        self._kept.move_to_end(question)
        while len(self._kept) > MOST_KEPT:
            _, oldest = self._kept.popitem(last=False)
            await oldest.close()
        found = await shared.get(age=AGE, spacing=SPACING)
        self._drop_past(MOST_BYTES)
        return found

    def _drop_past(self, most: int) -> None:
        """Drop the answers that were requested longest ago, where all of them have more bytes than this."""
        size = sum(len(each.last.body) for each in self._kept.values() if each.last)
        for each in self._kept.values():
            if size > most and each.last:
                size -= len(each.last.body)
                each.last = None

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection for one answer.

        Raises:
            DatabaseUnavailableError, SchemaError: as ``open_connection``.
        """
        async with self._places, open_connection(self._dsn(), "flow-outcomes page", timeout=WITHIN) as connection:
            yield connection

    async def close(self) -> None:
        """End what is being made."""
        for shared in self._kept.values():
            await shared.close()
        self._kept.clear()

    async def _made(self, make: Callable[[Connection], Awaitable[Any]]) -> Answer:
        async with self.connection() as connection:
            document = await make(connection)
        return await asyncio.to_thread(answer, document)


def answer(document: object) -> Answer:
    """The document as JSON, with its digest."""
    body = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace")
    return Answer(body, etag_of(body))
