"""The client-credentials token of one org: fetched once for all who wait, renewed before it runs out."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Awaitable, Callable
from urllib.parse import urlencode

from service.clock import Clock
from service.errors import PageError, RequestRejectedError, UnauthorizedError
from service.genesys.breaker import Emit
from service.genesys.error_mapping import EndpointPolicy
from service.genesys.redaction import Redactor, basic
from service.genesys.transport import HttpRequest

LIFETIME_DEFAULT = 300.0
"""Seconds that a token is taken to last where ``expires_in`` says nothing sound: the shortest that can be set."""
LIFETIME_MAX = 48 * 3600.0
"""Seconds: the longest that can be set for an OAuth client."""
_EARLIEST, _LATEST = 1.0, 60.0
_PART = 0.1
_REFUSED_FOR = 10.0
"""Seconds for which refused credentials are not shown again: every window of a backlog would."""

Credentials = Callable[[], tuple[str, str]]
"""Gives client id and secret; asked at every renewal, so that a rotated secret file is read again."""


class TokenSource:
    """Hands out the token.

    ``POST {login_url}/oauth/token``, ``grant_type=client_credentials``, HTTP basic; the answer is
    ``{"access_token", "token_type", "expires_in"}``.

    Args:
        login_url: without a slash at its end.
        credentials: client id and secret.
        send: sends one request, paced and guarded as all others.
        redactor: is told every token and secret.
        clock: for the token's age.
        emit: told ``token_renewed``.
    """

    def __init__(
        self,
        login_url: str,
        *,
        credentials: Credentials,
        send: Callable[[HttpRequest], Awaitable[bytes]],
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
        self._refused: tuple[tuple[str, str], float, UnauthorizedError] | None = None

    async def get(self) -> str:
        """A token that has not run out.

        Raises:
            UnauthorizedError: the credentials were refused.
            ExtractionError: the login server could not be asked; asking again may pass.
        """
        if self._token is not None and self._clock.monotonic() < self._renew_at:
            return self._token
        return await self._renewed()

    async def renew(self, stale: str) -> str:
        """Another token than the one that the API has just refused; raises as ``get`` does."""
        if self._token == stale:
            self._token = None  # not shown again, should the login server fail now
        return await self.get()

    async def close(self) -> None:
        """Stop a renewal that is under way."""
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.gather(self._renewal, return_exceptions=True)

    async def _renewed(self) -> str:
        if self._renewal is None:
            self._renewal = asyncio.create_task(self._fetch())
            self._renewal.add_done_callback(self._settle)
        return await asyncio.shield(self._renewal)  # one waiter's end is not the others'

    def _settle(self, renewal: asyncio.Task[str]) -> None:
        self._renewal = None
        if not renewal.cancelled():
            renewal.exception()  # looked at, even where every waiter has gone

    async def _fetch(self) -> str:
        try:
            credentials = self._credentials()
        except OSError as error:
            raise UnauthorizedError(f"the client's secret cannot be read: {error}") from None
        if self._refused and self._refused[0] == credentials and self._clock.monotonic() < self._refused[1]:
            former = self._refused[2]
            raise UnauthorizedError(
                str(former), status=former.status, code=former.code, context_id=former.context_id
            )
        self._redactor.add_credentials(*credentials)
        request = HttpRequest(
            "POST",
            self._url,
            {
                "Authorization": f"Basic {basic(*credentials)}",
                "Content-Type": "application/x-www-form-urlencoded",
            },
            urlencode({"grant_type": "client_credentials"}).encode(),
            EndpointPolicy(vouches=False),
        )
        try:
            answer = await self._send(request)
        except (UnauthorizedError, RequestRejectedError) as error:
            refusal = UnauthorizedError(
                f"the login server refused the client: {error}",
                status=error.status,
                code=error.code,
                context_id=error.context_id,
            )
            self._refused = (credentials, self._clock.monotonic() + _REFUSED_FOR, refusal)
            raise refusal from None
        token, lifetime = _read(answer)
        self._redactor.add_token(token)
        margin = min(max(lifetime * _PART, _EARLIEST), _LATEST, lifetime / 2)
        self._token, self._renew_at = token, self._clock.monotonic() + lifetime - margin
        self._emit("token_renewed", expires_in=lifetime)
        return token


def _read(answer: bytes) -> tuple[str, float]:
    """The token, and the seconds that it is good for."""
    try:
        # The lenient reader: a lifetime that is no JSON number must not cost the token beside it.
        fields = json.loads(answer, parse_int=float)
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        fields = {}
    token = fields.get("access_token")
    if not isinstance(token, str) or not token or not token.isascii() or not token.isprintable() or " " in token:
        raise PageError("the login server's answer holds no access_token")
    return token, lifetime_of(fields.get("expires_in"))


def lifetime_of(expires_in: object) -> float:
    """Seconds: what the server says where that is a positive number, 48 hours at most; else the default."""
    if isinstance(expires_in, bool) or not isinstance(expires_in, (int, float)) or not expires_in > 0:
        return LIFETIME_DEFAULT
    return float(min(expires_in, LIFETIME_MAX))
