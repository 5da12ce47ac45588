"""The timers and the signals."""

from __future__ import annotations

import asyncio
import os
import signal
from datetime import UTC, datetime, timedelta

import pytest

from service.clock import SystemClock
from service.runtime.signals import Signals
from service.runtime.timers import Timers
from tests.support.fake_clock import FakeClock


async def test_a_time_in_the_past_calls_at_once() -> None:
    """A timer in the past calls at once, however late."""
    called = asyncio.Event()
    async with Timers(SystemClock(), lambda _: None).running() as timers:
        timers.call_at("acme/daily/due", datetime.now(UTC) - timedelta(days=3), called.set)
        async with asyncio.timeout(5):
            await called.wait()


async def test_a_name_has_one_timer() -> None:
    """A new time replaces the old one, and a cancelled timer does not call."""
    calls: list[str] = []
    done = asyncio.Event()
    soon = datetime.now(UTC)
    async with Timers(SystemClock(), lambda _: None).running() as timers:
        timers.call_at("a", soon + timedelta(hours=1), lambda: calls.append("late"))
        timers.call_at("a", soon, lambda: calls.append("now"))
        timers.call_at("b", soon + timedelta(seconds=0.01), lambda: calls.append("cancelled"))
        timers.cancel("b")
        timers.cancel("unknown")
        timers.call_at("c", soon + timedelta(seconds=0.05), done.set)
        async with asyncio.timeout(5):
            await done.wait()
    assert calls == ["now"]


async def test_signals_set_events_and_a_second_stop_is_distinct() -> None:
    """Each signal sets its event, and none ends the process."""
    signals = Signals()
    with signals.installed():
        for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGTERM):
            os.kill(os.getpid(), number)
        async with asyncio.timeout(5):
            await asyncio.gather(signals.reload.wait(), signals.run_now.wait(), signals.stop.wait())
        assert not signals.stop_at_once.is_set()
        os.kill(os.getpid(), signal.SIGINT)
        async with asyncio.timeout(5):
            await signals.stop_at_once.wait()
    assert signals.any.is_set()


async def test_a_clock_step_is_reported(monkeypatch: pytest.MonkeyPatch, fake_clock: FakeClock) -> None:
    """A step forward or back is reported; clocks that advance together are not."""
    monkeypatch.setattr("service.runtime.timers.CLOCK_CHECK_INTERVAL", 0.0)
    steps: list[float] = []
    async with Timers(fake_clock, steps.append).running():
        for change in (0.0, 3600.0, -7200.0):
            fake_clock.advance(timedelta(seconds=5))
            fake_clock.at += timedelta(seconds=change)
            for _ in range(5):
                await asyncio.sleep(0)
    assert steps == [3600.0, -7200.0]
