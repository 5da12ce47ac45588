"""The schema's way up and down: plain SQL files, in the order of their numbers, applied by yoyo.

What yoyo leaves open is closed here. One process migrates at a time, under an advisory lock that dies with its
connection. A file and the mark that it was applied are one transaction, so a kill between the two loses neither.
And where nothing is pending nothing is written, so that a role without the right to change the schema may start.
"""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from glob import escape
from pathlib import Path
from typing import Any, LiteralString

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import tuple_row
from yoyo import read_migrations
from yoyo.backends.core.postgresql import PostgresqlPsycopgBackend
from yoyo.connections import DatabaseURI

from service.errors import ConfigError, DatabaseUnavailableError, Fault
from service.postgres import session
from service.postgres.pool import explain

SCHEMA: LiteralString = "flow_outcomes"
TABLE: LiteralString = "_yoyo_migration"
LOCK = int.from_bytes(b"flow-out")  # of pg_advisory_lock's one-number kind
POLL = 0.1
NAME = "flow-outcomes migrate"

APPLIED = f"SELECT migration_id FROM {SCHEMA}.{TABLE}"
EXISTS = f"SELECT to_regclass('{SCHEMA}.{TABLE}') IS NOT NULL"
READABLE = f"GRANT SELECT ON {SCHEMA}.{TABLE} TO PUBLIC"  # for a role that may use the schema, not change it


