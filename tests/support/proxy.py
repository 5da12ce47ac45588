"""The way to the database, through which a test can make the network fail."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections import Counter
from types import TracebackType
from typing import Self

from psycopg.conninfo import conninfo_to_dict

_AT_ONCE = struct.pack("ii", 1, 0)  # SO_LINGER: a close that resets
_STORES = b"pg_temp.incoming"  # what a session says that merges a scan


class Link:
    """One connection, from the program to the server."""

    def __init__(self, proxy: Proxy, near: asyncio.StreamWriter, far: asyncio.StreamWriter) -> None:
        self.proxy = proxy
        self.near = near
        self.far = far
        self.silent = proxy.silent
        self.merge_transaction = False
        self.deaf = False

    def reset(self) -> None:
        """Break it on the program's side, loudly."""
        for writer in (self.near, self.far):
            if (found := writer.get_extra_info("socket")) is not None:
                with contextlib.suppress(OSError):
                    found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
            writer.transport.abort()

    async def up(self, reader: asyncio.StreamReader) -> None:
        """From the program to the server."""
        while data := await reader.read(2**16):
            self.merge_transaction = self.merge_transaction or _STORES in data
            if self.proxy.swallow and self.merge_transaction and b"COMMIT\0" in data:
                self.proxy.swallow -= 1
                self.deaf = True
            if not self.silent:
                self.far.write(data)
                await self.far.drain()

    async def down(self, reader: asyncio.StreamReader) -> None:
        """From the server to the program."""
        while data := await reader.read(2**16):
            if self.deaf:
                self.proxy.fired["answer to COMMIT swallowed"] += 1
                self.reset()
                return
            if not self.silent:
                self.near.write(data)
                await self.near.drain()


class Proxy:
    """Listens on a port of its own, for as long as the context lasts.

    Args:
        dsn: of the server, as a URL.

    Attributes:
        swallow: so many answers to a merge's COMMIT are lost yet, each with its connection.
        silent: nothing is forwarded, and nothing is closed.
        opened: connections that there were, those that have ended among them.
        fired: what was done, and how often.
    """

    def __init__(self, dsn: str) -> None:
        self.fired: Counter[str] = Counter()
        self.swallow = 0
        self.opened = 0
        self.silent = False
        self._links: set[Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._port = 0
        self.lead_to(dsn)

    def lead_to(self, dsn: str) -> None:
        """Forward to another server from the next connection on."""
        self._dsn = dsn
        told = conninfo_to_dict(dsn)
        self._host, self._far_port = str(told["host"]), int(told["port"] or 0)

    @property
    def dsn(self) -> str:
        """What the program is told."""
        return self._dsn.replace(f":{self._far_port}/", f":{self._port}/")

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._begin, "127.0.0.1", 0)
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for link in list(self._links):
            link.reset()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def links(self) -> int:
        """Connections that are open, silent ones too."""
        return len(self._links)

    def cut(self) -> None:
        """Forward nothing any more, on any connection, and close none."""
        self.silent = True
        for link in self._links:
            link.silent = True
        self.fired["cut off without a word"] += 1

    def heal(self) -> None:
        """Forward again, on new connections; those that were cut stay so, as behind a firewall that forgot."""
        self.silent = False

    def reset(self) -> None:
        """Break every connection."""
        self.fired["reset"] += len(self._links)
        for link in list(self._links):
            link.reset()

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.opened += 1
        task = asyncio.create_task(self._accept(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(self._host, self._far_port)
        except OSError:
            writer.transport.abort()
            return
        link = Link(self, writer, far_writer)
        self._links.add(link)
        ways = [asyncio.create_task(link.up(reader)), asyncio.create_task(link.down(far_reader))]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            if link.silent:  # the program hung up, or the server: neither is told of the other
                await asyncio.wait(ways)
        finally:
            for way in ways:
                way.cancel()
            with contextlib.suppress(OSError):
                await asyncio.gather(*ways, return_exceptions=True)
            self._links.discard(link)
            writer.close()
            far_writer.close()
