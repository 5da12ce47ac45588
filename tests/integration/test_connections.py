"""The bounds of one connection and of all together."""

from __future__ import annotations

import asyncio
import logging
import socket
import zlib
from contextlib import suppress
from typing import Self

import pytest
from aiohttp import hdrs, web
from aiohttp.test_utils import make_mocked_request

from service.web import connection, connection_limit, outbox, response_cache
from service.web.outbox import PIECE_SIZE, Outbox
from service.web.response_cache import CachedResponse, ResponseCache
from tests.integration.test_web import serving
from tests.support import clients
from tests.support.clients import Client, get
from tests.support.fake_clock import FakeClock

BODY = bytes(range(256)) * (PIECE_SIZE // 256) * 5 + b"end"


async def opened(address: str, *, small: bool = False) -> socket.socket:
    """A connection, with a small receive buffer on request."""
    host, _, port = address.rpartition(":")
    client = socket.socket()
    if small:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.setblocking(False)
    await asyncio.get_running_loop().sock_connect(client, (host, int(port)))
    return client


async def exchange(address: str, sent: bytes) -> bytes:
    """Send data and return everything received until the server closes the connection."""
    client = await opened(address)
    await asyncio.get_running_loop().sock_sendall(client, sent)
    return await rest(client)


async def rest(client: socket.socket) -> bytes:
    """Everything that a connection still receives until the server closes it."""
    answer = bytearray()
    with client:
        async with asyncio.timeout(10):
            with suppress(ConnectionResetError):
                while received := await asyncio.get_running_loop().sock_recv(client, 2**20):
                    answer += received
    return bytes(answer)


async def test_a_request_with_a_body_is_rejected() -> None:
    """A GET with a body gets 400 and closes the connection, whatever the size of the body."""
    async with serving(None) as site:
        for body in (b"x", b"x" * 20_000):
            answer = await exchange(site.address, get("/healthz", b"Content-Length: %d" % len(body)) + body)
            assert answer.startswith(b"HTTP/1.1 400 ")
            assert b"Connection: close" in answer
        assert (
            await exchange(site.address, get("/healthz", b"Content-Length: 0", b"Connection: close"))
        ).startswith(b"HTTP/1.1 200 ")


async def test_a_request_that_is_too_large_is_rejected() -> None:
    """Headers of 28 KB are accepted; larger ones get 431, and the connection is closed."""
    header = b"X: " + b"x" * 7000
    async with serving(None) as site:
        answer = await exchange(site.address, get("/healthz", *[header] * 4, b"Connection: close"))
        assert answer.startswith(b"HTTP/1.1 200 ")
        answer = await exchange(site.address, get("/healthz", *[header] * 8)[:-2])
        assert answer.startswith(b"HTTP/1.1 431 ")


async def test_a_client_s_error_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Data that is not HTTP gets 400 without the server's name, and is not logged."""
    with caplog.at_level(logging.DEBUG, "aiohttp"):
        async with serving(None) as site:
            for sent in (b"nonsense\r\n\r\n", get("/healthz", b"Cookie: " + b"x" * 9000)):
                answer = await exchange(site.address, sent)
                assert answer.startswith(b"HTTP/1.0 400 ")
                assert b"aiohttp" not in answer
    assert not caplog.records


async def test_pipelined_requests_are_all_answered() -> None:
    """A hundred requests sent at once are answered one after the other."""
    async with serving(None) as site:
        answer = await exchange(site.address, get("/healthz") * 99 + get("/healthz", b"Connection: close"))
        assert answer.count(b"HTTP/1.1 200 ") == 100


async def test_a_client_that_does_not_read_is_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection whose responses are not read is closed after a timeout, and its task ends."""
    monkeypatch.setattr(connection, "UNREAD_TIMEOUT", 0.3)
    async with serving(None) as site:
        before = len(asyncio.all_tasks())
        client = Client(site.address)
        await client.run(clients.pipelined("/static/uplot.js"), 20)
        assert client.disconnected
        async with asyncio.timeout(10):
            while len(asyncio.all_tasks()) > before:  # noqa: ASYNC110 - nothing notifies of a task's end
                await asyncio.sleep(0.01)


class Server:
    """Serves one large body from an outbox."""

    def __init__(self, body: bytes) -> None:
        self.outbox = Outbox()
        self.body = body
        self.app = web.Application(middlewares=[self.outbox.send])
        self.app.router.add_get("/", self._answer)
        self.address = ""

    async def __aenter__(self) -> Self:
        self._runner = web.AppRunner(self.app, shutdown_timeout=1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        self.address = f"{host}:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _answer(self, _request: web.Request) -> web.Response:
        response = web.Response(body=self.body, headers={"X-Kept": "yes"})
        response.enable_compression()
        return response

    async def until(self, size: int) -> None:
        """Wait until so many bytes are on their way."""
        async with asyncio.timeout(10):
            while self.outbox.size != size:  # noqa: ASYNC110 - nothing notifies of it
                await asyncio.sleep(0.01)


async def test_a_large_body_arrives_complete() -> None:
    """A large body is sent in pieces, with its length or compressed, and keeps its headers; HEAD has no body."""
    async with Server(BODY) as server:
        head, _, body = (await exchange(server.address, get("/", b"Connection: close"))).partition(b"\r\n\r\n")
        assert body == BODY
        assert b"X-Kept: yes" in head
        assert b"Content-Length: %d" % len(BODY) in head
        packed = get("/", b"Accept-Encoding: gzip", version=b"1.0")
        assert zlib.decompress((await exchange(server.address, packed)).partition(b"\r\n\r\n")[2], 31) == BODY
        head = get("/", b"Connection: close").replace(b"GET", b"HEAD")
        assert (await exchange(server.address, head)).partition(b"\r\n\r\n")[2] == b""
        assert server.outbox.size == 0


async def test_bodies_on_their_way_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A body with two readers counts once; both are aborted if another body exceeds the bound."""
    size = 8 * 2**20
    monkeypatch.setattr(outbox, "TOTAL_SIZE_MAX", size + 100)
    loop = asyncio.get_running_loop()
    async with Server(bytes(size)) as server:
        readers = [await opened(server.address, small=True) for _ in range(2)]
        for each in readers:
            await loop.sock_sendall(each, get("/"))
        await server.until(size)
        server.body = b"x" * size
        answer = await exchange(server.address, get("/", b"Connection: close"))
        assert answer.endswith(b"\r\n\r\n" + server.body)
        await server.until(0)
        for each in readers:
            assert len(await rest(each)) < size


async def test_small_responses_are_unchanged() -> None:
    """A response of one piece is passed on unchanged."""
    small = web.Response(body=b"x" * PIECE_SIZE)

    async def handler(_request: web.Request) -> web.StreamResponse:
        return small

    assert await Outbox().send(make_mocked_request(hdrs.METH_GET, "/"), handler) is small


async def test_cached_responses_are_bounded(fake_clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """The least recently requested responses are dropped when all together are too large."""
    monkeypatch.setattr(response_cache, "MAX_BYTES", 250)
    made: list[str] = []

    class Large(ResponseCache):
        async def _make(self, make: object) -> CachedResponse:
            made.append(str(make))
            return CachedResponse(b"x" * 100, b"", "")

    kept = Large(str, fake_clock)
    for question in ("a", "b", "c", "b", "c", "a"):
        await kept.get(question, question)  # type: ignore[arg-type]
    assert made == ["a", "b", "c", "a"]


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: evil.example\r\n", 421),
        (b"GET /api/status HTTP/1.1\r\nHost: evil.example:8080\r\n", 421),
        (b"GET /static/main.js HTTP/1.1\r\nHost: evil.example\r\n", 421),
        (b"GET /nothing HTTP/1.1\r\nHost: evil.example\r\n", 421),
        (b"POST / HTTP/1.1\r\nHost: evil.example\r\n", 421),
        (b"GET / HTTP/1.1\r\nHost:\r\n", 421),
        (b"GET / HTTP/1.0\r\n", 421),
        (b"GET / HTTP/1.1\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n", 400),
        (b"GET http://evil.example/ HTTP/1.1\r\nHost: localhost\r\n", 421),
        (b"GET http://localhost/static/main.js HTTP/1.1\r\nHost: evil.example\r\n", 421),
        (b"GET http://localhost:1/static/main.js HTTP/1.1\r\nHost: localhost:1\r\n", 200),
        (b"GET http://[::1]:1/static/main.js HTTP/1.1\r\nHost: [::1]:1\r\n", 200),
        (b"GET /static/main.js HTTP/1.1\r\nHost: LocalHost.:9\r\n", 200),
        (b"GET /static/main.js HTTP/1.1\r\nHost: [::1]:9\r\n", 200),
        (b"GET /healthz HTTP/1.1\r\nHost: evil.example\r\n", 200),
        (b"GET /metrics HTTP/1.1\r\nHost: 10.0.0.7.pods.example\r\n", 200),
        (b"GET /readyz HTTP/1.0\r\n", 503),
        (b"GET /healthz/ HTTP/1.1\r\nHost: evil.example\r\n", 421),
    ],
)
async def test_the_host_of_a_request(request_: bytes, status: int) -> None:
    """On loopback only its own names are answered, except to probes."""
    async with serving(None) as site:
        answer = await exchange(site.address, request_ + b"Connection: close\r\n\r\n")
        assert int(answer.split(b" ", 2)[1]) == status, answer


