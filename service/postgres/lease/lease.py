"""The hold on one org, as those who work it see it; ``manager`` takes, renews and gives it back."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from service.clock import Clock
from service.errors import LeaseLostError


@dataclass
class Lease:
    """The hold on one org.

    Attributes:
        org: the org's name.
        epoch: raised at each takeover; a merge under an older one writes nothing.
        hold: seconds for which a 429 still holds the org back, as of the takeover.
        good_until: monotonic time at which it runs out unless renewed.
        idle_for: seconds for which nobody can have sent a request, as of the takeover; infinite if none ever did.
    """

    org: str
    epoch: int
    hold: float
    good_until: float
    clock: Clock
    lost: asyncio.Event
    idle_for: float = 0.0

    def check(self) -> None:
        """Say that the org may be worked now.

        Raises:
            LeaseLostError: it may not.
        """
        if self.lost.is_set() or self.clock.monotonic() >= self.good_until:
            raise LeaseLostError(f"{self.org} is not held any more")
