"""An org's circuit breaker: after failures in a row it asks nothing for a while, then tries with one request."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Literal

from service.clock import Clock
from service.errors import CircuitOpenError, ExtractionError, QueryTimeoutError, RateLimitedError, ServerError

OPEN_MAX = timedelta(minutes=10)
_DOUBLINGS = 20
"""Past these every open time has reached its most."""
_PROBE_PATIENCE = 1.0
"""Seconds after which it is worth asking again while a probe is out."""

Emit = Callable[..., None]
"""``emit(event, **context)``: how everything worth telling is told. Secrets are never passed to it."""
State = Literal["closed", "half-open", "open"]


class Breaker:
    """Counts failures in a row: 5xx, timeouts and broken connections, nothing else.

    Open, it refuses at once; its time over, it lets one probe through, and what that one meets closes it or
    opens it again for twice as long, ten minutes at most. A refusal by the server (4xx) is an answer, so no
    failure; a 429 is neither; a cancelled probe makes room for the next.
    """

    def __init__(self, failures: int, open_for: timedelta, clock: Clock, emit: Emit) -> None:
        self._clock = clock
        self._emit = emit
        self.configure(failures, open_for)
        self._state: State = "closed"
        self._in_a_row = 0
        self._last_reason = ""
        self._times_opened = 0
        self._opens_at = 0.0
        self._probing = False
        self._generation = 0

    def configure(self, failures: int, open_for: timedelta) -> None:
        """Take other settings from the next failure on."""
        self._failures = failures
        self._open_for = open_for

    @property
    def state(self) -> State:
        """``open`` lasts until a probe is sent, even where its time is over."""
        return self._state

    @property
    def opens_in(self) -> float:
        """Seconds until a probe may be sent; 0 where requests may pass."""
        return max(0.0, self._opens_at - self._clock.monotonic()) if self._state == "open" else 0.0

    def check(self) -> None:
        """Refuse now what could not be sent anyway, before it waits for its turn.

        Raises:
            CircuitOpenError: nothing is sent now.
        """
        wait = _PROBE_PATIENCE if self._probing else self.opens_in
        if wait > 0:
            raise CircuitOpenError(
                f"the breaker is open after {self._in_a_row} failures in a row, the last: {self._last_reason}",
                retry_after=wait,
            )

    @contextmanager
    def guard(self, *, vouches: bool = True) -> Iterator[None]:
        """Around one send: learns from how it ends.

        Args:
            vouches: whether an answer to it shows that the API is well. A token's does not: it comes from another
                server, and between any two queries that fail there may be one.

        Raises:
            CircuitOpenError: nothing is sent now.
        """
        self.check()
        if self._state == "open":
            self._state = "half-open"
            self._emit("circuit_half_open")
        self._probing = self._state == "half-open"
        generation = self._generation
        try:
            yield
        except (ServerError, QueryTimeoutError) as error:
            self._failed(generation, str(error))
            raise
        except ExtractionError as error:
            if vouches and not isinstance(error, RateLimitedError):
                self._succeeded(generation)
            raise
        else:
            if vouches:
                self._succeeded(generation)
        finally:
            if generation == self._generation:
                self._probing = False

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Around a send that the breaker does not learn from, and that is no probe either.

        Raises:
            CircuitOpenError: the breaker is not closed.
        """
        self.check()
        if self._state != "closed":
            raise CircuitOpenError("the breaker is open, and waits for a probe", retry_after=_PROBE_PATIENCE)
        yield

    def _failed(self, generation: int, reason: str) -> None:
        if generation != self._generation:
            return  # sent before the breaker last moved: it has been judged already
        self._in_a_row += 1
        self._last_reason = reason
        if self._state == "closed" and self._in_a_row < self._failures:
            return
        seconds = min(self._open_for.total_seconds() * 2**self._times_opened, OPEN_MAX.total_seconds())
        self._times_opened = min(self._times_opened + 1, _DOUBLINGS)
        self._opens_at = self._clock.monotonic() + seconds
        self._move("open")
        self._emit("circuit_opened", failures=self._in_a_row, open_for=seconds, reason=reason)

    def _succeeded(self, generation: int) -> None:
        if generation != self._generation:
            return
        self._in_a_row = 0
        if self._state == "half-open":
            self._times_opened = 0
            self._move("closed")
            self._emit("circuit_closed")

    def _move(self, state: State) -> None:
        self._state = state
        self._generation += 1
        self._probing = False
