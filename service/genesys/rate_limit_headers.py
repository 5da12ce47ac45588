"""The API's rate limit as its responses state it.

The API sends ``inin-ratelimit-allowed`` (requests a minute), ``inin-ratelimit-count`` (those used of them) and
``inin-ratelimit-reset`` (seconds until the count starts at 0) with its responses. Public clients rely on them; the
official Python SDK 269.0.0 does not describe them, so a response without them is valid.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from service.genesys.limiter import OrgLimiter
from service.telemetry import Emit, Event

ALLOWED, COUNT, RESET = "inin-ratelimit-allowed", "inin-ratelimit-count", "inin-ratelimit-reset"
ALLOWED_MAX = 60_000
"""Requests a minute; a header above this is ignored."""
RESET_MAX = 3600
"""Seconds; a header above this is ignored."""
_MINUTE = 60.0
_DIGITS_MAX = 9


class RateLimitHeaders:
    """Applies the headers of an org's responses to its limiter.

    ``allowed`` replaces the limit, up to ``ceiling``. ``count`` includes what other clients use: when only the
    requests in flight are left, the org pauses until ``reset``. An invalid header is ignored.

    Args:
        limiter: gives the org's limiter.
        on_pause: called with the seconds of each pause, so that it survives a restart.
        emit: called with ``rate_limit_changed`` and ``rate_limit_exhausted``.
        ceiling: a configured limit, in requests a second, that ``allowed`` does not raise; None: there is none.

    Attributes:
        ceiling: as above; it may be changed at any time.
        is_exhausted: whether the last response showed that the minute's limit is used up.
    """

    def __init__(
        self,
        limiter: Callable[[], OrgLimiter],
        on_pause: Callable[[float], None],
        emit: Emit,
        ceiling: float | None = None,
    ) -> None:
        self.ceiling = ceiling
        self._limiter = limiter
        self._on_pause = on_pause
        self._emit = emit
        self._in_flight = 0
        self.is_exhausted = False

    @contextmanager
    def count_in_flight(self) -> Iterator[None]:
        """Count one request as in flight."""
        self._in_flight += 1
        try:
            yield
        finally:
            self._in_flight -= 1

    def observe(self, headers: Mapping[str, str]) -> None:
        """Apply the headers of one response; call it while its request counts as in flight."""
        allowed = _whole_number(headers.get(ALLOWED), 1, ALLOWED_MAX)
        if allowed is None:
            return
        limiter = self._limiter()
        rate = allowed / _MINUTE if self.ceiling is None else min(allowed / _MINUTE, self.ceiling)
        if limiter.requests_per_second != rate:
            self._emit(
                Event.RATE_LIMIT_CHANGED, requests_per_second=round(rate, 3), before=limiter.requests_per_second
            )
            limiter.requests_per_second = rate
        count, reset = _whole_number(headers.get(COUNT), 0), _whole_number(headers.get(RESET), 0, RESET_MAX)
        self.is_exhausted = count is not None and reset is not None and allowed - count < self._in_flight
        if count is None or reset is None or not self.is_exhausted:
            return
        wait = float(max(reset, 1))
        if wait > limiter.pause_left:
            limiter.pause(wait)
            self._on_pause(wait)
            self._emit(Event.RATE_LIMIT_EXHAUSTED, allowed=allowed, count=count, reset=reset)


def _whole_number(text: str | None, least: int, most: int = 10**_DIGITS_MAX) -> int | None:
    if text is None:
        return None
    text = text.strip()
    if not (text.isascii() and text.isdigit() and len(text) <= _DIGITS_MAX):
        return None
    value = int(text)
    return value if least <= value <= most else None
