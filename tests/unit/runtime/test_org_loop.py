"""A job's loop: what triggers a cycle, and which requests join the running one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import cast
from zoneinfo import ZoneInfo

import pytest

from service.config import Job, config_from
from service.errors import DatabaseUnavailableError
from service.extraction import EVERYTHING, Cycle, CycleRequest, CycleResult, OrgWorker, Scope
from service.runtime.job_loop import RETRY, SLACK, JobLoop
from service.runtime.org_loop import OrgLoop
from service.runtime.process import Process
from service.runtime.timers import Timers
from tests.support.fake_clock import FakeClock

CONFIG = config_from(
    {
        "database": {"dsn": "postgresql://nowhere/none"},
        "orgs": {"acme": {"region": "mypurecloud.com", "client_id": "c", "client_secret": "a-secret"}},
        "jobs": {"daily": {"since": "2024-05-01", "off_peak": None, "retry_every": "PT10M"}},
    }
)
JOB: Job = CONFIG.jobs["daily"]


class FakeTimers:
    """Timers that the test fires."""

    def __init__(self) -> None:
        self.at: dict[str, tuple[datetime, Callable[[], None]]] = {}

    def call_at(self, name: str, at: datetime, callback: Callable[[], None]) -> None:
        self.at[name] = at, callback

    def cancel(self, name: str) -> None:
        self.at.pop(name, None)


class FakeWorker:
    """Runs cycles whose end and result the test decides."""

    def __init__(self) -> None:
        self.org = SimpleNamespace(tz=ZoneInfo("UTC"))
        self.cycles: list[Cycle] = []
        self.started = asyncio.Event()
        self.results: asyncio.Queue[CycleResult | Exception] = asyncio.Queue()

    async def run_cycle(self, job: Job, cycle: Cycle) -> CycleResult:
        assert job is JOB
        self.cycles.append(cycle)
        self.started.set()
        result = await self.results.get()
        if isinstance(result, Exception):
            raise result
        return result

    async def next_cycle(self) -> Cycle:
        async with asyncio.timeout(5):
            await self.started.wait()
        self.started.clear()
        return self.cycles[-1]


class Stage:
    def __init__(self) -> None:
        self.timers, self.worker, self.clock = FakeTimers(), FakeWorker(), FakeClock()
        self.events: list[str] = []
        self.loop = JobLoop(
            "acme", JOB, cast(Timers, self.timers), self.clock, lambda event, **_: self.events.append(event)
        )


@asynccontextmanager
async def running() -> AsyncIterator[Stage]:
    stage = Stage()
    task = asyncio.create_task(stage.loop.run(cast(OrgWorker, stage.worker)))
    try:
        yield stage
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert stage.timers.at == {}, "an ended loop has no timers"


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_it_starts_at_once_and_again_when_the_next_window_is_due() -> None:
    """The cycle itself decides about the lookback."""
    async with running() as stage:
        cycle = await stage.worker.next_cycle()
        assert cycle.request == CycleRequest(Scope.AUTOMATIC, ignore_off_peak=False)
        at, _ = stage.timers.at["acme/daily/due"]
        assert at == stage.clock.now().replace(hour=1) + timedelta(days=1, seconds=SLACK)
        stage.worker.results.put_nowait(CycleResult(complete=1))
        await settle()
        assert "acme/daily/retry" not in stage.timers.at


async def test_unfinished_windows_are_retried_after_retry_every() -> None:
    """Without the lookback."""
    async with running() as stage:
        await stage.worker.next_cycle()
        stage.worker.results.put_nowait(CycleResult(failed=1))
        await settle()
        at, fire = stage.timers.at["acme/daily/retry"]
        assert at == stage.clock.now() + JOB.retry_every
        fire()
        assert (await stage.worker.next_cycle()).request.scope is Scope.OPEN


async def test_windows_requeued_after_the_off_peak_hours_keep_their_scope() -> None:
    """The lookback is repeated where the cycle had decided for it."""
    async with running() as stage:
        cycle = await stage.worker.next_cycle()
        cycle.select(Scope.LOOKBACK, ())  # as the worker decides
        stage.worker.results.put_nowait(CycleResult(requeued=4))
        await settle()
        stage.timers.at["acme/daily/retry"][1]()
        assert (await stage.worker.next_cycle()).request.scope is Scope.LOOKBACK


async def test_run_now_joins_a_cycle_that_covers_the_lookback() -> None:
    """No window is extracted twice, and the off-peak hours no longer apply to the cycle."""
    async with running() as stage:
        cycle = await stage.worker.next_cycle()
        cycle.select(Scope.LOOKBACK, ())  # as the worker decides
        stage.loop.trigger(EVERYTHING)
        stage.loop.trigger(EVERYTHING)
        assert cycle.request.ignore_off_peak
        stage.worker.results.put_nowait(CycleResult())
        await settle()
        assert len(stage.worker.cycles) == 1


async def test_run_now_follows_a_cycle_that_does_not_cover_the_lookback() -> None:
    """Once, however often it was requested."""
    async with running() as stage:
        cycle = await stage.worker.next_cycle()
        cycle.select(Scope.OPEN, ())
        for _ in range(5):
            stage.loop.trigger(EVERYTHING)
        assert cycle.request == CycleRequest(Scope.OPEN, ignore_off_peak=True)
        stage.worker.results.put_nowait(CycleResult())
        assert (await stage.worker.next_cycle()).request == EVERYTHING
        stage.worker.results.put_nowait(CycleResult())
        await settle()
        assert len(stage.worker.cycles) == 2


async def test_a_window_that_becomes_due_does_not_wait_for_a_backlog() -> None:
    """The running cycle starts no further scan, and the next one extracts the new window first."""
    async with running() as stage:
        cycle = await stage.worker.next_cycle()
        _, fire = stage.timers.at["acme/daily/due"]
        fire()
        assert cycle.stop.is_set()
        stage.worker.results.put_nowait(CycleResult(requeued=300))
        assert (await stage.worker.next_cycle()).request.scope is Scope.AUTOMATIC


async def test_a_retry_together_with_a_due_window_does_not_narrow_its_scope() -> None:
    """The cycle still decides about the lookback."""
    async with running() as stage:
        await stage.worker.next_cycle()
        stage.worker.results.put_nowait(CycleResult(failed=1))
        await settle()
        stage.loop.on_window_due()
        stage.loop.trigger(RETRY)
        assert (await stage.worker.next_cycle()).request.scope is Scope.AUTOMATIC


async def test_an_unavailable_database_is_retried_soon() -> None:
    """With the same scope."""
    async with running() as stage:
        await stage.worker.next_cycle()
        stage.worker.results.put_nowait(DatabaseUnavailableError("gone"))
        await settle()
        assert stage.events == ["database_unavailable"]
        at, fire = stage.timers.at["acme/daily/retry"]
        assert at <= stage.clock.now() + timedelta(seconds=2)
        fire()
        assert (await stage.worker.next_cycle()).request.scope is Scope.AUTOMATIC


async def test_an_unexpected_error_ends_neither_loop_nor_daemon() -> None:
    """It is reported, and the cycle is retried."""
    async with running() as stage:
        await stage.worker.next_cycle()
        stage.worker.results.put_nowait(ZeroDivisionError())
        await settle()
        assert stage.events == ["unexpected_error"]
        stage.timers.at["acme/daily/retry"][1]()
        await stage.worker.next_cycle()


@pytest.mark.parametrize(
    ("changed", "triggered"),
    [({"flows": ["f"]}, True), ({"timezone": "Asia/Tokyo"}, True), ({"page_size": 7}, False)],
)
async def test_a_reload_that_changes_the_due_windows_triggers_a_cycle(
    changed: dict[str, object], *, triggered: bool
) -> None:
    """At once, not only when the next window is due."""
    runtime = cast(Process, SimpleNamespace(clock=FakeClock()))
    loop = OrgLoop(CONFIG, CONFIG.orgs["acme"], runtime, cast(Timers, FakeTimers()), lambda *_, **__: None)
    event = loop._jobs["daily"]._triggered
    org = CONFIG.orgs["acme"].model_copy(update=changed)
    config = CONFIG.model_copy(update={"orgs": {"acme": org}})
    loop.configure(config, org)
    assert event.is_set() is triggered


async def test_a_closed_loop_ends_with_its_cycle() -> None:
    """The cycle starts no further scan."""
    stage = Stage()
    task = asyncio.create_task(stage.loop.run(cast(OrgWorker, stage.worker)))
    cycle = await stage.worker.next_cycle()
    stage.loop.close()
    assert cycle.stop.is_set()
    assert not task.done()
    stage.worker.results.put_nowait(CycleResult())
    async with asyncio.timeout(5):
        await task
