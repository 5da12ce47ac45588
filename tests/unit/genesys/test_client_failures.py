"""Rejected tokens and requests, and a server that fails: renewals, retries, the breaker."""

from __future__ import annotations

import asyncio
import json

import pytest

from service.errors import CircuitOpenError, ForbiddenError, ServerError, UnauthorizedError
from tests.support.client_harness import EMPTY, Org, WithOrg
from tests.support.wire import REQUEST


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
