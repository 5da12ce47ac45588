"""The rows and rejects of a scan until its merge, in memory within a budget."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Callable, Iterator
from typing import LiteralString

import psycopg

from service.errors import FlowOutcomesError
from service.model import NormalisedPage, Reject
from service.postgres.merge.binary_copy import pack_instant, pack_int4, pack_text
from service.postgres.merge.packing import ALL_COLUMNS, Packer
from service.postgres.merge.spill import NAMES, REJECTS, ROWS, SpillStore
from service.postgres.pool import Database

_ABANDON_TIMEOUT = 1.0  # seconds
_OBJECT_BYTES = 40  # memory of a bytes object and the reference to it, besides its content


class MemoryBudget:
    """Bounds the bytes that the scans of a process hold until they are merged.

    Attributes:
        PER_SCAN: bytes for one scan: 30,000 rows or more, which is enough for nearly every scan.
        ALL_SCANS: bytes for all scans. While they hold more, each may hold an eighth of ``PER_SCAN``.
        used: bytes held.
    """

    PER_SCAN = 4 * 2**20
    ALL_SCANS = 64 * 2**20

    def __init__(self) -> None:
        self.used = 0

    @property
    def scan_limit(self) -> int:
        """The bytes that one scan may hold now."""
        return self.PER_SCAN if self.used <= self.ALL_SCANS else self.PER_SCAN // 8


class ScanBuffer:
    """The rows and rejects of one scan. What exceeds the memory budget is spilled.

    Args:
        database: where rows are spilled.
        org: the scan's org.
        budget: the process's; None for a budget of the scan's own.
        redact: removes the org's secrets from rejected entries.
        columns: the columns of a packed row: ``COLUMNS``, or ``ALL_COLUMNS`` where the API reports more.

    Attributes:
        packer: holds the rows in memory; counts all rows of the scan.
        spill: holds the rows that were spilled.
        rejects: rejected outcomes so far.
        shares_fit: whether each share is within tolerance of its count over the total of its entry.
    """

    def __init__(
        self,
        database: Database,
        org: str,
        budget: MemoryBudget | None = None,
        redact: Callable[[str], str] = str,
        columns: LiteralString = ALL_COLUMNS,
    ) -> None:
        self.packer = Packer(columns)
        self.spill = SpillStore(database, org, columns)
        self.rejects = 0
        self.shares_fit = True
        self._redact = redact
        self._budget = budget or MemoryBudget()
        self._accounted = 0
        self._packed_rejects: list[bytes] = []
        self._rejects_memory = 0
        self._last_raw: str | None = None
        self._last_digest, self._last_ordinal = "", 0

    @property
    def directly_copyable(self) -> bool:
        """Whether rows need no check: all are in memory, each outcome is complete and once, and shares fit."""
        packer = self.packer
        return self.shares_fit and not (packer.may_repeat or packer.has_parts or self.spill.used)

    async def add(self, page: NormalisedPage) -> None:
        """Add a page's rows and rejects.

        Raises:
            DatabaseUnavailableError: the buffer exceeds its memory, and the database cannot be reached.
        """
        self.packer.add(page)
        self.shares_fit = self.shares_fit and page.shares_fit
        for reject in page.rejects:
            self._add_reject(reject)
        self._account()
        if self._accounted > self._budget.scan_limit:
            await self._spill()

    def _add_reject(self, reject: Reject) -> None:
        """Pack a reject. The first one of an entry holds the entry's text."""
        entry = None
        if reject.raw != self._last_raw:
            self._last_raw, entry = reject.raw, self._redact(reject.raw)
            self._last_digest, self._last_ordinal = hashlib.sha256(entry.encode()).hexdigest(), 0
        packed = b"".join(
            (
                pack_text(self._last_digest),
                pack_int4(self._last_ordinal),
                pack_text(self._redact(reject.reason)),
                pack_text(entry),
                pack_text(reject.flow_id),
                pack_instant(reject.bucket_start),
                pack_text(reject.outcome),
            )
        )
        self._packed_rejects.append(packed)
        self._rejects_memory += len(packed) + _OBJECT_BYTES
        self._last_ordinal += 1
        self.rejects += 1

    def packed_rejects(self, prefix: bytes) -> Iterator[bytes]:
        """The rejects held, each after the prefix."""
        return (prefix + reject for reject in self._packed_rejects)

    async def _spill(self) -> None:
        row_prefix = self.spill.prefix(ROWS)
        await self.spill.write(
            {
                NAMES: self.packer.packed_names(self.spill.prefix(NAMES)),
                ROWS: self.packer.packed_rows(lambda number: row_prefix + pack_int4(number), parts=True),
                REJECTS: self.packed_rejects(self.spill.prefix(REJECTS)),
            }
        )
        self.clear()

    def clear(self) -> None:
        """Drop what is held in memory, after it was stored."""
        self.packer.clear()
        self._packed_rejects, self._rejects_memory = [], 0
        self._account()

    def _account(self) -> None:
        held = self.packer.memory + self._rejects_memory
        self._budget.used += held - self._accounted
        self._accounted = held

    async def discard(self) -> None:
        """Drop the scan's rows, in memory and in the database.

        Raises:
            DatabaseUnavailableError: the database cannot be reached.
        """
        self.clear()
        await self.spill.discard()

    async def abandon(self) -> None:
        """Drop the scan's rows; those that cannot be deleted now are deleted when the org is next acquired."""
        with contextlib.suppress(FlowOutcomesError, psycopg.Error, TimeoutError):
            async with asyncio.timeout(_ABANDON_TIMEOUT):
                await self.discard()
