"""What every command that works needs: the database with its schema, the hold on orgs, their clients."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import threading
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial
from pathlib import Path

from service import BEGAN
from service.breaker_notes import BreakerNotes
from service.clock import Clock, ClockMonitor, SystemClock
from service.config import Database as DatabaseConfig
from service.config import Org
from service.errors import ConfigError, DatabaseAwayError, UnauthorizedError
from service.genesys import AggregatesJobs, Dialect, FlowAggregates, QueryBuilder
from service.genesys.client import GenesysClient
from service.logs import register_secret
from service.postgres import aliases, embedded, embedded_folder
from service.postgres.lease import Lease
from service.postgres.lease_keeper import LeaseKeeper
from service.postgres.look import looking
from service.postgres.migrate import migrate
from service.postgres.pool import Database
from service.postgres.staging import sweep_org
from service.postgres.standing import note_breaker
from service.report import Emit
from service.worker import OrgWorker

GRACE = 20.0  # seconds that what is in flight gets at the end
AWAY_RETRY = 2.0  # seconds between two looks at a database that is away
TURN, TURN_LOOK = 30.0, 0.1  # seconds for which another process's start or end of an embedded one is waited out
LOOK_WITHIN = 10.0  # seconds for one look


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
        self.keeper = LeaseKeeper(
            dsn,
            self.owner,
            self.clock,
            on_acquired=self._deliver,
            on_released=self._released,
            on_lost=self._lost,
            on_cut=self.database.begin_anew,
        )
        self._held_until: dict[str, float] = {}
        self._notes: dict[str, set[asyncio.Task[None]]] = defaultdict(set)

    async def lease(self, org: str) -> Lease:
        """Wait until the org is ours; where it still is, it is taken anew, so that a 429's hold is read again."""
        arrivals = self._acquired.setdefault(org, asyncio.Queue())
        if arrivals.empty() and org in self.keeper.held:
            self.keeper.give_back(org)
        self.keeper.want(org)
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
            DatabaseAwayError: the database is away.
        """
        breaker = BreakerNotes(partial(note_breaker, self.database, org.name, self.owner), self.emit)
        spent_ago = max(0.0, min(lease.quiet, self.clock.monotonic() - BEGAN))
        client = make_client(
            org,
            breaker.emit,
            self.clock,
            lease.check,
            self._keep_hold(lease),
            partial(self.monitor.observe, org.name),
            spent_ago,
        )
        client.hold(max(lease.hold, self._held_until.get(org.name, 0.0) - self.clock.monotonic()))
        if gives_up:
            client.max_hold = 300.0
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
            DatabaseAwayError: the database is away.
        """
        renamed = await aliases.apply(self.database, org)
        if renamed:
            self.emit("alias_applied", org=org, outcomes=renamed)

    def _keep_hold(self, lease: Lease) -> Callable[[float], None]:
        """Note a 429's wait where the next owner finds it, and here, for the database may be away."""

        async def note(seconds: float) -> None:
            with contextlib.suppress(DatabaseAwayError):
                await self.keeper.note_hold(self.database, lease.org, seconds)

        def keep(seconds: float) -> None:
            until = self.clock.monotonic() + seconds
            self._held_until[lease.org] = max(until, self._held_until.get(lease.org, 0.0))
            task = asyncio.create_task(note(seconds))
            self._notes[lease.org].add(task)
            task.add_done_callback(self._notes[lease.org].discard)

        return keep


