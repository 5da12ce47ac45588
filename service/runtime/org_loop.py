"""One org in the daemon: taken when it is free, worked while it is held, left when it is lost."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from datetime import datetime, timedelta

from service.clock import Clock
from service.config import AdHoc, Config, Job, Org
from service.errors import DatabaseUnavailableError, LeaseLostError
from service.extraction import CycleRequest, OrgWorker
from service.plan import windows
from service.postgres.lease import Lease
from service.runtime.process import Runtime
from service.runtime.timers import Scheduler
from service.telemetry import Emit

AWAY_RETRY = 2.0  # seconds after which a cycle is tried again that the database's absence ended
BROKEN_RETRY = 60.0  # and one that ended with an error nobody thought of
SLACK = 1.0  # seconds after which a window is taken that falls due: a Date has whole ones
MAX_WAIT = 86400.0
AD_HOC_RETRY = timedelta(minutes=15)


class JobLoop:
    """Runs one job's cycles for one org, one at a time, whenever it is rung."""

    def __init__(self, org: str, job: Job, scheduler: Scheduler, clock: Clock, emit: Emit) -> None:
        self.job = job
        self._name = f"{org}/{job.name}"
        self._org = org
        self._scheduler = scheduler
        self._clock = clock
        self._emit = emit
        self._rung = asyncio.Event()
        self._wish = CycleRequest(whole=False)
        self._running: CycleRequest | None = None
        self._closed = False

    def close(self) -> None:
        """Begin nothing new; ``run`` ends when what is in flight has ended."""
        self._forget()
        self._closed = True
        if self._running is not None:
            self._running.stop = True
        self._rung.set()

    def trigger(self, *, whole: bool | None = None, ignore_off_peak: bool = False) -> None:
        """Ask for a cycle; one that runs already is joined where it takes along all that is wished for."""
        running = self._running
        if running is not None:
            running.ignore_off_peak = running.ignore_off_peak or ignore_off_peak
            if running.whole or not whole:
                return
        self._remember(CycleRequest(whole, ignore_off_peak))
        self._rung.set()

    def on_window_due(self) -> None:
        """A window has fallen due: it does not wait until a backlog is done, which the next cycle goes on with."""
        if self._running is not None:
            self._running.stop = True
        self._remember(CycleRequest())
        self._rung.set()

    async def run(self, worker: OrgWorker) -> None:
        """Run cycles until this is closed or the org is lost."""
        self.on_window_due()
        try:
            while True:
                await self._rung.wait()
                self._rung.clear()
                if self._closed:
                    return
                wish, self._wish = self._wish, CycleRequest(whole=False)
                self._running = wish
                done = False
                try:
                    done = await self._cycle(worker, wish)
                finally:
                    self._running = None
                    if wish.stop or not done:  # the next cycle goes on with it, or the org's next holder here
                        self._remember(wish)
        finally:
            if not self._closed:  # else its name may be another loop's by now
                self._forget()

    async def _cycle(self, worker: OrgWorker, wish: CycleRequest) -> bool:
        """Run one; whether it came to its end."""
        job, now, tz = self.job, self._clock.now(), worker.org.tz
        following = windows.next_owed(job.window, job.since.resolve(now, tz), now, job.delay, tz)
        due_at = windows.due_at(following, job.delay, job.off_peak)
        self._at("due", due_at + timedelta(seconds=SLACK), self.on_window_due)
        try:
            tally = await worker.cycle(job, wish)
        except LeaseLostError:
            raise
        except DatabaseUnavailableError as error:
            self._emit("database_unavailable", org=self._org, job=job.name, reason=str(error))
            self._again(AWAY_RETRY)
        except Exception:  # noqa: BLE001 - a cycle nobody thought of must not end the others
            self._emit("unexpected_error", org=self._org, job=job.name, exc_info=True)
            self._again(BROKEN_RETRY)
        else:
            if tally.unfinished or tally.doubted:
                after = min(job.retry_every, timedelta(seconds=min(tally.settles_in, MAX_WAIT) + SLACK))
                self._at("retry", self._open(self._clock.now() + after), lambda: self.trigger(whole=False))
            return not tally.put_back
        return False

    def _again(self, after: float) -> None:
        self._at("retry", self._clock.now() + timedelta(seconds=after), self._rung.set)

    def _remember(self, wish: CycleRequest) -> None:
        """Wish for as much in the next cycle."""
        self._wish = CycleRequest(
            _more(self._wish.whole, wish.whole), self._wish.ignore_off_peak or wish.ignore_off_peak
        )

    def _open(self, at: datetime) -> datetime:
        return at if self.job.off_peak is None else self.job.off_peak.next_open(at)

    def _at(self, what: str, at: datetime, ring: Callable[[], None]) -> None:
        if not self._closed:
            self._scheduler.ring_at(f"{self._name}/{what}", at, ring)

    def _forget(self) -> None:
        self._scheduler.forget(f"{self._name}/due")
        self._scheduler.forget(f"{self._name}/retry")


def _more(one: bool | None, other: bool | None) -> bool | None:
    """The larger of two wishes: the lookback too, the cycle's own choice, only what is open."""
    return True if one or other else None if one is None or other is None else False


