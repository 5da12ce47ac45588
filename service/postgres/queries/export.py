"""Figures read for a warehouse: one snapshot, what changed in it, and the rows of a month at a time."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, NamedTuple

from psycopg import IsolationLevel

from service.postgres.pool import Connection
from service.postgres.probe import looking

NAME = "flow-outcomes export"
WITHIN = 86_400.0  # seconds that an export may take
IDLE_LIMIT = "10min"  # between two reads the rows are written to a disk, which may be slow
ROWS_AT_ONCE = 20_000

COLUMNS = (
    "org",
    "flow_id",
    "granularity",
    "bucket_start",
    "bucket_end",
    "outcome_key",
    "outcome_name",
    "outcome_count",
    "outcome_percentage",
    "outcome_share",
    "extraction_timestamp",
    "outcome_id",
    "success_count",
    "failure_count",
)


class Stand(NamedTuple):
    """How far an org has come: its last revision, and that one's stamp, which tells two databases apart."""

    revision: int
    stamped_at: datetime | None


class Month(NamedTuple):
    """The buckets of one org and granularity that begin in one month, UTC."""

    org: str
    granularity: str
    start: datetime


class Snapshot:
    """The figures as they stood at one instant, however long they are read."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def taken_at(self) -> datetime:
        """When it was taken, by the database's clock."""
        cursor = await self._connection.execute("SELECT transaction_timestamp()")
        row = await cursor.fetchone()
        assert row is not None  # noqa: S101 - for mypy: the statement always has a row
        at: datetime = row[0]
        return at

    async def stands(self) -> dict[str, Stand]:
        """How far each org has come, by its name."""
        cursor = await self._connection.execute(
            "SELECT o.org, o.revision, r.stamped_at FROM flow_outcomes.org o"
            " LEFT JOIN flow_outcomes.revision r ON r.org = o.org AND r.revision = o.revision ORDER BY o.org"
        )
        return {row[0]: Stand(row[1], row[2]) for row in await cursor.fetchall()}

    async def stamp(self, org: str, revision: int) -> datetime | None:
        """When a revision was stamped; None where there is no such one."""
        cursor = await self._connection.execute(
            "SELECT stamped_at FROM flow_outcomes.revision WHERE org = %s AND revision = %s", (org, revision)
        )
        row = await cursor.fetchone()
        return row[0] if row else None

    async def changed(self, org: str, since: int) -> list[Month]:
        """The months in which something is otherwise than at that revision; with 0 all that hold anything.

        Figures stored, restated or taken back, and every month of an outcome that has another name now.
        """
        cursor = await self._connection.execute(_CHANGED, {"org": org, "since": since})
        return [Month(org, granularity, start) for granularity, start in await cursor.fetchall()]

    async def rows(self, month: Month) -> AsyncGenerator[list[tuple[Any, ...]], None]:
        """The rows of a month in the order of ``COLUMNS``, some at a time, so that memory stays flat."""
        async with self._connection.cursor(name="flow_outcomes_export") as cursor:
            await cursor.execute(_ROWS, month._asdict())
            while found := await cursor.fetchmany(ROWS_AT_ONCE):
                yield found


@asynccontextmanager
async def snapshot(dsn: str) -> AsyncIterator[Snapshot]:
    """One snapshot of the database, read only.

    Raises:
        DatabaseUnavailableError: the server cannot be reached, or went away.
        SchemaError: the schema is not there, or not for this role to read.
    """
    async with looking(dsn, NAME, within=WITHIN) as connection:
        await connection.set_isolation_level(IsolationLevel.REPEATABLE_READ)
        async with connection.transaction():
            await connection.execute(f"SET LOCAL idle_in_transaction_session_timeout = '{IDLE_LIMIT}'")
            yield Snapshot(connection)


_CHANGED = """
    SELECT granularity, date_trunc('month', bucket_start) AS month_start
    FROM (
        SELECT granularity, bucket_start FROM flow_outcomes.figure
        WHERE org = %(org)s AND revision > %(since)s
        UNION ALL
        SELECT granularity, bucket_start FROM flow_outcomes.figure_history
        WHERE org = %(org)s AND until_revision > %(since)s
        UNION ALL
        SELECT f.granularity, f.bucket_start
        FROM flow_outcomes.outcome o
        JOIN flow_outcomes.figure f ON f.org = o.org AND f.outcome_no = o.outcome_no
        WHERE o.org = %(org)s AND o.revision > %(since)s
    ) changed
    GROUP BY 1, 2 ORDER BY 1, 2
"""

_ROWS = f"""
    SELECT {", ".join(COLUMNS)}
    FROM flow_outcomes.flow_outcome
    WHERE org = %(org)s AND granularity = %(granularity)s
      AND bucket_start >= %(start)s AND bucket_start < %(start)s + interval '1 month'
    ORDER BY flow_id, bucket_start, outcome_name
"""