def migrations_dir() -> Path:
    """Where the SQL files are: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parents[1]
    return next(folder for folder in (package / "migrations", package.parent / "migrations") if folder.is_dir())


def known(folder: Path | None = None) -> list[str]:
    """The ids of the migrations that this version brings, in their order."""
    files = (folder or migrations_dir()).glob("*.sql")
    return sorted(file.stem for file in files if not file.stem.endswith(".rollback"))


def pending(dsn: str, folder: Path | None = None) -> list[str]:
    """The ids that are not applied yet; reads only.

    Raises:
        ConfigError: the database is none that the schema can live in.
        DatabaseUnavailableError: it cannot be reached.
    """
    with _explained(), session.connected(dsn, NAME, session.MIGRATING) as connection:
        _check(connection)
        exists = connection.execute(EXISTS).fetchone() == (True,)
        applied = {row[0] for row in connection.execute(APPLIED)} if exists else set()
    return [name for name in known(folder) if name not in applied]


async def schema_current(connection: psycopg.AsyncConnection[Any], folder: Path | None = None) -> bool:
    """Whether every known migration is applied, asked on a connection that is there; reads only."""
    cursor = connection.cursor(row_factory=tuple_row)
    exists = await (await cursor.execute(EXISTS)).fetchone()
    if exists != (True,):
        return False
    applied = {row[0] for row in await (await cursor.execute(APPLIED)).fetchall()}
    return applied.issuperset(known(folder))


def migrate(dsn: str, folder: Path | None = None, *, patience: float = 60.0) -> list[str]:
    """Bring the schema up, and give the ids that were applied; blocking.

    Args:
        dsn: of PostgreSQL, as a URL or as keywords.
        folder: of the SQL files; the package's own where it is not given.
        patience: seconds to wait for another process that migrates.

    Raises:
        ConfigError: the role may not change the schema, or the database is none that it can live in.
        DatabaseUnavailableError: it cannot be reached, or another process did not finish.
    """
    missing = pending(dsn, folder)
    if not missing:
        return []
    with _explained(missing), _alone(dsn, patience), _backend(dsn) as backend:
        applied = []
        for migration in _migrations(backend.to_apply, folder):
            _move(backend, migration, "apply")
            applied.append(migration.id)
        backend.execute(READABLE)
    return applied


def rollback(dsn: str, to: str = "", folder: Path | None = None, *, patience: float = 60.0) -> list[str]:
    """Take back every migration after ``to``, all of them where it is empty; gives the ids, newest first."""
    if to and to not in known(folder):
        raise ValueError(f"no migration is called {to}")
    with _explained(), _alone(dsn, patience), _backend(dsn) as backend:
        undone = []
        for migration in reversed(_migrations(backend.to_rollback, folder)):
            if migration.id > to:
                _move(backend, migration, "rollback")
                undone.append(migration.id)
    return undone


class _Backend(PostgresqlPsycopgBackend):  # type: ignore[misc] # yoyo is not typed
    """Yoyo's, with its tables in our schema, whatever the role's search_path says."""

    def init_connection(self, connection: psycopg.Connection[Any]) -> None:
        """Make a connection ready; yoyo calls it again after each rollback."""
        session.begin(connection, session.MIGRATING)
        with suppress(psycopg.errors.InvalidParameterValue):  # not every system can
            connection.execute("SET client_connection_check_interval TO '1s'")  # a killed one's statement ends too

    def get_log_data(self, migration: Any = None, operation: str = "apply") -> dict[str, Any]:  # noqa: ANN401
        """What yoyo's log keeps; its own wants a user's name, which a container may lack, and the DNS."""
        return {
            "id": str(uuid.uuid4()),
            "migration_id": migration.id,
            "migration_hash": migration.hash,
            "username": str(os.getuid()),
            "hostname": socket.gethostname(),
            "created_at_utc": datetime.now(UTC).replace(tzinfo=None),
            "operation": operation,
        }


def _migrations(choose: Any, folder: Path | None) -> list[Any]:  # noqa: ANN401 - yoyo is not typed
    source = escape(str(folder or migrations_dir()))
    return sorted(choose(read_migrations(source)), key=lambda migration: migration.id)


def _move(backend: _Backend, migration: Any, direction: str) -> None:  # noqa: ANN401 - yoyo is not typed
    migration.load()
    if not migration.use_transactions:  # a file of statements such as CREATE INDEX CONCURRENTLY
        (backend.apply_one if direction == "apply" else backend.rollback_one)(migration)
        return
    with backend.transaction():
        migration.process_steps(backend, direction)
        (backend.mark_one if direction == "apply" else backend.unmark_one)(migration)


@contextmanager
def _backend(dsn: str) -> Iterator[_Backend]:
    parameters = conninfo_to_dict(session.served_first(session.conninfo(dsn, NAME)))
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
        backend.break_lock()  # whoever left it is dead: the advisory lock is ours
        with backend.lock():
            yield backend


@contextmanager
def _alone(dsn: str, patience: float) -> Iterator[None]:
    """Hold the advisory lock on its own connection; polled: a wait deadlocks with CREATE INDEX CONCURRENTLY."""
    deadline = time.monotonic() + patience
    with session.connected(dsn, NAME, session.MIGRATING) as connection:
        while connection.execute("SELECT pg_try_advisory_lock(%s)", [LOCK]).fetchone() != (True,):
            if time.monotonic() > deadline:
                raise DatabaseUnavailableError(
                    f"another process migrates the schema, for more than {patience:g} s"
                )
            time.sleep(POLL)
        if connection.execute("SELECT to_regnamespace(%s) IS NULL", [SCHEMA]).fetchone() == (True,):
            connection.execute(f"CREATE SCHEMA {SCHEMA}")
        yield


@contextmanager
def _explained(missing: list[str] | None = None) -> Iterator[None]:
    """Raise the program's own errors for PostgreSQL's."""
    try:
        yield
    except (psycopg.OperationalError, psycopg.InterfaceError, psycopg.errors.ReadOnlySqlTransaction) as error:
        raise DatabaseUnavailableError(explain(error)) from error
    except psycopg.errors.InsufficientPrivilege as error:
        reason = f"{error.diag.message_primary}: run 'flow-outcomes migrate' as a role that may"
        if missing:
            reason = f"the schema lacks {', '.join(missing)}, and the role may not change it; {reason}"
        raise ConfigError([Fault("database.dsn", reason)]) from error
    except psycopg.ProgrammingError as error:
        if error.sqlstate is not None:
            raise
        raise ConfigError([Fault("database.dsn", f"not a PostgreSQL DSN: {explain(error)}")]) from error


def _check(connection: psycopg.Connection[Any]) -> None:
    if trouble := session.trouble(connection.info):
        raise ConfigError([Fault("database.dsn", trouble)])
