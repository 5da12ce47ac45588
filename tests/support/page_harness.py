"""The server of the page on a database, and its documents over HTTP."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import psycopg

from service.config import Config
from service.telemetry import Reporter
from service.web import Load, WebServer
from tests.support.fake_daemon import FakeDaemon


class Site:
    """A server and its database.

    Attributes:
        web: the server.
        dsn: its database.
    """

    def __init__(self, web: WebServer, address: str, session: aiohttp.ClientSession, dsn: str) -> None:
        self.web = web
        self.dsn = dsn
        self._address = address
        self._session = session

    async def response(self, path: str, **headers: str) -> tuple[int, Any, Any]:
        """The status, the document or the text, and the headers."""
        async with self._session.get(f"http://{self._address}{path}", headers=headers) as response:
            text = await response.text()
            is_json = response.content_type == "application/json" and text
            return response.status, json.loads(text) if is_json else text, response.headers

    async def exchange(self, requests: bytes) -> bytes:
        """What the server sends for these bytes until it closes the connection."""
        host, _, port = self._address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(requests)
        async with asyncio.timeout(10):
            response = await reader.read()
        writer.close()
        return response

    async def get(self, path: str) -> Any:  # noqa: ANN401 - a document
        """The document."""
        status, document, _ = await self.response(path)
        assert status == 200, document
        return document

    async def file(self, path: str) -> list[dict[str, str]]:
        """The rows of a CSV file."""
        status, text, headers = await self.response(path)
        assert (status, headers["Content-Type"].partition(";")[0]) == (200, "text/csv")
        return list(csv.DictReader(io.StringIO(text)))

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """The rows of a query."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            cursor = connection.execute(query.encode(), values)
            return cursor.fetchall() if cursor.description else []


@asynccontextmanager
async def serving(
    dsn: str, config: Config, loads: Mapping[str, Load] | None = None, reporter: Reporter | None = None
) -> AsyncIterator[Site]:
    """Run the server."""
    web = WebServer(FakeDaemon(config, dsn, loads or {}, reporter or Reporter()))
    address = await web.start("127.0.0.1", 0)
    try:
        async with aiohttp.ClientSession() as session:
            yield Site(web, address, session, dsn)
    finally:
        await web.stop()
