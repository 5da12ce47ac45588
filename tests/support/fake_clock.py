"""A clock that moves only when a test moves it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta


@dataclass
class FakeClock:
    """A clock that stands still; implements :class:`service.clock.Clock`.

    Attributes:
        at: the wall time, aware, in UTC.
        elapsed: the monotonic time, in seconds.
    """

    at: datetime = field(default_factory=lambda: datetime(2024, 6, 1, 12, tzinfo=UTC))
    elapsed: float = 0.0

    def now(self) -> datetime:
        """Return the wall time."""
        return self.at

    def monotonic(self) -> float:
        """Return the monotonic time, in seconds."""
        return self.elapsed

    def advance(self, by: timedelta) -> None:
        """Move the wall time and the monotonic time forward."""
        self.at += by
        self.elapsed += by.total_seconds()
