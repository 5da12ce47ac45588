"""A look at the database without the pool: a connection of its own, quick to fail, for those who only ask."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import NamedTuple

import psycopg

from service.errors import DatabaseUnavailableError, SchemaError
from service.postgres import session
from service.postgres.migrate import APPLIED, EXISTS, SCHEMA, known, schema_current
from service.postgres.pool import Connection, explain, hung_up_after

MEND = "run 'flow-outcomes migrate'"


@asynccontextmanager
async def looking(
    dsn: str, application_name: str, *, within: float, read_only: bool = True
) -> AsyncIterator[Connection]:
    """A connection in autocommit mode, for at most ``within`` seconds.

    Raises:
        ConfigError: the DSN asks for a server that takes no writes, and they are wanted.
        DatabaseUnavailableError: the server cannot be reached, refuses us, or does not answer in time.
        SchemaError: the schema is not there, or not for this role to read.
    """
    settings = {"statement_timeout": f"{max(1, round(within * 1000))}"}
    if read_only:
        settings |= session.READ_ONLY
    loop, deadline = asyncio.get_running_loop(), asyncio.timeout(within)
    began = loop.time()
    try:
        async with deadline:
            connection = await Connection.connect(
                session.conninfo(dsn, application_name, writes=not read_only),
                settings=settings,
                autocommit=True,
                prepare_threshold=None,
            )
            try:
                deadline.reschedule(None)
                with hung_up_after(connection, within), _explained():
                    yield connection
            finally:
                with contextlib.suppress(psycopg.Error, OSError):
                    await connection.close()
    except (psycopg.OperationalError, psycopg.InterfaceError, OSError) as error:  # a TimeoutError is an OSError
        late = loop.time() - began >= within
        told = f"the database did not answer within {within:g} s" if late else explain(error)
        raise DatabaseUnavailableError(told) from error
    except psycopg.ProgrammingError as error:
        raise DatabaseUnavailableError(f"not a PostgreSQL DSN: {explain(error)}") from error


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except (
        psycopg.errors.UndefinedTable,
        psycopg.errors.UndefinedColumn,
        psycopg.errors.UndefinedFunction,
        psycopg.errors.InvalidSchemaName,
    ) as error:
        raise SchemaError(f"the schema {SCHEMA} is missing or out of date: {MEND}") from error
    except psycopg.errors.InsufficientPrivilege as error:
        raise SchemaError(
            f"{error.diag.message_primary}: grant the role USAGE on the schema {SCHEMA} and SELECT on its tables"
        ) from error


async def readiness_problem(connection: Connection) -> str | None:
    """Why the daemon could not work on this database now; None where it could.

    A demoted primary still answers ``SELECT 1``, so something is really written, and taken back.
    """
    if never := session.trouble(connection.info):
        return never
    try:
        if not await schema_current(connection):
            return f"the schema is not current: {MEND}"
        async with connection.transaction(force_rollback=True):
            await connection.execute("INSERT INTO flow_outcomes.org (org) VALUES ('') ON CONFLICT DO NOTHING")
    except psycopg.errors.ReadOnlySqlTransaction:
        return "the database takes no writes: it is a standby, or was set read-only"
    except psycopg.Error as error:
        return f"the database cannot be written: {explain(error)}"
    return None


class Facts(NamedTuple):
    """What of the database matters to who sets it up.

    Attributes:
        version: PostgreSQL's, as it says it.
        trouble: why the schema can never live here, or nothing.
        writable: whether it takes writes at all; a standby does not.
        pending: migrations that are not applied yet.
        there: whether the schema is there at all; where it is not, no process can be at work here.
        may_migrate: whether the role may bring the schema up.
        missing_privileges: what the role may not do to the tables, as ``INSERT on figure``.
    """

    version: str
    trouble: str
    writable: bool
    pending: list[str]
    there: bool
    may_migrate: bool
    missing_privileges: list[str]


async def inspect(connection: Connection) -> Facts:
    """Look everything up; reads only."""
    info = connection.info
    cursor = await connection.execute(
        "SELECT NOT pg_is_in_recovery() AND current_setting('transaction_read_only') = 'off', n.oid IS NOT NULL,"
        " CASE WHEN n.oid IS NULL THEN has_database_privilege(current_database(), 'CREATE')"
        "      ELSE pg_has_role(n.nspowner, 'USAGE') END"
        " FROM (SELECT) one LEFT JOIN pg_namespace n ON n.nspname = %(schema)s",
        {"schema": SCHEMA},
    )
    row = await cursor.fetchone() or (False, False, False)
    there = bool(row[1])
    missing_privileges = await _missing_privileges(connection) if there else []
    readable = there and not missing_privileges
    missing = await _pending(connection) if readable else [] if there else known()
    version = info.parameter_status("server_version") or str(info.server_version)
    return Facts(version, session.trouble(info), bool(row[0]), missing, there, bool(row[2]), missing_privileges)


async def _pending(connection: Connection) -> list[str]:
    exists = await (await connection.execute(EXISTS)).fetchone()
    applied = set()
    if exists == (True,):
        applied = {row[0] for row in await (await connection.execute(APPLIED)).fetchall()}
    return [name for name in known() if name not in applied]


async def _missing_privileges(connection: Connection) -> list[str]:
    """What the role may not do that a daemon does; the mapping table it only reads, and the views."""
    cursor = await connection.execute(
        "SELECT 'USAGE on the schema ' || n.nspname FROM pg_namespace n"
        " WHERE n.nspname = %(schema)s AND NOT has_schema_privilege(n.oid, 'USAGE')"
        " UNION ALL"
        " SELECT r.needed || ' on ' || c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " CROSS JOIN unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) WITH ORDINALITY AS r (needed, place)"
        " WHERE n.nspname = %(schema)s AND NOT c.relispartition AND c.relname NOT LIKE '%%yoyo%%'"
        " AND (c.relkind IN ('r', 'p') AND c.relname <> 'outcome_alias'"
        "      OR c.relkind IN ('r', 'v') AND r.needed = 'SELECT')"
        " AND NOT has_table_privilege(c.oid, r.needed)",
        {"schema": SCHEMA},
    )
    return [row[0] for row in await cursor.fetchall()]
