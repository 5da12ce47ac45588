"""The limit holds in every second, and a backlog uses it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import RateLimitedError
from service.genesys.limiter import OrgLimiter, Permit

Run = Callable[..., Any]
RATES = st.sampled_from([0.2, 0.5, 1, 1.5, 2, 5, 10, 50])


def _most_in_a_period(sent: list[float], period: float) -> int:
    """The most requests in any half-open period; the maximum is found at the start of one of them."""
    return max((sum(at <= each < at + period for each in sent) for at in sent), default=0)


@settings(max_examples=60, deadline=None)
@given(
    rate=RATES,
    arrivals=st.lists(st.tuples(st.floats(0, 3), st.floats(0, 0.5), st.booleans()), max_size=40),
    overshoot=st.floats(0, 0.01),
)
def test_no_second_sees_more_than_the_limit(
    in_virtual_time: Run, rate: float, arrivals: list[tuple[float, float, bool]], overshoot: float
) -> None:
    """However requests arrive, however long they take to connect, and whichever are cancelled."""
    sent: list[float] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        limiter = OrgLimiter(rate)
        sent.extend([loop.time()] * max(1, math.floor(rate)))  # what a previous process may have sent

        async def one(after: float, connecting: float, cancelled: bool) -> None:
            await asyncio.sleep(after)
            permit = await limiter.acquire()
            await asyncio.sleep(connecting)
            if cancelled:
                permit.cancel()
            else:
                permit.sent()
                sent.append(loop.time())

        await asyncio.gather(*(one(*arrival) for arrival in arrivals))

    in_virtual_time(main(), overshoot=overshoot)
    period = max(1.0, 1 / rate)
    assert _most_in_a_period(sent, period) <= max(1, math.floor(rate))


@pytest.mark.parametrize(
    ("rate", "share"), [(0.5, 0.98), (1, 0.98), (3, 0.98), (10, 0.98), (50, 0.975), (200, 0.975)]
)
def test_a_backlog_uses_the_limit(in_virtual_time: Run, rate: float, share: float) -> None:
    """Nearly all of it, although each sleep ends a millisecond late."""

    async def main() -> float:
        limiter = OrgLimiter(rate)
        first = last = math.nan
        count = max(20, int(rate * 8))
        for number in range(count + 1):
            (await limiter.acquire()).sent()
            last = limiter.now()
            first = last if number == 0 else first
        return count / (last - first)

    # Only complete periods count: requests are closer together in the last, incomplete one.
    assert in_virtual_time(main(), overshoot=0.001) >= rate * share


def test_a_limit_used_up_earlier_shortens_the_first_wait(in_virtual_time: Run) -> None:
    """The wait ends a second and the margin after the limit was used up."""

    async def main() -> float:
        limiter = OrgLimiter(10, spent_ago=0.6)
        began = limiter.now()
        await limiter.acquire()
        return limiter.now() - began

    assert in_virtual_time(main()) == pytest.approx(0.42, abs=0.005)


@pytest.mark.parametrize("rate", [0.5, 1, 10])
def test_a_new_limiter_assumes_that_the_limit_is_used_up(in_virtual_time: Run, rate: float) -> None:
    """A process that replaces another adds no request to the other's last second."""

    async def main() -> float:
        limiter = OrgLimiter(rate)
        began = limiter.now()
        await limiter.acquire()
        return limiter.now() - began

    assert in_virtual_time(main()) >= max(1, 1 / rate)


def test_requests_are_spaced(in_virtual_time: Run) -> None:
    """At ten a second, ten requests are not sent at once."""

    async def main() -> list[float]:
        limiter = OrgLimiter(10, spent_ago=math.inf)
        times = []
        for _ in range(30):
            (await limiter.acquire()).sent()
            times.append(limiter.now())
        return times

    times = in_virtual_time(main())
    assert min(b - a for a, b in pairwise(times)) > 0.09


def test_a_pause_applies_to_requests_that_already_wait(in_virtual_time: Run) -> None:
    """Of two pauses the longer one applies."""

    async def main() -> list[float]:
        limiter = OrgLimiter(10)
        began = limiter.now()
        passed: list[float] = []

        async def one() -> None:
            (await limiter.acquire()).sent()
            passed.append(limiter.now() - began)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(3):
                tasks.create_task(one())
            await asyncio.sleep(0.5)
            limiter.pause(60)
            limiter.pause(5)
            assert limiter.pause_left == pytest.approx(60)
        return passed

    passed = in_virtual_time(main())
    assert len(passed) == 3
    assert min(passed) >= 60.5


def test_no_pause_is_longer_than_an_hour(in_virtual_time: Run) -> None:
    """Whatever the header's value is."""

    async def main() -> float:
        limiter = OrgLimiter(10)
        limiter.pause(1e12)
        limiter.pause(-5)
        return limiter.pause_left

    assert in_virtual_time(main()) == 3600


