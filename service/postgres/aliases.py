"""The table of aliases, and its effect on the names of outcomes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import psycopg
from psycopg.rows import class_row, scalar_row

from service.errors import FlowOutcomesError, SchemaError
from service.model import NAME_BYTES_MAX
from service.postgres.pool import Database, explain
from service.postgres.revision import ARCHIVE_RENAMED, RENAME_TIMEOUT, STAMP, lock_org


class AliasError(FlowOutcomesError):
    """The entry cannot be written, or does not exist."""


class Alias(NamedTuple):
    """An entry: in this org, in one flow or (None) in all, the old name is displayed as the new name."""

    org: str
    flow_id: str | None
    old_name: str
    new_name: str


def name_fault(text: str) -> str | None:
    """Why a text cannot be a name or an id, or None."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        return "is not valid UTF-8"
    if not text:
        return "is empty"
    if "\0" in text:
        return "contains a NUL character"
    return f"is longer than {NAME_BYTES_MAX} bytes of UTF-8" if size > NAME_BYTES_MAX else None


_SELECT_NEW_NAME = """
    SELECT a.new_name FROM flow_outcomes.outcome_alias a
    WHERE a.org = %s AND coalesce(a.flow_id, '') = coalesce(%s, '') AND a.old_name = %s
    FOR UPDATE
"""

_UPSERT = """
    INSERT INTO flow_outcomes.outcome_alias AS a (org, flow_id, old_name, new_name) VALUES (%s, %s, %s, %s)
    ON CONFLICT (org, (coalesce(flow_id, '')), old_name)
    DO UPDATE SET new_name = EXCLUDED.new_name WHERE a.new_name <> EXCLUDED.new_name
"""

_KNOWN_NAMES = """
    SELECT o.reported_name FROM flow_outcomes.series o
    WHERE o.org = %(org)s AND o.measure = 'outcomes' AND o.flow_id = coalesce(%(flow_id)s, o.flow_id)
    UNION
    SELECT a.new_name FROM flow_outcomes.outcome_alias a WHERE a.org = %(org)s
"""

_KNOWN_FLOWS = """
    SELECT f.flow_id FROM flow_outcomes.flow f WHERE f.org = %(org)s
    UNION
    SELECT o.flow_id FROM flow_outcomes.series o WHERE o.org = %(org)s
"""

_DELETE = """
    DELETE FROM flow_outcomes.outcome_alias a
    WHERE a.org = %s AND coalesce(a.flow_id, '') = coalesce(%s, '') AND a.old_name = %s
      AND a.new_name = coalesce(%s, a.new_name)
    RETURNING a.org, a.flow_id, a.old_name, a.new_name
"""

_LIST = """
    SELECT a.org, a.flow_id, a.old_name, a.new_name FROM flow_outcomes.outcome_alias a
    WHERE a.org = %s
    ORDER BY a.flow_id NULLS FIRST, a.old_name
"""

_FIND_STALE = """
    SELECT g.org FROM flow_outcomes.alias_guard g
    JOIN flow_outcomes.org USING (org)
    WHERE g.changes > org.aliases_applied
"""

# Before the entries are read: a change that is committed in between is applied again, and not missed.
_MARK_APPLIED = """
    UPDATE flow_outcomes.org SET aliases_applied = g.changes
    FROM flow_outcomes.alias_guard g
    WHERE org.org = %s AND g.org = org.org AND org.aliases_applied < g.changes
"""

# (SELECT org) as in the statements of a merge, see merge/scan.py.
_RENAME = f"""
    WITH
    -- Outcomes that have an alias or may get one, and the names that the entries give.
    named AS (
        SELECT o.series_no, flow_outcomes.resolve_alias(o.org, o.flow_id, o.reported_name) AS outcome_name
        FROM flow_outcomes.series o
        WHERE o.org = %(org)s AND o.source_key <> '' AND o.measure = 'outcomes'
          AND (o.outcome_name <> o.reported_name OR o.reported_name IN (
              SELECT a.old_name FROM flow_outcomes.outcome_alias a WHERE a.org = %(org)s))
    ),
    -- Those whose name changes.
    renamed AS (
        SELECT o.series_no, named.outcome_name
        FROM named
        JOIN flow_outcomes.series o ON o.org = (SELECT %(org)s::text) AND o.series_no = named.series_no
        WHERE o.outcome_name <> named.outcome_name
    ),
    {ARCHIVE_RENAMED}
    UPDATE flow_outcomes.series o SET outcome_name = renamed.outcome_name, revision = %(revision)s
    FROM renamed WHERE o.org = (SELECT %(org)s::text) AND o.series_no = renamed.series_no
"""


