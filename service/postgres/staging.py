"""Where a scan's rows wait for their merge: in memory up to a bound, beyond that in an unlogged table."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import uuid
from collections.abc import Callable
from typing import LiteralString

import psycopg

from service.errors import DatabaseAwayError, FlowOutcomesError
from service.model import Normalised, Reject
from service.postgres.packing import COLUMNS, HEADER, NAME_COLUMNS, TRAILER, Packer
from service.postgres.pool import Connection, Database

# Bytes that a scan holds in memory, about 80,000 rows: nearly every scan stays below. Where all scans of the
# process together hold more than so many, each keeps less.
MEMORY = 6 * 2**20
MEMORY_OF_ALL = 64 * 2**20
MEMORY_WHEN_SCARCE = MEMORY // 8

_REJECT_TYPES = ("text", "int4", "text", "text", "text", "timestamptz", "text")
_TABLES = """
    -- what its rows call the outcomes that it names
    CREATE TEMP TABLE IF NOT EXISTS incoming_name (
        name_no integer NOT NULL, flow_id text NOT NULL, source_key text NOT NULL
    ) ON COMMIT DELETE ROWS;
    -- what it says, each key once
    CREATE TEMP TABLE IF NOT EXISTS scanned (
        bucket_start timestamptz NOT NULL, bucket_end timestamptz NOT NULL, name_no integer NOT NULL,
        outcome_count bigint, outcome_percentage double precision, rejected boolean NOT NULL,
        success_count bigint, failure_count bigint, part text NOT NULL DEFAULT '',
        differing boolean NOT NULL DEFAULT false
    ) ON COMMIT DELETE ROWS
"""
_TABLE_OF_REPEATS = """
    -- the same as it came, where some keys came more than once
    CREATE TEMP TABLE IF NOT EXISTS incoming (LIKE scanned INCLUDING DEFAULTS) ON COMMIT DELETE ROWS
"""
_TABLE_OF_REJECTS = """
    CREATE TEMP TABLE IF NOT EXISTS incoming_reject (
        digest text NOT NULL, ordinal integer NOT NULL, reason text NOT NULL, entry text,
        flow_id text, bucket_start timestamptz, outcome_name text
    ) ON COMMIT DELETE ROWS
