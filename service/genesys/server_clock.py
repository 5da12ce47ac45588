"""The API's clock, as the ``Date`` header of its responses shows it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from service.clock import Clock

MAX_AGE = 60.0
"""Seconds for which an estimate is valid: the monotonic clock of a machine that slept may not have advanced."""


def server_date(headers: Mapping[str, str]) -> datetime | None:
    """The ``Date`` of a response (RFC 9110, 6.6.1), in UTC; None where it is absent or invalid."""
    try:
        at = parsedate_to_datetime(headers.get("Date", "").strip())
        return at.replace(tzinfo=at.tzinfo or UTC).astimezone(UTC)
    except (ValueError, IndexError, TypeError, OverflowError):
        return None


class ServerClock:
    """Estimates an org's server time from the latest response.

    A ``Date`` has whole seconds, so the estimate is never ahead of the server, and behind it by at most a second
    and the time of the transfer.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._date: datetime | None = None
        self._observed_at: float | None = None

    def observe(self, date: datetime | None) -> None:
        """Record the ``Date`` of a response; None where it is absent or invalid."""
        self._date, self._observed_at = date, self._clock.monotonic()

    @property
    def undated(self) -> bool:
        """Whether the latest response had no valid ``Date``; False before the first response."""
        return self._observed_at is not None and self._date is None

    def now(self) -> datetime | None:
        """The server's time now; None without a valid ``Date`` in the last ``MAX_AGE`` seconds."""
        if self._date is None or self._observed_at is None:
            return None
        elapsed = self._clock.monotonic() - self._observed_at
        if elapsed > MAX_AGE:
            return None
        try:
            return self._date + timedelta(seconds=elapsed)
        except OverflowError:
            return None
