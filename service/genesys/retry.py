"""Which failures are retried, when, and how many retries an org may use."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from functools import partial
from http import HTTPStatus
from typing import TypeVar

import stamina
from stamina.instrumentation import set_on_retry_hooks

from service.errors import (
    ConnectionFailedError,
    ExtractionError,
    NotConnectedError,
    ProxyRejectedError,
    RateLimitedError,
    ServerError,
)
from service.telemetry import Emit, Event

T = TypeVar("T")

ATTEMPTS_MAX = 5
"""Sends of one request, the first included, before a 5xx or a broken connection is final."""
RATE_LIMITED_MAX = 20
"""429s that one request waits out; each pauses the whole org for at least a second."""
NARROWABLE_MAX = 2
"""Sends of a query that can be narrowed, before a 413, a 504 or a broken connection makes it narrower."""
_FIRST_DELAY = 0.5
_DELAY_MAX = 30.0

# stamina's own hooks would write log lines and metrics outside the project's events.
set_on_retry_hooks([])


class RetryBudget:
    """Limits an org's retries to a share of its first attempts, so that a failing server is not overloaded.

    Every first attempt adds a quarter of a retry, up to a reserve; a retry removes one.
    """

    SHARE = 0.25
    RESERVE = 5.0

    def __init__(self) -> None:
        self._available = self.RESERVE

    def add_attempt(self) -> None:
        """Count the first attempt of a request."""
        self._available = min(self._available + self.SHARE, self.RESERVE)

    def take(self) -> bool:
        """Take one retry out of the budget; False where none is left."""
        if self._available < 1:
            return False
        self._available -= 1
        return True


class Retries:
    """Sends a request until it succeeds or its failure is final.

    Args:
        emit: called with ``retry_scheduled``.
        may_retry: False while a retry could not be sent.
    """

    def __init__(self, emit: Emit, may_retry: Callable[[], bool]) -> None:
        self._emit = emit
        self._may_retry = may_retry
        self._budget = RetryBudget()

    async def run(
        self, send: Callable[[], Awaitable[T]], *, once: bool = False, narrowable: bool = False, **context: str
    ) -> T:
        """The result of ``send``, after its retries.

        Args:
            send: sends the request once.
            once: do not retry where the server may have processed the request. It did not where it says so with a
                503, or where there was no connection.
            narrowable: whether a narrower query can replace it: a 413, a 504 or a broken connection is retried
                once.
            context: added to the events.

        Raises:
            Exception: what the last ``send`` raised.
        """
        self._budget.add_attempt()
        backoff = _Backoff(self._budget, self._may_retry, partial(self._emit, **context), once, narrowable)
        async for attempt in stamina.retry_context(on=backoff, attempts=None, timeout=None):
            with attempt:
                return await send()
        raise AssertionError("stamina ends with a result or an error")


class _Backoff:
    """Decides after each failure of one request whether it is retried, and in how many seconds."""

    def __init__(
        self,
        budget: RetryBudget,
        may_retry: Callable[[], bool],
        emit: Callable[..., None],
        once: bool,
        narrowable: bool,
    ) -> None:
        self._budget = budget
        self._may_retry = may_retry
        self._emit = emit
        self._once = once
        self._narrowable = narrowable
        self._attempts = 0
        self._rate_limited = 0

    def __call__(self, error: Exception) -> float | bool:
        if isinstance(error, RateLimitedError):
            # The limiter waits until the pause is over. Without a status, the limiter itself rejected the wait.
            self._rate_limited += 1
            return 0.0 if error.status is not None and self._rate_limited < RATE_LIMITED_MAX else False
        narrowable = self._narrowable and isinstance(error, ExtractionError) and error.of_gateway
        if not narrowable and not isinstance(error, (ServerError, ConnectionFailedError)):
            return False
        if isinstance(error, ProxyRejectedError) or (narrowable and self._attempts + 1 >= NARROWABLE_MAX):
            return False
        status = getattr(error, "status", None)
        was_processed = status != HTTPStatus.SERVICE_UNAVAILABLE and not isinstance(error, NotConnectedError)
        if self._once and was_processed:
            return False
        self._attempts += 1
        if self._attempts >= ATTEMPTS_MAX or not self._may_retry() or not (narrowable or self._budget.take()):
            return False
        base = min(_FIRST_DELAY * 2.0 ** (self._attempts - 1), _DELAY_MAX)
        delay = base * random.uniform(0.5, 1.5)  # noqa: S311 - jitter
        self._emit(Event.RETRY_SCHEDULED, delay=round(delay, 3), reason=str(error), attempt=self._attempts + 1)
        return delay
