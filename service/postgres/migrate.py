"""Schema migrations: plain SQL files, applied by yoyo in the order of their numbers.

This module adds what yoyo lacks. One process migrates at a time, under an advisory lock that ends with its
connection. A file and its entry in yoyo's table are one transaction, so a kill leaves both or neither. Where no
migration is pending, nothing is written, so a role that may not change the schema can start the daemon.
"""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from glob import escape
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import yoyo.migrations
from psycopg.conninfo import conninfo_to_dict
from yoyo import read_migrations
from yoyo.backends.core.postgresql import PostgresqlPsycopgBackend
from yoyo.connections import DatabaseURI

from service.errors import ConfigError, DatabaseUnavailableError, Fault
from service.postgres import session
from service.postgres.pool import Connection, explain

SCHEMA: LiteralString = "flow_outcomes"
TABLE: LiteralString = "_yoyo_migration"
LOCK = int.from_bytes(b"flow-out")  # the key of the advisory lock
POLL_EVERY = 0.1  # seconds
NAME = "flow-outcomes migrate"

_APPLIED_IDS = f"SELECT migration_id FROM {SCHEMA}.{TABLE}"
_TABLE_EXISTS = f"SELECT to_regclass('{SCHEMA}.{TABLE}') IS NOT NULL"
_GRANT_READ = f"GRANT SELECT ON {SCHEMA}.{TABLE} TO PUBLIC"  # for roles that may use the schema, not change it

# Migration.load reads a file in the encoding of the locale; ours are UTF-8.
setattr(yoyo.migrations, "open", partial(open, encoding="utf-8"))  # noqa: B010 - the module has no such attribute


def migrations_dir() -> Path:
    """The folder of the SQL files: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parents[1]
    return next(folder for folder in (package / "migrations", package.parent / "migrations") if folder.is_dir())


def known_migrations(folder: Path | None = None) -> list[str]:
    """The ids of this version's migrations, in order."""
    files = (folder or migrations_dir()).glob("*.sql")
    return sorted(file.stem for file in files if not file.stem.endswith(".rollback"))


def pending_migrations(dsn: str, folder: Path | None = None) -> list[str]:
    """The ids of the migrations that are not applied yet; reads only.

    Raises:
        ConfigError: the database cannot hold the schema, see ``session.unsupported``.
        DatabaseUnavailableError: the database is unreachable.
    """
    with _translate_errors(), session.connect(dsn, NAME, session.MIGRATION_SETTINGS) as connection:
        if reason := session.unsupported(connection.info):
            raise ConfigError([Fault("database.dsn", reason)])
        exists = connection.execute(_TABLE_EXISTS).fetchone() == (True,)
        applied = {row[0] for row in connection.execute(_APPLIED_IDS)} if exists else set()
    return [name for name in known_migrations(folder) if name not in applied]


async def pending_on(connection: Connection) -> list[str]:
    """``pending_migrations`` on an open connection."""
    exists = await connection.fetch_value(_TABLE_EXISTS)
    applied = await connection.fetch_values(_APPLIED_IDS) if exists else []
    return [name for name in known_migrations() if name not in applied]


def migrate(dsn: str, folder: Path | None = None, *, timeout: float = 60.0) -> list[str]:
    """Apply the pending migrations and return their ids; blocking.

    Args:
        dsn: the database, as a URL or as keywords.
        folder: the SQL files; default: the package's.
        timeout: seconds to wait for another process that migrates.

    Raises:
        ConfigError: the role may not change the schema, or the database cannot hold it.
        DatabaseUnavailableError: the database is unreachable, or another process did not finish in time.
    """
    pending = pending_migrations(dsn, folder)
    if not pending:
        return []
    with _translate_errors(pending), _migration_lock(dsn, timeout), _backend(dsn) as backend:
        applied = []
        for migration in _migrations(backend.to_apply, folder):
            _run(backend, migration, "apply")
            applied.append(migration.id)
        backend.execute(_GRANT_READ)
    return applied


def rollback(dsn: str, to: str = "", folder: Path | None = None, *, timeout: float = 60.0) -> list[str]:
    """Roll back every migration after ``to``, all of them where it is empty, and return their ids, newest first.

    Raises:
        ValueError: there is no migration ``to``.
        ConfigError, DatabaseUnavailableError: as ``migrate``.
    """
    if to and to not in known_migrations(folder):
        raise ValueError(f"no migration is called {to}")
    with _translate_errors(), _migration_lock(dsn, timeout), _backend(dsn) as backend:
        rolled_back = []
        for migration in reversed(_migrations(backend.to_rollback, folder)):
            if migration.id > to:
                _run(backend, migration, "rollback")
                rolled_back.append(migration.id)
    return rolled_back


