"""The process of a command that extracts: its connection pool, its leases, and a worker for each org."""

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
from service.postgres.lease import (
    Acquired,
    Disconnected,
    Lease,
    LeaseEvent,
    LeaseManager,
    Lost,
    Released,
    Requested,
    note_breaker,
    note_pause,
)
from service.postgres.merge import MemoryBudget, sweep_org
from service.postgres.pool import Database
from service.telemetry import BreakerStateWriter, Emit, Event

GRACE = 20.0  # seconds for the scans in flight at the end of the process
LEASES_RETRY_AFTER = 5.0  # seconds after an unexpected error
_MAX_PAUSE_ONCE = 300.0  # seconds; a worker that gives up waits for no longer Retry-After
_LAST_NOTES_TIMEOUT = 3.0  # seconds for the last writes to the lease when a worker ends


class Process:
    """One process among those that share the database.

    Args:
        dsn: the database.
        pool_size: the maximum number of connections of the pool.
        emit: receives every event.
        clock: the time; default: the system's.
        on_org_requested: called when another process requests an org, which is then to be drained and released;
            None: orgs are not shared.

    Attributes:
        dsn: the database.
        owner: this process's name in ``org_lease`` and in ``pg_stat_activity``.
        database: the pool.
        clock: the time.
        emit: receives every event.
    """

    def __init__(
        self,
        dsn: str,
        pool_size: int,
        emit: Emit,
        clock: Clock | None = None,
        *,
        on_org_requested: Callable[[str], None] | None = None,
    ) -> None:
        self.dsn = dsn
        self.owner = f"flow-outcomes {socket.gethostname()[:20]}:{os.getpid()}:{secrets.token_hex(4)}"
        self.database = Database(dsn, size=pool_size, application_name=self.owner)
        self.clock = clock or SystemClock()
        self.emit = emit
        self._monitor = ClockMonitor(self.clock, emit)
        self._budget = MemoryBudget()
        self._on_org_requested = on_org_requested
        self._leases = LeaseManager(
            dsn, self.owner, self.clock, self._on_lease_event, shares=on_org_requested is not None
        )
        self._acquired: dict[str, asyncio.Queue[Lease]] = defaultdict(asyncio.Queue)
        self._pauses = RateLimitPauses(self.database, self.owner, self.clock)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Process]:
        """Open the pool and keep the leases; at the end release every org and close the pool."""
        await self.database.open()
        keeping = asyncio.create_task(self._keep_leases(), name="leases")
        try:
            yield self
        finally:
            keeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await keeping
            await self.database.close()

    async def _keep_leases(self) -> None:
        while True:
            try:
                await self._leases.run()
            except Exception:  # noqa: BLE001 - an unexpected error must not leave the process without orgs for good
                self.emit(Event.UNEXPECTED_ERROR, org=None, job=None, exc_info=True)
                await asyncio.sleep(LEASES_RETRY_AFTER)

    async def lease(self, org: str) -> Lease:
        """Wait until this process holds the org.

        An org that it holds already is released and acquired again, which reads a 429's pause again.
        """
        acquired = self._acquired[org]
        if acquired.empty() and org in self._leases.held:
            self._leases.release(org)
        self._leases.acquire(org)
        while True:
            lease = await acquired.get()
            if not lease.lost.is_set():
                return lease

    def release(self, org: str) -> None:
        """Release the org, or stop waiting for it."""
        self._leases.release(org)

    @property
    def lease_error(self) -> str | None:
        """Why no lease can be acquired or kept; None while the connection for leases is open."""
        return self._leases.last_error

    @property
    def held(self) -> frozenset[str]:
        """The orgs that this process holds."""
        return frozenset(self._leases.held)

    async def _on_lease_event(self, event: LeaseEvent) -> None:
        match event:
            case Acquired(lease):
                self.emit(Event.ORG_ACQUIRED, org=lease.org, owner=self.owner, epoch=lease.epoch)
                self._acquired[lease.org].put_nowait(lease)
            case Released(org):
                self.emit(Event.ORG_RELEASED, org=org, owner=self.owner)
            case Lost(org):
                self.emit(Event.ORG_LOST, org=org, owner=self.owner)
            case Requested(org):
                if self._on_org_requested is not None:
                    self._on_org_requested(org)
            case Disconnected(problem):
                await self.database.reset()
                if problem:
                    self.database.note_storage_problem(problem)
                    self.emit(Event.DATABASE_UNAVAILABLE, reason=problem)

    @asynccontextmanager
    async def worker(self, org: Org, lease: Lease, *, gives_up: bool = False) -> AsyncIterator[OrgWorker]:
        """The org's worker, ready to run cycles while the lease is good.

        Args:
            org: its configuration.
            lease: the lease on it.
            gives_up: whether an open breaker or a long Retry-After ends the work, instead of being waited for.

        Raises:
            DatabaseUnavailableError: the database is unavailable.
        """
        breaker = BreakerStateWriter(partial(note_breaker, self.database, org.name, self.owner))
        client = make_client(
            org,
            self.emit,
            self.clock,
            lease.check,
            partial(self._pauses.note, org.name),
            partial(self._monitor.observe, org.name),
            max(0.0, min(lease.idle_for, self.clock.monotonic() - BEGAN)),
            breaker.record,
        )
        client.pause(max(lease.paused_for, self._pauses.remaining(org.name)))
        if gives_up:
            client.max_pause = _MAX_PAUSE_ONCE
        try:
            worker = OrgWorker(
                org,
                client,
                lease,
                self.database,
                self.clock,
                self.emit,
                monitor=self._monitor,
                budget=self._budget,
                gives_up=gives_up,
            )
            await sweep_org(self.database, org.name)
            await self.apply_aliases(org.name)
            await worker.prepare()
            yield worker
        finally:
            await client.close()
            await breaker.close()
            await self._pauses.flush(org.name)  # before the org is released: only its owner may store them

    async def apply_aliases(self, org: str) -> None:
        """Apply the edited mapping table to the stored rows.

        Raises:
            DatabaseUnavailableError: the database is unavailable.
        """
        renamed = await aliases.apply(self.database, org)
        if renamed:
            self.emit(Event.ALIAS_APPLIED, org=org, outcomes=renamed)


class RateLimitPauses:
    """The pause that a 429 set for each org.

    It is kept in memory, as the database may be unavailable, and stored with the lease for the next owner.
    """

    def __init__(self, database: Database, owner: str, clock: Clock) -> None:
        self._database = database
        self._owner = owner
        self._clock = clock
        self._until: dict[str, float] = {}
        self._writes: dict[str, set[asyncio.Task[None]]] = defaultdict(set)

    def note(self, org: str, seconds: float) -> None:
        """Record that a 429 pauses the org for so many seconds."""
        until = self._clock.monotonic() + seconds
        self._until[org] = max(until, self._until.get(org, 0.0))
        task = asyncio.create_task(self._write(org, seconds))
        self._writes[org].add(task)
        task.add_done_callback(self._writes[org].discard)

    def remaining(self, org: str) -> float:
        """Seconds for which the org is paused; zero or less where it is not."""
        return self._until.get(org, 0.0) - self._clock.monotonic()

    async def flush(self, org: str) -> None:
        """Wait until the org's pauses are stored, ``_LAST_NOTES_TIMEOUT`` at most."""
        if writes := self._writes[org]:
            await asyncio.wait(writes, timeout=_LAST_NOTES_TIMEOUT)

    async def _write(self, org: str, seconds: float) -> None:
        with contextlib.suppress(DatabaseUnavailableError):
            await note_pause(self._database, org, self._owner, seconds)
