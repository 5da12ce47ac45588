"""One request over HTTP: sent once, answered within its time, its body bounded."""

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

from service.clock import Clock
from service.errors import PageError, QueryTimeoutError, ServerError
from service.genesys.error_mapping import USUAL, EndpointPolicy, error_from_response, retry_after
from service.genesys.limiter import Permit
from service.genesys.rate_limit_headers import RESET
from service.genesys.redaction import Redactor
from service.genesys.server_clock import server_date

BODY_MAX = 64 * 2**20
"""Bytes, unpacked, past which an answer is a page at fault."""
ERROR_BODY_MAX = 64 * 2**10
"""Bytes of an error's answer that are read."""
CONNECT_TIMEOUT = 30.0
"""Seconds; a host that takes no connection for so long counts as a broken connection."""
_REFUSAL_WITHIN = 1.0
"""Seconds that a 429's body is waited for: what it says goes into the log, and no more."""
_STEP = 2**20
_GZIP = zlib.MAX_WBITS | 16
_SUCCESS = range(200, 300)

# aiohttp names what broke the connection in the error's text alone.
_BROKE = re.compile(r"\b(ConnectionResetError|ConnectionAbortedError|BrokenPipeError|TimeoutError|OSError)\(")


class HttpRequest(NamedTuple):
    """One request as it goes out, its token in the headers."""

    method: str
    url: str
    headers: dict[str, str]
    body: bytes | None
    rules: EndpointPolicy = USUAL

    def __repr__(self) -> str:
        return f"<{self.method} {self.url}>"


class Answer(NamedTuple):
    """A 2xx response: its body, unpacked, and its ``Date``, None where that is absent or invalid."""

    body: bytes
    date: datetime | None


class Transport:
    """The connections of one org.

    No proxy, netrc or cookie is taken from the environment or from an answer, certificates are checked, and a
    redirect is not followed. Bodies are unpacked here, in bounded steps: aiohttp 3.14 bounds its steps too, but
    takes gzip that was cut short for complete.

    Args:
        redactor: takes secrets out of errors.
        clock: tells how far off an HTTP date is, where the response has no ``Date`` of its own.
        observe: told the headers of each answer whose limit rules.
        hold: told the seconds of a 429, before its body has come.
        on_date: called with the ``Date`` of each response, None where it has no valid one.
        may_send: called on the open connection, and again as the request is written; raises where nothing must be
            sent any more. Both take their time, and a process may have stood still meanwhile.
    """

    def __init__(
        self,
        redactor: Redactor,
        clock: Clock,
        observe: Callable[[Mapping[str, str]], None],
        hold: Callable[[float], None],
        on_date: Callable[[datetime | None], None],
        may_send: Callable[[], None],
    ) -> None:
        self._redactor = redactor
        self._clock = clock
        self._observe = observe
        self._hold = hold
        self._on_date = on_date
        self._may_send = may_send
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close the connections; the next request opens new ones."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def send(self, request: HttpRequest, permit: Permit, timeout: float) -> Answer:  # noqa: ASYNC109
        """The body of a 2xx answer, unpacked, and its date.

        Args:
            request: what is sent, once.
            permit: told when the request goes out.
            timeout: seconds from connecting to the last byte.

        Raises:
            QueryTimeoutError: the time is over.
            ServerError: the connection failed or broke, or the answer is 5xx.
            PageError: too large, packed in a way that was not asked for, cut short, or a redirect.
            ExtractionError: the class that any other answer stands for.
            LeaseLostError: what ``may_send`` raised; nothing was sent.
        """
        deadline = asyncio.timeout(timeout)
        try:
            async with deadline:
                return await self._exchange(request, permit)
        except aiohttp.ClientError as error:
            self._may_send()  # what it raises in the midst of sending comes out of aiohttp as a broken connection
            if isinstance(error, aiohttp.ClientPayloadError) and not _BROKE.search(str(error)):
                # The server ended the body early, and in order: a page cut short, not a connection that broke.
                raise PageError(f"the page was cut short: {self._redactor.clean(str(error))}") from None
            told = self._redactor.clean(str(error))
            raise ServerError(f"the connection failed: {type(error).__name__}: {told}") from None
        except TimeoutError as error:
            if deadline.expired():
                raise QueryTimeoutError(f"no whole answer within {timeout:g} s") from None
            raise ServerError(
                f"the connection failed: {self._redactor.clean(str(error)) or 'timed out'}"
            ) from None
        except OSError as error:
            raise ServerError(f"the connection failed: {self._redactor.clean(str(error))}") from None

    async def _exchange(self, request: HttpRequest, permit: Permit) -> Answer:
        begun = False

        def leaving() -> None:
            nonlocal begun
            if begun:
                # aiohttp sends a GET again by itself where a kept connection turns out closed: past the limit.
                raise aiohttp.ServerDisconnectedError
            begun = True
            self._may_send()
            if not request.body:
                permit.sent()

        def sent() -> None:
            self._may_send()
            permit.sent()

        async with self._open().request(
            request.method,
            request.url,
            data=request.body,
            headers={**request.headers, "Accept": "application/json", "Accept-Encoding": "gzip"},
            allow_redirects=False,
            trace_request_ctx={"leaving": leaving, "sent": sent},
        ) as response:
            date = server_date(response.headers)
            self._on_date(date)
            now = date or self._clock.now()
            wait = response.headers.get("Retry-After")
            if request.rules.tells_limit:
                self._observe(response.headers)
                wait = wait or response.headers.get(RESET)
            packed = response.headers.get("Content-Encoding", "identity").strip().lower()
            if response.status in _SUCCESS:
                return Answer(await _read(response.content, packed, BODY_MAX), date)
            limited = response.status == HTTPStatus.TOO_MANY_REQUESTS
            if limited:
                self._hold(retry_after(wait, now))
            try:
                async with asyncio.timeout(_REFUSAL_WITHIN if limited else None):
                    body = await _read(response.content, packed, ERROR_BODY_MAX, cut=True)
            except (aiohttp.ClientError, PageError, TimeoutError):
                body = b""  # the status alone says enough
            raise error_from_response(
                response.status,
                body,
                wait,
                now,
                self._redactor.clean,
                request.rules,
            )

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            traces = aiohttp.TraceConfig()
            # Headers are kept back until the body goes with them, which may be as late as a busy loop makes it.
            traces.on_request_headers_sent.append(_tell("leaving"))
            traces.on_request_chunk_sent.append(_tell("sent"))
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),  # concurrency is bounded by the windows in flight
                timeout=aiohttp.ClientTimeout(total=None, connect=CONNECT_TIMEOUT),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
                auto_decompress=False,
                trace_configs=[traces],
            )
        return self._session


