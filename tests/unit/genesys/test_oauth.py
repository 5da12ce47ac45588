"""One token for all, renewed in time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import timedelta

import pytest

from service.errors import PageError, RequestRejectedError, ServerError, UnauthorizedError
from service.genesys.oauth import LIFETIME_DEFAULT, TokenSource, lifetime_of
from service.genesys.redaction import Redactor
from service.genesys.transport import HttpRequest
from tests.support.fake_clock import FakeClock


class Login:
    """A token server that counts, and answers what it is told to."""

    def __init__(self, expires_in: object = 3600) -> None:
        self.requests: list[HttpRequest] = []
        self.answer: Callable[[int], bytes] = lambda number: json.dumps(
            {"access_token": f"token-{number}", "token_type": "bearer", "expires_in": expires_in}
        ).encode()
        self.secret = "hunter2hunter2"
        self.clock = FakeClock()
        self.told: list[str] = []
        self.source = TokenSource(
            "https://login.example/",
            credentials=lambda: ("id", self.secret),
            send=self.send,
            redactor=Redactor(),
            clock=self.clock,
            emit=lambda event, **_: self.told.append(event),
        )

    async def send(self, request: HttpRequest) -> bytes:
        self.requests.append(request)
        await asyncio.sleep(0)
        return self.answer(len(self.requests))


async def test_it_asks_as_the_login_server_expects() -> None:
    """HTTP basic and a form; the secret in no repr."""
    login = Login()
    assert await login.source.get() == "token-1"
    (request,) = login.requests
    assert (request.method, request.url) == ("POST", "https://login.example/oauth/token")
    assert request.body == b"grant_type=client_credentials"
    assert request.headers["Authorization"] == "Basic aWQ6aHVudGVyMmh1bnRlcjI="
    assert "Basic" not in repr(request)
    assert "hunter2" not in repr(login.source)
    assert login.told == ["token_renewed"]


async def test_many_who_wait_share_one_renewal() -> None:
    """One of them giving up is nothing to the others."""
    login = Login()
    waiters = [asyncio.create_task(login.source.get()) for _ in range(20)]
    await asyncio.sleep(0)
    waiters[0].cancel()
    got = await asyncio.gather(*waiters, return_exceptions=True)
    assert set(got[1:]) == {"token-1"}
    assert len(login.requests) == 1


@pytest.mark.parametrize(("lifetime", "kept"), [(3600, 3540), (100, 90), (2, 1), (0.5, 0.25)])
async def test_it_is_renewed_before_it_runs_out(lifetime: float, kept: float) -> None:
    """And used for at least half its life, however short that is."""
    login = Login(lifetime)
    await login.source.get()
    login.clock.advance(timedelta(seconds=kept - 0.01))
    assert await login.source.get() == "token-1"
    login.clock.advance(timedelta(seconds=0.02))
    assert await login.source.get() == "token-2"


async def test_a_refused_token_is_renewed_once_for_all() -> None:
    """Whoever still holds the old one gets the new one."""
    login = Login()
    stale = await login.source.get()
    assert await asyncio.gather(*(login.source.renew(stale) for _ in range(5))) == ["token-2"] * 5
    assert await login.source.renew(stale) == "token-2"
    assert len(login.requests) == 2


@pytest.mark.parametrize(
    "expires_in", ["null", "-5", "0", '"soon"', "true", "NaN", "[]", "{}", '"3600"', "-1e999"]
)
async def test_an_odd_lifetime_does_not_cost_the_token(expires_in: str) -> None:
    """The shortest that can be configured takes its place."""
    login = Login()
    login.answer = lambda _: b'{"access_token":"t","expires_in":' + expires_in.encode() + b"}"
    assert await login.source.get() == "t"
    login.clock.advance(timedelta(seconds=LIFETIME_DEFAULT - 31))
    await login.source.get()
    assert len(login.requests) == 1


@pytest.mark.parametrize(("given", "taken"), [(1e300, 172800), (float("inf"), 172800), (10**400, 172800), (2, 2)])
def test_a_lifetime_has_bounds(given: object, taken: float) -> None:
    """48 hours is the longest that can be configured."""
    assert lifetime_of(given) == taken


@pytest.mark.parametrize(
    "answer",
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
async def test_an_answer_without_a_token_is_a_fault(answer: bytes) -> None:
    """A token that would break a header is none."""
    login = Login()
    login.answer = lambda _: answer
    with pytest.raises(PageError, match="no access_token"):
        await login.source.get()


@pytest.mark.parametrize(
    "refusal", [RequestRejectedError("HTTP 400: invalid_client", status=400), UnauthorizedError("401")]
)
async def test_refused_credentials_are_not_shown_over_and_over(refusal: Exception) -> None:
    """Until they change, or some seconds have passed."""
    login = Login()

    def refuse(_: int) -> bytes:
        raise refusal

    login.answer = refuse
    for _ in range(3):
        with pytest.raises(UnauthorizedError, match="the login server refused the client"):
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


async def test_a_failed_renewal_is_tried_again_by_the_next() -> None:
    """A broken login server is no refusal."""
    login = Login()
    good = login.answer

    def break_once(number: int) -> bytes:
        if number == 1:
            raise ServerError("HTTP 503")
        return good(number)

    login.answer = break_once
    with pytest.raises(ServerError):
        await login.source.get()
    assert await login.source.get() == "token-2"


async def test_a_secret_file_that_is_gone_is_told() -> None:
    """As what it is."""

    def gone() -> tuple[str, str]:
        raise FileNotFoundError(2, "No such file", "/run/secrets/acme")

    login = Login()
    login.source = TokenSource(
        "https://login.example",
        credentials=gone,
        send=login.send,
        redactor=Redactor(),
        clock=login.clock,
        emit=lambda *_, **__: None,
    )
    with pytest.raises(UnauthorizedError, match="/run/secrets/acme"):
        await login.source.get()


async def test_closing_stops_a_renewal() -> None:
    """Nothing is left behind."""
    login = Login()
    waiter = asyncio.create_task(login.source.get())
    await asyncio.sleep(0)
    await login.source.close()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    assert login.told == []
