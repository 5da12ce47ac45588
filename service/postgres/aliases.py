"""The mapping table: entries, and their taking hold of the names in use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import psycopg

from service.errors import FlowOutcomesError, SchemaError
from service.postgres.pool import Database, explain
from service.postgres.revision import STAMP

NAME_BYTES = 512  # as the table says: no longer name is ever stored


class AliasError(FlowOutcomesError):
    """The entry cannot be written, or is not there."""


class Alias(NamedTuple):
    """An entry: in this org, for this flow or (None) for all, the old name is to be called the new one."""

    org: str
    flow_id: str | None
    old_name: str
    new_name: str


def name_fault(text: str) -> str | None:
    """Why no name or id can be like this, in words, or None."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        return "is no text in UTF-8"
    if not text:
        return "is empty"
    if "\0" in text:
        return "holds a NUL"
    return f"is longer than {NAME_BYTES} bytes of UTF-8" if size > NAME_BYTES else None


async def add(database: Database, alias: Alias) -> str | None:
    """Write an entry, in place of one for the same old name; tells what that one said.

    Raises:
        AliasError: it would close a circle, or no name can be like this.
        DatabaseUnavailableError: the database is away.
        SchemaError: the mapping table is not there, or not for this role to write.
    """
    with _explained():
        async with database.transaction() as connection:
            cursor = await connection.execute(
                "SELECT new_name FROM flow_outcomes.outcome_alias"
                " WHERE org = %s AND coalesce(flow_id, '') = coalesce(%s, '') AND old_name = %s FOR UPDATE",
                alias[:3],
            )
            former = await cursor.fetchone()
            await connection.execute(
                "INSERT INTO flow_outcomes.outcome_alias AS a (org, flow_id, old_name, new_name)"
                " VALUES (%s, %s, %s, %s) ON CONFLICT (org, (coalesce(flow_id, '')), old_name)"
                " DO UPDATE SET new_name = EXCLUDED.new_name WHERE a.new_name <> EXCLUDED.new_name",
                alias,
            )
    return former[0] if former else None


async def remove(
    database: Database, org: str, flow_id: str | None, old_name: str, new_name: str | None = None
) -> Alias:
    """Take the entry for an old name out, and give it; where ``new_name`` is told, only if it is that one.

    Raises:
        AliasError: there is none like it, or taking it out would uncover a circle.
        DatabaseUnavailableError: the database is away.
        SchemaError: the mapping table is not there, or not for this role to write.
    """
    with _explained():
        async with database.transaction() as connection:
            cursor = await connection.execute(
                "DELETE FROM flow_outcomes.outcome_alias WHERE org = %s "
                " AND coalesce(flow_id, '') = coalesce(%s, '')"
                " AND old_name = %s AND new_name = coalesce(%s, new_name)"
                " RETURNING org, flow_id, old_name, new_name",
                (org, flow_id, old_name, new_name),
            )
            row = await cursor.fetchone()
    if row is None:
        place = "" if flow_id is None else f" for flow {flow_id}"
        goal = "" if new_name is None else f" to {new_name!r}"
        raise AliasError(f"there is no alias from {old_name!r}{goal}{place} to remove")
    return Alias(*row)


@contextmanager
def _explained() -> Iterator[None]:
    """The server's refusals in our words."""
    try:
        yield
    except (psycopg.errors.IntegrityError, psycopg.errors.DataError) as error:
        raise AliasError(error.diag.message_primary or explain(error)) from error
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName) as error:
        raise SchemaError("the schema is not there yet: run flow-outcomes migrate") from error
    except psycopg.errors.InsufficientPrivilege as error:
        raise SchemaError(f"the role may not do that: {explain(error)}") from error


async def entries(database: Database, org: str) -> list[Alias]:
    """The org's entries, its own first, then those of single flows.

    Raises:
        DatabaseUnavailableError: the database is away.
        SchemaError: the mapping table is not there, or not for this role to read.
    """
    with _explained():
        async with database.connection() as connection:
            cursor = await connection.execute(
                "SELECT org, flow_id, old_name, new_name FROM flow_outcomes.outcome_alias WHERE org = %s"
                " ORDER BY flow_id NULLS FIRST, old_name",
                (org,),
            )
            return [Alias(*row) for row in await cursor.fetchall()]


async def stale(database: Database) -> list[str]:
    """The orgs whose mapping table has changed since it was last applied."""
    async with database.connection() as connection:
        cursor = await connection.execute(
            "SELECT org FROM flow_outcomes.alias_guard g JOIN flow_outcomes.org o USING (org)"
            " WHERE g.changes > o.aliases_applied"
        )
        return [row[0] for row in await cursor.fetchall()]


async def apply(database: Database, org: str) -> int:
    """Give the org's outcomes the names that the mapping table says; tells how many got another one.

    Names stand in one place, so however many figures there are, this writes a row an outcome. It holds the org's
    row as a merge does: revisions stay in order, and either sees the names before or after.
    """
    async with database.transaction(limit=330) as connection:
        await connection.execute("SET LOCAL statement_timeout = '300s'")
        cursor = await connection.execute(
            "SELECT revision FROM flow_outcomes.org WHERE org = %s FOR NO KEY UPDATE", (org,)
        )
        row = await cursor.fetchone()
        if row is None:
            return 0
        # counted before they are read: a change that comes in between is applied once more, not missed
        cursor = await connection.execute(
            "UPDATE flow_outcomes.org o SET aliases_applied = g.changes FROM flow_outcomes.alias_guard g"
            " WHERE o.org = %s AND g.org = o.org AND o.aliases_applied < g.changes",
            (org,),
        )
        if cursor.rowcount == 0:
            return 0
        cursor = await connection.execute(_RENAME, {"org": org, "revision": row[0] + 1})
        renamed = cursor.rowcount
        if renamed:
            await connection.execute(STAMP, {"org": org, "revision": row[0] + 1, "not_after": None})
    return renamed


# Why (SELECT org): as in a merge's statements, see merge/scan.py.
_RENAME = """
    WITH named AS (
        SELECT outcome_no, flow_outcomes.resolve_alias(org, flow_id, reported_name) AS outcome_name
        FROM flow_outcomes.outcome WHERE org = %(org)s AND source_key <> ''
          AND (outcome_name <> reported_name
               OR reported_name IN (SELECT old_name FROM flow_outcomes.outcome_alias WHERE org = %(org)s))
    ), moved AS (
        SELECT o.outcome_no, named.outcome_name
        FROM named
        JOIN flow_outcomes.outcome o ON o.org = (SELECT %(org)s::text) AND o.outcome_no = named.outcome_no
        WHERE o.outcome_name <> named.outcome_name
    ), kept AS (
        INSERT INTO flow_outcomes.outcome_history (org, outcome_no, flow_id, outcome_id, reported_name,
                                                   outcome_name, revision, until_revision)
        SELECT o.org, o.outcome_no, o.flow_id, o.outcome_id, o.reported_name,
               o.outcome_name, o.revision, %(revision)s
        FROM flow_outcomes.outcome o
        JOIN moved ON o.org = (SELECT %(org)s::text) AND o.outcome_no = moved.outcome_no
    )
    UPDATE flow_outcomes.outcome o SET outcome_name = moved.outcome_name, revision = %(revision)s
    FROM moved WHERE o.org = (SELECT %(org)s::text) AND o.outcome_no = moved.outcome_no
"""
