"""On what terms a cycle's windows are asked for, and what came of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from service.model import Granularity
from service.plan.grouping import MetricsDelay


@dataclass(frozen=True)
class CyclePolicy:
    """On what terms windows are asked for: a job's, or those of ad hoc work.

    Attributes:
        delay: the delay buffer.
        metrics_delay: its mode.
        expect_for: how long an outcome once seen is expected.
        may_begin: whether a scan may begin at this moment.
        in_hours: whether a query may, of a scan that has begun: the off-peak hours.
        coarsest: the coarsest granularity that a refusal may lead to.
    """

    delay: timedelta
    metrics_delay: MetricsDelay
    expect_for: timedelta
    may_begin: Callable[[datetime], bool]
    in_hours: Callable[[datetime], bool]
    coarsest: Granularity


@dataclass
class CycleResult:
    """What a cycle came to, in windows."""

    complete: int = 0
    doubted: int = 0
    failed: int = 0
    put_back: int = 0
    postponed: int = 0
    settles_in: float = math.inf
    """Seconds until the first of the postponed windows has settled."""

    @property
    def unfinished(self) -> int:
        """Windows that were due and are not stored."""
        return self.failed + self.put_back + self.postponed
