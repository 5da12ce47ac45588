"""One pass over due windows: its request, its policy, its result."""

from __future__ import annotations

import asyncio
import math
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import IntEnum

from service.clock import Clock
from service.config import Job, OffPeak
from service.errors import HoursOverError
from service.extraction.size_estimate import SizeEstimate
from service.model import Granularity, Measure, Scan, Span
from service.plan.grouping import MetricsDelay


class Scope(IntEnum):
    """Which windows a cycle extracts; a wider scope includes the narrower ones."""

    OPEN = 0
    """Windows that need work: unfinished, doubted, or to be extracted again."""
    AUTOMATIC = 1
    """Decided from the ledger: ``LOOKBACK`` if the newest due window is not complete, else ``OPEN``."""
    LOOKBACK = 2
    """The open windows and those within the lookback."""


class Priority(IntEnum):
    """The order in which scans that wait are admitted."""

    RECENT = 0
    AD_HOC = 1
    BACKLOG = 2


@dataclass(frozen=True)
class CycleRequest:
    """A request for a cycle.

    Attributes:
        scope: which windows to extract.
        ignore_off_peak: whether scans may start outside the job's off-peak hours.
        deep: whether a deep lookback that is due is included; with the lookback it always is.
    """

    scope: Scope = Scope.AUTOMATIC
    ignore_off_peak: bool = False
    deep: bool = False

    def combined(self, other: CycleRequest) -> CycleRequest:
        """The request that covers both."""
        return CycleRequest(
            max(self.scope, other.scope),
            self.ignore_off_peak or other.ignore_off_peak,
            self.deep or other.deep,
        )


EVERYTHING = CycleRequest(Scope.LOOKBACK, ignore_off_peak=True)
"""What ``--once`` and SIGUSR1 request."""


@dataclass(frozen=True)
class CyclePolicy:
    """The rules by which windows are extracted: a job's, or those of ad hoc work.

    Attributes:
        delay: the delay buffer.
        metrics_delay: when the delay is sent to the API.
        expect_for: how long an outcome is expected after it was last seen.
        off_peak: the hours in which a query may start; None means any time.
        coarsest: the coarsest granularity to try after the API rejected a finer one.
        priority: the priority of windows that are not recent.
    """

    delay: timedelta
    metrics_delay: MetricsDelay
    expect_for: timedelta
    off_peak: OffPeak | None
    coarsest: Granularity
    priority: Priority = Priority.BACKLOG

    @classmethod
    def of(cls, job: Job) -> CyclePolicy:
        """The policy of a job; a window never becomes coarser than itself."""
        coarsest = {"hour": Granularity.HOURLY, "month": Granularity.MONTHLY}.get(job.window, Granularity.DAILY)
        return cls(job.delay, job.metrics_delay, job.expect_for, job.off_peak, coarsest)


AD_HOC_POLICY = CyclePolicy(
    delay=timedelta(hours=1),
    metrics_delay="auto",
    expect_for=timedelta(days=31),
    off_peak=None,
    coarsest=Granularity.MONTHLY,
    priority=Priority.AD_HOC,
)


@dataclass
class CycleResult:
    """The outcome of a cycle, in windows.

    Attributes:
        complete: stored and accepted.
        doubted: read, but not accepted before a later cycle confirms them.
        failed: not stored because of an error.
        requeued: not stored because the cycle was stopped, or the org or the database was lost.
        postponed: not stored because they have not settled by the clock that decides.
        settles_in: seconds until the first postponed window settles.
        deep_at: when a pass of the deep lookback is due; None where the next cycle with the lookback includes it.
    """

    complete: int = 0
    doubted: int = 0
    failed: int = 0
    requeued: int = 0
    postponed: int = 0
    settles_in: float = math.inf
    deep_at: datetime | None = None

    @property
    def unfinished(self) -> int:
        """Windows that were due and are not stored."""
        return self.failed + self.requeued + self.postponed


class Cycle:
    """One pass over due windows.

    Args:
        policy: the rules.
        request: what to extract; ``join`` and ``select`` replace it, nothing changes it in place.
        clock: the process's clock.

    Attributes:
        id: identifies the cycle in events and in the ledger.
        policy: the rules.
        request: the request as joined and selected so far.
        result: the counts so far.
        stop: set to start no further scan.
    """

    def __init__(self, policy: CyclePolicy, request: CycleRequest, clock: Clock) -> None:
        self.id = uuid.uuid4().hex
        self.policy = policy
        self.request = request
        self.result = CycleResult()
        self.stop = asyncio.Event()
        self._clock = clock
        self._recent: frozenset[Span] = frozenset()
        self._estimates: dict[tuple[Granularity, Measure], SizeEstimate] = {}

    def estimate(self, granularity: Granularity, measure: Measure) -> SizeEstimate:
        """What this cycle's pages have shown of the entries per bucket."""
        return self._estimates.setdefault((granularity, measure), SizeEstimate())

    def join(self, request: CycleRequest) -> bool:
        """Apply a later request to this cycle; whether this cycle covers it."""
        self.request = replace(
            self.request, ignore_off_peak=self.request.ignore_off_peak or request.ignore_off_peak
        )
        if request.deep and not (self.request.deep or self.request.scope is Scope.LOOKBACK):
            return False
        return self.request.scope is Scope.LOOKBACK or request.scope is not Scope.LOOKBACK

    def select(self, scope: Scope, recent: Iterable[Span]) -> None:
        """Record the scope that was decided, and the windows to extract first."""
        self.request = replace(self.request, scope=scope)
        self._recent = frozenset(recent)

    def priority_of(self, scan: Scan) -> Priority:
        """The priority of a scan: ``RECENT`` if any of its windows is."""
        recent = any(window.span in self._recent for window in scan.windows)
        return Priority.RECENT if recent else self.policy.priority

    def may_start_scan(self) -> bool:
        """Whether a scan may start now."""
        return not self.stop.is_set() and self._off_peak()

    def check_query_allowed(self) -> None:
        """Check that a query of a running scan may start now.

        Raises:
            HoursOverError: the off-peak hours are over.
        """
        if not self._off_peak():
            raise HoursOverError("the off-peak hours are over")

    def _off_peak(self) -> bool:
        hours = self.policy.off_peak
        return self.request.ignore_off_peak or hours is None or hours.contains(self._clock.now())
