"""The client against a real server on loopback, which misbehaves on the wire."""

from __future__ import annotations

import asyncio
import gzip
import math
import resource
import socket
import struct
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from service.errors import ExtractionError, LeaseLostError, PageError, QueryTimeoutError, ServerError
from service.genesys import ApiRequest, GenesysClient, QueryBuilder
from service.genesys.limiter import OrgLimiter, Permit
from service.genesys.query_builder import PATH
from service.genesys.transport import BODY_MAX, Answer, HttpRequest, Transport
from service.model import Granularity, Query, Span

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
DAY = Span(datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 2, tzinfo=UTC))
QUERY = Query("acme", DAY, Granularity.DAILY, "UTC", (), 100, None, DAY)
ASK = ApiRequest("POST", PATH, b"{}")
EMPTY = b'{"nextPageToken":null,"data":[]}'
SECRET = "hunter2hunter2"


class Wire:
    """A server whose answers are handed out one by one, and a client on it."""

    def __init__(self) -> None:
        self.answers: list[Handler] = []
        self.arrivals: list[float] = []
        self.lease_check: Callable[[], None] = lambda: None
        self.told: list[tuple[str, dict[str, Any]]] = []
        app = web.Application()
        app.router.add_post("/oauth/token", self._token)
        app.router.add_route("*", PATH, self._answer)
        self.server = TestServer(app)

    async def start(self) -> None:
        await self.server.start_server()
        url = str(self.server.make_url("")).rstrip("/")
        self.client = GenesysClient(
            "acme",
            base_url=url,
            login_url=url,
            credentials=lambda: ("id", SECRET),
            dialect=QueryBuilder(),
            requests_per_second=100,
            query_timeout=timedelta(seconds=20),
            breaker_failures=50,
            breaker_open_for=timedelta(seconds=30),
            lease_check=self._check,
            on_hold=lambda _: None,
            emit=lambda event, **context: self.told.append((event, context)),
        )
        self.client.limiter = OrgLimiter(100, spent_ago=math.inf)  # nobody went before

    def _check(self) -> None:
        self.lease_check()

    async def close(self) -> None:
        await self.client.close()
        await self.server.close()

    async def call(self, request: ApiRequest = ASK) -> bytes:
        return await self.client.call(request)

    async def _token(self, _request: web.Request) -> web.Response:
        self.arrivals.append(time.monotonic())
        return web.json_response({"access_token": "the-token-itself", "expires_in": 3600})

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.arrivals.append(time.monotonic())
        if not self.answers:
            return web.Response(body=EMPTY)
        return await self.answers.pop(0)(request)


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    wire = Wire()
    await wire.start()
    yield wire
    await wire.close()


def plain(body: bytes, status: int = 200, **headers: str) -> Handler:
    async def answer(_request: web.Request) -> web.Response:
        return web.Response(body=body, status=status, headers={k.replace("_", "-"): v for k, v in headers.items()})

    return answer


def raw(*parts: bytes, reset: bool = False, pause: float = 0) -> Handler:
    """Bytes straight onto the connection, which then ends."""

    async def answer(request: web.Request) -> web.StreamResponse:
        transport = request.transport
        assert transport is not None
        for part in parts:
            if transport.is_closing():
                break
            transport.write(part)
            await asyncio.sleep(pause)
        if reset:
            transport.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
            transport.abort()
        else:
            transport.close()
        return web.Response()

    return answer


async def test_gzip_is_unpacked(wire: Wire) -> None:
    """In one member or several, in as many pieces as it likes."""
    wire.answers = [
        plain(gzip.compress(EMPTY), Content_Encoding="gzip"),
        plain(gzip.compress(EMPTY[:9]) + gzip.compress(EMPTY[9:]), Content_Encoding="gzip"),
        plain(EMPTY),
    ]
    assert [await wire.call() for _ in range(3)] == [EMPTY] * 3


async def test_a_large_page_passes(wire: Wire) -> None:
    """Up to the bound, packed or not."""
    body = b"[" + b" " * (BODY_MAX - 2) + b"]"
    wire.answers = [plain(gzip.compress(body, 1), Content_Encoding="gzip"), plain(body), plain(body + b" ")]
    assert len(await wire.call()) == BODY_MAX
    assert len(await wire.call()) == BODY_MAX
    with pytest.raises(PageError, match="larger than 64 MiB"):
        await wire.call()


