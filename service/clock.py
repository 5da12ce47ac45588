"""The one place where the time is read, so that a test can turn it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Wall time for what is stored, monotonic time for what is waited for."""

    def now(self) -> datetime:
        """The wall time, aware, in UTC."""

    def monotonic(self) -> float:
        """Seconds since some instant; never goes back."""


TOLERANCE = timedelta(minutes=5)
"""Clocks that differ by more than this are doubted."""


def trusted_time(api: datetime | None, process: datetime, database: datetime) -> datetime:
    """The time that decides what has settled, of the three clocks that are read.

    Args:
        api: the ``Date`` of the API's response; None where there is no valid one. It decides where there is one.
        process: this process's clock.
        database: the database's clock. Without a ``Date`` the earlier of these two decides: a clock that is ahead
            must not store figures of the future.
    """
    return min(process, database) if api is None else api


class SystemClock:
    """The machine's own clock."""

    def now(self) -> datetime:
        """The wall time, aware, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds of the event loop's clock."""
        return time.monotonic()


@dataclass
class FakeClock:
    """A clock that stands still until it is moved."""

    at: datetime = field(default_factory=lambda: datetime(2024, 6, 1, 12, tzinfo=UTC))
    elapsed: float = 0.0

    def now(self) -> datetime:
        """The wall time that was set."""
        return self.at

    def monotonic(self) -> float:
        """Seconds by which the clock was moved forward."""
        return self.elapsed

    def advance(self, by: timedelta) -> None:
        """Move both hands forward."""
        self.at += by
        self.elapsed += by.total_seconds()


class ClockMonitor:
    """Compares the process's clock with the database's and the APIs'.

    Args:
        clock: the process's.
        emit: called with ``clocks_compared`` after each observation, and with ``clock_doubted`` once when two
            clocks begin to differ by more than ``TOLERANCE``.
    """

    def __init__(self, clock: Clock, emit: Callable[..., None]) -> None:
        self._clock = clock
        self._emit = emit
        self._observed: dict[str, tuple[datetime, float]] = {}
        self._doubted = False

    def observe(self, name: str, at: datetime | None) -> None:
        """Take what another clock shows now; None where it shows nothing, and is no longer compared."""
        if at is None:
            self._observed.pop(name, None)
        else:
            self._observed[name] = at, self._clock.monotonic()
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
        """Seconds by which a clock is ahead of the process's, both as they show now."""
        return (at - self._clock.now()).total_seconds() + self._clock.monotonic() - seen_at
