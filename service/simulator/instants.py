"""Instants: whole milliseconds since 1970, UTC."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

SECOND = 1000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d{1,3})?)?Z", re.ASCII)
_PERIOD = re.compile(
    r"P(?!$)(?:(\d{1,6})W)?(?:(\d{1,6})D)?(?:T(?!$)(?:(\d{1,6})H)?(?:(\d{1,6})M)?(?:(\d{1,6})S)?)?",
    re.ASCII,
)


class Now(NamedTuple):
    """The current time of the simulator's clocks.

    Attributes:
        at: wall time, in milliseconds since 1970.
        pace: seconds of the clock that counts requests; real time even if a test has stopped the wall clock.
        monotonic: seconds of the clock by which tokens, cursors and jobs expire.
    """

    at: int
    pace: float
    monotonic: float


def to_milliseconds(at: datetime) -> int:
    """Convert an aware datetime to milliseconds since 1970, rounded down."""
    return (at - _EPOCH) // _MILLISECOND


def to_datetime(at: int) -> datetime:
    """Convert milliseconds since 1970 to an aware datetime in UTC."""
    return _EPOCH + timedelta(milliseconds=at)


def format_instant(at: int) -> str:
    """Format as ISO 8601 with milliseconds and Z, as the API does."""
    return to_datetime(at).strftime("%Y-%m-%dT%H:%M:%S.") + f"{at % 1000:03d}Z"


def parse_instant(text: str) -> int:
    """Parse an ISO 8601 instant in UTC to milliseconds since 1970; raises ValueError for anything else."""
    if not _INSTANT.fullmatch(text):
        raise ValueError(f"not an instant in UTC: {text!r}")
    return to_milliseconds(datetime.fromisoformat(text))


def parse_period(text: str) -> int:
    """Parse an ISO 8601 period of weeks to seconds to milliseconds; raises ValueError for anything else."""
    match = _PERIOD.fullmatch(text)
    if not match:
        raise ValueError(f"not a period: {text!r}")
    weeks, days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return (weeks * 7 + days) * DAY + hours * HOUR + minutes * MINUTE + seconds * SECOND
