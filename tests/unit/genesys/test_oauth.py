"""One token for all requests, renewed in time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import timedelta

import pytest

from service.errors import InvalidResponseError, RequestRejectedError, ServerError, UnauthorizedError
from service.genesys.dialect import Response
from service.genesys.error_mapping import error_from_response
from service.genesys.oauth import LIFETIME_DEFAULT, TokenSource, lifetime_of
from service.genesys.redaction import Redactor
from service.genesys.transport import HttpRequest
from tests.support.fake_clock import FakeClock


class Login:
    """A token server that records requests and returns a given body."""

    def __init__(self, expires_in: object = 3600) -> None:
        self.requests: list[HttpRequest] = []
        self.body: Callable[[int], bytes] = lambda number: json.dumps(
            {"access_token": f"token-{number}", "token_type": "bearer", "expires_in": expires_in}
        ).encode()
        self.secret = "hunter2hunter2"
        self.clock = FakeClock()
        self.events: list[str] = []
        self.source = TokenSource(
            "https://login.example/",
            credentials=lambda: ("id", self.secret),
            send=self.send,
            redactor=Redactor(),
            clock=self.clock,
            emit=lambda event, **_: self.events.append(event),
        )

    async def send(self, request: HttpRequest) -> Response:
        self.requests.append(request)
        await asyncio.sleep(0)
        return Response(self.body(len(self.requests)))


async def test_the_request_follows_the_specification() -> None:
    """HTTP basic authentication and a form; no repr has the secret."""
    login = Login()
    assert await login.source.get() == "token-1"
    (request,) = login.requests
    assert (request.method, request.url) == ("POST", "https://login.example/oauth/token")
    assert request.body == b"grant_type=client_credentials"
    assert request.headers["Authorization"] == "Basic aWQ6aHVudGVyMmh1bnRlcjI="
    assert "Basic" not in repr(request)
    assert "hunter2" not in repr(login.source)
    assert login.events == ["token_renewed"]


async def test_concurrent_requests_share_one_renewal() -> None:
    """Cancelling one of them does not affect the others."""
    login = Login()
    waiters = [asyncio.create_task(login.source.get()) for _ in range(20)]
    await asyncio.sleep(0)
    waiters[0].cancel()
    got = await asyncio.gather(*waiters, return_exceptions=True)
    assert set(got[1:]) == {"token-1"}
    assert len(login.requests) == 1


@pytest.mark.parametrize(("lifetime", "kept"), [(3600, 3540), (100, 90), (2, 1), (0.5, 0.25)])
async def test_it_is_renewed_before_it_expires(lifetime: float, kept: float) -> None:
    """It is used for at least half its lifetime, however short that is."""
    login = Login(lifetime)
    await login.source.get()
    login.clock.advance(timedelta(seconds=kept - 0.01))
    assert await login.source.get() == "token-1"
    login.clock.advance(timedelta(seconds=0.02))
    assert await login.source.get() == "token-2"


async def test_a_rejected_token_is_renewed_once() -> None:
    """Every request that used the old token gets the new one."""
    login = Login()
    stale = await login.source.get()
    assert await asyncio.gather(*(login.source.renew(stale) for _ in range(5))) == ["token-2"] * 5
    assert await login.source.renew(stale) == "token-2"
    assert len(login.requests) == 2


@pytest.mark.parametrize(
    "expires_in", ["null", "-5", "0", '"soon"', "true", "NaN", "[]", "{}", '"3600"', "-1e999"]
)
async def test_an_invalid_lifetime_keeps_the_token(expires_in: str) -> None:
    """The shortest lifetime that can be configured is assumed."""
    login = Login()
    login.body = lambda _: b'{"access_token":"t","expires_in":' + expires_in.encode() + b"}"
    assert await login.source.get() == "t"
    login.clock.advance(timedelta(seconds=LIFETIME_DEFAULT - 31))
    await login.source.get()
    assert len(login.requests) == 1


@pytest.mark.parametrize(
    ("expires_in", "lifetime"), [(1e300, 172800), (float("inf"), 172800), (10**400, 172800), (2, 2)]
)
def test_a_lifetime_has_bounds(expires_in: object, lifetime: float) -> None:
    """The maximum is 48 hours, the longest that can be configured."""
    assert lifetime_of(expires_in) == lifetime


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b"null",
        b'{"access_token":7}',
        b'{"access_token":""}',
        b'{"access_token":"a\\r\\nb"}',
        b"[" * 99999,
    ],
)
async def test_a_response_without_a_token_is_invalid(body: bytes) -> None:
    """Also one whose token cannot be in a header."""
    login = Login()
    login.body = lambda _: body
    with pytest.raises(InvalidResponseError, match="no access_token"):
        await login.source.get()


@pytest.mark.parametrize(
    "error", [RequestRejectedError("HTTP 400: invalid_client", status=400), UnauthorizedError("401")]
)
async def test_rejected_credentials_are_not_sent_again_at_once(error: Exception) -> None:
    """They are sent again when they change, or after some seconds."""
    login = Login()

    def reject(_: int) -> bytes:
        raise error

    login.body = reject
    for _ in range(3):
        with pytest.raises(UnauthorizedError, match="the login server rejected the client credentials"):
            await login.source.get()
    assert len(login.requests) == 1
    login.secret = "rotated-secret"
    with pytest.raises(UnauthorizedError):
        await login.source.get()
    assert len(login.requests) == 2
    login.clock.advance(timedelta(seconds=11))
    with pytest.raises(UnauthorizedError):
        await login.source.get()
    assert len(login.requests) == 3


async def test_a_403_of_the_login_server_is_about_the_credentials() -> None:
    """It names no permission and no scope, which only a query needs."""
    login = Login()

    def forbid(number: int) -> bytes:
        policy = login.requests[number - 1].policy
        raise error_from_response(
            403, b'{"error":"x"}', None, login.clock.now(), Redactor().redact_message, policy
        )

    login.body = forbid
    with pytest.raises(UnauthorizedError, match="rejected the client credentials") as caught:
        await login.source.get()
    assert "scope" not in str(caught.value)
    assert "permission" not in str(caught.value)


async def test_the_next_request_retries_a_failed_renewal() -> None:
    """A failing login server does not reject the credentials."""
    login = Login()
    good = login.body

    def fail_once(number: int) -> bytes:
        if number == 1:
            raise ServerError("HTTP 503")
        return good(number)

    login.body = fail_once
    with pytest.raises(ServerError):
        await login.source.get()
    assert await login.source.get() == "token-2"


async def test_a_missing_secret_file_is_reported() -> None:
    """The error names the file."""

    def missing() -> tuple[str, str]:
        raise FileNotFoundError(2, "No such file", "/run/secrets/acme")

    login = Login()
    login.source = TokenSource(
        "https://login.example",
        credentials=missing,
        send=login.send,
        redactor=Redactor(),
        clock=login.clock,
        emit=lambda *_, **__: None,
    )
    with pytest.raises(UnauthorizedError, match="/run/secrets/acme"):
        await login.source.get()


async def test_close_stops_a_renewal() -> None:
    """No token is fetched."""
    login = Login()
    waiter = asyncio.create_task(login.source.get())
    await asyncio.sleep(0)
    await login.source.close()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    assert login.events == []
