"""Merges scans as the pipeline does, and reads the tables as a user does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any

import msgspec
import psycopg

from service.clock import SystemClock
from service.extraction.normalise import SHARE_TOLERANCE
from service.model import (
    FlowBucket,
    Granularity,
    Measure,
    NormalisedPage,
    OutcomeRow,
    Query,
    Reject,
    Scan,
    Span,
    Window,
)
from service.postgres.lease.lease import Lease
from service.postgres.merge import Merged, Partitions, Retention, ScanBuffer, ScanRecord, merge
from service.postgres.pool import Database
from service.postgres.windows.ledger import Ledger

CLOCK = SystemClock()
DAY = timedelta(days=1)
FIRST = datetime(2024, 1, 1, tzinfo=UTC)


def day_span(day: int) -> Span:
    """A day, counted from ``FIRST``."""
    return Span(FIRST + day * DAY, FIRST + (day + 1) * DAY)


def as_entries(rows: Sequence[OutcomeRow]) -> list[OutcomeRow]:
    """The rows as an API sends them: one entry for a flow and bucket, or more if an outcome is repeated."""
    entries: dict[FlowBucket, list[dict[str, OutcomeRow]]] = {}
    for row in rows:
        of_bucket = entries.setdefault(row.bucket, [])
        if not of_bucket or row.source_key in of_bucket[-1]:
            of_bucket.append({})
        of_bucket[-1][row.source_key] = row
    ordered = []
    for bucket, of_bucket in entries.items():
        for entry in of_bucket:
            shared = msgspec.structs.replace(bucket)
            ordered += [msgspec.structs.replace(row, bucket=shared) for row in entry.values()]
    return ordered


def page(rows: Sequence[OutcomeRow], rejects: Sequence[Reject] = ()) -> NormalisedPage:
    """One page of these rows, with ``shares_fit`` as normalising sets it."""
    entries = as_entries(rows)
    fit = all(_fit(list(entry)) for _, entry in groupby(entries, key=lambda row: id(row.bucket)))
    return NormalisedPage(entries, list(rejects), shares_fit=fit)


def _fit(entry: Sequence[OutcomeRow]) -> bool:
    total = sum(row.outcome_count or 0 for row in entry) or 1
    return all(
        row.outcome_percentage is None
        or abs(row.outcome_percentage - (row.outcome_count or 0) / total) <= SHARE_TOLERANCE
        for row in entry
    ) and not any(row.rejected and row.source_key for row in entry)


class ScanHarness:
    """One org in a database.

    Args:
        dsn: for the user's connections.
        database: for the merges.
        org: its name; ``create_org`` inserts it.

    Attributes:
        lease: of the org.
        scans: merged so far.
    """

    def __init__(self, dsn: str, database: Database, org: str = "acme") -> None:
        self.dsn = dsn
        self.database = database
        self.org = org
        self.lease = Lease(org, 1, 0.0, CLOCK.monotonic() + 36_000, CLOCK, asyncio.Event())
        self.scans = 0

    async def create_org(self) -> None:
        """Insert the org as its first lease does."""
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
        stream: str = "job:daily",
        number: int | None = None,
        by_id: bool = False,
        retention: Retention | None = None,
        measure: Measure = Measure.OUTCOMES,
        group_by: tuple[str, ...] = (),
    ) -> Merged:
        """Merge one scan of the windows with these spans."""
        self.scans += 1
        job = stream.removeprefix("job:") if stream.startswith("job:") else None
        windows = tuple(
            Window(self.org, stream, job, span, granularity.value, granularity, spans[0].start, False, measure)
            for span in spans
        )
        all_spans = Span(spans[0].start, spans[-1].end)
        query = Query(self.org, all_spans, granularity, "UTC", flows, 100, None, all_spans, measure, group_by)
        scan = Scan(windows, (query,), expect_for)
        await Partitions(self.database, CLOCK, _no_event).ensure(all_spans)
        ledger = Ledger(self.database, self.org, 1)
        await ledger.enqueue(windows)
        await ledger.begin(scan, "hash")
        buffer = ScanBuffer(self.database, self.org)
        await buffer.add(page(rows, rejects))
        record = ScanRecord(
            scan=scan,
            buckets=buckets,
            flows=flows,
            query_hash="hash",
            began_at=CLOCK.now(),
            pages=1,
            entries=1,
            cycle=cycle or f"cycle {self.scans}",
            number=self.scans * 10 if number is None else number,
            began_monotonic=CLOCK.monotonic(),
            by_id=by_id,
            retention=retention,
        )
        return await merge(self.database, self.lease, buffer, record)

    async def store_days(self, days: range, rows: Sequence[OutcomeRow], **options: Any) -> Merged:  # noqa: ANN401 - of store
        """Merge one scan of these days, a window each."""
        spans = [day_span(day) for day in days]
        return await self.store(spans, spans, rows, **options)

    async def rows(self, query: str, *parameters: object) -> list[tuple[Any, ...]]:
        """The result of a user's query."""
        async with await psycopg.AsyncConnection.connect(self.dsn, autocommit=True) as connection:
            cursor = await connection.execute(query.encode(), parameters)
            return await cursor.fetchall()


def _no_event(event: str, **context: object) -> None:
    raise AssertionError(event, context)


@asynccontextmanager
async def scan_harness(dsn: str) -> AsyncIterator[ScanHarness]:
    """The org ``acme``, new in a database."""
    pool = Database(dsn, size=4, application_name="test")
    await pool.open()
    harness = ScanHarness(dsn, pool)
    await harness.create_org()
    try:
        yield harness
    finally:
        await pool.close()