async def test_a_bomb_goes_off_in_bounds(wire: Wire) -> None:
    """A gigabyte in a megabyte is refused without ever being unpacked."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    block = bytes(2**20)
    bomb = b"".join(packer.compress(block) for _ in range(1024)) + packer.flush()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wire.answers = [plain(bomb, Content_Encoding="gzip"), plain(bomb, 500, Content_Encoding="gzip")]
    with pytest.raises(PageError, match="larger than 64 MiB"):
        await wire.call()
    assert await wire.call() == EMPTY
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400 * 2**10


@pytest.mark.parametrize(
    ("body", "packed", "reason"),
    [
        (gzip.compress(EMPTY)[:-4], "gzip", "cut short"),
        (b"no gzip at all", "gzip", "not the gzip"),
        (gzip.compress(EMPTY) + b"junk", "gzip", "not the gzip"),
        (EMPTY, "br", "not asked for"),
    ],
    ids=["short", "plain", "junk", "brotli"],  # gzip tells the time: xdist's workers would name them differently
)
async def test_packing_at_fault_is_a_page_at_fault(wire: Wire, body: bytes, packed: str, reason: str) -> None:
    """It is not tried again within the scan."""
    wire.answers = [plain(body, Content_Encoding=packed)]
    with pytest.raises(PageError, match=reason):
        await wire.call()


@pytest.mark.parametrize(
    "broken",
    [
        raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n" + EMPTY),
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n" + EMPTY, reset=True),
        raw(reset=True),
        raw(),
        raw(b"\x00\xff nothing that is HTTP\r\n\r\n"),
        raw(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n"),
    ],
    ids=["size", "reset-midway", "reset", "closed", "noise", "header"],
)
async def test_a_broken_connection_is_tried_again(wire: Wire, broken: Handler) -> None:
    """However it breaks."""
    wire.answers = [broken]
    assert await wire.call() == EMPTY
    assert [event for event, _ in wire.told if event == "retry_scheduled"] == ["retry_scheduled"]


@pytest.mark.parametrize(
    "cut",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n" + EMPTY,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n20\r\n" + EMPTY[:9],
    ],
    ids=["length", "chunk"],
)
async def test_a_body_that_ends_early_is_a_page_cut_short(wire: Wire, cut: bytes) -> None:
    """It is not asked for again before the next cycle."""
    wire.answers = [raw(cut)]
    with pytest.raises(PageError, match="cut short"):
        await wire.call()


async def test_an_answer_without_a_length_that_was_cut_short_is_no_page(wire: Wire) -> None:
    """The connection says nothing of it; the missing token does."""
    wire.answers = [raw(b"HTTP/1.1 200 OK\r\n\r\n" + EMPTY[:-6])]
    with pytest.raises(PageError, match="cut short"):
        _ = [page async for page in wire.client.scan(QUERY)]


async def test_a_slow_drip_ends_with_the_query_timeout(wire: Wire) -> None:
    """However busy the connection is; and it is not tried again."""
    wire.client.query_timeout = timedelta(seconds=0.5)
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
    wire.answers = [raw(head, *[b" "] * 100, pause=0.05)]
    began = time.monotonic()
    with pytest.raises(QueryTimeoutError, match=r"within 0\.5 s"):
        await wire.call()
    assert time.monotonic() - began < 3
    assert len(wire.arrivals) == 2


async def test_a_redirect_is_not_followed(wire: Wire) -> None:
    """It would carry the token to wherever it points."""
    for status in (301, 302, 303, 307, 308):
        wire.answers = [plain(b"", status, Location="/elsewhere")]
        with pytest.raises(PageError, match="redirect"):
            await wire.call()


async def test_a_get_is_sent_once_for_each_turn(wire: Wire) -> None:
    """Aiohttp would send it again by itself on a kept connection that breaks, past the limit and the lease."""
    await wire.call()
    wire.answers = [raw(reset=True)]
    assert await wire.call(ApiRequest("GET", PATH)) == EMPTY
    sent = sum(event == "request_sent" for event, _ in wire.told)
    assert sent == len(wire.arrivals) == 4


async def test_a_request_counts_from_when_it_is_written(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not from when a busy loop was asked to write it."""
    said: list[float | None] = []
    send = Transport.send

    async def watched(self: Transport, request: HttpRequest, permit: Permit, timeout: float) -> Answer:  # noqa: ASYNC109
        body = await send(self, request, permit, timeout)
        said.append(permit.sent_at)
        return body

    looks = 0

    def stall() -> None:
        nonlocal looks
        looks += 1
        if looks % 3 == 2:  # before connecting, on the connection, with the body
            asyncio.get_running_loop().call_soon(time.sleep, 0.3)  # as a large page that is just being read

    monkeypatch.setattr(Transport, "send", watched)
    wire.lease_check = stall
    began = time.monotonic()
    await wire.call()
    assert (looks, len(said)) == (6, 2)
    assert time.monotonic() - began >= 0.6
    for sent_at, arrived in zip(said, wire.arrivals, strict=True):
        assert sent_at is not None
        assert abs(arrived - sent_at) < 0.1


