"""The status, read from the database at most every few seconds and shared by all clients.

It has a connection of its own: merges may occupy the pool's for minutes, and an alert must not wait for them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from service.clock import Clock
from service.errors import DatabaseUnavailableError, FlowOutcomesError
from service.plan.calendar import Step, at_or_before
from service.postgres.kept_connections import KeptConnections
from service.postgres.probe import open_connection, readiness_problem
from service.postgres.queries.dashboard import Pace, paces
from service.postgres.queries.timeline import restated_since
from service.status import Status, read_status
from service.web.daemon_view import DaemonView

NAME = "flow-outcomes web"
WAIT_TIMEOUT = 2.5
"""Seconds that a client waits for the database."""
STATUS_TIMEOUT = 60.0
"""Seconds that reading the status may take: with 500 orgs before their first run it takes long."""
READY_MAX_AGE = 1.0
STATUS_MAX_AGE, STATUS_COST_FACTOR = 1.0, 4.0

T = TypeVar("T")


class SharedValue(Generic[T]):
    """A value computed by one task at a time for all concurrent readers; the task outlives readers that time out.

    Attributes:
        last: the last value, whatever its age, or None.
        readers: callers of ``get`` that wait for a value.
        version: the number of values computed so far.
    """

    def __init__(self, compute: Callable[[], Awaitable[T]], clock: Clock) -> None:
        self._compute = compute
        self._clock = clock
        self._task: asyncio.Task[T] | None = None
        self._computed_at = self._cost = 0.0
        self.last: T | None = None
        self.version = 0
        self.readers = 0

    @property
    def running(self) -> bool:
        """Whether a value is being computed."""
        return self._task is not None

    @property
    def age(self) -> float:
        """Seconds since the computation of the last value began."""
        return self._clock.monotonic() - self._computed_at

    async def get(self, *, max_age: float, cost_factor: float) -> T:
        """The last value if it is young enough, otherwise a new one.

        Args:
            max_age: seconds that the value may be old, or
            cost_factor: times as long as it took to compute, whichever is longer.

        Raises:
            DatabaseUnavailableError: not computed within ``WAIT_TIMEOUT``; a later call may find it done.
        """
        if self.last is not None and self.age <= max(max_age, self._cost * cost_factor):
            return self.last
        if self._task is None:
            self._task = asyncio.create_task(self._run())
            self._task.add_done_callback(self._done)
        task = self._task
        self.readers += 1
        try:
            await asyncio.wait({task}, timeout=WAIT_TIMEOUT)
        finally:
            self.readers -= 1
        if not task.done():
            raise DatabaseUnavailableError(f"the database did not answer within {WAIT_TIMEOUT:g} s")
        return task.result()

    def cancel(self) -> None:
        """Cancel a running computation."""
        if self._task is not None:
            self._task.cancel()

    async def close(self) -> None:
        """Cancel a running computation, and wait for its end."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=1)

    async def _run(self) -> T:
        began = self._clock.monotonic()
        value = await self._compute()
        self.last, self._computed_at, self._cost = value, began, self._clock.monotonic() - began
        self.version += 1
        return value

    def _done(self, task: asyncio.Task[T]) -> None:
        self._task = None
        if not task.cancelled():
            task.exception()  # mark as retrieved, also where no reader waits any more


class StatusCache:
    """The status, the pace of extraction, what was restated today, and the readiness.

    Args:
        daemon: has the database and the configuration.
        clock: measures ages.
    """

    def __init__(self, daemon: DaemonView, clock: Clock) -> None:
        self._daemon = daemon
        self._clock = clock
        self._connections = KeptConnections(self.require_dsn, NAME, 1)
        self.status = SharedValue(self._read_status, clock)
        self.paces = SharedValue(self._read_paces, clock)
        self.restated = SharedValue(self._read_restated, clock)
        self._readiness = SharedValue(self._read_readiness, clock)

    async def readiness_problem(self) -> str:
        """Why the daemon is not ready; empty if it is."""
        try:
            return await self._readiness.get(max_age=READY_MAX_AGE, cost_factor=0)
        except FlowOutcomesError as error:
            return str(error)

    async def close(self) -> None:
        """Cancel running queries."""
        await self.status.close()
        await self.paces.close()
        await self.restated.close()
        await self._readiness.close()
        await self._connections.close()

    def require_dsn(self) -> str:
        """The database's DSN.

        Raises:
            DatabaseUnavailableError: an embedded database has not started yet.
        """
        if self._daemon.dsn is None:
            raise DatabaseUnavailableError("the database is still starting")
        return self._daemon.dsn

    async def _read_status(self) -> Status:
        async with self._connections.connection(timeout=STATUS_TIMEOUT) as connection:
            return await read_status(connection, self._daemon.config, self._clock.now())

    async def _read_paces(self) -> list[Pace]:
        async with self._connections.connection(timeout=STATUS_TIMEOUT) as connection:
            return await paces(connection, list(self._daemon.config.orgs))

    async def _read_restated(self) -> dict[str, int]:
        """The figures restated since each org's midnight."""
        now, orgs = self._clock.now(), self._daemon.config.orgs.values()
        since = {org.name: at_or_before(now, Step.DAY, org.tz) for org in orgs}
        async with self._connections.connection(timeout=STATUS_TIMEOUT) as connection:
            return await restated_since(connection, since)

    async def _read_readiness(self) -> str:
        async with open_connection(self.require_dsn(), NAME, timeout=WAIT_TIMEOUT, read_only=False) as connection:
            return await readiness_problem(connection) or self._daemon.storage_problem
