"""One HTTP request: sent once, its response bounded in time and size."""

from __future__ import annotations

import asyncio
import re
import zlib
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from http import HTTPStatus
from types import SimpleNamespace
from typing import NamedTuple

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError, PayloadEncodingError

from service.clock import Clock
from service.errors import ConnectionFailedError, InvalidResponseError, QueryTimeoutError
from service.genesys import html_page
from service.genesys.dialect import Response
from service.genesys.error_mapping import (
    CORRELATION_ID,
    DEFAULT_POLICY,
    EndpointPolicy,
    error_from_response,
    retry_after,
)
from service.genesys.limiter import Permit
from service.genesys.network import Network
from service.genesys.rate_limit_headers import RESET
from service.genesys.redaction import Redactor
from service.genesys.server_clock import server_date

BODY_MAX = 64 * 2**20
"""Bytes of an unpacked body; a larger response is invalid."""
ERROR_BODY_MAX = 64 * 2**10
"""Bytes of an error response that are read."""
CONNECT_TIMEOUT = 30.0
"""Seconds; a host that accepts no connection in this time counts as a broken connection."""
_RATE_LIMITED_BODY_TIMEOUT = 1.0
"""Seconds to wait for the body of a 429, which only goes into the log."""
_MALFORMED = "response body is malformed: its chunks do not follow HTTP"
_MALFORMED_CHECK = 0.25
"""Seconds without a byte after which it is examined whether the body was malformed."""
_STEP = 2**20
_GZIP = zlib.MAX_WBITS | 16
_SUCCESS = range(200, 300)

# aiohttp names the cause of a broken connection only in the text of its error.
_BROKEN_CONNECTION = re.compile(
    r"\b(ConnectionResetError|ConnectionAbortedError|BrokenPipeError|TimeoutError|OSError)\("
)

# aiohttp's parser in C names a malformed chunk only in the text of its error.
_CHUNK = re.compile(r"(?i)\bchunk")


class HttpRequest(NamedTuple):
    """One request as it is sent, its token in the headers.

    With ``new_connection`` it gets a connection of its own: a kept one may have been closed on the other side,
    which only shows when a request on it is lost.
    """

    method: str
    url: str
    headers: dict[str, str]
    body: bytes | None
    policy: EndpointPolicy = DEFAULT_POLICY
    new_connection: bool = False

    def __repr__(self) -> str:
        return f"<{self.method} {self.url}>"


