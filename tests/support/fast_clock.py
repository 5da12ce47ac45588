"""A clock that runs so many times as fast, for everything in this process that reads the wall time."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Self

import pytest

from service.clock import SystemClock

LOOK_EVERY = 0.05  # seconds between the scheduler's looks at the clock: its timers count real ones


class FastClock:
    """Wall time at ``rate`` simulated seconds a second; what is waited for is as long as ever.

    Args:
        at: the wall time to begin with.
        rate: how many times as fast it runs.
    """

    def __init__(self, at: datetime, rate: float) -> None:
        self.rate = rate
        self._at = at
        self._since: float | None = time.monotonic()

    def now(self) -> datetime:
        """The wall time."""
        if self._since is None:
            return self._at
        return self._at + timedelta(seconds=(time.monotonic() - self._since) * self.rate)

    def monotonic(self) -> float:
        """Real seconds."""
        return time.monotonic()

    def until(self, at: datetime) -> float:
        """Real seconds until a wall time."""
        return max(0.0, (at - self.now()).total_seconds() / self.rate)

    def stop(self, at: datetime) -> None:
        """Stand still at this wall time."""
        self._at, self._since = at, None

    def go(self) -> None:
        """Run on."""
        self._since = time.monotonic()

    def rule(self, patch: pytest.MonkeyPatch) -> None:
        """Have the program, and APScheduler, read this clock until the patch is undone.

        PostgreSQL keeps its own: leases and holds are in real seconds.
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
        patch.setattr("service.genesys.server_clock.MAX_AGE", -1.0)  # its seconds are real ones
