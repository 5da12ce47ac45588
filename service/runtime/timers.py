"""Timers: APScheduler as a clock.

A timer only calls a short function, which wakes the loop that owns the work. Work in a job of APScheduler would be
cancelled by the scheduler's shutdown.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from apscheduler.jobstores.base import JobLookupError
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.date import DateTrigger

from service.clock import Clock

CLOCK_CHECK_INTERVAL = 5.0
"""Seconds between two comparisons of the wall clock with the monotonic one."""
STEP = 2.0
"""Seconds between the two clocks from which the wall clock counts as stepped: it was set, or the machine slept."""


class Timers:
    """Calls functions at wall-clock times, each under a name; a time in the past is due at once.

    Args:
        clock: the process's clock.
        clock_stepped: called with the seconds by which the wall clock stepped.
    """

    def __init__(self, clock: Clock, clock_stepped: Callable[[float], None]) -> None:
        self._clock = clock
        self._clock_stepped = clock_stepped
        self._scheduler = AsyncIOScheduler(
            timezone=UTC, job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": 1}
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Timers]:
        """Run the timers within the context."""
        self._scheduler.start()
        watching = asyncio.create_task(self._watch_clock(), name="wall clock")
        try:
            yield self
        finally:
            watching.cancel()
            self._scheduler.shutdown(wait=False)

    def call_at(self, name: str, at: datetime, callback: Callable[[], None]) -> None:
        """Call a function once at this time; replaces the name's former timer."""

        async def call() -> None:  # APScheduler runs a plain function in a thread
            callback()

        self._scheduler.add_job(call, DateTrigger(at), id=name, replace_existing=True)

    def cancel(self, name: str) -> None:
        """Cancel the name's timer, if it has one."""
        with contextlib.suppress(JobLookupError):
            self._scheduler.remove_job(name)

    async def _watch_clock(self) -> None:
        offset = self._offset()
        while True:
            await asyncio.sleep(CLOCK_CHECK_INTERVAL)
            self._scheduler.wakeup()  # APScheduler computed its sleep from the wall clock
            before, offset = offset, self._offset()
            if abs(offset - before) >= STEP:
                self._clock_stepped(offset - before)

    def _offset(self) -> float:
        """Seconds by which the wall clock is ahead of the monotonic one."""
        return self._clock.now().timestamp() - self._clock.monotonic()