def _tell(what: str) -> Callable[[aiohttp.ClientSession, SimpleNamespace, object], Awaitable[None]]:
    async def tell(_session: aiohttp.ClientSession, context: SimpleNamespace, _params: object) -> None:
        context.trace_request_ctx[what]()

    return tell


async def _read(content: aiohttp.StreamReader, packed: str, most: int, *, cut: bool = False) -> bytes:
    """The body, unpacked; past ``most`` bytes it is cut there or refused."""
    if packed not in ("identity", "gzip", "x-gzip", ""):
        raise PageError("the answer is packed in a way that was not asked for")
    unpack = _Gunzip() if packed.endswith("gzip") else None
    body = bytearray()
    received = 0
    async for chunk in content.iter_any():
        received += len(chunk)
        if unpack is None:
            body += chunk
        else:
            unpack.feed(chunk, body, most)
        if len(body) > most or received > most:
            if cut:
                return bytes(body[:most])
            raise PageError(f"the answer is larger than {most // 2**20} MiB")
    if unpack is not None:
        unpack.finish(body, most)
    return bytes(body)


class _Gunzip:
    """Unpacks gzip, several members in a row too, never much past what is allowed."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(_GZIP)
        self._begun = False

    def feed(self, chunk: bytes, body: bytearray, most: int) -> None:
        """Append what the chunk unpacks to; stops soon after ``most`` bytes."""
        try:
            while chunk and len(body) <= most:
                if self._member.eof:
                    self._member = zlib.decompressobj(_GZIP)
                self._begun = True
                body += self._member.decompress(chunk, _STEP)
                chunk = self._member.unconsumed_tail or self._member.unused_data
        except zlib.error:
            raise PageError("the answer is not the gzip that it says it is") from None

    def finish(self, body: bytearray, most: int) -> None:
        """Append what is left; the last member must have ended."""
        while len(body) <= most and (rest := self._member.decompress(b"", _STEP)):
            body += rest
        if self._begun and not self._member.eof:
            raise PageError("the answer's gzip was cut short")
