"""An accelerated wall clock for everything in this process."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Self

import pytest

from service.clock import SystemClock

LOOK_EVERY = 0.05  # seconds between the scheduler's reads of the clock; its timers count real seconds


class FastClock:
    """Wall time at ``rate`` simulated seconds per second; the monotonic time is real.

    Args:
        at: the initial wall time.
        rate: simulated seconds per real second.
    """

    def __init__(self, at: datetime, rate: float) -> None:
        self.rate = rate
        self._at = at
        self._since: float | None = time.monotonic()

    def now(self) -> datetime:
        """Return the wall time."""
        if self._since is None:
            return self._at
        return self._at + timedelta(seconds=(time.monotonic() - self._since) * self.rate)

    def monotonic(self) -> float:
        """Return real seconds."""
        return time.monotonic()

    def until(self, at: datetime) -> float:
        """Return real seconds until a wall time."""
        return max(0.0, (at - self.now()).total_seconds() / self.rate)

    def stop(self, at: datetime) -> None:
        """Stop at this wall time."""
        self._at, self._since = at, None

    def resume(self) -> None:
        """Continue from the wall time at which it stopped."""
        self._since = time.monotonic()

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Make the program and APScheduler read this clock until the patch is undone.

        PostgreSQL keeps its own clock, so leases and rate limit pauses are in real seconds.
        """
        clock = self

        class Now(datetime):
            @classmethod
            def now(cls, tz: tzinfo | None = None) -> Self:
                return cls.fromtimestamp(clock.now().timestamp(), tz or UTC)

        patch.setattr(SystemClock, "now", lambda _: clock.now())
        patch.setattr("apscheduler.schedulers.base.datetime", Now)
        patch.setattr("service.runtime.timers.CLOCK_CHECK_INTERVAL", LOOK_EVERY)
        patch.setattr("service.runtime.timers.STEP", float("inf"))
        patch.setattr("service.genesys.server_clock.MAX_AGE", -1.0)  # it counts real seconds
