"""Clients that send arbitrary bytes to the port and read as little as they want, each on its own socket."""

from __future__ import annotations

import asyncio
import itertools
import socket
import zlib
from collections.abc import Iterator
from contextlib import suppress

STEP = 64 * 1024
HEADER = b"x" * 7000


def get(path: str, *headers: bytes, version: bytes = b"1.1") -> bytes:
    """Return a complete GET."""
    first = b"GET %s HTTP/%s" % (path.encode(), version)
    return b"\r\n".join((first, b"Host: localhost", *headers, b"", b""))


def pipelined(path: str, *headers: bytes, version: bytes = b"1.1") -> Iterator[bytes]:
    """Yield endless GETs."""
    return itertools.repeat(get(path, *headers, version=version) * 100)


def with_headers(path: str, number: int) -> Iterator[bytes]:
    """Yield endless GETs, each with ``number`` headers of 7000 bytes."""
    return itertools.repeat(get(path, *(b"X-%d: %s" % (each, HEADER) for each in range(number))))


def endless_headers(path: str) -> Iterator[bytes]:
    """Yield one GET with endless headers."""
    yield get(path)[:-2]
    for number in itertools.count():
        yield b"X-%d: %s\r\n" % (number, HEADER)


def endless_line(path: str) -> Iterator[bytes]:
    """Yield one GET with an endless header."""
    yield get(path)[:-2] + b"Cookie: "
    yield from itertools.repeat(b"x" * STEP)


def sized_body(path: str) -> Iterator[bytes]:
    """Yield a GET with a body of 1 TiB."""
    yield get(path, b"Content-Length: 1099511627776")
    yield from itertools.repeat(b"x" * STEP)


def chunked_body(path: str) -> Iterator[bytes]:
    """Yield a GET with an endless chunked body."""
    yield get(path, b"Transfer-Encoding: chunked")
    yield from itertools.repeat(b"%x\r\n%s\r\n" % (STEP, b"x" * STEP))


def packed_body(path: str) -> Iterator[bytes]:
    """Yield a GET with a gzipped body that unpacks to a thousand times its size."""
    yield get(path, b"Content-Encoding: gzip", b"Transfer-Encoding: chunked")
    packer = zlib.compressobj(wbits=31)
    while True:
        if packed := packer.compress(bytes(2**22)):
            yield b"%x\r\n%s\r\n" % (len(packed), packed)


def upgraded(path: str) -> Iterator[bytes]:
    """Yield a GET that upgrades the connection to another protocol, and data of that protocol."""
    yield get(path, b"Connection: Upgrade", b"Upgrade: websocket")
    yield from itertools.repeat(b"x" * STEP)


class Client:
    """One connection.

    Attributes:
        sent: bytes that the kernel accepted.
        received: bytes that were read.
        disconnected: whether the server ended the connection.
    """

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._address = (host, int(port))
        self.sent = self.received = 0
        self.disconnected = False
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # so that the kernel buffers little
        self._socket.setblocking(False)

    async def run(
        self, pieces: Iterator[bytes], seconds: float, *, every: float = 0, read_every: float = 0
    ) -> None:
        """Send for ``seconds``, or until the server ends the connection.

        Args:
            pieces: the data; the connection stays open after the last piece.
            seconds: duration.
            every: seconds between pieces.
            read_every: seconds between reads of one byte each; 0 reads nothing.
        """
        loop = asyncio.get_running_loop()
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds), asyncio.TaskGroup() as tasks:
                    await loop.sock_connect(self._socket, self._address)
                    if read_every:
                        tasks.create_task(self._read(read_every))
                    await self._send(pieces, every)
        finally:
            self._socket.close()

    async def _send(self, pieces: Iterator[bytes], every: float) -> None:
        loop = asyncio.get_running_loop()
        try:
            for piece in pieces:
                view = memoryview(piece)
                while view:
                    count = await self._send_some(view)
                    self.sent += count
                    view = view[count:]
                await asyncio.sleep(every)
            await loop.create_future()
        except OSError:
            self.disconnected = True

    async def _send_some(self, view: memoryview) -> int:
        loop = asyncio.get_running_loop()
        while True:
            try:
                return self._socket.send(view)
            except BlockingIOError:
                writable = asyncio.Event()
                loop.add_writer(self._socket, writable.set)
                try:
                    await writable.wait()
                finally:
                    loop.remove_writer(self._socket)

    async def _read(self, every: float) -> None:
        loop = asyncio.get_running_loop()
        with suppress(OSError):
            while await loop.sock_recv(self._socket, 1):
                self.received += 1
                await asyncio.sleep(every)
