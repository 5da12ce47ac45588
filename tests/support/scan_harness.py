"""A desk at which scans are merged as the pipeline would, and the tables read as a user would."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any

import msgspec
import psycopg

from service.clock import SystemClock
from service.extraction.normalise import SHARE_TOLERANCE
from service.model import FlowBucket, Granularity, NormalisedPage, OutcomeRow, Query, Reject, Scan, Span, Window
from service.postgres.lease.lease import Lease
from service.postgres.merge import Merged, ScanRecord, merge
from service.postgres.merge.staging import Staging
from service.postgres.pool import Database
from service.postgres.windows.ledger import Ledger

CLOCK = SystemClock()
FIRST = datetime(2024, 1, 1, tzinfo=UTC)


def as_entries(rows: Sequence[OutcomeRow]) -> list[OutcomeRow]:
    """The rows as an API would send them: of one flow and bucket in one entry, unless one of them comes again."""
    entries: dict[FlowBucket, list[dict[str, OutcomeRow]]] = {}
    for row in rows:
        told = entries.setdefault(row.bucket, [])
        if not told or row.source_key in told[-1]:
            told.append({})
        told[-1][row.source_key] = row
    found = []
    for bucket, told in entries.items():
        for entry in told:
            shared = msgspec.structs.replace(bucket)
            found += [msgspec.structs.replace(row, bucket=shared) for row in entry.values()]
    return found


def page(rows: Sequence[OutcomeRow], rejects: Sequence[Reject] = ()) -> NormalisedPage:
    """One page of these, with what its shares are worth told as an API's page has it told."""
    entries = as_entries(rows)
    fit = all(_fit(list(told)) for _, told in groupby(entries, key=lambda row: id(row.bucket)))
    return NormalisedPage(entries, list(rejects), shares_fit=fit)


def _fit(entry: Sequence[OutcomeRow]) -> bool:
    total = sum(row.outcome_count or 0 for row in entry) or 1
    return all(
        row.outcome_percentage is None
        or abs(row.outcome_percentage - (row.outcome_count or 0) / total) <= SHARE_TOLERANCE
        for row in entry
    ) and not any(row.rejected and row.source_key for row in entry)


class ScanHarness:
    """One org on a database.

    Args:
        dsn: where a user reads.
        database: the pool that the merges use.
        org: its name; ``found`` enters it.
    """

    def __init__(self, dsn: str, database: Database, org: str = "acme") -> None:
        self.dsn = dsn
        self.database = database
        self.org = org
        self.lease = Lease(org, 1, 0.0, CLOCK.monotonic() + 36_000, CLOCK, asyncio.Event())
        self.cycle = 0

    async def found(self) -> None:
        """Enter the org, as a first lease would."""
        await self.rows("INSERT INTO flow_outcomes.org (org, epoch) VALUES (%s, 1) RETURNING 1", self.org)

    async def store(
        self,
        spans: Sequence[Span],
        buckets: Sequence[Span],
        rows: Sequence[OutcomeRow],
        *,
        granularity: Granularity = Granularity.DAILY,
        flows: tuple[str, ...] = (),
        expect_for: timedelta = timedelta(days=31),
        rejects: Sequence[Reject] = (),
        cycle: str | None = None,
        work: str = "job:daily",
        number: int | None = None,
    ) -> Merged:
        """Merge one scan of the windows with these spans."""
        self.cycle += 1
        job = work.removeprefix("job:") if work.startswith("job:") else None
        windows = tuple(
            Window(self.org, work, job, span, granularity.value, granularity, spans[0].start) for span in spans
        )
        whole = Span(spans[0].start, spans[-1].end)
        scan = Scan(windows, (Query(self.org, whole, granularity, "UTC", flows, 100, None, whole),), expect_for)
        ledger = Ledger(self.database, self.org, 1)
        await ledger.enqueue(windows)
        await ledger.begin(scan, "hash")
        staging = Staging(self.database, self.org)
        await staging.add(page(rows, rejects))
        record = ScanRecord(
            scan=scan,
            buckets=buckets,
            flows=flows,
            query_hash="hash",
            began_at=CLOCK.now(),
            pages=1,
            entries=1,
            cycle=cycle or f"cycle {self.cycle}",
            number=self.cycle * 10 if number is None else number,
            began_monotonic=CLOCK.monotonic(),
        )
        return await merge(self.database, self.lease, staging, record)

    async def rows(self, query: str, *parameters: object) -> list[tuple[Any, ...]]:
        """What a user's query gives."""
        async with await psycopg.AsyncConnection.connect(self.dsn, autocommit=True) as connection:
            cursor = await connection.execute(query.encode(), parameters)
            return await cursor.fetchall()
