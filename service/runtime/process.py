"""What every command that works needs: the database with its schema, the hold on orgs, their clients."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

from service import BEGAN
from service.clock import Clock, ClockMonitor, SystemClock
from service.config import Org
from service.errors import DatabaseUnavailableError
from service.extraction import OrgWorker
from service.genesys import make_client
from service.postgres import aliases
from service.postgres.lease import Lease, LeaseManager, note_breaker
from service.postgres.merge import sweep_org
from service.postgres.pool import Database
from service.telemetry import BreakerStateWriter, Emit

GRACE = 20.0  # seconds that what is in flight gets at the end


class Runtime:
    """A process at work: its database, and who it is to the other processes on it.

    Attributes:
        dsn: the database.
        owner: this process's name in ``org_lease`` and in ``pg_stat_activity``.
        database: the pool.
        keeper: takes and keeps the orgs.
        monitor: compares its clock with the others.
    """

    def __init__(self, dsn: str, pool_size: int, emit: Emit, clock: Clock | None = None) -> None:
        self.dsn = dsn
        self.owner = f"flow-outcomes {socket.gethostname()[:20]}:{os.getpid()}:{secrets.token_hex(4)}"
        self.database = Database(dsn, size=pool_size, application_name=self.owner)
        self.clock = clock or SystemClock()
        self.emit = emit
        self.monitor = ClockMonitor(self.clock, emit)
        self._acquired: dict[str, asyncio.Queue[Lease]] = {}
        self.keeper = LeaseManager(
            dsn,
            self.owner,
            self.clock,
            on_acquired=self._deliver,
            on_released=self._released,
            on_lost=self._lost,
            on_cut=self.database.reset,
        )
        self._held_until: dict[str, float] = {}
        self._notes: dict[str, set[asyncio.Task[None]]] = defaultdict(set)

    async def lease(self, org: str) -> Lease:
        """Wait until the org is ours; where it still is, it is taken anew, so that a 429's hold is read again."""
        arrivals = self._acquired.setdefault(org, asyncio.Queue())
        if arrivals.empty() and org in self.keeper.held:
            self.keeper.release(org)
        self.keeper.acquire(org)
        while True:
            lease = await arrivals.get()
            if not lease.lost.is_set():
                return lease

    def _deliver(self, lease: Lease) -> None:
        self.emit("org_acquired", org=lease.org, owner=self.owner, epoch=lease.epoch)
        self._acquired.setdefault(lease.org, asyncio.Queue()).put_nowait(lease)

    def _released(self, org: str) -> None:
        self.emit("org_released", org=org, owner=self.owner)

    def _lost(self, org: str) -> None:
        self.emit("org_lost", org=org, owner=self.owner)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Runtime]:
        """With the pool open and the keeper at work; gives every org back at the end."""
        await self.database.open()
        keeping = asyncio.create_task(self.keeper.run(), name="lease keeper")
        try:
            yield self
        finally:
            keeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await keeping
            await self.database.close()

    @asynccontextmanager
    async def worker(self, org: Org, lease: Lease, *, gives_up: bool = False) -> AsyncIterator[OrgWorker]:
        """The org's worker, ready to run cycles; for as long as the lease is good.

        Raises:
            DatabaseUnavailableError: the database is away.
        """
        breaker = BreakerStateWriter(partial(note_breaker, self.database, org.name, self.owner))
        spent_ago = max(0.0, min(lease.idle_for, self.clock.monotonic() - BEGAN))
        client = make_client(
            org,
            self.emit,
            self.clock,
            lease.check,
            self._keep_hold(lease),
            partial(self.monitor.observe, org.name),
            spent_ago,
            breaker.record,
        )
        client.pause(max(lease.hold, self._held_until.get(org.name, 0.0) - self.clock.monotonic()))
        if gives_up:
            client.max_pause = 300.0
        try:
            worker = OrgWorker(
                org,
                client,
                lease,
                self.database,
                self.clock,
                self.emit,
                monitor=self.monitor,
                gives_up=gives_up,
            )
            await sweep_org(self.database, org.name)
            await self.apply_aliases(org.name)
            await worker.prepare()
            yield worker
        finally:
            await client.close()
            await breaker.close()
            # what a 429 asked for has to be noted while the org is still ours to write of
            if notes := self._notes[org.name]:
                await asyncio.wait(notes, timeout=3)

    async def apply_aliases(self, org: str) -> None:
        """Let an edited mapping table take hold of what is stored.

        Raises:
            DatabaseUnavailableError: the database is away.
        """
        renamed = await aliases.apply(self.database, org)
        if renamed:
            self.emit("alias_applied", org=org, outcomes=renamed)

    def _keep_hold(self, lease: Lease) -> Callable[[float], None]:
        """Note a 429's wait where the next owner finds it, and here, for the database may be away."""

        async def note(seconds: float) -> None:
            with contextlib.suppress(DatabaseUnavailableError):
                await self.keeper.note_hold(self.database, lease.org, seconds)

        def keep(seconds: float) -> None:
            until = self.clock.monotonic() + seconds
            self._held_until[lease.org] = max(until, self._held_until.get(lease.org, 0.0))
            task = asyncio.create_task(note(seconds))
            self._notes[lease.org].add(task)
            task.add_done_callback(self._notes[lease.org].discard)

        return keep
