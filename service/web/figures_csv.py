"""``/api/figures.csv``: figures as the views have them, sent while they are read from the database."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from aiohttp import hdrs, web

from service.errors import FlowOutcomesError, ServerBusyError
from service.postgres.probe import open_connection
from service.postgres.queries.figures_csv import copy_figures
from service.web.flow import FlowRequest

MAX_CONNECTIONS = 2
"""Files that are sent at the same time; each has a database connection of its own."""
TIMEOUT = 60.0
"""Seconds for one file, with a client that reads slowly too."""


class FileRequest(NamedTuple):
    """The figures of a file; an empty flow id means every flow of the org."""

    figures: FlowRequest
    escape_formulas: bool

    @property
    def name(self) -> str:
        """The file's name, of ASCII letters, digits and hyphens."""
        wanted = self.figures
        flow = "".join(each if each.isascii() and each.isalnum() else "-" for each in wanted.flow_id)[:40]
        parts = (wanted.org.name, flow, wanted.granularity.value, wanted.first.isoformat(), wanted.end.isoformat())
        return "_".join(part for part in parts if part) + ".csv"


class FiguresCsv:
    """Sends files of figures.

    Args:
        dsn: returns the database's DSN, or raises DatabaseUnavailableError.
    """

    def __init__(self, dsn: Callable[[], str]) -> None:
        self._dsn = dsn
        self._sending = 0

    async def respond(self, request: web.Request, wanted: FileRequest) -> web.StreamResponse:
        """Send the file; without the database, or while too many are sent, nothing of it.

        Raises:
            DatabaseUnavailableError, SchemaError: nothing was sent yet.
            ServerBusyError: others receive as many files as are sent at the same time.
        """
        if self._sending >= MAX_CONNECTIONS:
            raise ServerBusyError(f"{MAX_CONNECTIONS} files are being sent; try again in a moment")
        self._sending += 1
        try:
            return await self._send(request, wanted)
        finally:
            self._sending -= 1

    async def _send(self, request: web.Request, wanted: FileRequest) -> web.StreamResponse:
        figures = wanted.figures
        response = web.StreamResponse()
        response.content_type, response.charset = "text/csv", "utf-8"
        response.headers[hdrs.CONTENT_DISPOSITION] = f'attachment; filename="{wanted.name}"'
        try:
            async with open_connection(self._dsn(), "flow-outcomes file", timeout=TIMEOUT) as connection:
                is_head = request.method == hdrs.METH_HEAD
                pieces = copy_figures(
                    connection,
                    figures.within(figures.span),
                    figures.at,
                    escape_formulas=wanted.escape_formulas,
                    without_rows=is_head,
                )
                with suppress(ConnectionError):
                    async for piece in pieces:
                        if not response.prepared:  # the statement is valid: the first rows are here
                            await response.prepare(request)
                        if not is_head:  # aiohttp would send a body
                            await response.write(piece)
                    await response.write_eof()
        except FlowOutcomesError:
            if not response.prepared:
                raise
            if request.transport is not None:
                request.transport.abort()  # so that a part of a file is not taken for all of it
        return response
