"""A single connection outside the pool with a short time limit, and checks of the database on it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import NamedTuple

import psycopg

from service.errors import DatabaseUnavailableError, SchemaError
from service.postgres import session
from service.postgres.migrate import SCHEMA, known_migrations, pending_on
from service.postgres.pool import Connection, abort_after, explain, storage_problem
from service.postgres.storage import full_disk

_MIGRATE_HINT = "run 'flow-outcomes migrate'"
_SCHEMA_ERRORS = (
    psycopg.errors.UndefinedTable,
    psycopg.errors.UndefinedColumn,
    psycopg.errors.UndefinedFunction,
    psycopg.errors.InvalidSchemaName,
)


@asynccontextmanager
async def open_connection(
    dsn: str, application_name: str, *, timeout: float, read_only: bool = True
) -> AsyncIterator[Connection]:
    """A connection in autocommit mode, aborted after ``timeout`` seconds.

    Raises:
        ConfigError: the DSN selects a server that accepts no writes, and ``read_only`` is False.
        DatabaseUnavailableError: the server is unreachable, rejects the connection, or does not answer in time.
        SchemaError: the schema is missing, or this role may not read it.
    """
    settings = read_only_settings(timeout)
    if not read_only:
        settings = {name: value for name, value in settings.items() if name not in session.READ_ONLY}
    async with translate_errors(timeout) as deadline:
        connection = await connect(dsn, application_name, settings)
        try:
            deadline.reschedule(None)
            with abort_after(connection, timeout):
                yield connection
        finally:
            with contextlib.suppress(psycopg.Error, OSError):
                await connection.close()


def read_only_settings(timeout: float) -> dict[str, str]:
    """The settings of a session that reads, whose statements take ``timeout`` seconds at most."""
    return {"statement_timeout": f"{max(1, round(timeout * 1000))}", **session.READ_ONLY}


async def connect(dsn: str, application_name: str, settings: Mapping[str, str]) -> Connection:
    """A connection in autocommit mode with these settings; without ``READ_ONLY`` to a server that accepts writes.

    Raises:
        ConfigError, psycopg.Error, OSError: it cannot be opened.
    """
    writes = not settings.keys() >= session.READ_ONLY.keys()
    return await Connection.connect(
        session.conninfo(dsn, application_name, writes=writes),
        settings=settings,
        autocommit=True,
        prepare_threshold=None,
    )


@asynccontextmanager
async def translate_errors(timeout: float) -> AsyncIterator[asyncio.Timeout]:
    """Turn errors of the block into the program's; yields the time limit, which the block removes when connected.

    Raises:
        DatabaseUnavailableError, SchemaError: as ``open_connection``.
    """
    loop, deadline = asyncio.get_running_loop(), asyncio.timeout(timeout)
    started = loop.time()
    try:
        async with deadline:
            with _translate_schema_errors():
                yield deadline
    except (psycopg.OperationalError, psycopg.InterfaceError, OSError) as error:  # a TimeoutError is an OSError
        late = loop.time() - started >= timeout
        reason = f"the database did not answer within {timeout:g} s" if late else explain(error)
        raise DatabaseUnavailableError(reason) from error
    except psycopg.ProgrammingError as error:
        raise DatabaseUnavailableError(f"not a PostgreSQL DSN: {explain(error)}") from error


def rejection(error: Exception) -> str:
    """What is to be done where the schema or a privilege is missing; empty for other errors."""
    if isinstance(error, _SCHEMA_ERRORS):
        return f"the schema {SCHEMA} is missing or out of date: {_MIGRATE_HINT}"
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return f"the role lacks a privilege: {explain(error)}; 'flow-outcomes check' names all that are missing"
    return ""


@contextmanager
def _translate_schema_errors() -> Iterator[None]:
    try:
        yield
    except _SCHEMA_ERRORS as error:
        raise SchemaError(rejection(error)) from error
    except psycopg.errors.InsufficientPrivilege as error:
        raise SchemaError(
            f"{error.diag.message_primary}: grant the role USAGE on the schema {SCHEMA} and SELECT on its tables"
        ) from error


async def readiness_problem(connection: Connection) -> str | None:
    """Why the daemon cannot work on this database now; None where it can.

    A row is written and rolled back, as a demoted primary still answers ``SELECT 1``.
    """
    if reason := session.unsupported(connection.info):
        return reason
    try:
        if await pending_on(connection):
            return f"the schema is not current: {_MIGRATE_HINT}"
        async with connection.transaction(force_rollback=True):
            await connection.execute("INSERT INTO flow_outcomes.org (org) VALUES ('') ON CONFLICT DO NOTHING")
        return await full_disk(connection) or None
    except psycopg.errors.ReadOnlySqlTransaction:
        return "the database accepts no writes: it is a standby, or was set read-only"
    except psycopg.Error as error:
        return storage_problem(error) or f"the database cannot be written to: {explain(error)}"


class Facts(NamedTuple):
    """The state of a database, as ``check`` reports it.

    Attributes:
        version: PostgreSQL's version string.
        unsupported: why this database cannot hold the schema, whatever is done to it; empty where it can.
        writable: whether it accepts writes.
        pending: the migrations that are not applied yet.
        schema_exists: whether the schema exists; where it does not, no process works on this database.
        may_migrate: whether the role may change the schema.
        missing_privileges: privileges that the daemon needs and the role lacks, such as ``INSERT on figure``.
        merge_problem: why a merge, which was rolled back, failed; empty where it passed or was not tried.
    """

    version: str
    unsupported: str
    writable: bool
    pending: list[str]
    schema_exists: bool
    may_migrate: bool
    missing_privileges: list[str]
    merge_problem: str = ""

    @property
    def ready(self) -> bool:
        """Whether the schema can be used; that a merge passes is another question."""
        usable = self.writable and self.schema_exists and not self.unsupported
        return usable and not (self.missing_privileges or self.pending)


class _Access(NamedTuple):
    writable: bool
    schema_exists: bool
    may_migrate: bool


async def inspect(connection: Connection) -> Facts:
    """Read the state of the database."""
    info = connection.info
    (access,) = await connection.fetch_all(_Access, _ACCESS, {"schema": SCHEMA})
    missing = await connection.fetch_values(_MISSING_PRIVILEGES, {"schema": SCHEMA})
    pending = [] if access.schema_exists else known_migrations()
    if access.schema_exists and not missing:
        pending = await pending_on(connection)
    return Facts(
        version=info.parameter_status("server_version") or str(info.server_version),
        unsupported=session.unsupported(info),
        writable=access.writable,
        pending=pending,
        schema_exists=access.schema_exists,
        may_migrate=access.may_migrate,
        missing_privileges=missing,
    )


_ACCESS = """
    SELECT NOT pg_is_in_recovery() AND current_setting('transaction_read_only') = 'off' AS writable,
           n.oid IS NOT NULL AS schema_exists,
           CASE WHEN n.oid IS NULL THEN has_database_privilege(current_database(), 'CREATE')
                ELSE pg_has_role(n.nspowner, 'USAGE') END AS may_migrate
    FROM (SELECT) AS one_row
    LEFT JOIN pg_namespace n ON n.nspname = %(schema)s
"""

# The daemon only reads the views and outcome_alias. No row where the schema does not exist.
_MISSING_PRIVILEGES = """
    SELECT 'USAGE on the schema ' || n.nspname
    FROM pg_namespace n
    WHERE n.nspname = %(schema)s AND NOT has_schema_privilege(n.oid, 'USAGE')
    UNION ALL
    SELECT p.privilege || ' on ' || c.relname
    FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace
    CROSS JOIN unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS p (privilege)
    WHERE n.nspname = %(schema)s AND NOT c.relispartition AND c.relname NOT LIKE '%%yoyo%%'
      AND (c.relkind IN ('r', 'p') AND c.relname <> 'outcome_alias'
           OR c.relkind IN ('r', 'v') AND p.privilege = 'SELECT')
      AND NOT has_table_privilege(c.oid, p.privilege)
"""
