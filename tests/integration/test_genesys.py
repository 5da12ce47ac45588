"""The client against a server on loopback that breaks the protocol."""

from __future__ import annotations

import asyncio
import gzip
import resource
import time
import zlib
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from service.errors import (
    ConnectionFailedError,
    ExtractionError,
    InvalidResponseError,
    LeaseLostError,
    QueryTimeoutError,
    RateLimitedError,
    RequestRejectedError,
)
from service.genesys.dialect import ApiRequest, Response
from service.genesys.limiter import Permit
from service.genesys.query_builder import PATH
from service.genesys.transport import BODY_MAX, HttpRequest, Transport
from tests.support.wire import EMPTY, QUERY, SECRET, Handler, Wire, plain, raw


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    wire = Wire()
    await wire.start()
    yield wire
    await wire.close()


async def test_gzip_is_unpacked(wire: Wire) -> None:
    """In one member or several."""
    wire.responses = [
        plain(gzip.compress(EMPTY), Content_Encoding="gzip"),
        plain(gzip.compress(EMPTY[:9]) + gzip.compress(EMPTY[9:]), Content_Encoding="gzip"),
        plain(EMPTY),
    ]
    assert [await wire.call() for _ in range(3)] == [EMPTY] * 3


async def test_a_large_page_is_accepted(wire: Wire) -> None:
    """Up to the bound, compressed or not."""
    body = b"[" + b" " * (BODY_MAX - 2) + b"]"
    wire.responses = [plain(gzip.compress(body, 1), Content_Encoding="gzip"), plain(body), plain(body + b" ")]
    assert len(await wire.call()) == BODY_MAX
    assert len(await wire.call()) == BODY_MAX
    with pytest.raises(InvalidResponseError, match="larger than 64 MiB"):
        await wire.call()


async def test_a_gzip_bomb_is_rejected(wire: Wire) -> None:
    """A gigabyte in a megabyte is never unpacked completely."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, 31)
    block = bytes(2**20)
    bomb = b"".join(compressor.compress(block) for _ in range(1024)) + compressor.flush()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wire.responses = [plain(bomb, Content_Encoding="gzip"), plain(bomb, 500, Content_Encoding="gzip")]
    with pytest.raises(InvalidResponseError, match="larger than 64 MiB"):
        await wire.call()
    assert await wire.call() == EMPTY
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400 * 2**10


@pytest.mark.parametrize(
    ("body", "encoding", "reason"),
    [
        (gzip.compress(EMPTY)[:-4], "gzip", "truncated"),
        (b"no gzip at all", "gzip", "not valid gzip"),
        (gzip.compress(EMPTY) + b"junk", "gzip", "not valid gzip"),
        (EMPTY, "br", "unsupported Content-Encoding"),
    ],
    ids=[
        "short",
        "plain",
        "junk",
        "brotli",
    ],  # gzip contains the time: xdist's ids would differ
)
async def test_an_invalid_encoding_is_an_invalid_page(wire: Wire, body: bytes, encoding: str, reason: str) -> None:
    """It is not retried within the scan."""
    wire.responses = [plain(body, Content_Encoding=encoding)]
    with pytest.raises(InvalidResponseError, match=reason):
        await wire.call()


@pytest.mark.parametrize(
    "broken",
    [
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n" + EMPTY, reset=True),
        raw(reset=True),
        raw(),
        raw(b"\x00\xff nothing that is HTTP\r\n\r\n"),
        raw(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n"),
    ],
    ids=["reset-midway", "reset", "closed", "noise", "header"],
)
async def test_a_broken_connection_is_retried(wire: Wire, broken: Handler) -> None:
    """However it broke."""
    wire.responses = [broken]
    assert await wire.call() == EMPTY
    assert [event for event, _ in wire.events if event == "retry_scheduled"] == ["retry_scheduled"]


@pytest.mark.parametrize(
    "truncated",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n" + EMPTY,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n20\r\n" + EMPTY[:9],
    ],
    ids=["length", "chunk"],
)
async def test_a_body_that_ends_early_is_an_invalid_page(wire: Wire, truncated: bytes) -> None:
    """It is not retried before the next cycle."""
    wire.responses = [raw(truncated)]
    with pytest.raises(InvalidResponseError, match="truncated"):
        await wire.call()


@pytest.mark.parametrize(
    "parts",
    [
        (b"", b"zz\r\n" + EMPTY),
        (b"", b"5\r\n" + EMPTY[:5] + b"\r\nzz\r\n"),
        (b"5\r\n" + EMPTY[:5] + b"\r\n", b"zz\r\n"),
        (b"5\r\n" + EMPTY[:5], b"more than five\r\n"),
        (b"5\r\n" + EMPTY[:5] + b"\r\n", b"-5\r\n"),
        (b"5\r\n" + EMPTY[:5] + b"\r\n", b"\r\n"),
        (b"5\r\n" + EMPTY[:5] + b"\r\n", b"ffffffffffffffffffff\r\n"),
    ],
    ids=["first", "one-write", "size", "excess", "negative", "empty", "overflow"],
)
@pytest.mark.parametrize("status", [b"200 OK", b"400 Bad Request"])
async def test_a_malformed_chunk_is_an_invalid_page(wire: Wire, parts: tuple[bytes, ...], status: bytes) -> None:
    """At once, wherever it is, although the connection stays open; of an error, the status is enough."""
    head = b"HTTP/1.1 " + status + b"\r\nTransfer-Encoding: chunked\r\n\r\n" + parts[0]
    joined = parts[0] == b""
    wire.responses = [raw(head + parts[1], pause=10) if joined else raw(head, parts[1], pause=0.1)]
    began = time.monotonic()
    with pytest.raises(InvalidResponseError if joined or status == b"200 OK" else RequestRejectedError) as caught:
        await wire.call()
    assert time.monotonic() - began < 5
    assert "HTTP 400" in str(caught.value) or "malformed" in str(caught.value)
    assert len(wire.arrivals) == 2


async def test_a_date_to_retry_after_counts_from_the_responses_own(wire: Wire) -> None:
    """The process's clock may be wrong."""
    wire.client.max_pause = 0.0
    dates = {"Date": "Mon, 01 Jan 2024 00:00:00 GMT", "Retry_After": "Mon, 01 Jan 2024 00:00:04 GMT"}
    wire.responses = [plain(b"", 429, **dates)]
    with pytest.raises(RateLimitedError):
        await wire.call()
    assert [context["retry_after"] for event, context in wire.events if event == "rate_limited"] == [4.0]


