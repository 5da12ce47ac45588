"""The database that a command works on: found or started, and its schema brought up."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from service.config import Database as DatabaseConfig
from service.errors import DatabaseUnavailableError
from service.postgres.embedded import folder as embedded_folder
from service.postgres.embedded import server as embedded
from service.postgres.migrate import migrate
from service.postgres.probe import looking
from service.telemetry import Emit

AWAY_RETRY = 2.0  # seconds between two looks at a database that is away


TURN, TURN_LOOK = 30.0, 0.1  # seconds for which another process's start or end of an embedded one is waited out


LOOK_WITHIN = 10.0  # seconds for one look


@asynccontextmanager
async def open_database(
    config: DatabaseConfig, *, make: bool = True, long_lived: bool = False, patience: float | None = TURN
) -> AsyncIterator[str]:
    """The DSN of the configured database; an embedded one that runs already is shared, any other started.

    Args:
        config: the section.
        make: whether an embedded one is made where there never was one.
        long_lived: whether the caller runs for long. Then a server that ends with a short command is not
            shared; its end is waited for.
        patience: seconds to wait for another process that starts or ends an embedded one; None is for ever.

    Raises:
        ConfigError: an embedded one cannot be kept in its folder.
        DatabaseUnavailableError: there is no embedded one, it cannot be started, or another process did not
            release it.
    """
    if config.dsn is not None:
        dsn = config.dsn.get_secret_value()
        yield dsn
        return
    folder = config.embedded or Path()
    loop = asyncio.get_running_loop()
    began = loop.time()
    while (found := await asyncio.to_thread(embedded_folder.running, folder, long_lived=long_lived)) is None:
        if not make and not await asyncio.to_thread(embedded_folder.holds_one, folder):
            raise DatabaseUnavailableError(f"no PostgreSQL is kept in {folder} yet; start the daemon first")
        server = embedded.Embedded(folder, brief=not long_lived)
        try:
            dsn = await asyncio.to_thread(server.start)
        except embedded.AlreadyRunningError:
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


async def ensure_migrated(dsn: str, emit: Emit, *, patience: float | None) -> None:
    """Bring the schema up, waiting for the database where it is away.

    Args:
        dsn: the database.
        emit: told ``database_unavailable`` and what was applied.
        patience: seconds to wait for it; None is for ever.

    Raises:
        DatabaseUnavailableError: it stayed away.
    """
    loop = asyncio.get_running_loop()
    deadline = None if patience is None else loop.time() + patience
    while True:
        try:
            if applied := await _left_behind(lambda: migrate(dsn)):
                emit("schema_migrated", applied=applied)
            async with looking(dsn, "flow-outcomes", within=LOOK_WITHIN):
                return  # it can be had with our settings too, which migrating does without
        except DatabaseUnavailableError as error:
            emit("database_unavailable", reason=str(error))
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