class Transport:
    """The connections of one org.

    It uses no netrc or cookies from the environment, verifies certificates, and follows no redirect. It unpacks
    bodies itself, in bounded steps: aiohttp 3.14 bounds its steps too, but accepts truncated gzip.

    Args:
        redactor: removes secrets from errors.
        clock: the time from which an HTTP date in ``Retry-After`` counts, where the response has no ``Date``.
        on_limit_headers: called with the headers of each response whose policy has ``limit_headers``.
        on_rate_limited: called with the seconds of a 429, before its body arrives.
        on_date: called with the ``Date`` of each response; None where it is absent or invalid.
        check_may_send: called on the open connection and again as the request is written; raises where nothing may
            be sent any more. Both steps take time, in which the process may have been suspended.
        network: how the servers are reached.
    """

    def __init__(
        self,
        redactor: Redactor,
        clock: Clock,
        on_limit_headers: Callable[[Mapping[str, str]], None],
        on_rate_limited: Callable[[float], None],
        on_date: Callable[[datetime | None], None],
        check_may_send: Callable[[], None],
        network: Network | None = None,
    ) -> None:
        self._network = network or Network()
        self._redactor = redactor
        self._clock = clock
        self._on_limit_headers = on_limit_headers
        self._on_rate_limited = on_rate_limited
        self._on_date = on_date
        self._check_may_send = check_may_send
        self._sessions: dict[bool, aiohttp.ClientSession] = {}

    async def close(self) -> None:
        """Close the connections; the next request opens new ones."""
        sessions, self._sessions = self._sessions, {}
        for session in sessions.values():
            await session.close()

    async def send(self, request: HttpRequest, permit: Permit, time_limit: float) -> Response:
        """The response to a request, where its status is 2xx.

        Args:
            request: sent once.
            permit: records when the request was sent.
            time_limit: seconds from connecting to the last byte.

        Raises:
            QueryTimeoutError: the time limit was exceeded.
            NotConnectedError: no connection was established; nothing was sent.
            ConnectionFailedError: the connection broke.
            InvalidResponseError: too large, truncated, malformed, an unsupported encoding, or a redirect.
            ExtractionError: the error for any other status.
            LeaseLostError: raised by ``check_may_send``; nothing was sent.
        """
        deadline = asyncio.timeout(time_limit)
        trace = _SendTrace(permit, self._check_may_send, has_body=bool(request.body))
        try:
            async with deadline:
                return await self._exchange(request, trace)
        except aiohttp.ClientError as error:
            self._check_may_send()  # aiohttp reports what it raises during a send as a broken connection
            text = self._redactor.redact_message(str(error))
            if not trace.began:
                message = f"connection failed: {type(error).__name__}: {text}"
                raise self._network.not_connected(error, request.url, message) from None
            if isinstance(error, aiohttp.ClientResponseError) and _is_of_body(error):
                raise InvalidResponseError(_MALFORMED) from None
            if isinstance(error, aiohttp.ClientPayloadError) and not _BROKEN_CONNECTION.search(str(error)):
                # The server closed the connection cleanly, before the end of the body.
                raise InvalidResponseError(f"response body truncated: {text}") from None
            raise _connection_failed(f"{type(error).__name__}: {text}", permit) from None
        except TimeoutError as error:
            if not trace.began:
                message = f"connection failed: no connection within {time_limit:g} s"
                raise self._network.not_connected(error, request.url, message) from None
            if deadline.expired():
                raise QueryTimeoutError(f"no complete response within {time_limit:g} s") from None
            text = self._redactor.redact_message(str(error)) or "timed out"
            raise _connection_failed(text, permit) from None
        except OSError as error:
            text = self._redactor.redact_message(str(error))
            if not trace.began:
                raise self._network.not_connected(error, request.url, f"connection failed: {text}") from None
            raise _connection_failed(text, permit) from None

    async def _exchange(self, request: HttpRequest, trace: _SendTrace) -> Response:
        proxy = self._network.route(request.url).proxy
        async with self._open(request.new_connection).request(
            request.method,
            request.url,
            data=request.body,
            headers={**request.headers, "Accept": "application/json", "Accept-Encoding": "gzip"},
            allow_redirects=False,
            trace_request_ctx=trace,
            proxy=proxy.url if proxy else None,
            proxy_headers={"Proxy-Authorization": proxy.authorization} if proxy and proxy.authorization else None,
        ) as response:
            date = server_date(response.headers)
            self._on_date(date)
            now = date or self._clock.now()
            wait = response.headers.get("Retry-After")
            if request.policy.limit_headers:
                self._on_limit_headers(response.headers)
                wait = wait or response.headers.get(RESET)
            encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
            if response.status in _SUCCESS:
                body = await _read(response, encoding, BODY_MAX)
                if html_page.is_html(body):
                    message = self._describe_html(body, response.content_type)
                    raise InvalidResponseError(message, correlation_id=response.headers.get(CORRELATION_ID))
                return Response(body, date, response.headers.get(CORRELATION_ID), response.status)
            rate_limited = response.status == HTTPStatus.TOO_MANY_REQUESTS
            if rate_limited:
                self._on_rate_limited(retry_after(wait, now))
            try:
                async with asyncio.timeout(_RATE_LIMITED_BODY_TIMEOUT if rate_limited else None):
                    body = await _read(response, encoding, ERROR_BODY_MAX, truncate=True)
            except (aiohttp.ClientError, InvalidResponseError, TimeoutError):
                body = b""  # the status is enough
            raise error_from_response(
                response.status,
                body,
                wait,
                now,
                self._redactor.redact_message,
                request.policy,
                response.headers.get(CORRELATION_ID),
            )

    def _describe_html(self, body: bytes, content_type: str) -> str:
        """What came in place of JSON: a gateway's or a login page, by its first words."""
        words = self._redactor.redact_message(html_page.words(body), html_page.WORDS_MAX)
        return f'an HTML page came instead of JSON ({content_type}, "{words}")'

    def _open(self, new_connection: bool) -> aiohttp.ClientSession:
        if new_connection not in self._sessions:
            traces = aiohttp.TraceConfig()
            # aiohttp writes the headers together with the body, which a busy loop may delay.
            traces.on_request_headers_sent.append(_traced(_SendTrace.headers_ready))
            traces.on_request_chunk_sent.append(_traced(_SendTrace.body_ready))
            self._sessions[new_connection] = aiohttp.ClientSession(
                # the windows in flight bound the connections
                connector=aiohttp.TCPConnector(limit=0, ssl=self._network.tls(), force_close=new_connection),
                timeout=aiohttp.ClientTimeout(total=None, connect=CONNECT_TIMEOUT),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,  # it would read netrc too
                auto_decompress=False,
                trace_configs=[traces],
            )
        return self._sessions[new_connection]


