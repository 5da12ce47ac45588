"""The gates that every request passes, in their order."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from service.errors import (
    CircuitOpenError,
    ForbiddenError,
    HoursOverError,
    LeaseLostError,
    RateLimitedError,
    ServerError,
    UnauthorizedError,
)
from service.genesys import ApiRequest, GenesysClient, QueryBuilder
from service.genesys.query_builder import PATH
from service.model import Granularity, Query, Span
from tests.support.http_double import CallbackResult, aioresponses

Run = Callable[..., Any]
API = "https://api.example"
LOGIN = "https://login.example"
TOKEN = {"access_token": "token-1", "token_type": "bearer", "expires_in": 3600}
DAY = Span(datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 2, tzinfo=UTC))
QUERY = Query("acme", DAY, Granularity.DAILY, "UTC", (), 100, None, DAY)
ASK = ApiRequest("POST", PATH, b"{}")
EMPTY: dict[str, Any] = {"nextPageToken": None, "data": []}


class LoopClock:
    """Virtual time, as the loop has it."""

    def now(self) -> datetime:
        return datetime(2024, 6, 1, tzinfo=UTC)

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()


class Org:
    """A client, what it told, and a server that is not there."""

    def __init__(self, server: aioresponses) -> None:
        self.server = server
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.held: list[float] = []
        self.lease_lost = False
        self.client = GenesysClient(
            "acme",
            base_url=API,
            login_url=LOGIN,
            credentials=lambda: ("id", "hunter2hunter2"),
            dialect=QueryBuilder(),
            requests_per_second=10,
            query_timeout=timedelta(seconds=120),
            breaker_failures=5,
            breaker_open_for=timedelta(seconds=30),
            lease_check=self.check_lease,
            on_hold=self.held.append,
            emit=lambda event, **context: self.told.append((event, context)),
            clock=LoopClock(),
        )

    def check_lease(self) -> None:
        if self.lease_lost:
            raise LeaseLostError

    def events(self) -> list[str]:
        """What was told, without the bookkeeping of each request."""
        return [event for event, _ in self.told if not event.startswith("request_")]

    def sends(self) -> int:
        return sum(event == "request_sent" for event, _ in self.told)

    def login(self, status: int = 200, **changed: str) -> None:
        self.server.post(f"{LOGIN}/oauth/token", status=status, payload={**TOKEN, **changed})

    def answer(
        self, payload: dict[str, Any] | None = None, *, status: int = 200, headers: dict[str, str] | None = None
    ) -> None:
        self.server.post(API + PATH, status=status, payload=payload, headers=headers)


@pytest.fixture
def with_org(in_virtual_time: Run) -> Callable[[Callable[[Org], Coroutine[Any, Any, None]]], None]:
    """Runs a coroutine function on an org, in virtual time, and closes the client after it."""

    def run(main: Callable[[Org], Coroutine[Any, Any, None]]) -> None:
        async def guarded() -> None:
            with aioresponses() as server:
                org = Org(server)
                try:
                    await main(org)
                finally:
                    await org.client.close()

        in_virtual_time(guarded())

    return run


WithOrg = Callable[[Callable[[Org], Coroutine[Any, Any, None]]], None]


def test_a_scan_takes_its_token_and_its_pages(with_org: WithOrg) -> None:
    """The events carry the org."""

    async def main(org: Org) -> None:
        org.login()
        org.answer(payload={"nextPageToken": "a", "data": []})
        org.answer(payload=EMPTY)
        assert [page.more async for page in org.client.scan(QUERY)] == [True, False]
        assert org.told[-1] == ("request_finished", {"org": "acme", "status": "ok", "seconds": 0})
        assert org.events() == ["token_renewed"]
        bodies = [
            each.kwargs["data"]
            for key, calls in org.server.requests.items()
            for each in calls
            if key[1].path == PATH
        ]
        assert "nextPageToken" not in json.loads(bodies[0])["queryBuilder"]
        assert json.loads(bodies[1])["queryBuilder"]["nextPageToken"] == "a"

    with_org(main)


def test_a_query_begins_only_where_it_may(with_org: WithOrg) -> None:
    """Looked at when it goes out, each time that page one does; the pages after it are not held up."""

    async def main(org: Org) -> None:
        open_until = 1200.0

        def may_begin() -> None:
            if asyncio.get_running_loop().time() >= open_until:
                raise HoursOverError

        org.login()
        org.answer(payload={"nextPageToken": "a", "data": []})
        org.answer(status=429, headers={"Retry-After": "300"})
        org.answer(payload=EMPTY)
        assert [page.more async for page in org.client.scan(QUERY, may_begin)] == [True, False]
        sent, open_until = org.sends(), asyncio.get_running_loop().time() + 100
        org.answer(status=429, headers={"Retry-After": "300"})
        with pytest.raises(HoursOverError):
            _ = [page async for page in org.client.scan(QUERY, may_begin)]
        assert org.sends() == sent + 1
        assert org.events().count("rate_limited") == 2
        assert org.client.breaker.state == "closed"

    with_org(main)


def test_a_401_renews_the_token_once(with_org: WithOrg) -> None:
    """The second one is final."""

    async def main(org: Org) -> None:
        org.login()
        org.login(access_token="token-2")
        org.answer(status=401)
        org.answer(payload=EMPTY)
        assert json.loads(await org.client.call(ASK)) == EMPTY
        org.login()
        org.answer(status=401)
        org.answer(status=401)
        with pytest.raises(UnauthorizedError):
            await org.client.call(ASK)
        assert org.events() == ["token_renewed"] * 3
        assert org.sends() == 7

    with_org(main)


def test_a_429_holds_the_whole_org(with_org: WithOrg) -> None:
    """It is told, kept for a restart, waited out, and no failure."""

    async def main(org: Org) -> None:
        org.login()
        org.answer(status=429, headers={"Retry-After": "120"})
        org.answer(payload=EMPTY)
        org.answer(payload=EMPTY)
        began = asyncio.get_running_loop().time()
        first = asyncio.create_task(org.client.call(ASK))
        await asyncio.sleep(20)
        assert org.held == [120]
        assert org.client.limiter.held_for > 90
        await asyncio.gather(first, org.client.call(ASK))
        assert asyncio.get_running_loop().time() - began > 120
        assert org.events() == ["token_renewed", "rate_limited"]
        assert org.client.breaker.state == "closed"

    with_org(main)


def test_a_hold_longer_than_may_be_waited_is_an_error(with_org: WithOrg) -> None:
    """For ``--once``."""

    async def main(org: Org) -> None:
        org.client.max_hold = 300
        org.login()
        org.answer(status=429, headers={"Retry-After": "301"})
        with pytest.raises(RateLimitedError) as raised:
            await org.client.call(ASK)
        assert raised.value.retry_after > 300
        assert asyncio.get_running_loop().time() < 1010

    with_org(main)


def test_a_broken_server_is_retried_and_then_let_be(with_org: WithOrg) -> None:
    """Five failures in a row open the breaker; what was the matter is told."""

    async def main(org: Org) -> None:
        org.login()
        for _ in range(5):
            org.answer(status=503, payload={"message": "busy: token-1"})
        with pytest.raises(ServerError, match=r"busy: \[redacted\]"):
            await org.client.call(ASK)
        with pytest.raises(CircuitOpenError, match="busy") as raised:
            await org.client.call(ASK)
        assert raised.value.retry_after == pytest.approx(30, abs=0.5)
        assert org.events() == ["token_renewed", *["retry_scheduled"] * 4, "circuit_opened"]
        await asyncio.sleep(30.5)
        org.answer(payload=EMPTY)
        await org.client.call(ASK)
        assert org.events()[-2:] == ["circuit_half_open", "circuit_closed"]
        assert "token-1" not in repr(org.told)

    with_org(main)


def test_a_token_between_failures_vouches_for_nothing(with_org: WithOrg) -> None:
    """The queries' failures stand in a row all the same, and the probe is a query: the open time doubles."""

    async def main(org: Org) -> None:
        for number in range(9):
            org.login(access_token=f"token-{number}", expires_in=0.1)  # type: ignore[arg-type]
            org.answer(status=503)
        with pytest.raises(ServerError):
            await org.client.call(ASK)
        assert org.client.breaker.state == "open"
        await asyncio.sleep(30.5)
        with pytest.raises(ServerError):
            await org.client.call(ASK)
        opened = [context["open_for"] for event, context in org.told if event == "circuit_opened"]
        assert opened == [30, 60]
        assert org.events().count("token_renewed") == 6
        assert "circuit_closed" not in org.events()

    with_org(main)


