"""A look at the database without the pool: a connection of its own, quick to fail, for those who only ask."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import psycopg
from psycopg import AsyncConnection

from service.errors import DatabaseAwayError, SchemaError
from service.postgres.migrate import SCHEMA, schema_current
from service.postgres.pool import Connection, conninfo, explain

MEND = "run 'flow-outcomes migrate'"


@asynccontextmanager
async def looking(
    dsn: str, application_name: str, *, within: float, read_only: bool = True
) -> AsyncIterator[Connection]:
    """A connection in autocommit mode, for at most ``within`` seconds.

    Raises:
        DatabaseAwayError: the server cannot be reached, refuses us, or does not answer in time.
        SchemaError: the schema is not there, or not for this role to read.
    """
    settings = {"statement_timeout": f"{max(1, round(within * 1000))}"}
    if read_only:
        settings["default_transaction_read_only"] = "on"
    deadline = asyncio.timeout(within)
    try:
        async with deadline:
            connection = await AsyncConnection.connect(
                conninfo(dsn, application_name, **settings), autocommit=True, prepare_threshold=None
            )
            try:
                with _explained():
                    yield connection
            finally:
                with contextlib.suppress(psycopg.Error, OSError):
                    await connection.close()
    except TimeoutError as error:
        told = f"the database did not answer within {within:g} s" if deadline.expired() else explain(error)
        raise DatabaseAwayError(told) from error
    except (psycopg.OperationalError, psycopg.InterfaceError, OSError) as error:
        raise DatabaseAwayError(explain(error)) from error
    except psycopg.ProgrammingError as error:
        raise DatabaseAwayError(f"not a PostgreSQL DSN: {explain(error)}") from error


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


async def unready(connection: Connection) -> str | None:
    """Why the daemon could not work on this database now; None where it could.

    A demoted primary still answers ``SELECT 1``, so something is really written, and taken back.
    """
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
