"""The clock: says when something is due, and nothing more.

APScheduler's jobs only ring; who is rung owns its tasks, their grace and their end. A job of APScheduler that did
the work itself would be cancelled by its shutdown.
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

# Seconds between two looks at the wall clock: it may have been set, or the machine may have slept, and the timers
# below count neither.
LOOK_EVERY = 5.0
STEP = 2.0
"""Seconds by which the wall clock and the monotonic one part between two looks where one of them was set."""


class Scheduler:
    """Rings each name once at its time; a time that has passed rings at once, however late.

    Args:
        clock: the process's.
        on_step: called with the seconds by which the wall clock was set, or the machine slept.
    """

    def __init__(self, clock: Clock, on_step: Callable[[float], None]) -> None:
        self._clock = clock
        self._on_step = on_step
        self._scheduler = AsyncIOScheduler(
            timezone=UTC, job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": 1}
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Scheduler]:
        """While the context lasts, the clock goes."""
        self._scheduler.start()
        looking = asyncio.create_task(self._look(), name="wall clock")
        try:
            yield self
        finally:
            looking.cancel()
            self._scheduler.shutdown(wait=False)

    async def _look(self) -> None:
        apart = self._apart()
        while True:
            await asyncio.sleep(LOOK_EVERY)
            self._scheduler.wakeup()
            before, apart = apart, self._apart()
            if abs(apart - before) >= STEP:
                self._on_step(apart - before)

    def _apart(self) -> float:
        """Seconds by which the wall clock is ahead of the monotonic one."""
        return self._clock.now().timestamp() - self._clock.monotonic()

    def ring_at(self, name: str, at: datetime, ring: Callable[[], None]) -> None:
        """Ring at this time, instead of the time that the name had before."""

        async def rung() -> None:  # a plain function would be called in another thread
            ring()

        self._scheduler.add_job(rung, DateTrigger(at), id=name, replace_existing=True)

    def forget(self, name: str) -> None:
        """Do not ring this name any more."""
        with contextlib.suppress(JobLookupError):
            self._scheduler.remove_job(name)