class _Backend(PostgresqlPsycopgBackend):  # type: ignore[misc] # yoyo is not typed
    """Yoyo's backend with its tables in the schema ``flow_outcomes``, whatever the role's search_path is."""

    def init_connection(self, connection: psycopg.Connection[Any]) -> None:
        """Apply the session's settings; yoyo calls it again after each rollback."""
        session.configure(connection, session.MIGRATION_SETTINGS)
        with suppress(psycopg.errors.InvalidParameterValue):  # not supported by every operating system
            # the statement of a killed process ends too
            connection.execute("SET client_connection_check_interval TO '1s'")

    def get_log_data(self, migration: Any = None, operation: str = "apply") -> dict[str, Any]:
        """The columns of yoyo's log. Its own version requires a user name, which a container may lack, and DNS."""
        return {
            "id": str(uuid.uuid4()),
            "migration_id": migration.id,
            "migration_hash": migration.hash,
            "username": str(os.getuid()),
            "hostname": socket.gethostname(),
            "created_at_utc": datetime.now(UTC).replace(tzinfo=None),
            "operation": operation,
        }


def _migrations(choose: Any, folder: Path | None) -> list[Any]:
    source = escape(str(folder or migrations_dir()))
    return sorted(choose(read_migrations(source)), key=lambda migration: migration.id)


def _run(backend: _Backend, migration: Any, direction: str) -> None:
    migration.load()
    if not migration.use_transactions:  # its statements, such as CREATE INDEX CONCURRENTLY, allow none
        (backend.apply_one if direction == "apply" else backend.rollback_one)(migration)
        return
    with backend.transaction():
        migration.process_steps(backend, direction)
        (backend.mark_one if direction == "apply" else backend.unmark_one)(migration)


@contextmanager
def _backend(dsn: str) -> Iterator[_Backend]:
    parameters = conninfo_to_dict(session.prefer_last_host(session.conninfo(dsn, NAME)))
    uri = DatabaseURI(
        scheme="postgresql+psycopg",
        username=None,
        password=None,
        hostname=None,
        port=None,
        database=parameters.pop("dbname", None),
        args=parameters,
    )
    with _Backend(uri, TABLE) as backend:
        backend.init_database()
        backend.break_lock()  # left by a process that was killed: this one holds the advisory lock
        with backend.lock():
            yield backend


@contextmanager
def _migration_lock(dsn: str, timeout: float) -> Iterator[None]:
    """Hold the advisory lock on a connection of its own.

    It is polled, as a pending lock request would deadlock with CREATE INDEX CONCURRENTLY.
    """
    deadline = time.monotonic() + timeout
    with session.connect(dsn, NAME, session.MIGRATION_SETTINGS) as connection:
        while connection.execute("SELECT pg_try_advisory_lock(%s)", [LOCK]).fetchone() != (True,):
            if time.monotonic() > deadline:
                raise DatabaseUnavailableError(
                    f"another process has been migrating the schema for more than {timeout:g} s"
                )
            time.sleep(POLL_EVERY)
        if connection.execute("SELECT to_regnamespace(%s) IS NULL", [SCHEMA]).fetchone() == (True,):
            connection.execute(f"CREATE SCHEMA {SCHEMA}")
        yield


@contextmanager
def _translate_errors(pending: list[str] | None = None) -> Iterator[None]:
    """Raise the program's errors in place of the driver's."""
    try:
        yield
    except (psycopg.OperationalError, psycopg.InterfaceError, psycopg.errors.ReadOnlySqlTransaction) as error:
        raise DatabaseUnavailableError(explain(error)) from error
    except psycopg.errors.InsufficientPrivilege as error:
        reason = f"{error.diag.message_primary}: run 'flow-outcomes migrate' as a role that may"
        if pending:
            reason = f"the schema lacks {', '.join(pending)}, and this role may not change it; {reason}"
        raise ConfigError([Fault("database.dsn", reason)]) from error
    except psycopg.ProgrammingError as error:
        if error.sqlstate is not None:
            raise
        raise ConfigError([Fault("database.dsn", f"not a PostgreSQL DSN: {explain(error)}")]) from error
