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

# Seconds between two looks at the wall clock: it may have been set, or the machine may have slept, and the timers
# below count neither.
LOOK_EVERY = 15.0


class Scheduler:
    """Rings each name once at its time; a time that has passed rings at once, however late."""

    def __init__(self) -> None:
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
        while True:
            await asyncio.sleep(LOOK_EVERY)
            self._scheduler.wakeup()

    def ring_at(self, name: str, at: datetime, ring: Callable[[], None]) -> None:
        """Ring at this time, instead of the time that the name had before."""

        async def rung() -> None:  # a plain function would be called in another thread
            ring()

        self._scheduler.add_job(rung, DateTrigger(at), id=name, replace_existing=True)

    def forget(self, name: str) -> None:
        """Do not ring this name any more."""
        with contextlib.suppress(JobLookupError):
            self._scheduler.remove_job(name)
