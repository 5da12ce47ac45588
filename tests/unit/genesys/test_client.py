"""What every request passes: token, limiter, lease check, breaker, retries."""

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
from service.genesys import GenesysClient
from service.genesys.dialect import ApiRequest
from service.genesys.error_mapping import EndpointPolicy
from service.genesys.query_builder import PATH, QueryBuilder
from service.model import Granularity, Query, Span
from tests.support.http_double import CallbackResult, aioresponses

Run = Callable[..., Any]
API = "https://api.example"
LOGIN = "https://login.example"
TOKEN = {"access_token": "token-1", "token_type": "bearer", "expires_in": 3600}
DAY = Span(datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 2, tzinfo=UTC))
QUERY = Query("acme", DAY, Granularity.DAILY, "UTC", (), 100, None, DAY)
REQUEST = ApiRequest("POST", PATH, b"{}")
EMPTY: dict[str, Any] = {"nextPageToken": None, "data": []}


class LoopClock:
    """The loop's virtual time."""

    def now(self) -> datetime:
        return datetime(2024, 6, 1, tzinfo=UTC)

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()


class Org:
    """A client with its events and pauses, and a simulated server."""

    def __init__(self, server: aioresponses) -> None:
        self.server = server
        self.emitted: list[tuple[str, dict[str, Any]]] = []
        self.pauses: list[float] = []
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
            on_pause=self.pauses.append,
            emit=lambda event, **context: self.emitted.append((event, context)),
            clock=LoopClock(),
        )

    def check_lease(self) -> None:
        if self.lease_lost:
            raise LeaseLostError

    def events(self) -> list[str]:
        """The events, without those of each request."""
        return [event for event, _ in self.emitted if not event.startswith("request_")]

    def sends(self) -> int:
        return sum(event == "request_sent" for event, _ in self.emitted)

    def login(self, status: int = 200, **changed: str) -> None:
        self.server.post(f"{LOGIN}/oauth/token", status=status, payload={**TOKEN, **changed})

    def answer(
        self, payload: dict[str, Any] | None = None, *, status: int = 200, headers: dict[str, str] | None = None
    ) -> None:
        self.server.post(API + PATH, status=status, payload=payload, headers=headers)


@pytest.fixture
def with_org(in_virtual_time: Run) -> Callable[[Callable[[Org], Coroutine[Any, Any, None]]], None]:
    """Runs a coroutine function on an org in virtual time, then closes the client."""

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


def test_a_scan_gets_a_token_and_all_pages(with_org: WithOrg) -> None:
    """The events name the org."""

    async def main(org: Org) -> None:
        org.login()
        org.answer(payload={"nextPageToken": "a", "data": []})
        org.answer(payload=EMPTY)
        assert [page.more async for page in org.client.scan(QUERY)] == [True, False]
        assert org.emitted[-1] == ("request_finished", {"org": "acme", "status": "ok", "seconds": 0})
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


def test_a_scan_starts_only_where_it_is_allowed(with_org: WithOrg) -> None:
    """The check runs at each send of page one; later pages are not checked."""

    async def main(org: Org) -> None:
        open_until = 1200.0

        def check_allowed() -> None:
            if asyncio.get_running_loop().time() >= open_until:
                raise HoursOverError

        org.login()
        org.answer(payload={"nextPageToken": "a", "data": []})
        org.answer(status=429, headers={"Retry-After": "300"})
        org.answer(payload=EMPTY)
        assert [page.more async for page in org.client.scan(QUERY, check_allowed)] == [True, False]
        sent, open_until = org.sends(), asyncio.get_running_loop().time() + 100
        org.answer(status=429, headers={"Retry-After": "300"})
        with pytest.raises(HoursOverError):
            _ = [page async for page in org.client.scan(QUERY, check_allowed)]
        assert org.sends() == sent + 1
        assert org.events().count("rate_limited") == 2
        assert org.client.breaker.state == "closed"

    with_org(main)


