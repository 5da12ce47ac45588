"""A value shared by concurrent readers."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from service.errors import DatabaseUnavailableError
from service.web import status_cache
from service.web.status_cache import SharedValue
from tests.support.fake_clock import FakeClock


class Source:
    """Counts up; each value is returned when the test allows it."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.made = 0
        self.takes = timedelta(0)
        self.open = asyncio.Event()
        self.open.set()

    async def make(self) -> int:
        await self.open.wait()
        self.made += 1
        self.clock.advance(self.takes)
        return self.made


async def test_concurrent_readers_share_one_value(fake_clock: FakeClock) -> None:
    """Concurrent readers share one value, as do readers within its maximum age."""
    source = Source(fake_clock)
    shared = SharedValue(source.make, fake_clock)
    assert await asyncio.gather(*(shared.get(max_age=5, cost_factor=0) for _ in range(3))) == [1, 1, 1]
    fake_clock.advance(timedelta(seconds=5))
    assert await shared.get(max_age=5, cost_factor=0) == 1
    fake_clock.advance(timedelta(seconds=0.1))
    assert await shared.get(max_age=5, cost_factor=0) == 2


async def test_a_costly_value_is_kept_longer(fake_clock: FakeClock) -> None:
    """A value that took two seconds to compute is kept for a multiple of that."""
    source = Source(fake_clock)
    source.takes = timedelta(seconds=2)
    shared = SharedValue(source.make, fake_clock)
    await shared.get(max_age=1, cost_factor=10)
    fake_clock.advance(timedelta(seconds=17))
    assert await shared.get(max_age=1, cost_factor=10) == 1
    fake_clock.advance(timedelta(seconds=2))
    assert await shared.get(max_age=1, cost_factor=10) == 2


async def test_a_reader_that_times_out_leaves_the_computation_running(
    fake_clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader times out; the computation continues, and no second one starts."""
    monkeypatch.setattr(status_cache, "WAIT_TIMEOUT", 0)
    source = Source(fake_clock)
    source.open.clear()
    shared = SharedValue(source.make, fake_clock)
    for _ in range(3):
        with pytest.raises(DatabaseUnavailableError, match="did not answer"):
            await shared.get(max_age=1, cost_factor=0)
    source.open.set()
    monkeypatch.setattr(status_cache, "WAIT_TIMEOUT", 10)
    assert await shared.get(max_age=1, cost_factor=0) == 1
    await shared.close()


async def test_a_failure_is_not_cached(fake_clock: FakeClock) -> None:
    """A failure is raised to the readers that wait for it; the next reader computes again."""
    failures = [DatabaseUnavailableError("away")]

    async def make() -> int:
        if failures:
            raise failures.pop()
        return 1

    shared = SharedValue(make, fake_clock)
    with pytest.raises(DatabaseUnavailableError, match="away"):
        await shared.get(max_age=1, cost_factor=0)
    assert await shared.get(max_age=1, cost_factor=0) == 1