"""
_REJECT_COLUMNS = "digest, ordinal, reason, entry, flow_id, bucket_start, outcome_name"
_STAGED = ("staging_name", "staging", "staging_reject")


class Staging:
    """The rows and refused outcomes of one scan, whatever their number, in flat memory.

    Args:
        database: where what does not fit is written out.
        org: whose scan it is.
        hide: takes the org's secrets out of a refused entry, should the server have sent one in it.

    Attributes:
        scan_id: tags what was written out.
        rejects: how many came in all.
        shares_fit: whether each share is near its part of its own entry's total.
    """

    def __init__(self, database: Database, org: str, hide: Callable[[str], str] = str) -> None:
        self._database = database
        self._hide = hide
        self.org = org
        self.scan_id = uuid.uuid4()
        self.rejects = 0
        self.shares_fit = True
        self._staged = dict.fromkeys(_STAGED, 0)
        self._packer = Packer()
        self._packed: list[bytes] = []
        self._names: list[bytes] = []
        self._bytes = self._counted = 0
        self._rejects: list[tuple[str, int, Reject]] = []
        self._last_entry = ("", "", "", 0)  # text, what is kept of it, digest, rejects so far

    async def add(self, normalised: Normalised) -> None:
        """Take one page's rows.

        Raises:
            DatabaseAwayError: they had to be written out, and could not.
        """
        packed, names = self._packer.pack(normalised)
        self.shares_fit = self.shares_fit and normalised.shares_fit
        self._packed.append(packed)
        self._names.append(names)
        self._bytes += len(packed) + len(names)
        for reject in normalised.rejects:
            self._add_reject(reject)
        self._count()
        if self._bytes > (MEMORY if self._database.held <= MEMORY_OF_ALL else MEMORY_WHEN_SCARCE):
            await self._spill()

    def _count(self) -> None:
        """Have the process know what is held here."""
        self._database.held += self._bytes - self._counted
        self._counted = self._bytes

    def _add_reject(self, reject: Reject) -> None:
        text, kept, digest, ordinal = self._last_entry
        if reject.text is not text and reject.text != text:
            kept = self._hide(reject.text)
            digest, ordinal = hashlib.sha256(kept.encode()).hexdigest(), 0
            self._bytes += len(kept)
        self._last_entry = (reject.text, kept, digest, ordinal + 1)
        self._rejects.append((digest, ordinal, reject._replace(text=kept, reason=self._hide(reject.reason))))
        self._bytes += 256
        self.rejects += 1

    async def _spill(self) -> None:
        async with self._database.transaction() as connection:
            await self._copy(connection)
            for target, source, columns in self._tables():
                await connection.execute(
                    f"INSERT INTO flow_outcomes.{target} (org, scan_id, {columns})"
                    f" SELECT %s, %s, {columns} FROM pg_temp.{source}",
                    (self.org, self.scan_id),
                )
        self._staged["staging_name"] = self.names
        self._staged["staging"] = self.rows
        self._staged["staging_reject"] = self.rejects
        self._forget()

    def _forget(self) -> None:
        self._packed, self._names, self._rejects = [], [], []
        self._bytes = 0
        self._count()

    def _tables(self) -> tuple[tuple[LiteralString, LiteralString, LiteralString], ...]:
        """Where a scan is written out to, the session's own tables that it passes through, and their columns."""
        said = ("incoming_name", "incoming" if self.repeats else "scanned", "incoming_reject")
        tables = tuple(zip(_STAGED, said, (NAME_COLUMNS, COLUMNS, _REJECT_COLUMNS), strict=True))
        return tables if self.rejects else tables[:2]

    @property
    def rows(self) -> int:
        """How many rows came in all."""
        return self._packer.rows

    @property
    def names(self) -> int:
        """How many names its rows go by."""
        return self._packer.numbered

    @property
    def in_parts(self) -> bool:
        """Whether some row is a part of its outcome's figure."""
        return self._packer.parts

    @property
    def repeats(self) -> bool:
        """Whether some outcome may have come twice in one bucket."""
        return self._packer.repeats

    @property
    def spilled(self) -> bool:
        """Whether some of it stands in the unlogged tables."""
        return any(self._staged.values())

    async def pour(self, connection: Connection) -> None:
        """Bring everything into the transaction's own tables.

        Names go into ``incoming_name``, rows into ``scanned``, or into ``incoming`` where they repeat, and what
        was refused, if anything, into ``incoming_reject``.

        Raises:
            DatabaseAwayError: what was written out is gone: a crash of the server empties unlogged tables.
        """
        await self._copy(connection)
        self._forget()
        if self.spilled:
            for source, target, columns in self._tables():
                cursor = await connection.execute(
                    f"INSERT INTO pg_temp.{target} ({columns}) SELECT {columns} FROM flow_outcomes.{source}"
                    " WHERE org = %s AND scan_id = %s",
                    (self.org, self.scan_id),
                )
                if cursor.rowcount != self._staged[source]:
                    raise DatabaseAwayError("the server has lost what was staged: it crashed meanwhile")
            await self._sweep(connection)

    async def discard(self) -> None:
        """Forget it all, here and in the database."""
        self._forget()
        if self.spilled:
            async with self._database.transaction() as connection:
                await self._sweep(connection)

    async def abandon(self) -> None:
        """Forget it all where possible; what stays written out is swept when the org is next taken."""
        with contextlib.suppress(FlowOutcomesError, psycopg.Error, TimeoutError):
            async with asyncio.timeout(1):
                await self.discard()

    async def _sweep(self, connection: Connection) -> None:
        for table in _STAGED:
            await connection.execute(
                f"DELETE FROM flow_outcomes.{table} WHERE org = %s AND scan_id = %s",
                (self.org, self.scan_id),
            )

    async def _copy(self, connection: Connection) -> None:
        """Bring what is held in memory into the session's own tables."""
        await connection.execute(_TABLES)
        if self.repeats:
            await connection.execute(_TABLE_OF_REPEATS)
        if self.rejects:
            await connection.execute(_TABLE_OF_REJECTS)
        names, rows, *_ = self._tables()
        for (_, table, columns), packed in ((names, self._names), (rows, self._packed)):
            statement = f"COPY pg_temp.{table} ({columns}) FROM STDIN (FORMAT BINARY)"
            async with connection.cursor() as cursor, cursor.copy(statement) as copy:
                for each in (HEADER, *packed, TRAILER):
                    await copy.write(each)
        if self._rejects:
            await self._copy_rejects(connection)

    async def _copy_rejects(self, connection: Connection) -> None:
        statement = f"COPY pg_temp.incoming_reject ({_REJECT_COLUMNS}) FROM STDIN (FORMAT BINARY)"
        async with connection.cursor() as cursor, cursor.copy(statement) as copy:
            copy.set_types(_REJECT_TYPES)
            for digest, ordinal, reject in self._rejects:
                text = reject.text if ordinal == 0 else None
                await copy.write_row(
                    (digest, ordinal, reject.reason, text, reject.flow_id, reject.bucket_start, reject.outcome)
                )


async def sweep_org(database: Database, org: str) -> None:
    """Delete what scans of the org left behind that a crash ended; for its owner alone, before it begins."""
    async with database.transaction() as connection:
        for table in _STAGED:
            await connection.execute(f"DELETE FROM flow_outcomes.{table} WHERE org = %s", (org,))