def test_a_401_renews_the_token_once(with_org: WithOrg) -> None:
    """A second 401 is final."""

    async def main(org: Org) -> None:
        org.login()
        org.login(access_token="token-2")
        org.answer(status=401)
        org.answer(payload=EMPTY)
        assert json.loads((await org.client.call(REQUEST)).body) == EMPTY
        org.login()
        org.answer(status=401)
        org.answer(status=401)
        with pytest.raises(UnauthorizedError):
            await org.client.call(REQUEST)
        assert org.events() == ["token_renewed"] * 3
        assert org.sends() == 7

    with_org(main)


def test_a_429_pauses_the_whole_org(with_org: WithOrg) -> None:
    """It is reported and kept for a restart; the requests wait, and it is no failure."""

    async def main(org: Org) -> None:
        org.login()
        org.answer(status=429, headers={"Retry-After": "120"})
        org.answer(payload=EMPTY)
        org.answer(payload=EMPTY)
        began = asyncio.get_running_loop().time()
        first = asyncio.create_task(org.client.call(REQUEST))
        await asyncio.sleep(20)
        assert org.pauses == [120]
        assert org.client.limiter.pause_left > 90
        await asyncio.gather(first, org.client.call(REQUEST))
        assert asyncio.get_running_loop().time() - began > 120
        assert org.events() == ["token_renewed", "rate_limited", "rate_limit_margin_changed"]
        assert org.client.breaker.state == "closed"

    with_org(main)


def test_a_429_within_the_limit_adds_to_the_margin(with_org: WithOrg) -> None:
    """It is reported, and again where it has shrunk to half; the pause stays as it is."""

    async def main(org: Org) -> None:
        org.login()
        org.answer(status=429, headers={"Retry-After": "2"})
        for _ in range(3):
            org.answer(payload=EMPTY)
        await org.client.call(REQUEST)
        assert org.pauses == [2]
        for seconds in (1000, 1000):
            await asyncio.sleep(seconds)
            await org.client.call(REQUEST)
        margins = [context["margin"] for event, context in org.emitted if event == "rate_limit_margin_changed"]
        assert margins == [0.05, pytest.approx(0.023, abs=0.001)]

    with_org(main)


def test_a_429_of_a_minute_that_is_used_up_adds_nothing(with_org: WithOrg) -> None:
    """The headers show another cause: the org pauses, and keeps its limit."""
    headers = {
        "Retry-After": "2",
        "inin-ratelimit-allowed": "600",
        "inin-ratelimit-count": "600",
        "inin-ratelimit-reset": "2",
    }

    async def main(org: Org) -> None:
        org.login()
        org.answer(status=429, headers=headers)
        org.answer(payload=EMPTY)
        await org.client.call(REQUEST._replace(policy=EndpointPolicy(limit_headers=True)))
        assert "rate_limited" in org.events()
        assert "rate_limit_margin_changed" not in org.events()
        assert org.client.limiter.margin == 0

    with_org(main)


def test_a_pause_over_the_maximum_is_an_error(with_org: WithOrg) -> None:
    """``--once`` sets the maximum."""

    async def main(org: Org) -> None:
        org.client.max_pause = 300
        org.login()
        org.answer(status=429, headers={"Retry-After": "301"})
        with pytest.raises(RateLimitedError) as raised:
            await org.client.call(REQUEST)
        assert raised.value.retry_after > 300
        assert asyncio.get_running_loop().time() < 1010

    with_org(main)


def test_a_failing_server_is_retried_until_the_breaker_opens(with_org: WithOrg) -> None:
    """Five consecutive failures open the breaker; the error says why."""

    async def main(org: Org) -> None:
        org.login()
        for _ in range(5):
            org.answer(status=503, payload={"message": "busy: token-1"})
        with pytest.raises(ServerError, match=r"busy: \[redacted\]"):
            await org.client.call(REQUEST)
        with pytest.raises(CircuitOpenError, match="busy") as raised:
            await org.client.call(REQUEST)
        assert raised.value.retry_after == pytest.approx(30, abs=0.5)
        assert org.events() == ["token_renewed", *["retry_scheduled"] * 4, "circuit_opened"]
        await asyncio.sleep(30.5)
        org.answer(payload=EMPTY)
        await org.client.call(REQUEST)
        assert org.events()[-2:] == ["circuit_half_open", "circuit_closed"]
        assert "token-1" not in repr(org.emitted)

    with_org(main)


