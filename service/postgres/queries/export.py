"""Figures for a warehouse: a snapshot, the months that changed, and the rows of a month."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, NamedTuple

from psycopg import IsolationLevel

from service.postgres.pool import Connection
from service.postgres.probe import open_connection

NAME = "flow-outcomes export"
TIMEOUT = 86_400.0  # seconds, for a complete export
_IDLE_TIMEOUT = "10min"  # between two reads the rows are written to a disk, which may be slow
ROWS_PER_FETCH = 20_000

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


class OrgRevision(NamedTuple):
    """An org's last revision; its stamp distinguishes a restored database from the exported one."""

    revision: int
    stamped_at: datetime | None


class _Row(NamedTuple):
    org: str
    revision: int
    stamped_at: datetime | None


class Month(NamedTuple):
    """The buckets of one org and granularity that start in one UTC month."""

    org: str
    granularity: str
    start: datetime


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

    async def changed(self, org: str, since: int) -> list[Month]:
        """The months that differ from those of a revision, with 0 all that hold a figure.

        A month changes when a figure in it is stored, restated or removed, or when one of its outcomes is renamed.
        """
        return await self._connection.fetch_all(Month, _CHANGED, {"org": org, "since": since})

    async def rows(self, month: Month) -> AsyncGenerator[list[tuple[Any, ...]], None]:
        """The rows of a month in the order of ``COLUMNS``, ``ROWS_PER_FETCH`` at a time."""
        async with self._connection.cursor(name="flow_outcomes_export") as cursor:
            await cursor.execute(_ROWS, month._asdict())
            while rows := await cursor.fetchmany(ROWS_PER_FETCH):
                yield rows


@asynccontextmanager
async def snapshot(dsn: str) -> AsyncIterator[Snapshot]:
    """One read-only snapshot of the database.

    Raises:
        DatabaseUnavailableError, SchemaError: as ``open_connection``.
    """
    async with open_connection(dsn, NAME, timeout=TIMEOUT) as connection:
        await connection.set_isolation_level(IsolationLevel.REPEATABLE_READ)
        async with connection.transaction():
            await connection.execute(f"SET LOCAL idle_in_transaction_session_timeout = '{_IDLE_TIMEOUT}'")
            yield Snapshot(connection)


_CHANGED = """
    SELECT %(org)s::text AS org, granularity, date_trunc('month', bucket_start) AS start
    FROM (
        -- stored or restated
        SELECT f.granularity, f.bucket_start FROM flow_outcomes.figure f
        WHERE f.org = %(org)s AND f.revision > %(since)s
        UNION ALL
        -- restated or removed
        SELECT h.granularity, h.bucket_start FROM flow_outcomes.figure_history h
        WHERE h.org = %(org)s AND h.until_revision > %(since)s
        UNION ALL
        -- of a renamed outcome
        SELECT f.granularity, f.bucket_start
        FROM flow_outcomes.series o
        JOIN flow_outcomes.figure f ON f.org = o.org AND f.series_no = o.series_no
        WHERE o.org = %(org)s AND o.revision > %(since)s
    ) AS changed
    GROUP BY 2, 3
    ORDER BY 2, 3
"""

_ROWS = f"""
    SELECT {", ".join(COLUMNS)}
    FROM flow_outcomes.flow_outcome
    WHERE org = %(org)s AND granularity = %(granularity)s
      AND bucket_start >= %(start)s AND bucket_start < %(start)s + interval '1 month'
    ORDER BY flow_id, bucket_start, outcome_name
"""
