"""One job of one org in the daemon: its cycles, one at a time, as they are triggered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta

from service.clock import Clock
from service.config import Job
from service.errors import DatabaseUnavailableError, LeaseLostError
from service.extraction import Cycle, CyclePolicy, CycleRequest, OrgWorker, Scope
from service.plan import windows
from service.runtime.database import DATABASE_RETRY_AFTER
from service.runtime.timers import Timers
from service.telemetry import Emit, Event

ERROR_RETRY = 60.0
"""Seconds until the next try after an unexpected error."""
SLACK = 1.0
"""Seconds added to the time at which a window settles: a response's ``Date`` has whole seconds."""
MAX_WAIT = 86400.0
"""Seconds after which a postponed window is tried again at the latest."""

RETRY = CycleRequest(Scope.OPEN)
DEEP = CycleRequest(Scope.OPEN, deep=True)

Follower = asyncio.Future[int]
"""Waits for the end of what was triggered; its result is the number of windows that are not complete."""


def resolve(followers: list[Follower], unfinished: int) -> None:
    """Give all followers their result, and forget them."""
    for follower in followers:
        if not follower.done():
            follower.set_result(unfinished)
    followers.clear()


class JobLoop:
    """Runs one job's cycles for one org, one at a time, as they are triggered."""

    def __init__(self, org: str, job: Job, timers: Timers, clock: Clock, emit: Emit) -> None:
        self.job = job
        self._name = f"{org}/{job.name}"
        self._org = org
        self._timers = timers
        self._clock = clock
        self._emit = emit
        self._triggered = asyncio.Event()
        self._pending = RETRY
        self._running: Cycle | None = None
        self._running_followers: list[Follower] = []
        self._pending_followers: list[Follower] = []
        self._closed = False

    def close(self) -> None:
        """Start nothing further; ``run`` returns when the running cycle has ended."""
        self._cancel_timers()
        self._closed = True
        self._stop_running()
        self._triggered.set()
        resolve(self._pending_followers, 0)

    def trigger(self, request: CycleRequest, follower: Follower | None = None) -> None:
        """Run a cycle; join the running one if it covers the request, otherwise follow it.

        Args:
            request: what to extract.
            follower: set to the number of unfinished windows when a cycle that covers the request has ended.
        """
        followers = [] if follower is None else [follower]
        if self._running is not None and self._running.join(request):
            self._running_followers += followers
            return
        self._pending_followers += followers
        self._enqueue(request)

    def on_window_due(self) -> None:
        """Extract a window that is newly due: the running cycle stops, and the next one continues its backlog."""
        self._stop_running()
        self._enqueue(CycleRequest())

    async def run(self, worker: OrgWorker) -> None:
        """Run cycles until this loop is closed or the org is lost.

        Raises:
            LeaseLostError: another process holds the org.
        """
        self.on_window_due()
        try:
            while True:
                await self._triggered.wait()
                self._triggered.clear()
                if self._closed:
                    return
                await self._run_pending(worker)
        finally:
            if not self._closed:  # a closed loop's timers may be those of its successor by now
                self._cancel_timers()

    async def _run_pending(self, worker: OrgWorker) -> None:
        request, self._pending = self._pending, RETRY
        cycle = Cycle(CyclePolicy.of(self.job), request, self._clock)
        self._running = cycle
        self._running_followers, self._pending_followers = self._pending_followers, []
        finished = False
        try:
            finished = await self._cycle(worker, cycle)
        finally:
            self._running = None
            if cycle.stop.is_set() or not finished:  # the next cycle continues it, here or under a later lease
                self._pending = self._pending.combined(cycle.request)
                self._pending_followers += self._running_followers
            else:
                resolve(self._running_followers, cycle.result.unfinished)
            if self._closed:
                resolve(self._pending_followers, cycle.result.unfinished)

    async def _cycle(self, worker: OrgWorker, cycle: Cycle) -> bool:
        """Run one cycle; whether it reached all of its windows."""
        job, now, tz = self.job, self._clock.now(), worker.org.tz
        following = windows.next_span(job.window, job.since.resolve(now, tz), now, job.delay, tz)
        due_at = windows.due_at(following, job.delay, job.off_peak)
        self._at("due", due_at + timedelta(seconds=SLACK), self.on_window_due)
        try:
            result = await worker.run_cycle(job, cycle)
        except LeaseLostError:
            raise
        except DatabaseUnavailableError as error:
            self._emit(Event.DATABASE_UNAVAILABLE, org=self._org, job=job.name, reason=str(error))
            self._retry_pending(DATABASE_RETRY_AFTER)
        except Exception:  # noqa: BLE001 - must not end the org's other loops
            self._emit(Event.UNEXPECTED_ERROR, org=self._org, job=job.name, exc_info=True)
            self._retry_pending(ERROR_RETRY)
        else:
            if result.unfinished or result.doubted:
                after = min(job.retry_every, timedelta(seconds=min(result.settles_in, MAX_WAIT) + SLACK))
                self._at("retry", self._next_off_peak(self._clock.now() + after), self._retry)
            if result.deep_at is not None:
                self._at("deep", self._next_off_peak(max(result.deep_at, self._clock.now())), self._deep)
            return not result.requeued
        return False

    def _stop_running(self) -> None:
        if self._running is not None:
            self._running.stop.set()

    def _enqueue(self, request: CycleRequest) -> None:
        self._pending = self._pending.combined(request)
        self._triggered.set()

    def _retry(self) -> None:
        self.trigger(RETRY)

    def _deep(self) -> None:
        self.trigger(DEEP)

    def _retry_pending(self, after: float) -> None:
        """Run the pending request after so many seconds."""
        self._at("retry", self._clock.now() + timedelta(seconds=after), self._triggered.set)

    def _next_off_peak(self, at: datetime) -> datetime:
        return at if self.job.off_peak is None else self.job.off_peak.next_open(at)

    def _at(self, timer: str, at: datetime, callback: Callable[[], None]) -> None:
        if not self._closed:
            self._timers.call_at(f"{self._name}/{timer}", at, callback)

    def _cancel_timers(self) -> None:
        self._timers.cancel(f"{self._name}/due")
        self._timers.cancel(f"{self._name}/retry")
        self._timers.cancel(f"{self._name}/deep")
