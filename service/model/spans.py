"""Granularities, and spans of time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import NamedTuple


class Granularity(StrEnum):
    """The length of a bucket, finest first."""

    HOURLY = "hourly"
    DAILY = "daily"
    MONTHLY = "monthly"

    @property
    def bucket_length(self) -> timedelta:
        """The nominal length of a bucket; a month counts as 30 days."""
        return _BUCKET_LENGTHS[self]


_BUCKET_LENGTHS = {
    Granularity.HOURLY: timedelta(hours=1),
    Granularity.DAILY: timedelta(days=1),
    Granularity.MONTHLY: timedelta(days=30),
}


class Span(NamedTuple):
    """A half-open interval [start, end); both ends are aware and in UTC."""

    start: datetime
    end: datetime

    @property
    def duration(self) -> timedelta:
        """Elapsed time, not wall-clock time."""
        return self.end - self.start

    def covers(self, other: Span) -> bool:
        """Whether the other span lies within this one."""
        return self.start <= other.start and other.end <= self.end

    def overlaps(self, other: Span) -> bool:
        """Whether the two spans share an instant."""
        return self.start < other.end and other.start < self.end

    def __str__(self) -> str:
        return f"{instant(self.start)}/{instant(self.end)}"


def instant(at: datetime) -> str:
    """ISO 8601 in UTC with milliseconds and ``Z``, the form that both APIs use."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