async def test_half_open_connections_give_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """With more half-open connections than allowed, each further client is still answered."""
    monkeypatch.setattr(connection_limit, "CONNECTIONS_MAX", 8)
    loop = asyncio.get_running_loop()
    async with serving(None) as site:
        half_open = []
        for number in range(40):
            client = await opened(site.address)
            await loop.sock_sendall(client, get("/healthz")[:number])
            half_open.append(client)
        answer = await exchange(site.address, get("/healthz", b"Connection: close"))
        assert answer.startswith(b"HTTP/1.1 200 ")
        async with asyncio.timeout(10):
            closed = [await rest(each) for each in half_open[:30]]
        assert closed == [b""] * 30
        for each in half_open:
            each.close()


async def test_a_request_has_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection is closed if its request is not complete in time, also a later request and a slow one."""
    monkeypatch.setattr(connection, "REQUEST_TIMEOUT", 0.2)
    loop = asyncio.get_running_loop()
    async with serving(None) as site:
        for before in (b"", get("/healthz")):
            client = await opened(site.address)
            if before:
                await loop.sock_sendall(client, before)
                assert (await loop.sock_recv(client, 2**16)).startswith(b"HTTP/1.1 200 ")
            with suppress(ConnectionError):
                async with asyncio.timeout(5):
                    for byte in get("/healthz", b"X: " + b"x" * 8000):  # a byte every hundredth of a second
                        await loop.sock_sendall(client, bytes([byte]))
                        await asyncio.sleep(0.01)
            client.close()
