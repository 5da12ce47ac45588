"""The one place where the time is read, so that a test can turn it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Wall time for what is stored, monotonic time for what is waited for."""

    def now(self) -> datetime:
        """The wall time, aware, in UTC."""

    def monotonic(self) -> float:
        """Seconds since some instant; never goes back."""


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
