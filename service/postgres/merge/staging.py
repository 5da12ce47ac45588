"""Where a scan's rows wait for their merge: in memory up to a bound, beyond that in an unlogged table."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import uuid
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import LiteralString

import psycopg

from service.errors import DatabaseUnavailableError, FlowOutcomesError
from service.model import NormalisedPage, Reject
from service.postgres.merge.binary_copy import HEADER, TRAILER, begin, pack_int4, pack_int8
from service.postgres.merge.packing import COLUMNS, NAME_COLUMNS, Packer
from service.postgres.pool import Connection, Database

# Bytes that a scan holds in memory, of 30,000 rows or more: nearly every scan stays below. Where all scans of the
# process together hold more than so many, each keeps less.
MEMORY = 4 * 2**20
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
        state flow_outcomes.figure_state NOT NULL, outcome_count bigint, outcome_percentage double precision,
        success_count bigint, failure_count bigint, part text NOT NULL DEFAULT '',
        conflicting boolean NOT NULL DEFAULT false
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
_ROW_COLUMNS: LiteralString = f"name_no, part, {COLUMNS}"
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
        self._refused = self._counted = 0
        self._rejects: list[tuple[str, int, Reject]] = []
        self._last_entry = ("", "", "", 0)  # text, what is kept of it, digest, rejects so far

    async def add(self, normalised: NormalisedPage) -> None:
        """Take one page's rows.

        Raises:
            DatabaseUnavailableError: they had to be written out, and could not.
        """
        self._packer.pack(normalised)
        self.shares_fit = self.shares_fit and normalised.shares_fit
        for reject in normalised.rejects:
            self._add_reject(reject)
        self._count()
        if self._counted > (MEMORY if self._database.held <= MEMORY_OF_ALL else MEMORY_WHEN_SCARCE):
            await self._spill()

    def _count(self) -> None:
        """Have the process know what is held here."""
        held = self._packer.held + self._refused
        self._database.held += held - self._counted
        self._counted = held

    def _add_reject(self, reject: Reject) -> None:
        text, kept, digest, ordinal = self._last_entry
        if reject.raw is not text and reject.raw != text:
            kept = self._hide(reject.raw)
            digest, ordinal = hashlib.sha256(kept.encode()).hexdigest(), 0
            self._refused += len(kept)
        self._last_entry = (reject.raw, kept, digest, ordinal + 1)
        self._rejects.append((digest, ordinal, reject._replace(raw=kept, reason=self._hide(reject.reason))))
        self._refused += 256
        self.rejects += 1

    async def _spill(self) -> None:
        async with self._database.transaction() as connection:
            await self._copy_names(connection)
            await self._copy_rows(connection)
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
        self._packer.forget()
        self._rejects, self._refused = [], 0
        self._count()

    def _tables(self) -> tuple[tuple[LiteralString, LiteralString, LiteralString], ...]:
        """Where a scan is written out to, the session's own tables that it passes through, and their columns."""
        said = ("incoming_name", "incoming" if self.repeats else "scanned", "incoming_reject")
        tables = tuple(zip(_STAGED, said, (NAME_COLUMNS, _ROW_COLUMNS, _REJECT_COLUMNS), strict=True))
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

    @property
    def plain(self) -> bool:
        """Whether its rows may be stored as they are: all at hand, each key once, each share as it should be."""
        return self.shares_fit and not (self.repeats or self.in_parts or self.spilled)

    def reported(self) -> dict[datetime, int]:
        """How many figures were reported, by bucket; those that came twice count twice."""
        return self._packer.reported()

    def sparse(self, buckets: int) -> list[int]:
        """The numbers of its names that not each of so many buckets has, where nothing repeats."""
        return self._packer.sparse(buckets)

    async def load_names(self, connection: Connection) -> None:
        """Bring its names into ``incoming_name``, and what was refused, if anything, into ``incoming_reject``.

        Raises:
            DatabaseUnavailableError: what was written out is gone: a crash of the server empties unlogged tables.
        """
        await self._copy_names(connection)
        names, _, *rejects = self._tables()
        await self._take_back(connection, names, *rejects)

    async def load_rows(self, connection: Connection) -> None:
        """Bring its rows into ``scanned``, or into ``incoming`` where they repeat.

        Raises:
            DatabaseUnavailableError: as ``load_names``.
        """
        await self._copy_rows(connection)
        self._forget()
        await self._take_back(connection, self._tables()[1])
        if self.spilled:
            await self._sweep(connection)

    async def store(self, connection: Connection, outcome_nos: Mapping[int, int], **known: bytes) -> int:
        """Store its rows as figures, where none of them is stored and it is ``plain``; how many there were.

        Args:
            connection: in the merge's transaction.
            outcome_nos: the outcomes' numbers by those of its names.
            known: packed, the columns that all of them share.
        """
        columns = ", ".join(known)
        shared = begin(len(known) + 2 + COLUMNS.count(","), *known.values())
        statement = f"COPY flow_outcomes.figure ({columns}, outcome_no, {COLUMNS}) FROM STDIN (FORMAT BINARY)"
        await _copy(connection, statement, self._packer.packed(lambda name: shared + pack_int8(outcome_nos[name])))
        self._forget()
        return self.rows

    async def _take_back(
        self, connection: Connection, *tables: tuple[LiteralString, LiteralString, LiteralString]
    ) -> None:
        """Bring what was written out into the session's own tables."""
        for source, target, columns in tables if self.spilled else ():
            cursor = await connection.execute(
                f"INSERT INTO pg_temp.{target} ({columns}) SELECT {columns} FROM flow_outcomes.{source}"
                " WHERE org = %s AND scan_id = %s",
                (self.org, self.scan_id),
            )
            if cursor.rowcount != self._staged[source]:
                raise DatabaseUnavailableError("the server has lost what was staged: it crashed meanwhile")

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

    async def _copy_names(self, connection: Connection) -> None:
        await connection.execute(_TABLES)
        if self.rejects:
            await connection.execute(_TABLE_OF_REJECTS)
        statement = f"COPY pg_temp.incoming_name ({NAME_COLUMNS}) FROM STDIN (FORMAT BINARY)"
        await _copy(connection, statement, self._packer.packed_names())
        if self._rejects:
            await self._copy_rejects(connection)

    async def _copy_rows(self, connection: Connection) -> None:
        if self.repeats:
            await connection.execute(_TABLE_OF_REPEATS)
        _, (_, table, columns), *_ = self._tables()
        first = begin(columns.count(",") + 1)
        rows = self._packer.packed(lambda number: first + pack_int4(number), parts=True)
        await _copy(connection, f"COPY pg_temp.{table} ({columns}) FROM STDIN (FORMAT BINARY)", rows)

    async def _copy_rejects(self, connection: Connection) -> None:
        statement = f"COPY pg_temp.incoming_reject ({_REJECT_COLUMNS}) FROM STDIN (FORMAT BINARY)"
        async with connection.cursor() as cursor, cursor.copy(statement) as copy:
            copy.set_types(_REJECT_TYPES)
            for digest, ordinal, reject in self._rejects:
                text = reject.raw if ordinal == 0 else None
                await copy.write_row(
                    (digest, ordinal, reject.reason, text, reject.flow_id, reject.bucket_start, reject.outcome)
                )


async def _copy(connection: Connection, statement: str, packed: Iterable[bytes]) -> None:
    async with connection.cursor() as cursor, cursor.copy(statement.encode()) as copy:
        await copy.write(HEADER)
        for each in packed:
            await copy.write(each)
        await copy.write(TRAILER)


async def sweep_org(database: Database, org: str) -> None:
    """Delete what scans of the org left behind that a crash ended; for its owner alone, before it begins."""
    async with database.transaction() as connection:
        for table in _STAGED:
            await connection.execute(f"DELETE FROM flow_outcomes.{table} WHERE org = %s", (org,))
