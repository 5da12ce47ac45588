"""The database, looked at seldom and never for long: an answer is shared by all who ask while it is young.

It has a connection of its own. The pool's are taken by merges that may last minutes, and an alert must not depend
on one of them ending.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from service.clock import Clock
from service.config import Config
from service.errors import DatabaseUnavailableError, FlowOutcomesError
from service.postgres.probe import open_connection, readiness_problem
from service.postgres.queries.dashboard import Pace, paces
from service.status import Status, read_status

PATIENCE = 2.5  # seconds that who asks waits for the database
STANDING_WITHIN = 60.0  # seconds that the status may take: at 500 orgs before their first run it takes some
READY_AGE = 1.0
STATUS_AGE, STATUS_SPACING = 1.0, 4.0

T = TypeVar("T")


class Shared(Generic[T]):
    """One answer for all who ask: made by one task at a time, which outlives who gave up waiting for it.

    Attributes:
        last: the last answer, however old.
        made: how many answers were made.
    """

    def __init__(self, make: Callable[[], Awaitable[T]], clock: Clock) -> None:
        self._make = make
        self._clock = clock
        self._making: asyncio.Task[T] | None = None
        self._made_at = self._cost = 0.0
        self.last: T | None = None
        self.made = 0

    @property
    def age(self) -> float:
        """Seconds since the last answer began to be made."""
        return self._clock.monotonic() - self._made_at

    async def get(self, *, age: float, spacing: float) -> T:
        """The last answer where it is young enough, else a new one.

        Args:
            age: seconds that an answer may be old,
            spacing: or so many times as long as it took to make, so that a dear one is made seldom.

        Raises:
            DatabaseUnavailableError: it takes longer than one can wait; the next to ask may find it made.
        """
        if self.last is not None and self.age <= max(age, self._cost * spacing):
            return self.last
        if self._making is None:
            self._making = asyncio.create_task(self._remember())
            self._making.add_done_callback(self._done)
        making = self._making
        await asyncio.wait({making}, timeout=PATIENCE)
        if not making.done():
            raise DatabaseUnavailableError(f"the database did not answer within {PATIENCE:g} s")
        return making.result()

    async def close(self) -> None:
        """End what is being made."""
        if self._making is not None:
            self._making.cancel()
            await asyncio.wait({self._making}, timeout=1)

    async def _remember(self) -> T:
        began = self._clock.monotonic()
        made = await self._make()
        self.last, self._made_at, self._cost = made, began, self._clock.monotonic() - began
        self.made += 1
        return made

    def _done(self, making: asyncio.Task[T]) -> None:
        self._making = None
        if not making.cancelled():
            making.exception()  # looked at, even where nobody waits any more


class StatusCache:
    """How the daemon and its work stand.

    Args:
        dsn: of the database; None while there is none yet.
        config: the configuration as of now.
        clock: the time.
    """

    def __init__(self, dsn: Callable[[], str | None], config: Callable[[], Config], clock: Clock) -> None:
        self._dsn = dsn
        self._config = config
        self._clock = clock
        self.status = Shared(self._standing, clock)
        self.paces = Shared(self._paces, clock)
        self._ready = Shared(self._look, clock)

    async def unready(self) -> str:
        """Why the daemon cannot work now; empty where it can."""
        try:
            return await self._ready.get(age=READY_AGE, spacing=0)
        except FlowOutcomesError as error:
            return str(error)

    async def close(self) -> None:
        """End every look."""
        await self.status.close()
        await self.paces.close()
        await self._ready.close()

    async def _standing(self) -> Status:
        async with open_connection(self.there(), "flow-outcomes web", timeout=STANDING_WITHIN) as connection:
            return await read_status(connection, self._config(), self._clock.now())

    async def _paces(self) -> list[Pace]:
        async with open_connection(self.there(), "flow-outcomes web", timeout=STANDING_WITHIN) as connection:
            return await paces(connection, list(self._config().orgs))

    async def _look(self) -> str:
        async with open_connection(
            self.there(), "flow-outcomes web", timeout=PATIENCE, read_only=False
        ) as connection:
            return await readiness_problem(connection) or ""

    def there(self) -> str:
        """Where the database is.

        Raises:
            DatabaseUnavailableError: it is not there yet.
        """
        dsn = self._dsn()
        if dsn is None:
            raise DatabaseUnavailableError("the database is still being started")
        return dsn
