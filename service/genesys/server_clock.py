"""The API's own clock, as the ``Date`` of its responses shows it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from service.clock import Clock


def server_date(headers: Mapping[str, str]) -> datetime | None:
    """The instant at which the server made its response (RFC 9110, 6.6.1); None where it gives no valid one."""
    try:
        at = parsedate_to_datetime(headers.get("Date", "").strip())
        return at.replace(tzinfo=at.tzinfo or UTC).astimezone(UTC)
    except (ValueError, IndexError, TypeError, OverflowError):
        return None


FRESH = 60.0
"""Seconds for which an estimate holds: a machine that slept meanwhile may not have counted them."""


class ServerClock:
    """Estimates an org's server time from the latest response.

    A ``Date`` has whole seconds, so the estimate is never ahead of the server and at most a second, and the time
    of the transfer, behind.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._date: datetime | None = None
        self._seen_at = 0.0
        self._seen = False

    def observe(self, date: datetime | None) -> None:
        """Take the ``Date`` of a response; None where it has no valid one."""
        self._date, self._seen_at = date, self._clock.monotonic()
        self._seen = True

    @property
    def undated(self) -> bool:
        """Whether there was a response, and the latest had no valid ``Date``."""
        return self._seen and self._date is None

    def now(self) -> datetime | None:
        """The server's time now; None where no response of the last minute gave a valid ``Date``."""
        elapsed = self._clock.monotonic() - self._seen_at
        if self._date is None or elapsed > FRESH:
            return None
        try:
            return self._date + timedelta(seconds=elapsed)
        except OverflowError:
            return None
