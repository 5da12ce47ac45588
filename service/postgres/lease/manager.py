"""Acquires, renews and releases the leases of one process: one process works an org at a time.

A session advisory lock shows that the owner is alive: the kernel closes a killed process's socket at once. The
expiry of a row in ``org_lease`` shows that the owner is running. Where the lock is free, the org is acquired and
its epoch raised. Where the lock is held but the row has expired, the owner is suspended; its backends are
terminated, which frees the lock. Every request checks the lease immediately before it is sent, and every merge
compares the epoch under the org's row lock. ``rebalance`` shares the orgs between daemons.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Awaitable, Callable, Coroutine
from typing import NamedTuple

import psycopg

from service.clock import Clock
from service.errors import DatabaseUnavailableError
from service.postgres import session
from service.postgres.lease import rebalance
from service.postgres.lease.events import Acquired, Disconnected, LeaseEvent, Lost, Released, Requested
from service.postgres.lease.lease import Lease
from service.postgres.pool import Connection, abort_after, explain, storage_problem

_LIFETIME = 15.0  # seconds from a renewal to the expiry
RENEW_EVERY = 5.0  # seconds
_BATCH = 25  # orgs tried at a time, so that acquiring many does not delay a renewal
RECONNECT_AFTER = 1.0  # seconds
POLL_EVERY = 0.5  # seconds between two attempts to acquire an org that another process holds
ANSWER_WITHIN = 4.0  # seconds after which the connection counts as lost; with RENEW_EVERY less than _LIFETIME


class LeaseManager:
    """Keeps the leases of one process, on a connection of its own.

    Args:
        dsn: the database.
        owner: this process's application_name, which no other process has.
        clock: the clock of ``Lease.good_until``.
        on_event: awaited for each event, in order.
        shares: whether orgs are shared with other processes: requested from them, and requested by them.
    """

    def __init__(
        self,
        dsn: str,
        owner: str,
        clock: Clock,
        on_event: Callable[[LeaseEvent], Awaitable[None]],
        *,
        shares: bool = False,
    ) -> None:
        self._dsn = dsn
        self.owner = owner
        self._clock = clock
        self._on_event = on_event
        self._shares = shares
        self._wanted: set[str] = set()
        self._leases: dict[str, Lease] = {}
        self._releasing: set[str] = set()
        self._requested: set[str] = set()
        self._released_at: dict[str, float] = {}
        self._offset = 0
        self._changed = asyncio.Event()
        self._connection: Connection | None = None
        self.last_error: str | None = None

    @property
    def held(self) -> dict[str, Lease]:
        """The leases that this process holds, by org."""
        return dict(self._leases)

    def acquire(self, org: str) -> None:
        """Acquire the org as soon as it is free; where it is being released, after that."""
        self._wanted.add(org)
        self._changed.set()

    def release(self, org: str) -> None:
        """Release the org where this process holds it, and do not acquire it any more."""
        self._wanted.discard(org)
        if org in self._leases:
            self._releasing.add(org)
        self._changed.set()

    async def run(self) -> None:
        """Keep the leases until cancelled, then release all of them."""
        try:
            while True:
                try:
                    await self._keep()
                except (psycopg.Error, DatabaseUnavailableError, OSError, TimeoutError) as error:
                    self.last_error = explain(error)
                    await self._lose_all()
                    await self._on_event(Disconnected(storage_problem(error)))
                    await self._disconnect()
                    await asyncio.sleep(RECONNECT_AFTER)
        finally:
            if self._connection is not None:
                with contextlib.suppress(psycopg.Error, OSError), abort_after(self._connection, 2):
                    for org in list(self._leases):
                        await self._release(org)
            await self._lose_all()
            await self._disconnect()

    async def _keep(self) -> None:
        async with asyncio.timeout(10):
            self._connection = await Connection.connect(
                session.conninfo(self._dsn, self.owner), autocommit=True, prepare_threshold=None
            )
        with abort_after(self._open, ANSWER_WITHIN):
            await self._open.execute(_TERMINATE_EARLIER_SESSIONS, {"owner": self.owner})
        self.last_error = None
        renewed = 0.0
        while True:
            now = self._clock.monotonic()
            renews = now - renewed >= RENEW_EVERY
            await _run_to_the_end(self._release_and_renew(renews=renews))
            renewed = now if renews else renewed
            if wanted := sorted(self._wanted - self._leases.keys() - self._reserved_for_others(now)):
                await self._try_to_acquire(wanted)
            await self._wait()

    async def _release_and_renew(self, *, renews: bool) -> None:
        with abort_after(self._open, ANSWER_WITHIN):
            for org in self._releasing & self._leases.keys():
                await self._release(org)
            self._releasing.clear()
            if renews:
                await self._renew()

    async def _wait(self) -> None:
        """Wait for a change or ``POLL_EVERY``; reading the socket reports a lost connection at once."""
        if self._changed.is_set():
            self._changed.clear()
            return
        async for _ in self._open.notifies(timeout=POLL_EVERY, stop_after=1):
            pass

    @property
    def _open(self) -> Connection:
        if self._connection is None:
            raise DatabaseUnavailableError("not connected")
        return self._connection

    async def _try_to_acquire(self, wanted: list[str]) -> None:
        """Acquire the free orgs of one batch, and terminate the owners of the others whose leases have expired."""
        last = wanted[-1]
        wanted = wanted[self._offset : self._offset + _BATCH] or wanted[:_BATCH]
        self._offset = 0 if wanted[-1] == last else self._offset + _BATCH
        with abort_after(self._open, ANSWER_WITHIN):
            free = set(await self._open.fetch_values(_TRY_LOCKS, {"orgs": wanted}))
        if free:
            self._changed.set()  # there may be more to acquire: do not wait
        for org in wanted:
            if org in free:
                with abort_after(self._open, ANSWER_WITHIN):
                    await self._acquire(org)
        if not free.issuperset(wanted):
            with abort_after(self._open, ANSWER_WITHIN):
                await self._open.execute(_TERMINATE_EXPIRED, {"orgs": wanted, "owner": self.owner})

    async def _acquire(self, org: str) -> None:
        """Enter this process as the owner of an org whose advisory lock it holds."""
        connection, good_until = self._open, self._clock.monotonic() + _LIFETIME
        values = {"org": org, "owner": self.owner, "lifetime": _LIFETIME}
        try:
            async with connection.transaction():
                await connection.execute(_INSERT_ORG, values)
                await connection.execute(_INSERT_LEASE, values)
                await connection.execute(_TERMINATE_OWNER, values)
                epoch = await connection.fetch_value(_RAISE_EPOCH, values)
                (former,) = await connection.fetch_all(_Former, _TAKE_OVER, values)
        except BaseException:
            with contextlib.suppress(psycopg.Error):
                await connection.execute(_UNLOCK, {"org": org})
            raise
        lease = Lease(
            org=org,
            epoch=epoch,
            paused_for=former.paused_for,
            idle_for=math.inf if former.idle_for is None else former.idle_for,
            good_until=good_until,
            clock=self._clock,
            lost=asyncio.Event(),
        )
        self._leases[org] = lease
        await self._on_event(Acquired(lease))

    def _reserved_for_others(self, now: float) -> set[str]:
        """Orgs that were released on request a moment ago."""
        return {org for org, at in self._released_at.items() if now - at < rebalance.RESERVED_FOR}

    async def _renew(self) -> None:
        good_until = self._clock.monotonic() + _LIFETIME
        self._requested = set()
        if self._leases:
            renewed = {
                row.org: row.requested
                for row in await self._open.fetch_all(
                    _Renewed,
                    _RENEW,
                    {"owner": self.owner, "orgs": list(self._leases), "lifetime": _LIFETIME},
                )
            }
            for org, lease in list(self._leases.items()):
                if org in renewed:
                    lease.good_until = good_until
                else:
                    await self._end(Lost(org))
            self._requested = {org for org, requested in renewed.items() if requested}
        if self._shares:
            for org in self._requested & self._leases.keys():
                await self._on_event(Requested(org))
            if others := self._wanted - self._leases.keys():
                await rebalance.request_share(self._open, self.owner, self._leases.keys(), others)

    async def _release(self, org: str) -> None:
        await self._end(Released(org))
        if org in self._requested:
            self._released_at[org] = self._clock.monotonic()
        await self._open.execute(_RELEASE, {"org": org, "owner": self.owner})
        await self._open.execute(_UNLOCK, {"org": org})

    async def _end(self, event: Released | Lost) -> None:
        """End a lease; nothing where this process does not hold it."""
        lease = self._leases.pop(event.org, None)
        if lease is not None:
            lease.lost.set()
            await self._on_event(event)

    async def _lose_all(self) -> None:
        for org in list(self._leases):
            await self._end(Lost(org))

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(psycopg.Error, OSError):
                await connection.close()


async def _run_to_the_end(work: Coroutine[None, None, None]) -> None:
    """Run work whose end a cancellation waits for: psycopg closes a connection whose statement is cancelled."""
    task = asyncio.create_task(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.gather(task, return_exceptions=True)
        raise


class _Former(NamedTuple):
    """What the former owner left: a 429's pause, and since when it cannot have sent; None: there was no owner."""

    paused_for: float
    idle_for: float | None


