"""An HTTP proxy that answers CONNECT, with faults."""

from __future__ import annotations

import asyncio
import contextlib
from base64 import b64encode
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from tests.support.certificates import Authority, join


@dataclass
class ConnectProxy:
    """A proxy that leads every tunnel to one port on loopback, whatever its target is.

    Attributes:
        port: where tunnels lead.
        credentials: ``user:password`` that are required, in UTF-8; none where it is empty.
        status: the response to CONNECT; 200 opens the tunnel.
        answer: the response in place of an HTTP one.
        hangs: whether CONNECT is never answered.
        authority: issues the certificate of a proxy that is reached by https.
        host: its host and port.
        targets: the target of each CONNECT.
        refused: how many were not given a tunnel.
        requests: what was received, up to the end of the headers.
    """

    port: int = 0
    credentials: str = ""
    status: int = 200
    answer: bytes = b""
    hangs: bool = False
    authority: Authority | None = None
    host: str = field(default="", init=False)
    targets: list[str] = field(default_factory=list)
    refused: int = 0
    requests: list[bytes] = field(default_factory=list)

    async def __aenter__(self) -> Self:
        context = None if self.authority is None else self.authority.server_context()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=context)
        self._writers: set[asyncio.StreamWriter] = set()
        self.host = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()

    def url(self, userinfo: str = "") -> str:
        """The proxy's URL."""
        return f"http{'s' * (self.authority is not None)}://{userinfo and f'{userinfo}@'}{self.host}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await self._answer(reader, writer)
        writer.close()
        self._writers.discard(writer)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        self.requests.append(request)
        method, target, _ = request.split(b"\r\n")[0].split(b" ")
        assert method == b"CONNECT", request
        self.targets.append(target.decode())
        status = self.status
        expected = b"Proxy-Authorization: Basic " + b64encode(self.credentials.encode())
        if self.credentials and expected not in request.split(b"\r\n"):
            status = 407
        if self.hangs or self.answer or status != 200:
            self.refused += 1
            if self.hangs:
                await reader.read()
            # As careless proxies do, the response repeats what was sent.
            body = b"denied: " + request
            head = f"HTTP/1.1 {status} {self.credentials or 'denied'}\r\nContent-Length: {len(body)}\r\n\r\n"
            writer.write(self.answer or head.encode() + body)
            await writer.drain()
            return
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await join(reader, writer, *await asyncio.open_connection("127.0.0.1", self.port))