class OrgLoop:
    """One org's share of the daemon."""

    def __init__(self, config: Config, org: Org, runtime: Runtime, scheduler: Scheduler, emit: Emit) -> None:
        self.org = org
        self._runtime = runtime
        self._scheduler = scheduler
        self._emit = emit
        self._jobs: dict[str, JobLoop] = {}
        self._entries: dict[str, AdHoc] = {}
        self._entries_again = False
        self._ad_hoc = asyncio.Event()
        self._closing = asyncio.Event()
        self.worker: OrgWorker | None = None
        self._group: asyncio.TaskGroup | None = None
        self.configure(config, org)

    def configure(self, config: Config, org: Org) -> None:
        """Take over what has changed; what is in flight goes on as it began."""
        before, self.org = self.org, org
        owes_otherwise = (before.timezone, before.flows) != (org.timezone, org.flows)
        if self.worker is not None:
            self.worker.configure(org)
        wanted = {name: job for name, job in config.jobs.items() if org in config.orgs_of(name)}
        for name in self._jobs.keys() - wanted.keys():
            self._jobs.pop(name).close()
        for name, job in wanted.items():
            if name not in self._jobs:
                self._jobs[name] = JobLoop(org.name, job, self._scheduler, self._runtime.clock, self._emit)
                self._start(self._jobs[name])
            elif self._jobs[name].job != job or owes_otherwise:
                self._jobs[name].job = job
                self._jobs[name].on_window_due()
        self._entries = {name: entry for name, entry in config.ad_hoc.items() if entry.org == org.name}
        self._ad_hoc.set()

    def run_now(self) -> None:
        """Run every due window now, and every ad hoc entry, under the names of now."""
        for loop in self._jobs.values():
            loop.trigger(whole=True, ignore_off_peak=True)
        self._entries_again = True
        self._ad_hoc.set()

    def clock_stepped(self) -> None:
        """The wall clock was set: compute again what is due, and when."""
        for loop in self._jobs.values():
            loop.on_window_due()

    def asked(self) -> None:
        """Somebody asked for an ad hoc span."""
        self._ad_hoc.set()

    def close(self) -> None:
        """Begin nothing new; ``run`` ends when what is in flight has ended."""
        self._closing.set()
        if self.worker is not None:
            self.worker.scanner.gate.close()
        for loop in self._jobs.values():
            loop.close()
        self._ad_hoc.set()

    async def run(self) -> None:
        """Work the org whenever it can be had, until it is closed."""
        try:
            while not self._closing.is_set():
                lease = await self._next_lease()
                if lease is None:
                    return
                try:
                    await self._hold(lease)
                except Exception as error:  # noqa: BLE001 - what nobody thought of must not end the daemon
                    await self._back_off(self._told(error))
        finally:
            self._runtime.keeper.release(self.org.name)

    async def _back_off(self, after: float) -> None:
        """Give the org back where it is still held, since a hold is handed out once; pause unless closed."""
        self._runtime.keeper.release(self.org.name)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(after):
                await self._closing.wait()

    def _told(self, error: Exception) -> float:
        """Tell why the org is left for a while; the seconds until it is tried again."""
        group = error if isinstance(error, ExceptionGroup) else ExceptionGroup("", [error])
        known, others = group.split((LeaseLostError, DatabaseUnavailableError))
        if others is not None:
            self._emit("unexpected_error", org=self.org.name, job=None, exc_info=error)
            return BROKEN_RETRY
        self._emit("org_interrupted", org=self.org.name, reason=str(known.exceptions[0] if known else error))
        return AWAY_RETRY

    async def _next_lease(self) -> Lease | None:
        """The org's lease when it can be had; None when this is closed before."""
        taking = asyncio.ensure_future(self._runtime.lease(self.org.name))
        closing = asyncio.ensure_future(self._closing.wait())
        try:
            await asyncio.wait({taking, closing}, return_when=asyncio.FIRST_COMPLETED)
            return taking.result() if taking.done() else None
        finally:
            taking.cancel()
            closing.cancel()

    async def _hold(self, lease: Lease) -> None:
        async with self._runtime.worker(self.org, lease) as worker:
            self.worker = worker
            if self._closing.is_set():
                return
            try:
                async with asyncio.TaskGroup() as group:
                    self._group = group
                    group.create_task(self._until_lost(lease))
                    group.create_task(self._ad_hoc_work(worker))
                    for loop in self._jobs.values():
                        self._start(loop)
            finally:
                self.worker = self._group = None

    def _start(self, loop: JobLoop) -> None:
        if self._group is not None and self.worker is not None:
            self._group.create_task(loop.run(self.worker))

    async def aliases_changed(self) -> None:
        """Let an edited mapping table take hold of what is stored; nothing where another process has the org."""
        if self.worker is not None:
            with contextlib.suppress(DatabaseUnavailableError):
                await self._runtime.apply_aliases(self.org.name)

    async def _until_lost(self, lease: Lease) -> None:
        """End the others as soon as the org is not ours any more."""
        lost = asyncio.ensure_future(lease.lost.wait())
        closing = asyncio.ensure_future(self._closing.wait())
        try:
            await asyncio.wait({lost, closing}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            lost.cancel()
            closing.cancel()
        if lease.lost.is_set():
            raise LeaseLostError(f"{lease.org} is not held any more")

    async def _ad_hoc_work(self, worker: OrgWorker) -> None:
        """Extract what is asked for by hand, and try what is unfinished of it again now and then."""
        self._ad_hoc.set()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(AD_HOC_RETRY.total_seconds()):
                    await self._ad_hoc.wait()
            self._ad_hoc.clear()
            if self._closing.is_set():
                return
            again, self._entries_again = self._entries_again, False
            try:
                if again:
                    await worker.look_at_names()
                for entry in self._entries.values():
                    await worker.request(entry, again=again)
                await worker.ad_hoc()
            except (LeaseLostError, asyncio.CancelledError):
                self._entries_again = self._entries_again or again
                raise
            except DatabaseUnavailableError:
                self._entries_again = self._entries_again or again
                await asyncio.sleep(AWAY_RETRY)
                self._ad_hoc.set()
            except Exception:  # noqa: BLE001 - what nobody thought of must not end the org's jobs
                self._emit("unexpected_error", org=self.org.name, job=None, exc_info=True)