async def test_a_truncated_body_without_a_length_is_an_invalid_page(wire: Wire) -> None:
    """HTTP does not show it; the JSON does."""
    wire.responses = [raw(b"HTTP/1.1 200 OK\r\n\r\n" + EMPTY[:-6])]
    with pytest.raises(InvalidResponseError, match="truncated"):
        _ = [page async for page in wire.client.scan(QUERY)]


async def test_a_slow_response_ends_at_the_query_timeout(wire: Wire) -> None:
    """Although bytes keep arriving; and it is not retried."""
    wire.client.query_timeout = timedelta(seconds=0.5)
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
    wire.responses = [raw(head, *[b" "] * 100, pause=0.05)]
    began = time.monotonic()
    with pytest.raises(QueryTimeoutError, match=r"within 0\.5 s"):
        await wire.call()
    assert time.monotonic() - began < 3
    assert len(wire.arrivals) == 2


async def test_a_redirect_is_not_followed(wire: Wire) -> None:
    """It would send the token to another server."""
    for status in (301, 302, 303, 307, 308):
        wire.responses = [plain(b"", status, Location="/elsewhere")]
        with pytest.raises(InvalidResponseError, match="redirect"):
            await wire.call()


async def test_a_get_is_sent_once_for_each_permit(wire: Wire) -> None:
    """Aiohttp would send it again by itself on a kept connection that breaks, without limit or lease check."""
    await wire.call()
    wire.responses = [raw(reset=True)]
    assert await wire.call(ApiRequest("GET", PATH)) == EMPTY
    sent = sum(event == "request_sent" for event, _ in wire.events)
    assert sent == len(wire.arrivals) == 4