class _Renewed(NamedTuple):
    org: str
    requested: bool


# Earlier sessions of this process whose connection was lost: until the server notices, they hold their locks.
_TERMINATE_EARLIER_SESSIONS = """
    SELECT pg_terminate_backend(a.pid)
    FROM pg_stat_activity a
    WHERE a.application_name = %(owner)s AND a.datname = current_database() AND a.pid <> pg_backend_pid()
      AND a.backend_start < (SELECT backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid())
"""

_TRY_LOCKS = """
    SELECT wanted.org FROM unnest(%(orgs)s::text[]) AS wanted (org)
    WHERE pg_try_advisory_lock(hashtextextended('flow_outcomes.org.' || wanted.org, 0))
"""
_UNLOCK = "SELECT pg_advisory_unlock(hashtextextended('flow_outcomes.org.' || %(org)s, 0))"

_TERMINATE_EXPIRED = """
    SELECT pg_terminate_backend(a.pid)
    FROM pg_stat_activity a
    JOIN flow_outcomes.org_lease l ON l.owner = a.application_name
    WHERE l.org = ANY (%(orgs)s) AND l.owner <> %(owner)s AND l.expires_at < clock_timestamp()
      AND a.datname = current_database()
"""
# An owner that lost its lock but not its other connections must write nothing more.
_TERMINATE_OWNER = """
    SELECT pg_terminate_backend(a.pid)
    FROM pg_stat_activity a
    JOIN flow_outcomes.org_lease l ON l.owner = a.application_name
    WHERE l.org = %(org)s AND l.owner <> %(owner)s AND a.datname = current_database()
"""

