"""A job's loop: what rings it, and what joins what."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import cast
from zoneinfo import ZoneInfo

import pytest

from service.clock import FakeClock
from service.config import Job, config_from
from service.errors import DatabaseUnavailableError
from service.extraction.cycle import CycleResult
from service.extraction.org_worker import CycleRequest, OrgWorker
from service.runtime.org_loop import SLACK, JobLoop, OrgLoop
from service.runtime.process import Runtime
from service.runtime.timers import Scheduler

CONFIG = config_from(
    {
        "database": {"dsn": "postgresql://nowhere/none"},
        "orgs": {"acme": {"region": "mypurecloud.com", "client_id": "c", "client_secret": "a-secret"}},
        "jobs": {"daily": {"since": "2024-05-01", "off_peak": None, "retry_every": "PT10M"}},
    }
)
JOB: Job = CONFIG.jobs["daily"]


class Rings:
    """A scheduler that rings when the test says so."""

    def __init__(self) -> None:
        self.at: dict[str, tuple[datetime, Callable[[], None]]] = {}

    def ring_at(self, name: str, at: datetime, ring: Callable[[], None]) -> None:
        self.at[name] = at, ring

    def forget(self, name: str) -> None:
        self.at.pop(name, None)


class Worker:
    """Runs cycles that end when the test says so, as the test says."""

    def __init__(self) -> None:
        self.org = SimpleNamespace(tz=ZoneInfo("UTC"))
        self.wishes: list[CycleRequest] = []
        self.began = asyncio.Event()
        self.results: asyncio.Queue[CycleResult | Exception] = asyncio.Queue()

    async def cycle(self, job: Job, wish: CycleRequest) -> CycleResult:
        assert job is JOB
        self.wishes.append(wish)
        self.began.set()
        result = await self.results.get()
        if isinstance(result, Exception):
            raise result
        return result

    async def next_cycle(self) -> CycleRequest:
        async with asyncio.timeout(5):
            await self.began.wait()
        self.began.clear()
        return self.wishes[-1]


class Stage:
    def __init__(self) -> None:
        self.rings, self.worker, self.clock = Rings(), Worker(), FakeClock()
        self.told: list[str] = []
        self.loop = JobLoop(
            "acme", JOB, cast(Scheduler, self.rings), self.clock, lambda event, **_: self.told.append(event)
        )


@asynccontextmanager
async def playing() -> AsyncIterator[Stage]:
    stage = Stage()
    task = asyncio.create_task(stage.loop.run(cast(OrgWorker, stage.worker)))
    try:
        yield stage
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert stage.rings.at == {}, "who is gone is not rung"


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_it_begins_at_once_and_is_rung_when_the_next_window_falls_due() -> None:
    """The cycle itself finds out whether the lookback is taken along."""
    async with playing() as stage:
        wish = await stage.worker.next_cycle()
        assert (wish.whole, wish.ignore_off_peak) == (None, False)
        at, _ = stage.rings.at["acme/daily/due"]
        assert at == stage.clock.now().replace(hour=1) + timedelta(days=1, seconds=SLACK)
        stage.worker.results.put_nowait(CycleResult(complete=1))
        await settle()
        assert "acme/daily/retry" not in stage.rings.at


async def test_what_is_unfinished_is_tried_again_after_a_while() -> None:
    """Without the lookback."""
    async with playing() as stage:
        await stage.worker.next_cycle()
        stage.worker.results.put_nowait(CycleResult(failed=1))
        await settle()
        at, ring = stage.rings.at["acme/daily/retry"]
        assert at == stage.clock.now() + JOB.retry_every
        ring()
        assert (await stage.worker.next_cycle()).whole is False


async def test_what_the_off_peak_hours_put_back_is_taken_up_as_it_was() -> None:
    """With the lookback, where the cycle was to take it along."""
    async with playing() as stage:
        wish = await stage.worker.next_cycle()
        wish.whole = True  # as the cycle itself decides
        stage.worker.results.put_nowait(CycleResult(put_back=4))
        await settle()
        stage.rings.at["acme/daily/retry"][1]()
        assert (await stage.worker.next_cycle()).whole is True


async def test_run_now_joins_a_cycle_that_takes_the_lookback_along() -> None:
    """It is not doubled, and the off-peak hours do not hold it any more."""
    async with playing() as stage:
        wish = await stage.worker.next_cycle()
        wish.whole = True  # as the cycle itself decides
        stage.loop.trigger(whole=True, ignore_off_peak=True)
        stage.loop.trigger(whole=True, ignore_off_peak=True)
        assert wish.ignore_off_peak
        stage.worker.results.put_nowait(CycleResult())
        await settle()
        assert len(stage.worker.wishes) == 1


async def test_run_now_follows_a_cycle_that_does_not() -> None:
    """Once, however often it was asked for."""
    async with playing() as stage:
        wish = await stage.worker.next_cycle()
        wish.whole = False
        for _ in range(5):
            stage.loop.trigger(whole=True, ignore_off_peak=True)
        stage.worker.results.put_nowait(CycleResult())
        following = await stage.worker.next_cycle()
        assert (following.whole, following.ignore_off_peak) == (True, True)
        stage.worker.results.put_nowait(CycleResult())
        await settle()
        assert len(stage.worker.wishes) == 2


async def test_a_window_that_falls_due_does_not_wait_for_a_backlog() -> None:
    """The running cycle begins nothing more, and the next one takes the new window first."""
    async with playing() as stage:
        wish = await stage.worker.next_cycle()
        _, ring = stage.rings.at["acme/daily/due"]
        ring()
        assert wish.stop
        stage.worker.results.put_nowait(CycleResult(put_back=300))
        assert (await stage.worker.next_cycle()).whole is None


async def test_a_retry_that_comes_with_a_due_window_takes_nothing_from_it() -> None:
    """The cycle still decides about the lookback."""
    async with playing() as stage:
        await stage.worker.next_cycle()
        stage.worker.results.put_nowait(CycleResult(failed=1))
        await settle()
        stage.loop.on_window_due()
        stage.loop.trigger(whole=False)
        assert (await stage.worker.next_cycle()).whole is None


async def test_a_database_that_is_away_is_tried_again_soon() -> None:
    """With all that the cycle was to take along."""
    async with playing() as stage:
        await stage.worker.next_cycle()
        stage.worker.results.put_nowait(DatabaseUnavailableError("gone"))
        await settle()
        assert stage.told == ["database_unavailable"]
        at, ring = stage.rings.at["acme/daily/retry"]
        assert at <= stage.clock.now() + timedelta(seconds=2)
        ring()
        assert (await stage.worker.next_cycle()).whole is None


async def test_an_error_nobody_thought_of_ends_neither_loop_nor_daemon() -> None:
    """It is told, and tried again."""
    async with playing() as stage:
        await stage.worker.next_cycle()
        stage.worker.results.put_nowait(ZeroDivisionError())
        await settle()
        assert stage.told == ["unexpected_error"]
        stage.rings.at["acme/daily/retry"][1]()
        await stage.worker.next_cycle()


@pytest.mark.parametrize(
    ("changed", "rung"), [({"flows": ["f"]}, True), ({"timezone": "Asia/Tokyo"}, True), ({"page_size": 7}, False)]
)
async def test_a_reload_that_changes_what_an_org_owes_is_seen_to_at_once(
    changed: dict[str, object], *, rung: bool
) -> None:
    """Not only when the next window falls due."""
    runtime = cast(Runtime, SimpleNamespace(clock=FakeClock()))
    loop = OrgLoop(CONFIG, CONFIG.orgs["acme"], runtime, cast(Scheduler, Rings()), lambda *_, **__: None)
    asked = loop._jobs["daily"]._rung
    org = CONFIG.orgs["acme"].model_copy(update=changed)
    config = CONFIG.model_copy(update={"orgs": {"acme": org}})
    loop.configure(config, org)
    assert asked.is_set() is rung


async def test_closed_it_ends_with_its_cycle() -> None:
    """And no scan of it begins."""
    stage = Stage()
    task = asyncio.create_task(stage.loop.run(cast(OrgWorker, stage.worker)))
    wish = await stage.worker.next_cycle()
    stage.loop.close()
    assert wish.stop
    assert not task.done()
    stage.worker.results.put_nowait(CycleResult())
    async with asyncio.timeout(5):
        await task