def test_a_token_that_was_refused_is_not_shown_again(with_org: WithOrg) -> None:
    """Not even where the login server fails just then."""

    async def main(org: Org) -> None:
        org.login()
        org.answer(status=401)
        org.login(status=503)
        org.login(access_token="token-2")
        org.answer(payload=EMPTY)
        assert json.loads(await org.client.call(ASK)) == EMPTY
        assert org.sends() == 5

    with_org(main)


def test_a_broken_login_server_is_not_retried_twice_over(with_org: WithOrg) -> None:
    """Its tries are those of the request that wants the token."""

    async def main(org: Org) -> None:
        for _ in range(4):
            org.login(status=500)
        org.login()
        org.answer(payload=EMPTY)
        await org.client.call(ASK)
        assert org.sends() == 6

    with_org(main)


def test_a_403_is_asked_once(with_org: WithOrg) -> None:
    """And says what is missing."""

    async def main(org: Org) -> None:
        org.login()
        org.answer(status=403, payload={"code": "missing.any.permissions"})
        with pytest.raises(ForbiddenError, match="Analytics > Query > Read"):
            await org.client.call(ASK)
        assert org.sends() == 2

    with_org(main)


def test_nothing_is_sent_without_the_lease(with_org: WithOrg) -> None:
    """Looked at before every send, the token's among them; no failure of the server's."""

    async def main(org: Org) -> None:
        org.lease_lost = True
        for _ in range(9):
            with pytest.raises(LeaseLostError):
                await org.client.call(ASK)
        assert org.sends() == 0
        assert org.client.breaker.state == "closed"

    with_org(main)


