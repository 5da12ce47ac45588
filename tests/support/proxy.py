"""A TCP proxy in front of the database, with network faults."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections import Counter
from types import TracebackType
from typing import Self

from psycopg.conninfo import conninfo_to_dict

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing resets the connection
_MERGE_MARKER = b"pg_temp.scan_name"  # in the statements of a session that merges a scan


class Link:
    """One connection between the program and the server."""

    def __init__(self, proxy: Proxy, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.proxy = proxy
        self.client = client
        self.server = server
        self.stalled = proxy.stalled
        self.merge_transaction = False
        self.loses_answer = False

    def reset(self) -> None:
        """Reset both sides of the connection."""
        for writer in (self.client, self.server):
            if (connection := writer.get_extra_info("socket")) is not None:
                with contextlib.suppress(OSError):
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()

    async def forward_to_server(self, reader: asyncio.StreamReader) -> None:
        """Forward from the program to the server."""
        while data := await reader.read(2**16):
            self.merge_transaction = self.merge_transaction or _MERGE_MARKER in data
            if self.proxy.commit_answers_to_lose and self.merge_transaction and b"COMMIT\0" in data:
                self.proxy.commit_answers_to_lose -= 1
                self.loses_answer = True
            if not self.stalled:
                self.server.write(data)
                await self.server.drain()

    async def forward_to_client(self, reader: asyncio.StreamReader) -> None:
        """Forward from the server to the program."""
        while data := await reader.read(2**16):
            if self.loses_answer:
                self.proxy.fired["answer to COMMIT lost"] += 1
                self.reset()
                return
            if not self.stalled:
                self.client.write(data)
                await self.client.drain()


class Proxy:
    """Listens on its own port while its context is entered.

    Args:
        dsn: the DSN of the server, as a URL.

    Attributes:
        commit_answers_to_lose: how many more answers to a merge's COMMIT are lost, each with its connection.
        stalled: whether new connections forward nothing and stay open.
        opened: how many connections were opened so far.
        fired: how often each fault happened.
    """

    def __init__(self, dsn: str) -> None:
        self.fired: Counter[str] = Counter()
        self.commit_answers_to_lose = 0
        self.opened = 0
        self.stalled = False
        self._links: set[Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._port = 0
        self.set_target(dsn)

    def set_target(self, dsn: str) -> None:
        """Forward new connections to this server."""
        self._dsn = dsn
        target = conninfo_to_dict(dsn)
        self._host, self._server_port = str(target["host"]), int(target["port"] or 0)

    @property
    def dsn(self) -> str:
        """The DSN of the proxy, for the program."""
        return self._dsn.replace(f":{self._server_port}/", f":{self._port}/")

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._start, "127.0.0.1", 0)
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
        """The number of open connections, including stalled ones."""
        return len(self._links)

    def stall(self) -> None:
        """Stop forwarding on every connection, without closing any."""
        self.stalled = True
        for link in self._links:
            link.stalled = True
        self.fired["stalled"] += 1

    def heal(self) -> None:
        """Forward new connections again; stalled ones stay stalled, as behind a firewall that lost its state."""
        self.stalled = False

    def reset(self) -> None:
        """Reset every connection."""
        self.fired["reset"] += len(self._links)
        for link in list(self._links):
            link.reset()

    def _start(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.opened += 1
        task = asyncio.create_task(self._accept(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            server_reader, server_writer = await asyncio.open_connection(self._host, self._server_port)
        except OSError:
            writer.transport.abort()
            return
        link = Link(self, writer, server_writer)
        self._links.add(link)
        directions = [
            asyncio.create_task(link.forward_to_server(reader)),
            asyncio.create_task(link.forward_to_client(server_reader)),
        ]
        try:
            await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
            if link.stalled:  # one side closed: the other must not notice
                await asyncio.wait(directions)
        finally:
            for direction in directions:
                direction.cancel()
            with contextlib.suppress(OSError):
                await asyncio.gather(*directions, return_exceptions=True)
            self._links.discard(link)
            writer.close()
            server_writer.close()