_INSERT_ORG = "INSERT INTO flow_outcomes.org (org) VALUES (%(org)s) ON CONFLICT DO NOTHING"
_INSERT_LEASE = "INSERT INTO flow_outcomes.org_lease (org) VALUES (%(org)s) ON CONFLICT DO NOTHING"
_RAISE_EPOCH = "UPDATE flow_outcomes.org SET epoch = epoch + 1 WHERE org = %(org)s RETURNING epoch"

# A pause is cut to an hour: the database's clock may have been set back since it was stored.
_TAKE_OVER = """
    WITH former AS (  -- until when the former owner may have sent requests
        SELECT l.org, CASE WHEN l.owner IS NULL THEN l.released_at ELSE l.expires_at END AS sent_until
        FROM flow_outcomes.org_lease l WHERE l.org = %(org)s FOR UPDATE
    )
    UPDATE flow_outcomes.org_lease l
    SET owner = %(owner)s, owned_since = clock_timestamp(), breaker = 'closed', breaker_until = NULL,
        wanted_by = NULL, expires_at = clock_timestamp() + make_interval(secs => %(lifetime)s),
        paused_until = CASE WHEN l.paused_until > clock_timestamp() + interval '1 hour'
                            THEN clock_timestamp() + interval '1 hour' ELSE l.paused_until END
    FROM former
    WHERE l.org = former.org
    RETURNING greatest(0, extract(epoch FROM l.paused_until - clock_timestamp()))::float8 AS paused_for,
              CASE WHEN former.sent_until IS NOT NULL
                   THEN greatest(0, extract(epoch FROM clock_timestamp() - former.sent_until))::float8
              END AS idle_for
"""
_RENEW = """
    UPDATE flow_outcomes.org_lease SET expires_at = clock_timestamp() + make_interval(secs => %(lifetime)s)
    WHERE owner = %(owner)s AND org = ANY (%(orgs)s)
    RETURNING org, wanted_by IS NOT NULL AS requested
"""
_RELEASE = """
    UPDATE flow_outcomes.org_lease SET owner = NULL, expires_at = NULL, released_at = clock_timestamp()
    WHERE org = %(org)s AND owner = %(owner)s
"""
