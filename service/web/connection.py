"""One client's connection, its memory bounded in bytes.

aiohttp bounds a header, the number of headers and the number of queued requests; together that is many megabytes a
connection.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from http import HTTPStatus
from typing import Any, cast

from aiohttp import web

from service.web.connection_limit import ConnectionLimit

REQUEST_SIZE_MAX = 32 * 1024
"""Bytes of one request: all its headers, and data after a request that has no body."""
READ_SIZE = 16 * 1024
"""Bytes per read from the socket; asyncio's default is 256 KiB."""
QUEUED_REQUESTS_MAX = 2
"""Requests of one connection that are queued before reading pauses."""
REQUEST_TIMEOUT = 10.0
"""Seconds for one request, from opening the connection, later from its first byte, to its last byte."""
UNREAD_TIMEOUT = 30.0
"""Seconds after which a client that does not read is disconnected; at most 96 KiB are buffered for it."""
KEEP_ALIVE = 15.0
"""Seconds that a connection is kept between a response and the next request."""
LINGER = 1.0
"""Seconds in which a client that still sends a body can read its response."""

SERVER = "flow-outcomes"
"""The ``Server`` header, in place of aiohttp's name and version."""

_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nServer: %s\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
) % SERVER.encode()
_SETTINGS: dict[str, Any] = {
    "access_log": None,
    "auto_decompress": False,  # requests have no body; a compressed one would be decompressed
    "keepalive_timeout": KEEP_ALIVE,
    "lingering_time": 0,  # see finish_response: aiohttp logs a traceback if the client disconnects meanwhile
}


class Connection(web.RequestHandler):
    """A connection whose memory is bounded, whatever its client sends or does not read.

    Args:
        server: passes the requests to the application.
        loop: the event loop.
        limit: the limit on the number of connections.
    """

    __slots__ = ("_incomplete", "_limit", "_request_timer", "_transport", "_unread_timer", "waiting_since")

    def __init__(self, server: web.Server, loop: asyncio.AbstractEventLoop, limit: ConnectionLimit) -> None:
        super().__init__(server, loop=loop, **_SETTINGS)
        self._max_msg_queue_size = QUEUED_REQUESTS_MAX
        self._msg_queue_resume_size = QUEUED_REQUESTS_MAX - 1
        self._incomplete = 0
        self._transport: asyncio.Transport | None = None
        self._unread_timer: asyncio.TimerHandle | None = None
        self._request_timer: asyncio.TimerHandle | None = None
        self._limit = limit
        self.waiting_since = loop.time()

    @property
    def responding(self) -> bool:
        """Whether it has a complete request without a complete response."""
        return bool(self._messages or self._request_in_progress)

    def abort(self) -> None:
        """Close the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Bound the size of a read, and be notified of every write that the socket does not take at once."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=0)
        vars(transport)["max_size"] = READ_SIZE
        super().connection_made(transport)
        self._start_request_timer()
        self._limit.add(self, self._loop.time())

    def connection_lost(self, exc: BaseException | None) -> None:
        """Stop the timers and drop the transport."""
        self._limit.remove(self)
        self._stop_request_timer()
        self._stop_unread_timer()
        self._transport = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Process received data; a request that is too large ends the connection."""
        complete = self._request_count
        super().data_received(data)
        if self._request_count > complete:
            self._incomplete = 0
            self.waiting_since = self._loop.time()
            self._stop_request_timer()
        elif not self.responding and self._request_timer is None:
            self._start_request_timer()
        if self._request_count == complete and not self._buffer_paused:
            self._incomplete += len(data)
        if self._incomplete > REQUEST_SIZE_MAX and self._transport is not None:
            if not self.responding:
                self._transport.write(_TOO_LARGE)
            self.force_close()

    def pause_writing(self) -> None:
        """Disconnect the client unless it reads in time."""
        super().pause_writing()
        if self._transport is not None:
            self._unread_timer = self._loop.call_later(UNREAD_TIMEOUT, self._transport.abort)

    def resume_writing(self) -> None:
        """Stop the timer: the client has read everything."""
        super().resume_writing()
        self._stop_unread_timer()

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send the response, then discard the rest of a body: a client may read only after it has sent it."""
        finished = await super().finish_response(request, resp, start_time)
        with suppress(TimeoutError, ConnectionError, RuntimeError, web.RequestPayloadError):
            async with asyncio.timeout(LINGER):
                while not request.content.is_eof():
                    await request.content.readany()
        return finished

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = HTTPStatus.INTERNAL_SERVER_ERROR,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The response to a failed request; client errors are not logged, since they could fill the log."""
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return super().handle_error(request, status, exc, message)
        response = web.Response(status=status, text=message, headers={"Server": SERVER})
        response.force_close()
        return response

    def _start_request_timer(self) -> None:
        self._request_timer = self._loop.call_later(REQUEST_TIMEOUT, self._end_request)

    def _stop_request_timer(self) -> None:
        if self._request_timer is not None:
            self._request_timer.cancel()
            self._request_timer = None

    def _end_request(self) -> None:
        self._request_timer = None
        if not self.responding:
            self.force_close()

    def _stop_unread_timer(self) -> None:
        if self._unread_timer is not None:
            self._unread_timer.cancel()
            self._unread_timer = None