def test_a_pause_over_the_maximum_raises_at_once(in_virtual_time: Run) -> None:
    """Also for requests that already wait for their turn."""

    async def main() -> float:
        limiter = OrgLimiter(10)
        limiter.max_pause = 300
        limiter.pause(200)
        waiters = [asyncio.create_task(limiter.acquire()) for _ in range(3)]
        await asyncio.sleep(10)
        began = limiter.now()
        limiter.pause(301)
        for waiter in waiters:
            with pytest.raises(RateLimitedError) as raised:
                await waiter
            assert raised.value.status is None
            assert raised.value.retry_after == pytest.approx(301)
        return limiter.now() - began

    assert in_virtual_time(main()) < 1


def test_requests_are_permitted_in_order_and_a_cancelled_one_takes_no_turn(in_virtual_time: Run) -> None:
    """First come, first served."""

    async def main() -> tuple[list[int], float]:
        limiter = OrgLimiter(2, spent_ago=math.inf)
        order: list[int] = []

        async def one(number: int) -> None:
            (await limiter.acquire()).sent()
            order.append(number)

        began = limiter.now()
        tasks = [asyncio.create_task(one(number)) for number in range(8)]
        await asyncio.sleep(0)
        for number in (2, 3, 5):
            tasks[number].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return order, limiter.now() - began

    order, seconds = in_virtual_time(main())
    assert order == [0, 1, 4, 6, 7]
    assert seconds < 2.2


def test_one_slow_connection_does_not_block_the_others(in_virtual_time: Run) -> None:
    """It counts against every second until it is sent, and blocks nothing else."""

    async def main() -> int:
        limiter = OrgLimiter(3, spent_ago=math.inf)
        await limiter.acquire()  # never sent
        deadline = limiter.now() + 10.5
        passed = 0
        while limiter.now() < deadline:
            (await limiter.acquire()).sent()
            passed += 1
        return passed

    assert 19 <= in_virtual_time(main()) <= 23


def test_a_lower_limit_applies_at_once(in_virtual_time: Run) -> None:
    """Requests sent under the old limit count under the new one."""

    async def main() -> list[float]:
        limiter = OrgLimiter(50, spent_ago=math.inf)
        times = []
        for number in range(60):
            if number == 50:
                limiter.requests_per_second = 2
            (await limiter.acquire()).sent()
            times.append(limiter.now())
        return times

    times = in_virtual_time(main())
    assert _most_in_a_period(times[50:], 1.0) <= 2
    assert times[50] - times[48] >= 1


async def _sent(limiter: OrgLimiter) -> Permit:
    permit = await limiter.acquire()
    permit.sent()
    return permit


@pytest.mark.parametrize("rate", [0.5, 10, 50])
def test_a_429_adds_to_the_margin(in_virtual_time: Run, rate: float) -> None:
    """At most to a fifth of the limit, however many come; what is left is used."""

    async def main() -> list[tuple[float, float]]:
        limiter = OrgLimiter(rate, spent_ago=math.inf)
        found = []
        for _ in range(6):
            limiter.learn(await _sent(limiter))
            await asyncio.sleep(5 / rate)
            began, count = limiter.now(), 4 * max(1, math.floor(rate))
            for _ in range(count):
                await _sent(limiter)
            await _sent(limiter)
            found.append((limiter.margin, count / (limiter.now() - began) / rate))
        return found

    found = in_virtual_time(main())
    assert [margin for margin, _ in found[:3]] == pytest.approx([0.05, 0.1, 0.15], rel=0.02)
    assert all(0.97 * (1 - margin) <= share <= 1 - margin for margin, share in found)
    assert 0.8 <= found[-1][1] <= 0.82


def test_requests_that_were_sent_before_the_margin_grew_show_nothing(in_virtual_time: Run) -> None:
    """Ten requests in flight that are all rejected count once."""

    async def main() -> list[bool]:
        limiter = OrgLimiter(10, spent_ago=math.inf)
        permits = [await _sent(limiter) for _ in range(10)]
        learned = [limiter.learn(permit) for permit in permits]
        assert limiter.margin == pytest.approx(0.05)
        return learned

    assert in_virtual_time(main()) == [True] + 9 * [False]


def test_the_margin_shrinks(in_virtual_time: Run) -> None:
    """To half in half an hour, and to nothing."""

    async def main() -> list[float]:
        limiter = OrgLimiter(10, spent_ago=math.inf)
        limiter.learn(await _sent(limiter))
        found = []
        for _ in range(7):
            await asyncio.sleep(1800)
            found.append(limiter.margin)
        return found

    assert in_virtual_time(main()) == pytest.approx([0.025, 0.0125, 0.00625, 0.003125, 0.0015625, 0, 0])


def test_another_limit_begins_without_a_margin(in_virtual_time: Run) -> None:
    """The margin belongs to its limit; a reload that leaves the limit alone keeps it."""

    async def main() -> None:
        limiter = OrgLimiter(50, spent_ago=math.inf)
        limiter.learn(await _sent(limiter))
        limiter.requests_per_second = 50
        assert limiter.margin == pytest.approx(0.05)
        limiter.requests_per_second = 40
        assert limiter.margin == 0

    in_virtual_time(main())