async def test_a_request_counts_from_when_it_is_written(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not from when it was permitted, which a busy loop may separate."""
    sent_at_times: list[float | None] = []
    send = Transport.send

    async def watched(self: Transport, request: HttpRequest, permit: Permit, time_limit: float) -> Response:
        response = await send(self, request, permit, time_limit)
        sent_at_times.append(permit.sent_at)
        return response

    checks = 0

    def stall() -> None:
        nonlocal checks
        checks += 1
        if checks % 3 == 2:  # before connecting, with the headers, with the body
            asyncio.get_running_loop().call_soon(time.sleep, 0.3)  # like decoding a large page

    monkeypatch.setattr(Transport, "send", watched)
    wire.lease_check = stall
    began = time.monotonic()
    await wire.call()
    assert (checks, len(sent_at_times)) == (6, 2)
    assert time.monotonic() - began >= 0.6
    for sent_at, arrived in zip(sent_at_times, wire.arrivals, strict=True):
        assert sent_at is not None
        assert abs(arrived - sent_at) < 0.1


async def test_nothing_is_sent_after_the_lease_was_lost_while_connecting(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is checked again on the open connection; that is no failure of the server."""
    connect = aiohttp.TCPConnector.connect

    async def connect_then_lose(self: aiohttp.TCPConnector, *given: Any, **more: Any) -> Any:  # noqa: ANN401 - aiohttp's own
        connection = await connect(self, *given, **more)
        wire.lease_check = lost
        return connection

    def lost() -> None:
        raise LeaseLostError

    monkeypatch.setattr(aiohttp.TCPConnector, "connect", connect_then_lose)
    with pytest.raises(LeaseLostError):
        await wire.call()
    assert wire.lease_check is lost
    assert wire.arrivals == []
    assert wire.client.breaker.state == "closed"


async def test_nothing_is_sent_after_the_lease_was_lost_while_writing(wire: Wire) -> None:
    """The process may be suspended between the headers and the body."""
    checks = 0

    def check() -> None:
        nonlocal checks
        checks += 1
        if checks >= 3:  # before connecting, on the connection, with the body
            raise LeaseLostError

    wire.lease_check = check
    with pytest.raises(LeaseLostError):
        await wire.call()
    assert checks > 3
    assert wire.arrivals == []


async def test_secrets_that_the_server_repeats_are_redacted(wire: Wire) -> None:
    """In errors and in events."""

    async def echo(request: web.Request) -> web.Response:
        text = f"bad header {request.headers['Authorization']} of {SECRET}"
        return web.json_response({"code": text, "message": text, "contextId": text}, status=400)

    wire.responses = [echo]
    with pytest.raises(ExtractionError) as raised:
        await wire.call()
    shown = repr([raised.value, vars(raised.value), wire.events])
    assert "[redacted]" in shown
    assert "the-token" not in shown
    assert "hunter2" not in shown


async def test_a_429_delays_the_retry(wire: Wire) -> None:
    """By its Retry-After."""
    wire.responses = [plain(b"", 429, Retry_After="1")]
    assert await wire.call() == EMPTY
    assert wire.arrivals[2] - wire.arrivals[1] >= 1


async def test_a_429_pauses_before_its_body_arrives(wire: Wire) -> None:
    """Other requests wait although its body never arrives."""
    headers = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 2\r\nContent-Length: 9\r\n\r\n"
    started, arrivals = asyncio.Event(), wire.arrivals

    async def respond(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.write(headers)
        started.set()
        await asyncio.sleep(30)
        raise AssertionError("the client waits for the body")

    await wire.call()
    wire.responses = [respond]
    first = asyncio.create_task(wire.call())
    async with asyncio.timeout(10):
        await started.wait()
        at = time.monotonic()
        await asyncio.sleep(0.2)
        await wire.call()
        await first
    assert len(arrivals) == 5
    assert min(arrivals[3:]) - at >= 1.9
    assert [context["retry_after"] for event, context in wire.events if event == "rate_limited"] == [2]


async def test_a_refused_connection_is_a_failed_connection(wire: Wire) -> None:
    """Nothing was sent, so it does not count against the limit."""
    wire.client.breaker.configure(1, timedelta(seconds=30))
    await wire.server.close()
    with pytest.raises(ConnectionFailedError, match="connection failed"):
        await wire.call()


@pytest.mark.alone
async def test_no_second_at_the_server_sees_more_than_the_limit(wire: Wire) -> None:
    """Over several connections; and a backlog uses the limit.

    The arrival times are taken in the same loop, which may be late: the limiter's own tests are exact.
    """
    wire.client.requests_per_second = 40
    await asyncio.gather(*(wire.call() for _ in range(140)))
    arrivals = sorted(wire.arrivals)
    assert min(after - before for before, after in zip(arrivals, arrivals[40:], strict=False)) >= 0.97
    assert (len(arrivals) - 1) / (arrivals[-1] - arrivals[0]) >= 40 * 0.9
