"""The simulator's faults over real HTTP on loopback."""

from __future__ import annotations

import gzip
import time

import aiohttp
import pytest

from service.simulator import (
    FAULT_NAMES,
    PUBLIC_FAULTS,
    Fault,
    Faults,
)
from tests.support.simulator_client import PATH, connect, figures, query_body, truth


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        ("server_error", 503),
        ("throttled", 429),
        ("unauthorized", 401),
        ("forbidden", 403),
        ("hostile_error", 400),
        ("redirect", 307),
        ("granularity_refused", 400),
        ("cardinality_refused", 400),
    ],
)
async def test_error_faults(fault: str, status: int) -> None:
    """Each fault fires as often as set, and is counted."""
    async with connect(faults=Faults(**{fault: Fault(times=1)})) as (simulator, client):
        assert (await client.query())[0] == status
        assert (await client.query())[0] == 200
        assert simulator.fired == {fault: 1}


@pytest.mark.parametrize(
    ("value", "header"), [(None, "1"), (7, "7"), ("-5", "-5"), ("soon", "soon"), ("absent", None)]
)
async def test_retry_after_fault(value: object, header: str | None) -> None:
    """The Retry-After header is the fault's value, or absent."""
    async with connect(faults=Faults(throttled=Fault(value))) as (_, client):
        assert (await client.query())[2].get("Retry-After") == header


async def test_an_error_repeats_the_secret() -> None:
    """The text of a hostile error repeats the client's token or secret."""
    async with connect(faults=Faults(hostile_error=Fault(), token_hostile=Fault(request=2))) as (_, client):
        assert client.token in (await client.query())[1]["message"]
        assert "Basic " in (await client.authorize())[1]["message"]


@pytest.mark.parametrize("fault", ["connection_reset", "truncated", "token_reset"])
async def test_broken_connections(fault: str) -> None:
    """The connection breaks once, and the next request succeeds."""
    async with connect(authorize=False, faults=Faults(**{fault: Fault(times=1)})) as (simulator, client):

        async def both() -> None:
            await client.authorize()
            await client.query()

        with pytest.raises(aiohttp.ClientError):
            await both()
        await client.authorize()
        assert (await client.query())[0] == 200
        assert simulator.fired == {fault: 1}


async def test_a_truncated_chunked_body() -> None:
    """A chunked body is truncated too."""
    async with connect(faults=Faults(truncated=Fault("chunked"))) as (_, client):
        with pytest.raises(aiohttp.ClientError):
            await client.query()


async def test_a_slow_body_is_complete() -> None:
    """A body sent slowly arrives complete."""
    async with connect(faults=Faults(drip=Fault(0.1))) as (simulator, client):
        began = time.monotonic()
        assert (await client.query())[0] == 200
        assert time.monotonic() - began >= 0.1
        assert simulator.fired == {"drip": 1}


async def test_a_gzip_bomb_is_small_on_the_wire() -> None:
    """A few KiB unpack to more than the fault's value."""
    async with connect(faults=Faults(gzip_bomb=Fault(3))) as (simulator, client):
        session = aiohttp.ClientSession(auto_decompress=False)
        async with (
            session,
            session.post(
                simulator.base_url + PATH,
                json=query_body(),
                headers={"Authorization": f"Bearer {client.token}"},
            ) as response,
        ):
            body = await response.read()
        assert len(body) < 2**14
        assert len(gzip.decompress(body)) > 3 * 2**20


async def test_page_token_faults() -> None:
    """Tokens are missing, repeated, looping or expired at the set page."""
    faults = Faults(missing_token=Fault(page=2, times=1))
    async with connect(faults=faults) as (simulator, client):
        one = (await client.query())[1]["nextPageToken"]
        assert "nextPageToken" not in (await client.query(nextPageToken=one))[1]
        simulator.switch("repeated_token", Fault(times=1))
        assert (await client.query(nextPageToken=one))[1]["nextPageToken"] == one
        simulator.switch("cursor_expired", Fault(400, page=2, times=1))
        status, answer, _ = await client.query(nextPageToken=one)
        assert (status, answer["code"]) == (400, "cursor.expired")
        two = (await client.query(nextPageToken=one))[1]["nextPageToken"]
        simulator.switch("cursor_loop", Fault(page=3))
        assert (await client.query(nextPageToken=two))[1]["nextPageToken"] == one
        assert simulator.fired == {"missing_token": 1, "repeated_token": 1, "cursor_expired": 1, "cursor_loop": 1}


async def test_pages_without_entries() -> None:
    """After an empty page the scan continues; after an empty answer it ends."""
    async with connect(faults=Faults(empty_page=Fault(page=2), empty_answer=Fault(times=1))) as (
        simulator,
        client,
    ):
        assert figures(await client.scan()) == {}
        pages = await client.scan()
        assert pages[1]["data"] == []
        assert figures(pages) == truth(simulator)


async def test_days_in_utc() -> None:
    """With ``utc_cut`` the intervals are days in UTC."""
    async with connect(timezone="America/New_York", faults=Faults(utc_cut=Fault())) as (simulator, client):
        assert figures(await client.scan()) == truth(simulator, timezone="UTC") != truth(simulator)


@pytest.mark.parametrize(("value", "expires_in"), [(None, -1), (1e15, 1e15), ("soon", "soon"), ("absent", None)])
async def test_expires_in_fault(value: object, expires_in: object) -> None:
    """``expires_in`` is the fault's value, or absent."""
    async with connect(authorize=False, faults=Faults(expires_in=Fault(value))) as (_, client):
        assert (await client.authorize())[1].get("expires_in") == expires_in
        assert (await client.query())[0] == 200


@pytest.mark.parametrize(
    ("fault", "status"), [("token_error", 500), ("token_throttled", 429), ("token_missing", 200)]
)
async def test_token_faults(fault: str, status: int) -> None:
    """The token endpoint fails once and then issues a token."""
    async with connect(authorize=False, faults=Faults(**{fault: Fault(times=1)})) as (simulator, client):
        assert (await client.authorize())[0] == status
        assert client.token == ""
        await client.authorize()
        assert client.token
        assert simulator.fired == {fault: 1}


SLOW = {"slow": Fault(0.01), "token_slow": Fault(0.01), "drip": Fault(0.01), "gzip_bomb": Fault(1)}
TOKEN_FAULTS = sorted(name for name in FAULT_NAMES if name.startswith("token_") or name == "expires_in")


@pytest.mark.parametrize("name", sorted(FAULT_NAMES - PUBLIC_FAULTS))
async def test_every_fault_fires(name: str) -> None:
    """Each switch fires, is counted, and leaves a working server when it is off."""
    faults = Faults(**{name: SLOW.get(name, Fault(times=1))})
    async with connect(authorize=False, timezone="Asia/Tokyo", faults=faults) as (simulator, client):
        for _ in range(3):
            try:
                await client.authorize()
                _, page, _ = await client.query()
                await client.query(nextPageToken=page["nextPageToken"])
            except (aiohttp.ClientError, ValueError, KeyError, TypeError, RecursionError):
                continue
        assert simulator.fired[name]
        simulator.switch(name, None)
        await client.authorize()
        assert figures(await client.scan()) == truth(simulator)
