"""An org's request limit: no second, wherever it begins, sees more requests than allowed."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable

from aiolimiter import AsyncLimiter

from service.errors import RateLimitedError

PAUSE_MAX = 3600.0
"""Seconds: the longest pause after a 429."""

MARGIN, MARGIN_MAX = 0.015, 0.02
"""Seconds by which the limiter's second is longer than a second: at low limits, and from a hundred a second on.

The server counts arrivals, and the network bunches them: of two requests a second apart the first may take 15 ms
longer, and the server still sees no more than the limit. Requests in flight delay each other, so the margin grows
with the limit. ``python -m benchmarks.limit`` measures what is left: 98.1 % of ten a second and no 429, also with
four other processes on two cores. At a hundred a second, 15 ms gave one or two 429s in 2,000 requests in two runs
of three, 20 ms none.
"""
MARGIN_PER_RPS = 50e-6
"""Seconds that each request a second adds to the margin."""
LEARNED_STEP, LEARNED_MAX = 0.05, 0.18
"""Share of the limit that a 429 adds to the margin, and the most that it reaches: with ``MARGIN_MAX`` a fifth."""
LEARNED_HALF_LIFE = 1800.0
"""Seconds in which the learned margin shrinks to half."""
_LEARNED_MIN = 0.001
_SPACING = 0.95
"""Share of an even spacing between two requests; the rest compensates for sleeps that end late."""
BURST = 1 / 40
"""Seconds' worth of requests that may be sent together: sleeps are no finer, so high limits need a few at once."""


class Permit:
    """Permission to send one request; its holder reports when the request was sent."""

    __slots__ = ("_now", "_wake", "sent_at")

    def __init__(self, now: Callable[[], float], wake: Callable[[], None]) -> None:
        self._now = now
        self._wake = wake
        self.sent_at: float | None = None

    @property
    def is_sent(self) -> bool:
        """Whether the request was sent."""
        return self.sent_at is not None and self.sent_at > -math.inf

    def sent(self) -> None:
        """Record that the request is sent now; until then it counts against every second."""
        self._record(self._now())

    def cancel(self) -> None:
        """Give the permit back unused; no effect once the request was sent."""
        self._record(-math.inf)

    def _record(self, at: float) -> None:
        if self.sent_at is None:
            self.sent_at = at
            self._wake()


class OrgLimiter:
    """Paces one org's requests, tokens and retries included, first come first served.

    aiolimiter's leaky bucket spaces the requests; a record of the last requests bounds every second exactly. The
    bucket alone loses the overshoot of each sleep (1 % at 10 a second, 10 % at 100), the record only that of one
    sleep a second. The record holds when a request was written to its connection, not when it was permitted: TLS
    setup takes longer than any margin.

    Where the API answers 429 although the record shows that the limit was kept, ``learn`` adds to the margin, and
    it shrinks slowly. It belongs to this limiter and its limit: a new process or a changed limit begins without.

    A new limiter assumes that the limit was used up ``spent_ago`` seconds ago. Create it inside the loop that uses
    it.

    Args:
        requests_per_second: the limit.
        clock: seconds; the loop's time by default.
        spent_ago: seconds since another process may have used up the limit.

    Attributes:
        max_pause: seconds; ``acquire`` raises instead of waiting for a longer pause. None: it always waits.
    """

    def __init__(
        self,
        requests_per_second: float,
        *,
        clock: Callable[[], float] | None = None,
        spent_ago: float = 0.0,
    ) -> None:
        self.now = clock or asyncio.get_running_loop().time
        self.max_pause: float | None = None
        self._turn = asyncio.Lock()
        self._changed = asyncio.Event()
        self._paused_until = -math.inf
        self._recent: deque[Permit] = deque()
        self._rate = math.nan
        self._learned, self._learned_at = 0.0, -math.inf
        self.requests_per_second = requests_per_second
        if spent_ago < self._period:
            for _ in range(self._count):
                permit = Permit(self.now, self._wake)
                permit.sent_at = self.now() - spent_ago
                self._recent.append(permit)

    @property
    def requests_per_second(self) -> float:
        """The limit; it may be changed at any time."""
        return self._rate

    @requests_per_second.setter
    def requests_per_second(self, rate: float) -> None:
        if rate != self._rate:
            self._learned = 0.0
        self._rate = rate
        self._count = max(1, math.floor(rate))
        self._least_period = max(1.0, 1 / rate) * (1 + min(MARGIN + MARGIN_PER_RPS * rate, MARGIN_MAX))
        burst = max(1.0, self._count * BURST)
        self._pace = AsyncLimiter(burst, burst * max(1.0, 1 / rate) / self._count * _SPACING)

    @property
    def margin(self) -> float:
        """The share of the limit that is not used since the API answered 429; 0 where it never did."""
        if not self._learned:
            return 0.0
        margin = self._learned * 0.5 ** ((self.now() - self._learned_at) / LEARNED_HALF_LIFE)
        return margin if margin >= _LEARNED_MIN else 0.0

    def learn(self, permit: Permit) -> bool:
        """Add to the margin after a 429 for this permit's request; whether it grew.

        Of several requests that were sent before the margin grew, one counts.
        """
        if permit.sent_at is not None and permit.sent_at <= self._learned_at:
            return False
        self._learned, self._learned_at = min(self.margin + LEARNED_STEP, LEARNED_MAX), self.now()
        return True

    @property
    def _period(self) -> float:
        return self._least_period / (1 - self.margin)

    @property
    def pause_left(self) -> float:
        """Seconds until the current pause ends; 0 where there is none."""
        return max(0.0, self._paused_until - self.now())

    def pause(self, seconds: float) -> None:
        """Permit nothing for so many seconds, at most an hour; of several pauses the longest applies."""
        self._paused_until = max(self._paused_until, self.now() + min(max(seconds, 0.0), PAUSE_MAX))
        self._wake()

    async def acquire(self) -> Permit:
        """Wait for a turn.

        Raises:
            RateLimitedError: the pause is longer than ``max_pause``; the error's status is None.
        """
        async with self._turn:
            self._check_pause()
            await self._pace.acquire()
            while (wait := max(self.pause_left, self._until_room())) > 0:
                self._check_pause()
                self._changed.clear()
                try:
                    async with asyncio.timeout(wait if wait < math.inf else None):
                        await self._changed.wait()
                except TimeoutError:
                    continue
            permit = Permit(self.now, self._wake)
            self._recent.append(permit)
            return permit

    def _wake(self) -> None:
        """Have the waiter compute its wait again."""
        self._changed.set()

    def _check_pause(self) -> None:
        left = self.pause_left
        if self.max_pause is not None and left > self.max_pause:
            raise RateLimitedError(
                f"rate-limited for {left:.0f} s, longer than the maximum wait of {self.max_pause:.0f} s",
                retry_after=left,
                status=None,
            )

    def _until_room(self) -> float:
        """Seconds until a request may be sent; infinite while all permits of the period are unsent."""
        recent, now, period = self._recent, self.now(), self._period
        period_start = now - period
        while recent and (at := recent[0].sent_at) is not None and at <= period_start:
            recent.popleft()
        if len(recent) < self._count:
            return 0.0
        # The first permit may belong to a slow connection while later ones have expired or were cancelled.
        recent = self._recent = deque(
            each for each in recent if each.sent_at is None or each.sent_at > period_start
        )
        surplus = len(recent) - self._count
        if surplus < 0:
            return 0.0
        times = sorted(math.inf if each.sent_at is None else each.sent_at for each in recent)
        return times[surplus] + period - now