def test_a_token_between_failures_does_not_reset_the_count(with_org: WithOrg) -> None:
    """The failures of queries stay consecutive, and the probe is a query, so the open time doubles."""

    async def main(org: Org) -> None:
        for number in range(9):
            org.login(access_token=f"token-{number}", expires_in=0.1)  # type: ignore[arg-type]
            org.answer(status=503)
        with pytest.raises(ServerError):
            await org.client.call(REQUEST)
        assert org.client.breaker.state == "open"
        await asyncio.sleep(30.5)
        with pytest.raises(ServerError):
            await org.client.call(REQUEST)
        opened = [context["open_for"] for event, context in org.emitted if event == "circuit_opened"]
        assert opened == [30, 60]
        assert org.events().count("token_renewed") == 6
        assert "circuit_closed" not in org.events()

    with_org(main)


def test_a_rejected_token_is_not_used_again(with_org: WithOrg) -> None:
    """Also where the login server fails at that moment."""

    async def main(org: Org) -> None:
        org.login()
        org.answer(status=401)
        org.login(status=503)
        org.login(access_token="token-2")
        org.answer(payload=EMPTY)
        assert json.loads((await org.client.call(REQUEST)).body) == EMPTY
        assert org.sends() == 5

    with_org(main)


def test_retries_of_the_login_server_do_not_multiply(with_org: WithOrg) -> None:
    """Its attempts are those of the request that needs the token."""

    async def main(org: Org) -> None:
        for _ in range(4):
            org.login(status=500)
        org.login()
        org.answer(payload=EMPTY)
        await org.client.call(REQUEST)
        assert org.sends() == 6

    with_org(main)


def test_a_403_is_not_retried(with_org: WithOrg) -> None:
    """The error names the missing permission."""

    async def main(org: Org) -> None:
        org.login()
        org.answer(status=403, payload={"code": "missing.any.permissions"})
        with pytest.raises(ForbiddenError, match="Analytics > Query > Read"):
            await org.client.call(REQUEST)
        assert org.sends() == 2

    with_org(main)


def test_nothing_is_sent_without_the_lease(with_org: WithOrg) -> None:
    """It is checked before every send, that of a token included; a lost lease is no failure of the server."""

    async def main(org: Org) -> None:
        org.lease_lost = True
        for _ in range(9):
            with pytest.raises(LeaseLostError):
                await org.client.call(REQUEST)
        assert org.sends() == 0
        assert org.client.breaker.state == "closed"

    with_org(main)


def test_one_request_of_a_query_hash_is_in_flight(with_org: WithOrg) -> None:
    """Requests with other hashes run at the same time."""

    async def main(org: Org) -> None:
        in_flight: dict[str, int] = {}
        most: dict[str, int] = {}

        async def slow(_url: object, *, data: bytes, **_sent: object) -> CallbackResult:
            key = data.decode()
            in_flight[key] = in_flight.get(key, 0) + 1
            most[key] = max(most.get(key, 0), in_flight[key])
            most["all"] = max(most.get("all", 0), sum(in_flight.values()))
            await asyncio.sleep(5)
            in_flight[key] -= 1
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
    """Its turn and its hash become free."""

    async def main(org: Org) -> None:
        seconds = 100.0

        async def slow(_url: object, **_sent: object) -> CallbackResult:
            await asyncio.sleep(seconds)
            return CallbackResult(payload=EMPTY)

        org.login()
        org.server.post(API + PATH, callback=slow, repeat=True)
        task = asyncio.create_task(org.client.call(REQUEST, query_hash="h"))
        await asyncio.sleep(5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        seconds = 0
        assert json.loads((await org.client.call(REQUEST, query_hash="h")).body) == EMPTY
        assert org.client.breaker.state == "closed"

    with_org(main)
