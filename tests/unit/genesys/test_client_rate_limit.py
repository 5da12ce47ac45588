"""A 429: the org pauses, and its limit gets a margin."""

from __future__ import annotations

import asyncio

import pytest

from service.errors import RateLimitedError
from service.genesys.error_mapping import EndpointPolicy
from tests.support.client_harness import EMPTY, Org, WithOrg
from tests.support.wire import REQUEST


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
