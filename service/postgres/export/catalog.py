"""Connections for the Iceberg catalog that is kept in this database: pyiceberg's own tables in the schema."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from service.errors import DatabaseUnavailableError, SchemaError
from service.postgres import session
from service.postgres.pool import explain

NAME = "flow-outcomes catalog"
_SETTINGS = {"search_path": "flow_outcomes"}  # pyiceberg's statements name no schema


def connect_catalog(dsn: str) -> psycopg.Connection[Any]:
    """A blocking connection on which pyiceberg's catalog finds its tables.

    Raises:
        ConfigError: the DSN selects a server that accepts no writes.
        OperationalError: the server is unreachable.
    """
    conninfo = session.conninfo(dsn, NAME)
    connection = psycopg.connect(session.prefer_last_host(conninfo), autocommit=True)
    try:
        session.configure(connection, _SETTINGS)
        connection.autocommit = False
    except BaseException:
        connection.close()
        raise
    return connection


def create_catalog(dsn: str) -> None:
    """Create the catalog's tables where they do not exist.

    Raises:
        ConfigError: as ``connect_catalog``.
        DatabaseUnavailableError: the server is unreachable, or accepts no writes.
        SchemaError: the schema is not current, or this role may not create the catalog.
    """
    with _catalog_errors(), session.connect(dsn, NAME) as connection:
        connection.execute("SELECT flow_outcomes.create_iceberg_catalog()")


def rehearse_catalog(dsn: str) -> None:
    """Create the catalog's tables and write into them, and roll back.

    Raises:
        ConfigError, DatabaseUnavailableError, SchemaError: as ``create_catalog``.
    """
    with (
        _catalog_errors(),
        session.connect(dsn, NAME) as connection,
        connection.transaction(force_rollback=True),
    ):
        connection.execute("SELECT flow_outcomes.create_iceberg_catalog()")
        connection.execute(_REHEARSAL)


@contextmanager
def _catalog_errors() -> Iterator[None]:
    try:
        yield
    except (psycopg.errors.UndefinedFunction, psycopg.errors.InvalidSchemaName) as error:
        raise SchemaError("the schema flow_outcomes is out of date: run 'flow-outcomes migrate'") from error
    except psycopg.errors.InsufficientPrivilege as error:
        raise SchemaError(f"the catalog cannot be created: {explain(error)}") from error
    except psycopg.Error as error:
        raise DatabaseUnavailableError(explain(error)) from error


# Each statement needs the privileges that pyiceberg's need.
_REHEARSAL = """
    WITH inserted AS (
        INSERT INTO flow_outcomes.iceberg_namespace_properties
            (catalog_name, namespace, property_key, property_value) VALUES ('flow-outcomes check', '', '', '')
    ), deleted AS (
        DELETE FROM flow_outcomes.iceberg_tables WHERE catalog_name = 'flow-outcomes check'
    )
    UPDATE flow_outcomes.iceberg_tables SET metadata_location = '' WHERE catalog_name = 'flow-outcomes check'
"""
