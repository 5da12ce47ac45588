"""Which failures are worth another try, when, and how many of them the org may have."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import TypeVar

import stamina
from stamina.instrumentation import set_on_retry_hooks

from service.errors import RateLimitedError, ServerError
from service.genesys.breaker import Emit

T = TypeVar("T")

TRIES = 5
"""Sends of one request, the first included, before a 5xx or a broken connection is final."""
REFUSALS = 20
"""429s that one request waits out; each holds the whole org back for at least a second."""
_FIRST_DELAY = 0.5
_DELAY_MAX = 30.0

# stamina's own observers would log past the project's events and count under names that are not its own.
set_on_retry_hooks([])


class RetryBudget:
    """Keeps an org's retries below a share of its first attempts, so that a broken server is not buried.

    Every first attempt puts a quarter of a retry aside, up to a reserve; a retry takes one out.
    """

    SHARE = 0.25
    RESERVE = 5.0

    def __init__(self) -> None:
        self._saved = self.RESERVE

    def first_attempt(self) -> None:
        """A new request is sent."""
        self._saved = min(self._saved + self.SHARE, self.RESERVE)

    def take(self) -> bool:
        """Whether one more retry may be made; counts it."""
        if self._saved < 1:
            return False
        self._saved -= 1
        return True


class Retries:
    """Sends a request until it is answered or a failure is final.

    Args:
        emit: told ``retry_scheduled``.
        may_retry: false while a retry could not be sent anyway.
    """

    def __init__(self, emit: Emit, may_retry: Callable[[], bool]) -> None:
        self._emit = emit
        self._may_retry = may_retry
        self._budget = RetryBudget()

    async def run(self, send: Callable[[], Awaitable[T]], *, once: bool = False, **context: object) -> T:
        """What ``send`` gives in the end; ``context`` goes along with the events.

        With ``once`` nothing is sent again that may have been taken: of the failures only a 503 says that it was
        not, since the service itself answers it at the door.

        Raises:
            Exception: what ``send`` raised last.
        """
        self._budget.first_attempt()
        tries = refusals = 0

        def backoff(error: Exception) -> float | bool:
            nonlocal tries, refusals
            if isinstance(error, RateLimitedError):
                # The limiter waits the hold out. Without a status it was the limiter that would not wait so long.
                refusals += 1
                return 0.0 if error.status is not None and refusals < REFUSALS else False
            if not isinstance(error, ServerError) or (once and error.status != HTTPStatus.SERVICE_UNAVAILABLE):
                return False
            tries += 1
            if tries >= TRIES or not self._may_retry() or not self._budget.take():
                return False
            delay = min(_FIRST_DELAY * 2.0 ** (tries - 1), _DELAY_MAX) * random.uniform(0.5, 1.5)  # noqa: S311
            self._emit("retry_scheduled", delay=round(delay, 3), reason=str(error), attempt=tries + 1, **context)
            return delay

        async for attempt in stamina.retry_context(on=backoff, attempts=None, timeout=None):
            with attempt:
                return await send()
        raise AssertionError("stamina ends by a value or an error")
