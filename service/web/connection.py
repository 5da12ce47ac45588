"""One client's connection: what it may send before it is answered, and how long it may leave an answer unread.

aiohttp bounds a header, the number of headers and the number of requests that wait; together that is many
megabytes a connection. Here the bytes are bounded.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from http import HTTPStatus
from typing import Any, cast

from aiohttp import web

LARGEST_REQUEST = 32 * 1024
"""Bytes of one request, its headers together; what follows a request that takes no body counts too."""
READ_AT_ONCE = 16 * 1024
"""Bytes that are read from the socket at a time; asyncio itself would take 256 KiB."""
WAITING_REQUESTS = 2
"""Requests of one connection past which nothing more is read until one is answered."""
UNREAD_FOR = 30.0
"""Seconds after which a client that does not take what was written, 96 KiB at most, is disconnected."""
KEEP_ALIVE = 15.0
"""Seconds that a connection without a complete request is kept."""
LINGER = 1.0
"""Seconds that a client has to read its answer where it goes on to send a body."""

SERVER = "flow-outcomes"
"""What the server calls itself, in place of aiohttp and its version."""

_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nServer: %s\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
) % SERVER.encode()
_SETTINGS: dict[str, Any] = {
    "access_log": None,
    "auto_decompress": False,  # no request has a body, and a packed one would be unpacked
    "keepalive_timeout": KEEP_ALIVE,
    "lingering_time": 0,  # `finish_response` does it: aiohttp logs a traceback where the client leaves meanwhile
}


class Connection(web.RequestHandler):
    """A connection whose memory is bounded, whatever its client sends or does not read.

    Args:
        server: hands the requests to the application.
        loop: the event loop.
    """

    __slots__ = ("_incomplete", "_sending", "_unread")

    def __init__(self, server: web.Server, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(server, loop=loop, **_SETTINGS)
        self._max_msg_queue_size = WAITING_REQUESTS
        self._msg_queue_resume_size = WAITING_REQUESTS - 1
        self._incomplete = 0
        self._sending: asyncio.Transport | None = None
        self._unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Bound what the transport reads at a time, and be notified of whatever it cannot write at once."""
        self._sending = cast("asyncio.Transport", transport)
        self._sending.set_write_buffer_limits(high=0)
        vars(transport)["max_size"] = READ_AT_ONCE
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Forget the transport."""
        self._read()
        self._sending = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what came; a request that is too large ends the connection."""
        complete = self._request_count
        super().data_received(data)
        if self._request_count > complete:
            self._incomplete = 0
        elif not self._buffer_paused:
            self._incomplete += len(data)
        if self._incomplete > LARGEST_REQUEST and self._sending is not None:
            if not (self._messages or self._request_in_progress):
                self._sending.write(_TOO_LARGE)
            self.force_close()

    def pause_writing(self) -> None:
        """Give the client some time to read."""
        super().pause_writing()
        if self._sending is not None:
            self._unread = self._loop.call_later(UNREAD_FOR, self._sending.abort)

    def resume_writing(self) -> None:
        """It has read all of it."""
        super().resume_writing()
        self._read()

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Answer, then take what still comes of a body: who is sending it may read the answer only after it."""
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
        """The answer to a request that failed; a client's own mistake is not logged, or it could fill the log."""
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return super().handle_error(request, status, exc, message)
        response = web.Response(status=status, text=message, headers={"Server": SERVER})
        response.force_close()
        return response

    def _read(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None
