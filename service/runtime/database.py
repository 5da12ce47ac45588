"""The database of a command: open or start it, and migrate its schema."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from service.config import Database as DatabaseConfig
from service.errors import DatabaseUnavailableError, SchemaError
from service.postgres.embedded import AlreadyRunningError, Embedded, holds_cluster, running_dsn
from service.postgres.migrate import migrate
from service.postgres.migration_locks import blocking_sessions
from service.postgres.probe import open_connection
from service.telemetry import Emit, Event

DATABASE_RETRY_AFTER = 2.0  # seconds, where the database is unavailable
_PROBE_TIMEOUT = 10.0  # seconds
_BLOCKED_AFTER, _BLOCKED_EVERY = 5.0, 60.0
"""Seconds until the locks are reported that a migration waits for, and then between two reports."""
_EMBEDDED_TIMEOUT = 30.0  # seconds to wait for another process that starts or stops an embedded database
_EMBEDDED_POLL_EVERY = 0.1  # seconds


@asynccontextmanager
async def open_database(
    config: DatabaseConfig,
    *,
    make: bool = True,
    long_lived: bool = False,
    timeout: float | None = _EMBEDDED_TIMEOUT,
) -> AsyncIterator[str]:
    """The DSN of the configured database. An embedded one is shared where it runs already, otherwise started.

    Args:
        config: the section ``database``.
        make: whether to create an embedded database where there is none yet.
        long_lived: whether the caller is a long-lived process. It does not share a server that stops with a short
            command; it waits for its end and starts its own.
        timeout: seconds to wait for another process that starts or stops the embedded server; None: no limit.

    Raises:
        ConfigError: the folder of an embedded database cannot be used.
        DatabaseUnavailableError: there is no embedded database, it cannot be started, or another process did not
            release it in time.
    """
    if config.dsn is not None:
        yield config.dsn.get_secret_value()
        return
    folder = config.embedded or Path()
    loop = asyncio.get_running_loop()
    started = loop.time()
    while (running := await asyncio.to_thread(running_dsn, folder, long_lived=long_lived)) is None:
        if not make and not await asyncio.to_thread(holds_cluster, folder):
            raise DatabaseUnavailableError(f"there is no database in {folder} yet: start the daemon first")
        server = Embedded(folder, brief=not long_lived)
        try:
            dsn = await asyncio.to_thread(server.start)
        except AlreadyRunningError:
            if timeout is not None and loop.time() - started >= timeout:
                raise
            await asyncio.sleep(_EMBEDDED_POLL_EVERY)
            continue
        try:
            yield dsn
        finally:
            await asyncio.to_thread(server.stop)
        return
    yield running


async def ensure_migrated(dsn: str, emit: Emit, *, timeout: float | None) -> None:
    """Migrate the schema, waiting for a database that is unavailable.

    Args:
        dsn: the database.
        emit: receives ``database_unavailable``, ``migration_blocked`` and ``schema_migrated``.
        timeout: seconds to wait for the database; None: no limit.

    Raises:
        ConfigError: the role may not change the schema, or the database cannot hold it.
        DatabaseUnavailableError: the database stayed unavailable.
    """
    loop = asyncio.get_running_loop()
    deadline = None if timeout is None else loop.time() + timeout
    while True:
        try:
            applied = await apply_migrations(dsn, lambda reason: emit(Event.MIGRATION_BLOCKED, reason=reason))
            if applied:
                emit(Event.SCHEMA_MIGRATED, applied=applied)
            async with open_connection(dsn, "flow-outcomes", timeout=_PROBE_TIMEOUT):
                return  # the session's settings can be applied, which a migration does not test
        except DatabaseUnavailableError as error:
            emit(Event.DATABASE_UNAVAILABLE, reason=str(error))
            if deadline is not None and loop.time() + DATABASE_RETRY_AFTER >= deadline:
                raise
            await asyncio.sleep(DATABASE_RETRY_AFTER)


async def apply_migrations(dsn: str, report_wait: Callable[[str], None]) -> list[str]:
    """Apply the pending migrations; report whose locks they wait for, after 5 s and then every minute.

    Raises:
        ConfigError, DatabaseUnavailableError: as ``migrate``.
    """
    migration = asyncio.ensure_future(_in_daemon_thread(lambda: migrate(dsn)))
    pause = _BLOCKED_AFTER
    try:
        while not (await asyncio.wait({migration}, timeout=pause))[0]:
            pause = _BLOCKED_EVERY
            with contextlib.suppress(DatabaseUnavailableError, SchemaError):
                for line in await blocking_sessions(dsn):
                    report_wait(line)
        return migration.result()
    finally:
        migration.cancel()


async def _in_daemon_thread(call: Callable[[], list[str]]) -> list[str]:
    """Run a blocking call in a thread that is abandoned on cancellation and does not delay the process's exit.

    A thread of the loop's executor would be joined at the exit.
    """
    loop = asyncio.get_running_loop()
    result: asyncio.Future[list[str]] = loop.create_future()

    def deliver(outcome: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(lambda: None if result.done() else outcome())

    def run() -> None:
        try:
            value = call()
        except BaseException as error:  # noqa: BLE001 - raised by the caller
            raised = error
            deliver(lambda: result.set_exception(raised))
        else:
            deliver(lambda: result.set_result(value))

    threading.Thread(target=run, daemon=True, name="migrate").start()
    return await result
