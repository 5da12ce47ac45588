"""One org in the daemon: acquired when it is free, worked while its lease is held, then released."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta

from service.config import AdHoc, Config, Org
from service.errors import DatabaseUnavailableError, LeaseLostError
from service.extraction import EVERYTHING, OrgWorker
from service.postgres.lease import Lease, owner_requests
from service.postgres.lease.owner_requests import Kind, OwnerRequest
from service.runtime.database import DATABASE_RETRY_AFTER
from service.runtime.job_loop import ERROR_RETRY, Follower, JobLoop, resolve
from service.runtime.process import Process
from service.runtime.timers import Timers
from service.telemetry import Emit, Event

AD_HOC_RETRY = timedelta(minutes=15)
SLOT_TIMEOUT = 20.0
"""Seconds after which a slot that was left out for another process, and not returned, is used again."""
SLOT_POLL_INTERVAL = 0.5  # seconds


class OrgLoop:
    """One org in the daemon."""

    def __init__(self, config: Config, org: Org, runtime: Process, timers: Timers, emit: Emit) -> None:
        self.org = org
        self.worker: OrgWorker | None = None
        self._runtime = runtime
        self._timers = timers
        self._emit = emit
        self._jobs: dict[str, JobLoop] = {}
        self._entries: dict[str, AdHoc] = {}
        self._repeat_entries = False
        self._ad_hoc_followers: list[Follower] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._ad_hoc = asyncio.Event()
        self._closing = asyncio.Event()
        self._group: asyncio.TaskGroup | None = None
        self.configure(config, org)

    def configure(self, config: Config, org: Org) -> None:
        """Apply a changed configuration; scans in flight keep the former one."""
        former, self.org = self.org, org
        due_changed = (former.timezone, former.flows) != (org.timezone, org.flows)
        if self.worker is not None:
            self.worker.configure(org)
        jobs = config.jobs_of(org)
        for name in self._jobs.keys() - jobs.keys():
            self._jobs.pop(name).close()
        for name, job in jobs.items():
            if name not in self._jobs:
                self._jobs[name] = JobLoop(org.name, job, self._timers, self._runtime.clock, self._emit)
                self._start(self._jobs[name])
            elif self._jobs[name].job != job or due_changed:
                self._jobs[name].job = job
                self._jobs[name].on_window_due()
        self._entries = {name: entry for name, entry in config.ad_hoc.items() if entry.org == org.name}
        self._ad_hoc.set()

    def run_now(self) -> None:
        """Run every due window, and every ad hoc entry once more, with the current names."""
        for loop in self._jobs.values():
            loop.trigger(EVERYTHING)
        self._repeat_entries = True
        self._ad_hoc.set()

    def answer(self, request: OwnerRequest) -> None:
        """Begin to answer the request of another process."""
        if self.worker is not None and not self._closing.is_set():
            answer = self._run_due if request.kind == Kind.RUN else self._leave_out_slot
            task = asyncio.create_task(answer(request, self.worker))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _run_due(self, request: OwnerRequest, worker: OrgWorker) -> None:
        """Run what ``run_now`` runs, wait for its end, and note it; under a later lease it is begun again."""
        database, epoch = self._runtime.database, worker.lease.epoch
        with contextlib.suppress(DatabaseUnavailableError):
            if not await owner_requests.begin(database, request, epoch):
                return
            followers = [Follower() for _ in range(len(self._jobs) + 1)]
            for loop, follower in zip(self._jobs.values(), followers[1:], strict=True):
                loop.trigger(EVERYTHING, follower)
            self._ad_hoc_followers.append(followers[0])
            self._repeat_entries = True
            self._ad_hoc.set()
            unfinished = sum(await asyncio.gather(*followers))
            await owner_requests.finish(database, request, epoch=epoch, unfinished=unfinished)

    async def _leave_out_slot(self, request: OwnerRequest, worker: OrgWorker) -> None:
        """Leave out one slot of the limit, for the request that another process sends."""
        database = self._runtime.database
        with contextlib.suppress(DatabaseUnavailableError, TimeoutError):
            async with worker.client.slot_left_out():
                if await owner_requests.begin(database, request, worker.lease.epoch):
                    async with asyncio.timeout(SLOT_TIMEOUT):
                        while (await owner_requests.answer(database, request)).finished < request.number:  # noqa: ASYNC110 - in another process
                            await asyncio.sleep(SLOT_POLL_INTERVAL)

    def clock_stepped(self) -> None:
        """Compute again what is due: the wall clock was set."""
        for loop in self._jobs.values():
            loop.on_window_due()

    def run_ad_hoc(self) -> None:
        """Run the ad hoc windows that were entered in the ledger."""
        self._ad_hoc.set()

    def close(self) -> None:
        """Start nothing further; ``run`` returns when the scans in flight have ended."""
        self._closing.set()
        if self.worker is not None:
            self.worker.close()
        for loop in self._jobs.values():
            loop.close()
        for run in self._tasks:
            run.cancel()
        self._ad_hoc.set()

    async def run(self) -> None:
        """Acquire the org and work it, again and again until this loop is closed."""
        try:
            while not self._closing.is_set():
                lease = await self._next_lease()
                if lease is None:
                    return
                try:
                    await self._hold(lease)
                except Exception as error:  # noqa: BLE001 - an org's error must not end the daemon
                    await self._back_off(self._report(error))
        finally:
            self._runtime.release(self.org.name)

    async def apply_aliases(self) -> None:
        """Apply edited aliases to stored rows, if this process holds the org."""
        if self.worker is not None:
            with contextlib.suppress(DatabaseUnavailableError):
                await self._runtime.apply_aliases(self.org.name)

    async def _next_lease(self) -> Lease | None:
        """The org's next lease; None when this loop is closed before."""
        acquiring = asyncio.ensure_future(self._runtime.lease(self.org.name))
        closing = asyncio.ensure_future(self._closing.wait())
        try:
            await asyncio.wait({acquiring, closing}, return_when=asyncio.FIRST_COMPLETED)
            return acquiring.result() if acquiring.done() else None
        finally:
            acquiring.cancel()
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

    async def _until_lost(self, lease: Lease) -> None:
        """End the org's other tasks when its lease is lost.

        Raises:
            LeaseLostError: the lease is lost.
        """
        lost = asyncio.ensure_future(lease.lost.wait())
        closing = asyncio.ensure_future(self._closing.wait())
        try:
            await asyncio.wait({lost, closing}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            lost.cancel()
            closing.cancel()
        if lease.lost.is_set():
            raise LeaseLostError(f"the lease on {lease.org} is lost")

    async def _ad_hoc_work(self, worker: OrgWorker) -> None:
        """Extract ad hoc windows as they are requested, and retry unfinished ones at intervals."""
        self._ad_hoc.set()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(AD_HOC_RETRY.total_seconds()):
                    await self._ad_hoc.wait()
            self._ad_hoc.clear()
            if self._closing.is_set():
                return
            repeat, self._repeat_entries = self._repeat_entries, False
            followers = len(self._ad_hoc_followers)
            try:
                if repeat:
                    await worker.refresh_names()
                for entry in self._entries.values():
                    await worker.enqueue(entry, again=repeat)
                result = await worker.run_ad_hoc()
                served, self._ad_hoc_followers = (
                    self._ad_hoc_followers[:followers],
                    self._ad_hoc_followers[followers:],
                )
                resolve(served, result.unfinished)
            except (LeaseLostError, asyncio.CancelledError):
                self._repeat_entries = self._repeat_entries or repeat
                raise
            except DatabaseUnavailableError:
                self._repeat_entries = self._repeat_entries or repeat
                await asyncio.sleep(DATABASE_RETRY_AFTER)
                self._ad_hoc.set()
            except Exception:  # noqa: BLE001 - must not end the org's jobs
                self._emit(Event.UNEXPECTED_ERROR, org=self.org.name, job=None, exc_info=True)

    def _report(self, error: Exception) -> float:
        """Report why the org's work ended; the seconds until the next try."""
        group = error if isinstance(error, ExceptionGroup) else ExceptionGroup("", [error])
        expected, unexpected = group.split((LeaseLostError, DatabaseUnavailableError))
        if unexpected is not None:
            self._emit(Event.UNEXPECTED_ERROR, org=self.org.name, job=None, exc_info=error)
            return ERROR_RETRY
        reason = str(expected.exceptions[0] if expected else error)
        self._emit(Event.ORG_INTERRUPTED, org=self.org.name, reason=reason)
        return DATABASE_RETRY_AFTER

    async def _back_off(self, after: float) -> None:
        """Release the org, since a lease is handed out only once, and pause until ``close`` at the latest."""
        self._runtime.release(self.org.name)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(after):
                await self._closing.wait()
