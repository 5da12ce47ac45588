"""The clocks: the process's own, which one decides, and how far they differ."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol

TOLERANCE = timedelta(minutes=5)
"""Clocks that differ by more than this are doubted."""


class Clock(Protocol):
    """The process's clock: wall time for what is stored, monotonic time for durations."""

    def now(self) -> datetime:
        """The wall time, aware, in UTC."""

    def monotonic(self) -> float:
        """Seconds since an arbitrary instant; never decreases."""


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """The wall time, aware, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds of the event loop's clock."""
        return time.monotonic()


def trusted_time(api: datetime | None, process: datetime, database: datetime) -> datetime:
    """The time that decides what has settled.

    Args:
        api: the ``Date`` of the API's response; None without a valid one. It decides where there is one.
        process: the process's clock.
        database: the database's clock. Without a ``Date`` the earlier of these two decides, so that a clock that
            is ahead stores no figures of the future.
    """
    return min(process, database) if api is None else api


class ClockMonitor:
    """Compares the process's clock with the database's and the APIs'.

    Args:
        clock: the process's clock.
        emit: receives ``clocks_compared`` after each observation, and ``clock_doubted`` once when clocks begin to
            differ by more than ``TOLERANCE``.
    """

    def __init__(self, clock: Clock, emit: Callable[..., None]) -> None:
        self._clock = clock
        self._emit = emit
        self._observed: dict[str, tuple[datetime, float]] = {}
        self._doubted = False

    def observe(self, name: str, at: datetime | None) -> None:
        """Record the time that another clock shows now; None stops comparing it.

        A time that was recorded within the last second is not recorded again: a ``Date`` has whole seconds.
        """
        now = self._clock.monotonic()
        former, seen_at = self._observed.get(name, (None, now))
        if at is None:
            self._observed.pop(name, None)
        elif at == former and now - seen_at < 1.0:
            return
        else:
            self._observed[name] = at, now
        ahead = {"process": 0.0, **{each: self._ahead(*seen) for each, seen in self._observed.items()}}
        difference = max(ahead.values()) - min(ahead.values())
        doubted = difference > TOLERANCE.total_seconds()
        self._emit("clocks_compared", seconds=difference, doubted=doubted)
        if doubted and not self._doubted:
            self._emit(
                "clock_doubted",
                reason=f"clocks differ by {difference:.0f} s, more than {TOLERANCE.total_seconds():.0f} s",
                ahead_of_process={each: round(seconds) for each, seconds in ahead.items() if each != "process"},
                hint="the API's clock decides what has settled; set the clock of this machine or of the database",
            )
        self._doubted = doubted

    def _ahead(self, at: datetime, seen_at: float) -> float:
        """Seconds by which the clock that showed ``at`` is ahead of the process's now."""
        return (at - self._clock.now()).total_seconds() + self._clock.monotonic() - seen_at
