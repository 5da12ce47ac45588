"""What the API says of its limit: ``inin-ratelimit-allowed``, ``-count``, ``-reset`` rule where they come."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from service.genesys.breaker import Emit
from service.genesys.limiter import OrgLimiter

ALLOWED, COUNT, RESET = "inin-ratelimit-allowed", "inin-ratelimit-count", "inin-ratelimit-reset"
ALLOWED_MAX = 60_000
"""Requests a minute past which the header is not believed."""
RESET_MAX = 3600
"""Seconds past which a reset is not believed."""
_MINUTE = 60.0
_DIGITS_MAX = 9


class RateLimitHeaders:
    """Keeps an org's limiter to what the API's answers say.

    ``allowed`` is so many requests a minute, evenly spaced; what somebody else uses of it shows in ``count``: once
    nothing is left but what is in flight, the org is held back until ``reset``. A header that makes no sense is as
    good as none.

    Args:
        limiter: the org's.
        on_hold: told the seconds of each hold, to be kept through a restart.
        emit: told ``rate_limit_changed`` and ``rate_limit_exhausted``.
    """

    def __init__(self, limiter: Callable[[], OrgLimiter], on_hold: Callable[[float], None], emit: Emit) -> None:
        self._limiter = limiter
        self._on_hold = on_hold
        self._emit = emit
        self._in_flight = 0

    @contextmanager
    def one_more(self) -> Iterator[None]:
        """While a request is in flight."""
        self._in_flight += 1
        try:
            yield
        finally:
            self._in_flight -= 1

    def observe(self, headers: Mapping[str, str]) -> None:
        """Take the headers of one answer; called while its request is in flight."""
        allowed = _whole(headers.get(ALLOWED), 1, ALLOWED_MAX)
        if allowed is None:
            return
        limiter = self._limiter()
        rate = allowed / _MINUTE
        if limiter.requests_per_second != rate:
            self._emit(
                "rate_limit_changed", requests_per_second=round(rate, 3), before=limiter.requests_per_second
            )
            limiter.requests_per_second = rate
        count, reset = _whole(headers.get(COUNT), 0), _whole(headers.get(RESET), 0, RESET_MAX)
        if count is None or reset is None or allowed - count >= self._in_flight:
            return
        wait = float(max(reset, 1))
        if wait > limiter.held_for:
            limiter.hold(wait)
            self._on_hold(wait)
            self._emit("rate_limit_exhausted", allowed=allowed, count=count, reset=reset)


def _whole(text: str | None, least: int, most: int = 10**_DIGITS_MAX) -> int | None:
    if text is None:
        return None
    text = text.strip()
    if not (text.isascii() and text.isdigit() and len(text) <= _DIGITS_MAX):
        return None
    value = int(text)
    return value if least <= value <= most else None
