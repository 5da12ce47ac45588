"""One snapshot of the database: the months of a relation that changed, and their rows."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from datetime import date, datetime
from typing import Any, NamedTuple

import psycopg
from psycopg import IsolationLevel

from service.errors import DatabaseUnavailableError
from service.postgres.export.relations import Relation
from service.postgres.pool import Connection, explain
from service.postgres.probe import open_connection

NAME = "flow-outcomes export"
TIMEOUT = 86_400.0  # seconds, for a complete export
_IDLE_TIMEOUT = "10min"  # between two reads the rows are written to a disk or over a network, which may be slow
ROWS_PER_FETCH = 20_000


class OrgRevision(NamedTuple):
    """An org's last revision; its stamp distinguishes a restored database from the exported one."""

    revision: int
    stamped_at: datetime | None


class _Row(NamedTuple):
    org: str
    revision: int
    stamped_at: datetime | None


class Month(NamedTuple):
    """The rows of one org and granularity whose instant is in one UTC month; ``month`` is its first day."""

    org: str
    granularity: str
    month: date

    def __str__(self) -> str:
        return f"{self.org} {self.granularity} {self.month:%Y-%m}"


class _Digest(NamedTuple):
    granularity: str
    month: date
    digest: str


class Snapshot:
    """The database as of one instant, however long the reading takes."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def taken_at(self) -> datetime:
        """The snapshot's time, by the database's clock."""
        at: datetime = await self._connection.fetch_value("SELECT transaction_timestamp()")
        return at

    async def revisions(self) -> dict[str, OrgRevision]:
        """The last revision of each org, by its name."""
        rows = await self._connection.fetch_all(
            _Row,
            """
            SELECT org.org, org.revision, r.stamped_at
            FROM flow_outcomes.org
            LEFT JOIN flow_outcomes.revision r ON r.org = org.org AND r.revision = org.revision
            ORDER BY org.org
            """,
        )
        return {row.org: OrgRevision(row.revision, row.stamped_at) for row in rows}

    async def stamp(self, org: str, revision: int) -> datetime | None:
        """The time stamp of a revision; None where there is no such revision."""
        at: datetime | None = await self._connection.fetch_value(
            "SELECT stamped_at FROM flow_outcomes.revision WHERE org = %(org)s AND revision = %(revision)s",
            {"org": org, "revision": revision},
        )
        return at

    async def pruned(self) -> set[Month]:
        """The months that were removed from this database and stay in the warehouse."""
        rows = await self._connection.fetch_all(
            Month, "SELECT org, granularity, month FROM flow_outcomes.pruned_month"
        )
        return set(rows)

    async def changed(self, relation: Relation, org: str, since: int) -> list[Month]:
        """The months that differ from those of a revision, with 0 all that hold a row."""
        return await self._connection.fetch_all(
            Month,
            f"""
            SELECT %(org)s::text AS org, granularity, date_trunc('month', instant)::date AS month
            FROM ({relation.changed}) AS changed
            GROUP BY 2, 3
            ORDER BY 2, 3
            """,
            {"org": org, "since": since},
        )

    async def digests(self, relation: Relation, org: str) -> dict[Month, str]:
        """Each month that holds a row, with a digest of its rows, which does not depend on their order."""
        rows = await self._connection.fetch_all(
            _Digest,
            f"""
            SELECT t.granularity, date_trunc('month', t.{relation.instant})::date AS month,
                   left(md5(sum(hashtextextended(t::text, 0)::numeric) || ' ' || count(*)), 16) AS digest
            FROM flow_outcomes.{relation.name} t
            WHERE t.org = %(org)s
            GROUP BY 1, 2
            ORDER BY 1, 2
            """,
            {"org": org},
        )
        return {Month(org, row.granularity, row.month): row.digest for row in rows}

    async def rows(self, relation: Relation, month: Month) -> AsyncGenerator[list[tuple[Any, ...]], None]:
        """The rows of a month in the order of the relation's columns, ``ROWS_PER_FETCH`` at a time."""
        columns = ", ".join(column.source or f"t.{column.name}" for column in relation.columns)
        statement = f"""
            SELECT {columns}
            FROM flow_outcomes.{relation.name} t
            WHERE t.org = %(org)s AND t.granularity = %(granularity)s
              AND t.{relation.instant} >= %(month)s::timestamptz
              AND t.{relation.instant} < %(month)s::timestamptz + interval '1 month'
            ORDER BY {", ".join(f"t.{name}" for name in relation.order)}
        """
        try:
            async with self._connection.cursor(name="flow_outcomes_export") as cursor:
                await cursor.execute(statement, month._asdict())
                while rows := await cursor.fetchmany(ROWS_PER_FETCH):
                    yield rows
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            raise DatabaseUnavailableError(explain(error)) from error


@asynccontextmanager
async def open_snapshot(dsn: str) -> AsyncIterator[Snapshot]:
    """One read-only snapshot of the database.

    Raises:
        DatabaseUnavailableError, SchemaError: as ``open_connection``.
    """
    async with open_connection(dsn, NAME, timeout=TIMEOUT) as connection:
        await connection.set_isolation_level(IsolationLevel.REPEATABLE_READ)
        async with connection.transaction():
            await connection.execute(f"SET LOCAL idle_in_transaction_session_timeout = '{_IDLE_TIMEOUT}'")
            yield Snapshot(connection)