async def add(database: Database, alias: Alias) -> str | None:
    """Write an entry, and return the new name of the entry that it replaces, if any.

    Raises:
        AliasError: it would form a cycle, or a name is not valid.
        DatabaseUnavailableError: the database cannot be reached.
        SchemaError: the table does not exist, or the role may not write it.
    """
    with _explained():
        async with database.transaction() as connection:
            cursor = await connection.execute(_SELECT_NEW_NAME, alias[:3])
            replaced = await cursor.fetchone()
            await connection.execute(_UPSERT, alias)
    return replaced[0] if replaced else None


async def known_names(database: Database, org: str, flow_id: str | None) -> frozenset[str]:
    """The outcome names that an alias can map: those the API reported, and the new names of other aliases.

    Args:
        database: the pool.
        org: the org.
        flow_id: the flow; None for all flows.
    """
    async with database.connection() as connection:
        return frozenset(await connection.fetch_values(_KNOWN_NAMES, {"org": org, "flow_id": flow_id}))


async def known_flows(database: Database, org: str) -> frozenset[str]:
    """The flows that the API reported."""
    async with database.connection() as connection:
        return frozenset(await connection.fetch_values(_KNOWN_FLOWS, {"org": org}))


async def remove(
    database: Database, org: str, flow_id: str | None, old_name: str, new_name: str | None = None
) -> Alias:
    """Remove the entry for an old name, and return it. With ``new_name``, only if it has that one.

    Raises:
        AliasError: there is no such entry, or a cycle would remain without it.
        DatabaseUnavailableError: the database cannot be reached.
        SchemaError: the table does not exist, or the role may not write it.
    """
    with _explained():
        async with (
            database.transaction() as connection,
            connection.cursor(row_factory=class_row(Alias)) as cursor,
        ):
            await cursor.execute(_DELETE, (org, flow_id, old_name, new_name))
            alias = await cursor.fetchone()
    if alias is None:
        flow = "" if flow_id is None else f" for flow {flow_id}"
        goal = "" if new_name is None else f" to {new_name!r}"
        raise AliasError(f"no alias from {old_name!r}{goal}{flow} exists")
    return alias


@contextmanager
def _explained() -> Iterator[None]:
    """Raise the server's errors as ours."""
    try:
        yield
    except (psycopg.errors.IntegrityError, psycopg.errors.DataError) as error:
        raise AliasError(error.diag.message_primary or explain(error)) from error
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName) as error:
        raise SchemaError("the schema does not exist; run flow-outcomes migrate") from error
    except psycopg.errors.InsufficientPrivilege as error:
        raise SchemaError(f"the role lacks a privilege: {explain(error)}") from error


async def entries(database: Database, org: str) -> list[Alias]:
    """The org's entries; first those for all flows.

    Raises:
        DatabaseUnavailableError: the database cannot be reached.
        SchemaError: the table does not exist, or the role may not read it.
    """
    with _explained():
        async with (
            database.connection() as connection,
            connection.cursor(row_factory=class_row(Alias)) as cursor,
        ):
            await cursor.execute(_LIST, (org,))
            return await cursor.fetchall()


async def stale(database: Database) -> list[str]:
    """The orgs whose entries have changed since they were last applied."""
    async with (
        database.connection() as connection,
        connection.cursor(row_factory=scalar_row) as cursor,
    ):
        await cursor.execute(_FIND_STALE)
        return await cursor.fetchall()


async def apply(database: Database, org: str) -> int:
    """Rename the org's outcomes as its entries say, and return how many were renamed.

    One row is written per outcome, however many figures it has. The org's row is locked as in a merge, so
    revisions are in order, and a merge sees the names before or after.

    Raises:
        DatabaseUnavailableError: the database cannot be reached.
    """
    async with database.transaction(limit=RENAME_TIMEOUT + 30) as connection:
        await connection.execute(f"SET LOCAL statement_timeout = '{RENAME_TIMEOUT}s'")
        locked = await lock_org(connection, org)
        if locked is None:
            return 0
        cursor = await connection.execute(_MARK_APPLIED, (org,))
        if cursor.rowcount == 0:
            return 0
        parameters = {"org": org, "revision": locked.revision + 1, "not_after": None}
        cursor = await connection.execute(_RENAME, parameters)
        renamed = cursor.rowcount
        if renamed:
            await connection.execute(STAMP, parameters)
    return renamed
