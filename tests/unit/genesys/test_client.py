"""Scans, and what every request passes: the lease check, and one request in flight for a query hash."""

from __future__ import annotations

import asyncio
import json

import pytest

from service.errors import HoursOverError, LeaseLostError
from service.genesys.dialect import ApiRequest
from service.genesys.query_builder import PATH
from tests.support.client_harness import API, EMPTY, Org, WithOrg
from tests.support.http_double import CallbackResult
from tests.support.wire import QUERY, REQUEST


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
