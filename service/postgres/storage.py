"""Whether the database's disk has room: a server with a full disk answers, and most short statements succeed."""

from __future__ import annotations

import psycopg

from service.errors import DatabaseUnavailableError
from service.postgres.pool import Connection, Database, storage_problem

_ROWS = 30_000
"""Rows of a temporary file of about a megabyte."""
_MEGABYTES = 16
"""Room that must be free before a scan is requested again, after one could not be stored."""

# A set of rows beyond work_mem is written to a temporary file: no row, no catalog entry and no WAL remain of it.
_SETTINGS = "SET LOCAL work_mem = '64kB'; SET LOCAL temp_tablespaces = ''"
_WRITE = "SELECT count(*) FROM generate_series(1, %(rows)s)"


async def full_disk(connection: Connection, megabytes: int = 1) -> str:
    """Why so many megabytes cannot be written; empty where they can.

    Raises:
        psycopg.OperationalError: the connection is broken.
    """
    try:
        async with connection.transaction(force_rollback=True):
            await connection.execute(_SETTINGS)
            await connection.execute(_WRITE, {"rows": megabytes * _ROWS})
    except psycopg.errors.ConfigurationLimitExceeded:
        return ""  # temp_file_limit says nothing about the disk
    except psycopg.OperationalError as error:
        if not (problem := storage_problem(error)):
            raise
        return problem
    return ""


async def check_room(database: Database) -> None:
    """Check that there is room again, where a write has failed for lack of it, before a scan is requested.

    Raises:
        DatabaseUnavailableError: there is none.
    """
    if database.storage_problem:
        async with database.connection() as connection:
            problem = await full_disk(connection, _MEGABYTES)
        if problem:
            database.note_storage_problem(problem)
            raise DatabaseUnavailableError(problem)
