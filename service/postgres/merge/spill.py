"""Unlogged tables for the rows of a scan that do not fit in memory."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from typing import LiteralString

from service.errors import DatabaseUnavailableError
from service.postgres.merge.binary_copy import copy_in, pack_prefix, pack_text, pack_uuid
from service.postgres.merge.packing import NAME_COLUMNS
from service.postgres.pool import Connection, Database

NAMES: LiteralString = "staging_name"
ROWS: LiteralString = "staging"
REJECTS: LiteralString = "staging_reject"
TABLES: Mapping[LiteralString, LiteralString] = {
    NAMES: NAME_COLUMNS,
    ROWS: "name_no, part",
    REJECTS: "digest, ordinal, reason, entry, flow_id, bucket_start, outcome_name",
}
"""The columns of each table that hold what a scan reported; those of rows begin with these."""


class SpillStore:
    """The spilled rows of one scan.

    A crash of the server empties unlogged tables, so the rows are counted as they are written, and compared when
    they are read.

    Args:
        database: where the tables are.
        org: the scan's org.
        row_columns: the columns of a packed row.

    Attributes:
        scan_id: tags the scan's rows.
    """

    def __init__(self, database: Database, org: str, row_columns: LiteralString) -> None:
        self._database = database
        self._org = org
        self._columns = {**TABLES, ROWS: f"{TABLES[ROWS]}, {row_columns}"}
        self.scan_id = uuid.uuid4()
        self._written = dict.fromkeys(TABLES, 0)

    @property
    def used(self) -> bool:
        """Whether rows were spilled."""
        return any(self._written.values())

    def columns(self, table: LiteralString) -> LiteralString:
        """The columns of one of the tables that hold what the scan reported."""
        return self._columns[table]

    def prefix(self, table: LiteralString) -> bytes:
        """The packed start of a row of one of the tables."""
        columns = 3 + self._columns[table].count(",")
        return pack_prefix(columns, pack_text(self._org), pack_uuid(self.scan_id))

    async def write(self, rows: Mapping[LiteralString, Iterable[bytes]]) -> None:
        """Append packed rows, which begin with the table's ``prefix``, in one transaction.

        Raises:
            DatabaseUnavailableError: the database cannot be reached.
        """
        async with self._database.transaction() as connection:
            copied = {
                table: await copy_in(
                    connection, f"flow_outcomes.{table}", f"org, scan_id, {self._columns[table]}", packed
                )
                for table, packed in rows.items()
            }
        for table, count in copied.items():
            self._written[table] += count

    async def read(self, connection: Connection, table: LiteralString, into: LiteralString) -> None:
        """Insert a table's rows into a temporary table with the same columns.

        Raises:
            DatabaseUnavailableError: rows are missing, because the server crashed after they were spilled.
        """
        if not self._written[table]:
            return
        cursor = await connection.execute(
            f"""
            INSERT INTO pg_temp.{into} ({self._columns[table]})
            SELECT {self._columns[table]} FROM flow_outcomes.{table} WHERE org = %s AND scan_id = %s
            """,
            (self._org, self.scan_id),
        )
        if cursor.rowcount != self._written[table]:
            raise DatabaseUnavailableError("spilled rows are missing: the server crashed after they were written")

    async def delete(self, connection: Connection) -> None:
        """Delete the scan's rows."""
        for table in TABLES if self.used else ():
            await connection.execute(
                f"DELETE FROM flow_outcomes.{table} WHERE org = %s AND scan_id = %s", (self._org, self.scan_id)
            )

    async def discard(self) -> None:
        """Delete the scan's rows in a transaction of its own.

        Raises:
            DatabaseUnavailableError: the database cannot be reached.
        """
        if self.used:
            async with self._database.transaction() as connection:
                await self.delete(connection)


async def sweep_org(database: Database, org: str) -> None:
    """Delete the rows of scans that a crash ended. Only the org's owner may call this, before its first scan."""
    async with database.transaction() as connection:
        for table in TABLES:
            await connection.execute(f"DELETE FROM flow_outcomes.{table} WHERE org = %s", (org,))
