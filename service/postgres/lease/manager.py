"""The hold on an org: one process works it, and another takes over when that one is gone or stands still.

A session advisory lock says who lives (the kernel closes a killed process's socket at once); a row with an
expiry says who still moves. The lock free: take the org and raise the epoch. The lock held but the row run out:
its owner stands still, so its backends are cut off, and then the lock is free. Every request looks at the lease
just before it is sent, and every merge compares the epoch under the org's row lock. Daemons share their orgs
evenly, see ``rebalance``.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Awaitable, Callable

import psycopg

from service.clock import Clock
from service.errors import DatabaseUnavailableError
from service.postgres import session
from service.postgres.lease import rebalance
from service.postgres.lease.lease import Lease
from service.postgres.pool import Connection, Database, explain, hung_up_after

LIFETIME = 15.0  # seconds that a renewal is good for
RENEW_EVERY = 5.0
BATCH = 25  # orgs tried at a time, so that taking many does not delay a renewal
CONNECT_AGAIN = 1.0  # seconds after which a lost connection is made anew
POLL_EVERY = 0.5  # seconds; how soon an org that was given back is taken
ANSWER_WITHIN = 4.0  # seconds after which the connection is taken for dead; with RENEW_EVERY less than LIFETIME

_LOCK = "hashtextextended('flow_outcomes.org.' || %(org)s, 0)"
_LOCK_OF_ROW = "hashtextextended('flow_outcomes.org.' || w.org, 0)"


class LeaseManager:
    """Takes, renews and gives back the orgs that this process wants, on a connection kept for it.

    Args:
        dsn: the database.
        owner: this process's application_name, unlike any other's.
        clock: for the time at which a lease runs out.
        on_acquired, on_released, on_lost: called for each org that is taken, given back, or taken from us.
        on_cut: called when the connection, and all orgs with it, were lost.

    Attributes:
        on_asked: called for each org that another process asks for; where it is None, none is shared.
    """

    def __init__(
        self,
        dsn: str,
        owner: str,
        clock: Clock,
        *,
        on_acquired: Callable[[Lease], None],
        on_released: Callable[[str], None],
        on_lost: Callable[[str], None],
        on_cut: Callable[[], Awaitable[None]],
    ) -> None:
        self._dsn = dsn
        self.owner = owner
        self._clock = clock
        self._on_acquired = on_acquired
        self._on_released = on_released
        self._on_lost = on_lost
        self._on_cut = on_cut
        self._wanted: set[str] = set()
        self._leases: dict[str, Lease] = {}
        self._leaving: set[str] = set()
        self._offset = 0
        self._changed = asyncio.Event()
        self._connection: Connection | None = None
        self.last_error: str | None = None
        self.on_asked: Callable[[str], None] | None = None
        self._asked: set[str] = set()
        self._handed_over: dict[str, float] = {}

    @property
    def held(self) -> dict[str, Lease]:
        """The orgs that are held now, by name."""
        return dict(self._leases)

    def acquire(self, org: str) -> None:
        """Take the org as soon as it is free; where it is about to be given back, after that."""
        self._wanted.add(org)
        self._changed.set()

    def release(self, org: str) -> None:
        """Let another process have the org, at once."""
        self._wanted.discard(org)
        if org in self._leases:
            self._leaving.add(org)
        self._changed.set()

    async def run(self) -> None:
        """Keep the holds until cancelled; then give all of them back."""
        try:
            while True:
                try:
                    await self._keep()
                except (psycopg.Error, DatabaseUnavailableError, OSError, TimeoutError) as error:
                    self.last_error = explain(error)
                    self._lose_all()
                    await self._on_cut()
                    await self._drop_connection()
                    await asyncio.sleep(CONNECT_AGAIN)
        finally:
            if self._connection is not None:
                with contextlib.suppress(psycopg.Error, OSError), hung_up_after(self._connection, 2):
                    for org in list(self._leases):
                        await self._release(org)
            await self._drop_connection()

    async def _keep(self) -> None:
        async with asyncio.timeout(10):
            self._connection = await Connection.connect(
                session.conninfo(self._dsn, self.owner), autocommit=True, prepare_threshold=None
            )
        with hung_up_after(self._open, ANSWER_WITHIN):
            await self._end_former()
        self.last_error = None
        renewed = 0.0
        while True:
            now = self._clock.monotonic()
            with hung_up_after(self._open, ANSWER_WITHIN):
                for org in self._leaving & self._leases.keys():
                    await self._release(org)
                self._leaving.clear()
                if now - renewed >= RENEW_EVERY:
                    await self._renew()
                    renewed = now
            if wanted := sorted(self._wanted - self._leases.keys() - self._left_to_others(now)):
                await self._try(wanted)
            await self._watch()

    async def _end_former(self) -> None:
        """End what the server still has of our former sessions: cut off without a word, they keep their locks."""
        await self._open.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = %(owner)s AND datname = current_database() AND pid <> pg_backend_pid()"
            " AND backend_start < (SELECT backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid())",
            {"owner": self.owner},
        )

    async def _watch(self) -> None:
        """Wait a little with an eye on the socket, so that a connection cut off is known at once."""
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

    async def _try(self, wanted: list[str]) -> None:
        """Take what is free of some wanted orgs, and cut off the owners of the others that stand still."""
        last = wanted[-1]
        wanted = wanted[self._offset : self._offset + BATCH] or wanted[:BATCH]
        self._offset = 0 if wanted[-1] == last else self._offset + BATCH
        with hung_up_after(self._open, ANSWER_WITHIN):
            cursor = await self._open.execute(
                f"SELECT org FROM unnest(%(orgs)s::text[]) AS w (org) WHERE pg_try_advisory_lock({_LOCK_OF_ROW})",
                {"orgs": wanted},
            )
            free = {row[0] for row in await cursor.fetchall()}
        if free:
            self._changed.set()  # there may be more to take: do not pause
        for org in wanted:
            if org in free:
                with hung_up_after(self._open, ANSWER_WITHIN):
                    await self._take(org)
        if not free.issuperset(wanted):
            with hung_up_after(self._open, ANSWER_WITHIN):
                await self._open.execute(
                    "SELECT pg_terminate_backend(a.pid) FROM pg_stat_activity a"
                    " JOIN flow_outcomes.org_lease l ON l.owner = a.application_name"
                    " WHERE l.org = ANY (%(orgs)s) AND l.owner <> %(owner)s"
                    " AND l.expires_at < clock_timestamp() AND a.datname = current_database()",
                    {"orgs": wanted, "owner": self.owner},
                )

    async def _take(self, org: str) -> None:
        connection = self._open
        before = self._clock.monotonic()
        try:
            async with connection.transaction():
                await connection.execute(
                    "INSERT INTO flow_outcomes.org (org) VALUES (%(org)s) ON CONFLICT DO NOTHING", {"org": org}
                )
                await connection.execute(
                    "INSERT INTO flow_outcomes.org_lease (org) VALUES (%(org)s) ON CONFLICT DO NOTHING",
                    {"org": org},
                )
                # an owner that lost its lock but not its other connections writes nothing more
                await connection.execute(
                    "SELECT pg_terminate_backend(a.pid) FROM pg_stat_activity a"
                    " JOIN flow_outcomes.org_lease l ON l.owner = a.application_name"
                    " WHERE l.org = %(org)s AND l.owner <> %(owner)s AND a.datname = current_database()",
                    {"org": org, "owner": self.owner},
                )
                cursor = await connection.execute(
                    "UPDATE flow_outcomes.org SET epoch = epoch + 1 WHERE org = %(org)s RETURNING epoch",
                    {"org": org},
                )
                epoch = await cursor.fetchone()
                cursor = await connection.execute(
                    "WITH former AS ("
                    " SELECT org, CASE WHEN owner IS NULL THEN given_back_at ELSE expires_at END AS sent_until"
                    " FROM flow_outcomes.org_lease WHERE org = %(org)s FOR UPDATE)"
                    " UPDATE flow_outcomes.org_lease l SET owner = %(owner)s, owned_since = clock_timestamp(),"
                    " breaker = 'closed', breaker_until = NULL, wanted_by = NULL,"
                    # an hour at most: the database's clock may have been set back since
                    " held_until = CASE WHEN held_until > clock_timestamp() + interval '1 hour'"
                    "  THEN clock_timestamp() + interval '1 hour' ELSE held_until END,"
                    " expires_at = clock_timestamp() + make_interval(secs => %(lifetime)s)"
                    " FROM former WHERE l.org = former.org"
                    " RETURNING greatest(0, extract(epoch FROM held_until - clock_timestamp()))::float8,"
                    " greatest(0, extract(epoch FROM clock_timestamp() - sent_until))::float8, sent_until IS NULL",
                    {"org": org, "owner": self.owner, "lifetime": LIFETIME},
                )
                taken = await cursor.fetchone()
        except BaseException:
            with contextlib.suppress(psycopg.Error):
                await connection.execute(f"SELECT pg_advisory_unlock({_LOCK})", {"org": org})
            raise
        lease = Lease(
            org=org,
            epoch=epoch[0] if epoch else 0,
            hold=(taken[0] if taken else None) or 0.0,
            idle_for=0.0 if taken is None else math.inf if taken[2] else taken[1],
            good_until=before + LIFETIME,
            clock=self._clock,
            lost=asyncio.Event(),
        )
        self._leases[org] = lease
        self._on_acquired(lease)

    def _left_to_others(self, now: float) -> set[str]:
        """What was handed over a moment ago."""
        return {org for org, at in self._handed_over.items() if now - at < rebalance.LEFT_TO_IT}

    async def _renew(self) -> None:
        before = self._clock.monotonic()
        self._asked = set()
        if self._leases:
            cursor = await self._open.execute(
                "UPDATE flow_outcomes.org_lease"
                " SET expires_at = clock_timestamp() + make_interval(secs => %(lifetime)s)"
                " WHERE owner = %(owner)s AND org = ANY (%(orgs)s) RETURNING org, wanted_by",
                {"owner": self.owner, "orgs": list(self._leases), "lifetime": LIFETIME},
            )
            renewed = dict(await cursor.fetchall())
            for org, lease in list(self._leases.items()):
                if org in renewed:
                    lease.good_until = before + LIFETIME
                else:
                    self._drop(org, self._on_lost)
            self._asked = {org for org, by in renewed.items() if by is not None}
        if self.on_asked is not None:
            for org in self._asked & self._leases.keys():
                self.on_asked(org)
            if others := self._wanted - self._leases.keys():
                await rebalance.ask(self._open, self.owner, self._leases.keys(), others)

    async def note_hold(self, database: Database, org: str, seconds: float) -> None:
        """Keep a 429's wait for whoever works the org next.

        Raises:
            DatabaseUnavailableError: the database is away.
        """
        async with database.transaction() as connection:
            await connection.execute(
                "UPDATE flow_outcomes.org_lease SET held_until = greatest(held_until,"
                " clock_timestamp() + make_interval(secs => %(seconds)s))"
                " WHERE org = %(org)s AND owner = %(owner)s",
                {"org": org, "owner": self.owner, "seconds": min(seconds, 3600.0)},
            )

    async def _release(self, org: str) -> None:
        connection = self._open
        self._drop(org, self._on_released)
        if org in self._asked:
            self._handed_over[org] = self._clock.monotonic()
        await connection.execute(
            "UPDATE flow_outcomes.org_lease SET owner = NULL, expires_at = NULL, given_back_at = clock_timestamp()"
            " WHERE org = %(org)s AND owner = %(owner)s",
            {"org": org, "owner": self.owner},
        )
        await connection.execute(f"SELECT pg_advisory_unlock({_LOCK})", {"org": org})

    def _drop(self, org: str, tell: Callable[[str], None]) -> None:
        lease = self._leases.pop(org, None)
        if lease is not None:
            lease.lost.set()
            tell(org)

    def _lose_all(self) -> None:
        for org in list(self._leases):
            self._drop(org, self._on_lost)

    async def _drop_connection(self) -> None:
        self._lose_all()
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(psycopg.Error, OSError):
                await connection.close()
