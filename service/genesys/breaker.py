"""An org's circuit breaker: after consecutive failures it rejects requests for a while, then admits one probe."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Literal

from service.clock import Clock
from service.errors import (
    CircuitOpenError,
    ConnectionFailedError,
    ExtractionError,
    QueryTimeoutError,
    RateLimitedError,
    ServerError,
)
from service.telemetry import Emit, Event

OPEN_MAX = timedelta(minutes=10)
_DOUBLINGS_MAX = 20
"""After so many doublings any open time has reached ``OPEN_MAX``."""
_PROBE_RETRY = 1.0
"""Seconds to wait while a probe is in flight."""

BreakerState = Literal["closed", "half-open", "open"]
OnStateChange = Callable[[BreakerState, float | None], None]
"""Called with the new state, and for ``open`` the seconds that it lasts."""


def ignore_state_change(_state: BreakerState, _open_for: float | None) -> None:
    """The callback for a breaker that nobody observes."""


class Breaker:
    """Counts consecutive failures: 5xx, a gateway's 413, timeouts and broken connections, nothing else.

    While open, it rejects every request. When its time is over, it admits one probe, whose result closes it or
    opens it again for twice as long, up to ten minutes. A 4xx is a response and so no failure; a 429 is neither
    failure nor success; a cancelled probe admits the next one.

    Args:
        failures: consecutive failures that open it.
        open_for: how long it stays open the first time.
        clock: measures the open time.
        emit: called with ``circuit_opened``, ``circuit_half_open`` and ``circuit_closed``.
        on_state_change: called after each change of state.
    """

    def __init__(
        self,
        failures: int,
        open_for: timedelta,
        clock: Clock,
        emit: Emit,
        on_state_change: OnStateChange = ignore_state_change,
    ) -> None:
        self._clock = clock
        self._emit = emit
        self._on_state_change = on_state_change
        self.configure(failures, open_for)
        self._state: BreakerState = "closed"
        self._failures_in_a_row = 0
        self._last_reason = ""
        self._times_opened = 0
        self._probe_at = 0.0
        self._probe_in_flight = False
        self._generation = 0

    def configure(self, failures: int, open_for: timedelta) -> None:
        """Change the settings; they apply from the next failure on."""
        self._failures = failures
        self._open_for = open_for

    @property
    def state(self) -> BreakerState:
        """The state; ``open`` lasts until a probe is sent, even after its time is over."""
        return self._state

    @property
    def probe_in(self) -> float:
        """Seconds until a probe may be sent; 0 where requests may pass."""
        return max(0.0, self._probe_at - self._clock.monotonic()) if self._state == "open" else 0.0

    def check(self) -> None:
        """Reject a request before it waits for its turn under the limit.

        Raises:
            CircuitOpenError: nothing may be sent now.
        """
        wait = _PROBE_RETRY if self._probe_in_flight else self.probe_in
        if wait > 0:
            raise CircuitOpenError(
                f"circuit breaker open after {self._failures_in_a_row} consecutive failures, the last:"
                f" {self._last_reason}",
                retry_after=wait,
            )

    @contextmanager
    def guard(self, *, success_counts: bool = True, ignore_gateway: bool = False) -> Iterator[None]:
        """Run one request and count its result.

        Args:
            success_counts: whether a response shows that the API works. A token does not: it comes from another
                server, and one may be renewed between any two queries that fail.
            ignore_gateway: whether a 413, a 504 or a connection that broke while the response was awaited is
                neither failure nor success, because a narrower query may pass.

        Raises:
            CircuitOpenError: nothing may be sent now.
        """
        self.check()
        if self._state == "open":
            self._state = "half-open"
            self._emit(Event.CIRCUIT_HALF_OPEN)
            self._on_state_change("half-open", None)
        self._probe_in_flight = self._state == "half-open"
        generation = self._generation
        try:
            yield
        except ExtractionError as error:
            failed = isinstance(error, (ServerError, ConnectionFailedError, QueryTimeoutError))
            if error.of_gateway and ignore_gateway:
                pass
            elif failed or error.of_gateway:
                self._count_failure(generation, str(error))
            elif success_counts and not isinstance(error, RateLimitedError):
                self._count_success(generation)
            raise
        else:
            if success_counts:
                self._count_success(generation)
        finally:
            if generation == self._generation:
                self._probe_in_flight = False

    @contextmanager
    def exempt(self) -> Iterator[None]:
        """Run one request whose result does not count, and which is no probe.

        Raises:
            CircuitOpenError: the breaker is not closed.
        """
        self.check()
        if self._state != "closed":
            raise CircuitOpenError("circuit breaker open until a probe succeeds", retry_after=_PROBE_RETRY)
        yield

    def _count_failure(self, generation: int, reason: str) -> None:
        if generation != self._generation:
            return  # sent before the last change of state, which its result cannot affect
        self._failures_in_a_row += 1
        self._last_reason = reason
        if self._state == "closed" and self._failures_in_a_row < self._failures:
            return
        seconds = min(self._open_for.total_seconds() * 2**self._times_opened, OPEN_MAX.total_seconds())
        self._times_opened = min(self._times_opened + 1, _DOUBLINGS_MAX)
        self._probe_at = self._clock.monotonic() + seconds
        self._enter("open")
        self._emit(Event.CIRCUIT_OPENED, failures=self._failures_in_a_row, open_for=seconds, reason=reason)
        self._on_state_change("open", seconds)

    def _count_success(self, generation: int) -> None:
        if generation != self._generation:
            return
        self._failures_in_a_row = 0
        if self._state == "half-open":
            self._times_opened = 0
            self._enter("closed")
            self._emit(Event.CIRCUIT_CLOSED)
            self._on_state_change("closed", None)

    def _enter(self, state: BreakerState) -> None:
        self._state = state
        self._generation += 1
        self._probe_in_flight = False
