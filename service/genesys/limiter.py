"""An org's request limit: so many in no second, wherever that second begins."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable

from aiolimiter import AsyncLimiter

from service.errors import RateLimitedError

HOLD_MAX = 3600.0
"""Seconds: the longest that a 429 holds an org back."""

MARGIN, MARGIN_MAX = 0.015, 0.02
"""How much longer than a second the limiter's own second is: at ten a second, and from a hundred on.

The server counts arrivals, and the way there bunches them: of two requests a second apart the first may take
15 ms longer and the server still sees no more than the limit. Where many are under way they wait for one another,
so the margin grows with the limit. ``python -m benchmarks.limit`` tells what is left: 98.1 % of ten a second and
no 429, nor any with four other processes on two cores; at a hundred a second and 15 ms there were one or two of
2,000 in two runs of three, with 20 ms none.
"""
MARGIN_PER_RPS = 50e-6
"""What each request a second adds to the margin."""
_SPACING = 0.95
"""Requests are spaced by this part of an even spacing; the rest is made up for what sleeps overshoot."""
BURST = 1 / 40
"""Seconds' worth of requests that may go together: sleeps are no finer, so high limits need a few at once."""


class Permit:
    """Leave to send one request. Whoever holds it says when it was sent."""

    __slots__ = ("_limiter", "sent_at")

    def __init__(self, limiter: OrgLimiter) -> None:
        self._limiter = limiter
        self.sent_at: float | None = None

    def sent(self) -> None:
        """The request is on its way now; until this is said it may still be, and counts."""
        if self.sent_at is None:
            self.sent_at = self._limiter.now()
            self._limiter.moved()

    def cancel(self) -> None:
        """Nothing was sent, and nothing will be."""
        if self.sent_at is None:
            self.sent_at = -math.inf
            self._limiter.moved()


class OrgLimiter:
    """Paces one org's requests, tokens and retries included, first come first served.

    aiolimiter's leaky bucket spaces the requests; a record of the last ones sent bounds every second exactly.
    The bucket alone loses the overshoot of each sleep (1 % at 10 a second, 10 % at 100), the record only that of
    one sleep a second. It records when a request was written to its connection, not when leave was given: setting
    up TLS takes longer than any margin.

    A new limiter begins as if the limit had just been spent, or so many seconds ago. Make it inside the loop that
    will use it.

    Attributes:
        max_hold: seconds; where a 429 holds the org longer, ``acquire`` raises instead of waiting. None: waits.
    """

    def __init__(
        self,
        requests_per_second: float,
        *,
        clock: Callable[[], float] | None = None,
        spent_ago: float = 0.0,
    ) -> None:
        self.now = clock or asyncio.get_running_loop().time
        self.max_hold: float | None = None
        self._turn = asyncio.Lock()
        self._moved = asyncio.Event()
        self._held_until = -math.inf
        self._recent: deque[Permit] = deque()
        self.requests_per_second = requests_per_second
        if spent_ago < self._period:
            for _ in range(self._count):
                permit = Permit(self)
                permit.sent_at = self.now() - spent_ago
                self._recent.append(permit)

    @property
    def requests_per_second(self) -> float:
        """The limit; it may be changed at any time."""
        return self._rate

    @requests_per_second.setter
    def requests_per_second(self, rate: float) -> None:
        self._rate = rate
        self._count = max(1, math.floor(rate))
        self._period = max(1.0, 1 / rate) * (1 + min(MARGIN + MARGIN_PER_RPS * rate, MARGIN_MAX))
        bunch = max(1.0, self._count * BURST)
        self._pace = AsyncLimiter(bunch, bunch * max(1.0, 1 / rate) / self._count * _SPACING)

    @property
    def held_for(self) -> float:
        """Seconds for which a 429 still holds the org back; 0 where none does."""
        return max(0.0, self._held_until - self.now())

    def hold(self, seconds: float) -> None:
        """Let nobody pass for so many seconds, an hour at most; of several holds the longest wins."""
        self._held_until = max(self._held_until, self.now() + min(max(seconds, 0.0), HOLD_MAX))
        self.moved()

    def moved(self) -> None:
        """Something that a waiter waits for has changed."""
        self._moved.set()

    async def acquire(self) -> Permit:
        """Wait for a turn.

        Raises:
            RateLimitedError: the org is held back for longer than ``max_hold``; its status is None.
        """
        async with self._turn:
            self._refuse_long_hold()
            await self._pace.acquire()
            while (wait := max(self.held_for, self._until_room())) > 0:
                self._refuse_long_hold()
                self._moved.clear()
                try:
                    async with asyncio.timeout(wait if wait < math.inf else None):
                        await self._moved.wait()
                except TimeoutError:
                    continue
            permit = Permit(self)
            self._recent.append(permit)
            return permit

    def _refuse_long_hold(self) -> None:
        held = self.held_for
        if self.max_hold is not None and held > self.max_hold:
            raise RateLimitedError(
                f"the API holds the org back for {held:.0f} s; at most {self.max_hold:.0f} s are waited out",
                retry_after=held,
                status=None,
            )

    def _until_room(self) -> float:
        """Seconds until a request may go; infinite while all of the limit is about to be sent."""
        recent, now = self._recent, self.now()
        begun = now - self._period
        while recent and (at := recent[0].sent_at) is not None and at <= begun:
            recent.popleft()
        if len(recent) < self._count:
            return 0.0
        # Out of order: a request that connects slowly stands first, or one was never sent.
        recent = self._recent = deque(each for each in recent if each.sent_at is None or each.sent_at > begun)
        surplus = len(recent) - self._count
        if surplus < 0:
            return 0.0
        times = sorted(math.inf if each.sent_at is None else each.sent_at for each in recent)
        return times[surplus] + self._period - now