def _connection_failed(text: str, permit: Permit) -> ConnectionFailedError:
    """The error of a connection that failed, with whether the request had been sent."""
    error = ConnectionFailedError(f"connection failed: {text}")
    error.while_waiting = permit.is_sent
    return error


class _SendTrace:
    """Checks and records the moment at which aiohttp writes one request."""

    def __init__(self, permit: Permit, check_may_send: Callable[[], None], *, has_body: bool) -> None:
        self._permit = permit
        self._check_may_send = check_may_send
        self._has_body = has_body
        self._sends = 0

    @property
    def began(self) -> bool:
        """Whether the request was written on an open connection, or was about to be."""
        return self._sends > 0

    def headers_ready(self) -> None:
        """The headers are written now, or kept back until the body is written too.

        Raises:
            aiohttp.ServerDisconnectedError: aiohttp is about to send a GET again, because a kept connection was
                closed; that would exceed the limit.
        """
        self._sends += 1
        if self._sends > 1:
            raise aiohttp.ServerDisconnectedError
        self._check_may_send()
        if not self._has_body:
            self._permit.sent()

    def body_ready(self) -> None:
        """The body is written now."""
        self._check_may_send()
        self._permit.sent()


def _is_of_body(error: aiohttp.ClientResponseError) -> bool:
    """Whether a chunk of the body was malformed, and not the status line or a header."""
    cause = error.__cause__ and error.__cause__.__cause__
    return isinstance(cause, PayloadEncodingError) or _CHUNK.search(error.message) is not None


def _traced(
    step: Callable[[_SendTrace], None],
) -> Callable[[aiohttp.ClientSession, SimpleNamespace, object], Awaitable[None]]:
    async def signal(_session: aiohttp.ClientSession, context: SimpleNamespace, _params: object) -> None:
        step(context.trace_request_ctx)

    return signal


async def _read(response: aiohttp.ClientResponse, encoding: str, most: int, *, truncate: bool = False) -> bytes:
    """The unpacked body; past ``most`` bytes it is truncated or rejected."""
    if encoding not in ("identity", "gzip", "x-gzip", ""):
        raise InvalidResponseError("response has an unsupported Content-Encoding; only gzip was requested")
    unpack = _Gunzip() if encoding.endswith("gzip") else None
    body = bytearray()
    received = 0
    while chunk := await _next_piece(response):
        received += len(chunk)
        if unpack is None:
            body += chunk
        else:
            unpack.feed(chunk, body, most)
        if len(body) > most or received > most:
            if truncate:
                return bytes(body[:most])
            raise InvalidResponseError(f"response larger than {most // 2**20} MiB")
    if unpack is not None:
        unpack.finish(body, most)
    return bytes(body)


async def _next_piece(response: aiohttp.ClientResponse) -> bytes:
    """What has arrived of the body, at least a byte; empty at its end.

    aiohttp's parser in C reports a malformed chunk in the middle of a body to the connection alone: the body's
    reader would wait until the time limit.
    """
    while True:
        pause = asyncio.timeout(_MALFORMED_CHECK)
        try:
            async with pause:
                return await response.content.readany()
        except HttpProcessingError:
            raise InvalidResponseError(_MALFORMED) from None
        except TimeoutError:
            if not pause.expired():
                raise
            connection = response.connection
            protocol = None if connection is None else connection.protocol
            if protocol is not None and isinstance(protocol.exception(), HttpProcessingError):
                raise InvalidResponseError(_MALFORMED) from None


class _Gunzip:
    """Unpacks gzip of one or more members, little beyond the size allowed."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(_GZIP)
        self._received = False

    def feed(self, chunk: bytes, body: bytearray, most: int) -> None:
        """Append the unpacked chunk; stops soon after ``most`` bytes."""
        try:
            while chunk and len(body) <= most:
                if self._member.eof:
                    self._member = zlib.decompressobj(_GZIP)
                self._received = True
                body += self._member.decompress(chunk, _STEP)
                chunk = self._member.unconsumed_tail or self._member.unused_data
        except zlib.error:
            raise InvalidResponseError("response body is not valid gzip") from None

    def finish(self, body: bytearray, most: int) -> None:
        """Append the rest; the last member must be complete."""
        while len(body) <= most and (rest := self._member.decompress(b"", _STEP)):
            body += rest
        if self._received and not self._member.eof:
            raise InvalidResponseError("response body truncated: gzip ends early")