async def test_a_lease_lost_while_connecting_lets_nothing_out(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is looked at on the open connection once more; no failure of the server's."""
    connect = aiohttp.TCPConnector.connect

    async def slowly(self: aiohttp.TCPConnector, *given: Any, **more: Any) -> Any:  # noqa: ANN401 - aiohttp's own
        connection = await connect(self, *given, **more)
        wire.lease_check = lost
        return connection

    def lost() -> None:
        raise LeaseLostError

    monkeypatch.setattr(aiohttp.TCPConnector, "connect", slowly)
    with pytest.raises(LeaseLostError):
        await wire.call()
    assert wire.lease_check is lost
    assert wire.arrivals == []
    assert wire.client.breaker.state == "closed"


async def test_a_lease_lost_while_writing_lets_nothing_out(wire: Wire) -> None:
    """Between the headers and the body that they wait for, a process may have stood still."""
    looks = 0

    def look() -> None:
        nonlocal looks
        looks += 1
        if looks >= 3:  # before connecting, on the connection, with the body
            raise LeaseLostError

    wire.lease_check = look
    with pytest.raises(LeaseLostError):
        await wire.call()
    assert looks > 3
    assert wire.arrivals == []


async def test_what_the_server_repeats_of_our_secrets_is_not_told(wire: Wire) -> None:
    """Not in an error, not in an event."""

    async def echo(request: web.Request) -> web.Response:
        said = f"bad header {request.headers['Authorization']} of {SECRET}"
        return web.json_response({"code": said, "message": said, "contextId": said}, status=400)

    wire.answers = [echo]
    with pytest.raises(ExtractionError) as raised:
        await wire.call()
    told = repr([raised.value, vars(raised.value), wire.told])
    assert "[redacted]" in told
    assert "the-token" not in told
    assert "hunter2" not in told


async def test_a_429_is_waited_out(wire: Wire) -> None:
    """On the wire too."""
    wire.answers = [plain(b"", 429, Retry_After="1")]
    assert await wire.call() == EMPTY
    assert wire.arrivals[2] - wire.arrivals[1] >= 1


async def test_a_429_holds_before_its_body_has_come(wire: Wire) -> None:
    """The others do not ask until its body is there, or never comes."""
    headers = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 2\r\nContent-Length: 9\r\n\r\n"
    begun, asked = asyncio.Event(), wire.arrivals

    async def answer(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.write(headers)
        begun.set()
        await asyncio.sleep(30)
        raise AssertionError("nobody waits for so long")

    await wire.call()
    wire.answers = [answer]
    first = asyncio.create_task(wire.call())
    async with asyncio.timeout(10):
        await begun.wait()
        at = time.monotonic()
        await asyncio.sleep(0.2)
        await wire.call()
        await first
    assert len(asked) == 5
    assert min(asked[3:]) - at >= 1.9
    assert [context["retry_after"] for event, context in wire.told if event == "rate_limited"] == [2]


async def test_nobody_there_is_a_broken_connection(wire: Wire) -> None:
    """Nothing was sent, so nothing of the limit is spent."""
    wire.client.breaker.configure(1, timedelta(seconds=30))
    await wire.server.close()
    with pytest.raises(ServerError, match="connection failed"):
        await wire.call()


@pytest.mark.alone
async def test_no_second_of_the_servers_sees_more_than_the_limit(wire: Wire) -> None:
    """Over several connections; and a backlog keeps the limit busy.

    The stamps are taken in this same loop, late by as much as it is busy: the limiter's own tests are exact.
    """
    wire.client.requests_per_second = 40
    await asyncio.gather(*(wire.call() for _ in range(140)))
    arrivals = sorted(wire.arrivals)
    assert min(after - before for before, after in zip(arrivals, arrivals[40:], strict=False)) >= 0.97
    assert (len(arrivals) - 1) / (arrivals[-1] - arrivals[0]) >= 40 * 0.9