def test_of_one_query_hash_one_request_is_in_flight(with_org: WithOrg) -> None:
    """Of others as many as there are windows."""

    async def main(org: Org) -> None:
        flying: dict[str, int] = {}
        most: dict[str, int] = {}

        async def slow(_url: object, *, data: bytes, **_sent: object) -> CallbackResult:
            key = data.decode()
            flying[key] = flying.get(key, 0) + 1
            most[key] = max(most.get(key, 0), flying[key])
            most["all"] = max(most.get("all", 0), sum(flying.values()))
            await asyncio.sleep(5)
            flying[key] -= 1
            return CallbackResult(payload=EMPTY)

        org.login()
        org.server.post(API + PATH, callback=slow, repeat=True)
        await asyncio.gather(
            *(org.client.call(ApiRequest("POST", PATH, key), query_hash=key.decode()) for key in [b"a", b"b"] * 3)
        )
        assert most == {"a": 1, "b": 1, "all": 2}
        assert not org.client._locks

    with_org(main)


def test_a_cancelled_request_leaves_nothing_behind(with_org: WithOrg) -> None:
    """Neither its turn nor its hash is taken for ever."""

    async def main(org: Org) -> None:
        seconds = 100.0

        async def slow(_url: object, **_sent: object) -> CallbackResult:
            await asyncio.sleep(seconds)
            return CallbackResult(payload=EMPTY)

        org.login()
        org.server.post(API + PATH, callback=slow, repeat=True)
        task = asyncio.create_task(org.client.call(ASK, query_hash="h"))
        await asyncio.sleep(5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        seconds = 0
        assert json.loads(await org.client.call(ASK, query_hash="h")) == EMPTY
        assert org.client.breaker.state == "closed"

    with_org(main)