def make_client(
    org: Org,
    emit: Emit,
    clock: Clock,
    lease_check: Callable[[], None],
    on_hold: Callable[[float], None],
    on_date: Callable[[datetime | None], None],
    spent_ago: float = 0.0,
) -> GenesysClient:
    """A client as the org's configuration says; the limit may have been spent so many seconds ago."""

    def credentials() -> tuple[str, str]:
        try:
            found = org.credentials()
        except ConfigError as error:
            raise UnauthorizedError(str(error)) from error
        register_secret(found.client_secret)
        return found.client_id, found.client_secret

    return GenesysClient(
        org.name,
        base_url=org.api_url,
        login_url=org.token_url,
        credentials=credentials,
        dialect=dialect_of(org),
        requests_per_second=org.requests_per_second,
        query_timeout=org.query_timeout,
        breaker_failures=org.breaker.failures,
        breaker_open_for=org.breaker.open_for,
        lease_check=lease_check,
        on_hold=on_hold,
        on_date=on_date,
        emit=emit,
        clock=clock,
        spent_ago=spent_ago,
    )


def dialect_of(org: Org) -> Dialect:
    """How the org's API is spoken."""
    if org.api == "query-builder":
        return QueryBuilder()
    return AggregatesJobs(org.job_timeout) if org.aggregates == "jobs" else FlowAggregates()


@asynccontextmanager
async def database_of(
    config: DatabaseConfig, *, make: bool = True, lasting: bool = False, patience: float | None = TURN
) -> AsyncIterator[str]:
    """The DSN of the configured database; an embedded one that runs already is shared, any other started.

    Args:
        config: the section.
        make: whether an embedded one is made where there never was one.
        lasting: whether the caller stays for long. Then a server that goes with a command that takes a moment is
            not shared; its end is waited for.
        patience: seconds to wait for another process that starts or ends an embedded one; None is for ever.

    Raises:
        ConfigError: an embedded one cannot be kept in its folder.
        DatabaseAwayError: there is no embedded one, it cannot be started, or another process did not let go of it.
    """
    if config.dsn is not None:
        dsn = config.dsn.get_secret_value()
        yield dsn
        return
    folder = config.embedded or Path()
    loop = asyncio.get_running_loop()
    began = loop.time()
    while (found := await asyncio.to_thread(embedded_folder.running, folder, lasting=lasting)) is None:
        if not make and not await asyncio.to_thread(embedded_folder.holds_one, folder):
            raise DatabaseAwayError(f"no PostgreSQL is kept in {folder} yet; start the daemon first")
        server = embedded.Embedded(folder, brief=not lasting)
        try:
            dsn = await asyncio.to_thread(server.start)
        except embedded.TakenError:
            if patience is not None and loop.time() - began >= patience:
                raise
            await asyncio.sleep(TURN_LOOK)
            continue
        try:
            yield dsn
        finally:
            await asyncio.to_thread(server.stop)
        return
    yield found


async def migrated(dsn: str, emit: Emit, *, patience: float | None) -> None:
    """Bring the schema up, waiting for the database where it is away.

    Args:
        dsn: the database.
        emit: told ``database_away`` and what was applied.
        patience: seconds to wait for it; None is for ever.

    Raises:
        DatabaseAwayError: it stayed away.
    """
    loop = asyncio.get_running_loop()
    deadline = None if patience is None else loop.time() + patience
    while True:
        try:
            if applied := await _left_behind(lambda: migrate(dsn)):
                emit("schema_migrated", applied=applied)
            async with looking(dsn, "flow-outcomes", within=LOOK_WITHIN):
                return  # it can be had with our settings too, which migrating does without
        except DatabaseAwayError as error:
            emit("database_away", reason=str(error))
            if deadline is not None and loop.time() + AWAY_RETRY >= deadline:
                raise
            await asyncio.sleep(AWAY_RETRY)


async def _left_behind(call: Callable[[], list[str]]) -> list[str]:
    """Wait for a blocking call in a thread that nobody waits for where this is cancelled, at the end neither."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[list[str]] = loop.create_future()

    def tell(outcome: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(lambda: None if done.done() else outcome())

    def work() -> None:
        try:
            result = call()
        except BaseException as error:  # noqa: BLE001 - raised again by who waits
            raised = error
            tell(lambda: done.set_exception(raised))
        else:
            tell(lambda: done.set_result(result))

    threading.Thread(target=work, daemon=True, name="migrate").start()
    return await done
