"""Instants as the simulator counts them: whole milliseconds since 1970, UTC."""

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
    """The present: wall time in milliseconds since 1970, and seconds to count requests by and to expire by.

    ``pace`` is real time even where a test has stopped the clock.
    """

    at: int
    pace: float
    monotonic: float


def milliseconds(at: datetime) -> int:
    """An aware datetime as milliseconds since 1970; what is finer is cut off."""
    return (at - _EPOCH) // _MILLISECOND


def moment(at: int) -> datetime:
    """Milliseconds since 1970 as an aware datetime in UTC."""
    return _EPOCH + timedelta(milliseconds=at)


def spelled(at: int) -> str:
    """ISO 8601 with milliseconds and Z, as the API answers it."""
    return moment(at).strftime("%Y-%m-%dT%H:%M:%S.") + f"{at % 1000:03d}Z"


def parse_instant(text: str) -> int:
    """Milliseconds since 1970 of an ISO 8601 instant in UTC; ValueError where it is anything else."""
    if not _INSTANT.fullmatch(text):
        raise ValueError(f"not an instant in UTC: {text!r}")
    return milliseconds(datetime.fromisoformat(text))


def parse_period(text: str) -> int:
    """Milliseconds of an ISO 8601 period of weeks, days, hours, minutes, seconds; ValueError for anything else."""
    found = _PERIOD.fullmatch(text)
    if not found:
        raise ValueError(f"not a period: {text!r}")
    weeks, days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return (weeks * 7 + days) * DAY + hours * HOUR + minutes * MINUTE + seconds * SECOND
