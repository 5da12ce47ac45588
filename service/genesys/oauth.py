"""The access token of one org: fetched once for all requests that wait for it, renewed before it expires.

``POST {login_url}/oauth/token`` with ``grant_type=client_credentials`` and HTTP basic authentication (RFC 6749,
4.4). The response is ``{"access_token", "token_type", "expires_in"}``.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from urllib.parse import urlencode

from service.clock import Clock
from service.errors import ExtractionError, InvalidResponseError, RequestRejectedError, UnauthorizedError
from service.genesys.dialect import Response
from service.genesys.error_mapping import EndpointPolicy
from service.genesys.redaction import Redactor, basic
from service.genesys.transport import HttpRequest
from service.telemetry import Emit, Event

LIFETIME_DEFAULT = 300.0
"""Seconds that a token lasts where ``expires_in`` is invalid: the shortest that Genesys Cloud allows."""
LIFETIME_MAX = 48 * 3600.0
"""Seconds: the longest that Genesys Cloud allows for an OAuth client."""
_MARGIN_MIN, _MARGIN_MAX = 1.0, 60.0
_MARGIN_SHARE = 0.1
_REJECTED_FOR = 10.0
"""Seconds for which rejected credentials are not sent again; every window of a backlog would send them."""

Credentials = Callable[[], tuple[str, str]]
"""Gives client id and secret; called at every renewal, so that a rotated secret file is read again."""


def _classify(status: int, _code: str, _message: str) -> type[ExtractionError] | None:
    """A 403 of the login server is about the credentials: no permission or scope of a query would change it."""
    return UnauthorizedError if status == HTTPStatus.FORBIDDEN else None


_POLICY = EndpointPolicy(success_counts=False, classify=_classify)


class TokenSource:
    """Fetches, keeps and renews the token.

    Args:
        login_url: the root of the token server.
        credentials: client id and secret.
        send: sends one request, paced and guarded as all others.
        redactor: receives every token and secret.
        clock: measures the token's age.
        emit: called with ``token_renewed``.
    """

    def __init__(
        self,
        login_url: str,
        *,
        credentials: Credentials,
        send: Callable[[HttpRequest], Awaitable[Response]],
        redactor: Redactor,
        clock: Clock,
        emit: Emit,
    ) -> None:
        self._url = f"{login_url.rstrip('/')}/oauth/token"
        self._credentials = credentials
        self._send = send
        self._redactor = redactor
        self._clock = clock
        self._emit = emit
        self._token: str | None = None
        self._renew_at = -math.inf
        self._renewal: asyncio.Task[str] | None = None
        self._rejected: tuple[tuple[str, str], float, UnauthorizedError] | None = None

    async def get(self) -> str:
        """A token that has not expired.

        Raises:
            UnauthorizedError: the login server rejected the credentials.
            ExtractionError: the request for a token failed; a retry may succeed.
        """
        if self._token is not None and self._clock.monotonic() < self._renew_at:
            return self._token
        return await self._renew()

    async def renew(self, stale: str) -> str:
        """Another token than the one that the API has just rejected.

        Args:
            stale: the rejected token.

        Raises:
            UnauthorizedError, ExtractionError: as ``get``.
        """
        if self._token == stale:
            self._token = None  # not used again, even if the renewal fails
        return await self.get()

    async def close(self) -> None:
        """Stop a renewal in progress."""
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.gather(self._renewal, return_exceptions=True)

    async def _renew(self) -> str:
        if self._renewal is None:
            self._renewal = asyncio.create_task(self._fetch())
            self._renewal.add_done_callback(self._finish)
        return await asyncio.shield(self._renewal)  # cancelling one waiter leaves the renewal to the others

    def _finish(self, renewal: asyncio.Task[str]) -> None:
        self._renewal = None
        if not renewal.cancelled():
            renewal.exception()  # retrieved, even if every waiter was cancelled

    async def _fetch(self) -> str:
        try:
            credentials = self._credentials()
        except OSError as error:
            raise UnauthorizedError(f"cannot read the client secret: {error}") from None
        if self._rejected and self._rejected[0] == credentials and self._clock.monotonic() < self._rejected[1]:
            former = self._rejected[2]
            raise former.with_message(str(former))  # a copy: several requests may raise it
        self._redactor.add_credentials(*credentials)
        request = HttpRequest(
            "POST",
            self._url,
            {
                "Authorization": f"Basic {basic(*credentials)}",
                "Content-Type": "application/x-www-form-urlencoded",
            },
            urlencode({"grant_type": "client_credentials"}).encode(),
            _POLICY,
        )
        try:
            response = await self._send(request)
        except (UnauthorizedError, RequestRejectedError) as error:
            rejection = UnauthorizedError(
                f"the login server rejected the client credentials: {error}",
                status=error.status,
                code=error.code,
                context_id=error.context_id,
                correlation_id=error.correlation_id,
            )
            self._rejected = (credentials, self._clock.monotonic() + _REJECTED_FOR, rejection)
            raise rejection from None
        token, lifetime = _read_token(response.body)
        self._redactor.add_token(token)
        margin = min(max(lifetime * _MARGIN_SHARE, _MARGIN_MIN), _MARGIN_MAX, lifetime / 2)
        self._token, self._renew_at = token, self._clock.monotonic() + lifetime - margin
        self._emit(Event.TOKEN_RENEWED, expires_in=lifetime)
        return token


def _read_token(body: bytes) -> tuple[str, float]:
    """The token, and its lifetime in seconds."""
    try:
        # The standard library accepts an expires_in that msgspec rejects together with the token.
        fields = json.loads(body, parse_int=float)
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        fields = {}
    token = fields.get("access_token")
    if not isinstance(token, str) or not token or not token.isascii() or not token.isprintable() or " " in token:
        raise InvalidResponseError("the login server's response has no access_token")
    return token, lifetime_of(fields.get("expires_in"))


def lifetime_of(expires_in: object) -> float:
    """A token's lifetime in seconds: ``expires_in`` where it is a positive number, up to ``LIFETIME_MAX``."""
    if isinstance(expires_in, bool) or not isinstance(expires_in, (int, float)) or not expires_in > 0:
        return LIFETIME_DEFAULT
    return float(min(expires_in, LIFETIME_MAX))
