"""The lease on one org, as its worker sees it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from service.clock import Clock
from service.errors import LeaseLostError


@dataclass
class Lease:
    """The lease on one org.

    Attributes:
        org: the org's name.
        epoch: raised at each takeover; a merge under an earlier epoch writes nothing.
        paused_for: seconds for which a 429 still pauses the org, as of the acquisition.
        good_until: monotonic time at which the lease expires unless it is renewed.
        clock: the clock of ``good_until``.
        lost: set when the lease ends, also by a release.
        idle_for: seconds since any process can last have sent a request, as of the acquisition; infinite where
            none ever held the org.
    """

    org: str
    epoch: int
    paused_for: float
    good_until: float
    clock: Clock
    lost: asyncio.Event
    idle_for: float = 0.0

    def check(self) -> None:
        """Check that the lease is still good; called immediately before each request.

        Raises:
            LeaseLostError: it was lost, released, or has expired.
        """
        if self.lost.is_set() or self.clock.monotonic() >= self.good_until:
            raise LeaseLostError(f"this process no longer holds {self.org}")
