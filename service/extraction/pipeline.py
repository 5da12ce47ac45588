"""One scan: fetch its pages, normalise them, store them in one transaction, report."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial

from service.clock import Clock, ClockMonitor
from service.errors import CursorExpiredError, ExtractionError, InvalidResponseError, TooWideError
from service.extraction.cycle import Cycle
from service.extraction.normalise import BucketGrid, normalise
from service.extraction.splitter import Part, Splitter
from service.genesys import GenesysClient
from service.model import Measure, NormalisedPage, Page, Query, Scan, Span, Window
from service.plan.buckets import buckets, is_edge
from service.plan.narrowing import Cause, cause_of
from service.plan.splitting import width
from service.postgres.lease import Lease
from service.postgres.merge import (
    ALL_COLUMNS,
    COLUMNS,
    MemoryBudget,
    Merged,
    Retention,
    ScanBuffer,
    ScanRecord,
    merge,
)
from service.postgres.pool import Database
from service.postgres.storage import check_room
from service.postgres.windows import Ledger
from service.telemetry import Emit, Event, traces

RESTARTS = 2
"""How often a scan restarts from page one after its cursor expired."""


@dataclass
class _Attempt:
    """One attempt at a scan, from page one.

    Attributes:
        number: the scan's place in the org's sequence; of two scans over a bucket the higher one counts.
        started_monotonic: in seconds of the monotonic clock.
        date: the ``Date`` of the last response, and ``date_monotonic`` the time of its arrival.
        contradictions: by bucket start, the figures whose successes and failures do not fit the count.
        invalid_durations: by bucket start, the figures whose durations are invalid.
    """

    scan: Scan
    cycle: Cycle
    buffer: ScanBuffer
    number: int
    started_at: datetime
    started_monotonic: float
    pages: int = 0
    entries: int = 0
    date: datetime | None = None
    date_monotonic: float = 0.0
    contradictions: Counter[datetime] = field(default_factory=Counter)
    invalid_durations: Counter[datetime] = field(default_factory=Counter)


class Pipeline:
    """Extracts the scans of one org while its lease is held."""

    def __init__(
        self,
        client: GenesysClient,
        database: Database,
        ledger: Ledger,
        splitter: Splitter,
        lease: Lease,
        clock: Clock,
        monitor: ClockMonitor,
        emit: Emit,
        budget: MemoryBudget,
        retention: Callable[[], Retention | None] = lambda: None,
    ) -> None:
        self._client = client
        self._database = database
        self._ledger = ledger
        self._splitter = splitter
        self._lease = lease
        self._clock = clock
        self._monitor = monitor
        self._emit = emit
        self._budget = budget
        self._retention = retention
        self._merging = asyncio.Lock()  # merges of an org queue here, where a waiting one holds no connection
        # Epochs increase from lease to lease, so the numbers of scans increase across processes.
        self._numbers = itertools.count((lease.epoch << 32) + 1)

    async def extract(self, scan: Scan, cycle: Cycle, release_fetch_slot: Callable[[], None]) -> Merged:
        """Extract one scan, from its first page to its mark in the ledger.

        Args:
            scan: the scan.
            cycle: the cycle that it belongs to.
            release_fetch_slot: called after the last page was read, before the scan is stored.

        Raises:
            ExtractionError: the scan is incomplete; nothing of it is stored.
            HoursOverError: the off-peak hours ended before one of its queries; nothing of it is stored.
            NotSettledError: a window has not settled; nothing of the scan is stored.
            TooWideError: its windows are to be requested in narrower queries; nothing of the scan is stored.
            DatabaseUnavailableError: nothing of it is stored.
            LeaseLostError: another process holds the org.
        """
        query_hash = self._client.dialect.query_hash(scan.queries[0])
        with traces.span(
            "scan", **scan_context(scan), cycle=cycle.id, query_hash=query_hash, windows=len(scan.windows)
        ):
            return await self._extract(scan, cycle, query_hash, release_fetch_slot)

    async def _extract(
        self, scan: Scan, cycle: Cycle, query_hash: str, release_fetch_slot: Callable[[], None]
    ) -> Merged:
        await check_room(self._database)
        await self._ledger.begin(scan, query_hash)
        for number in range(RESTARTS + 1):
            attempt = self._attempt(scan, cycle)
            try:
                for query in scan.queries:
                    await self._fetch(query, attempt)
                release_fetch_slot()
                record = self._record(attempt, query_hash)
                merged = await self._merge(attempt, record)
            except CursorExpiredError as error:
                await attempt.buffer.discard()
                if number == RESTARTS:
                    error.after_pages = attempt.pages > 0
                    raise
                self._emit(Event.WINDOW_RESTARTED, **scan_context(scan), query_hash=query_hash, reason=str(error))
            except ExtractionError as error:
                await attempt.buffer.abandon()
                raise self._client.redact_error(error) from None
            except BaseException:
                await attempt.buffer.abandon()
                raise
            else:
                self._monitor.observe("database", merged.database_time)
                self._report(attempt, record, merged)
                return merged
        raise AssertionError("the last attempt returns or raises")

    async def _merge(self, attempt: _Attempt, record: ScanRecord) -> Merged:
        async with self._merging:
            with traces.span(
                "merge", **scan_context(attempt.scan), pages=attempt.pages, entries=attempt.entries
            ) as merging:
                try:
                    merged = await merge(self._database, self._lease, attempt.buffer, record)
                except ExtractionError as error:
                    raise self._client.redact_error(error) from None
                merging.set(rows=sum(merged.rows.values()))
                return merged

    def _attempt(self, scan: Scan, cycle: Cycle) -> _Attempt:
        return _Attempt(
            scan,
            cycle,
            ScanBuffer(
                self._database,
                scan.org,
                self._budget,
                self._client.redact,
                columns=ALL_COLUMNS if self._client.dialect.by_id else COLUMNS,
            ),
            next(self._numbers),
            self._clock.now(),
            self._clock.monotonic(),
        )

    def _record(self, attempt: _Attempt, query_hash: str) -> ScanRecord:
        scan = attempt.scan
        return ScanRecord(
            scan=scan,
            buckets=buckets(scan.span, scan.granularity, scan.queries[0].timezone),
            flows=scan.queries[0].flows,
            query_hash=query_hash,
            number=attempt.number,
            began_at=attempt.started_at,
            began_monotonic=attempt.started_monotonic,
            api_date=attempt.date,
            api_monotonic=attempt.date_monotonic,
            pages=attempt.pages,
            entries=attempt.entries,
            cycle=attempt.cycle.id,
            by_id=self._client.dialect.by_id and scan.measure is not Measure.EXECUTIONS,
            retention=self._retention(),
        )

    async def _fetch(self, query: Query, attempt: _Attempt) -> None:
        """Read one query to its end, in parts where the API rejects it as too large or too wide.

        Raises:
            TooWideError: the scan's windows are to be requested in narrower queries.
        """
        cycle, waiting = attempt.cycle.id, [Part(query)]
        while waiting:
            part = waiting.pop(0)
            query, rest = await self._splitter.next_query(part, attempt.scan, cycle)
            pages_before = attempt.pages
            try:
                async with aclosing(self._pages(query, attempt)) as pages:
                    async for page in pages:
                        _check_attributable(attempt.scan, page)
                        await attempt.buffer.add(page)
                        attempt.contradictions.update(page.contradictions)
                        attempt.invalid_durations.update(page.invalid_durations)
            except ExtractionError as error:
                query_hash = self._client.dialect.query_hash(query)
                parts = await self._splitter.failed(query, query_hash, error, attempt.scan, cycle)
                if parts is None:
                    raise
                too_wide = cause_of(error) is Cause.WIDTH
                if too_wide and len(attempt.scan.windows) > 1:
                    raise TooWideError(str(error)) from error
                if attempt.pages > pages_before:
                    raise CursorExpiredError(f"rejected as too large after its first page: {error}") from error
                waiting[:0] = [*parts, *rest]
            else:
                await self._splitter.served(query, cycle)
                waiting[:0] = rest

    async def _pages(self, query: Query, attempt: _Attempt) -> AsyncGenerator[NormalisedPage, None]:
        grid = BucketGrid.of(
            query,
            buckets(query.span, query.granularity, query.timezone),
            lambda at: is_edge(at, query.granularity, query.timezone),
        )
        check = partial(self._check_query_allowed, attempt.scan, attempt.cycle)
        policy, of_query = await self._splitter.policy(query.granularity), (width(query), attempt.cycle.id)
        count = attempt.cycle.estimate(query.granularity, query.measure).query(width(query))
        scan = self._client.scan(
            query,
            check,
            narrowable=policy.is_narrowable(*of_query),
            ignore_gateway=not policy.counts_for_breaker(*of_query),
        )
        async with aclosing(scan) as pages:
            while (page := await self._next_page(pages, attempt)) is not None:
                attempt.pages += 1
                attempt.date, attempt.date_monotonic = page.date, self._clock.monotonic()
                attempt.entries += len(page.entries)
                count.add(page)
                self._emit(Event.PAGE_READ, org=query.org, page=attempt.pages, entries=len(page.entries))
                yield normalise(page.entries, grid)

    async def _next_page(self, pages: AsyncGenerator[Page, None], attempt: _Attempt) -> Page | None:
        """The query's next page; None after its last."""
        with traces.span("page", **scan_context(attempt.scan), page=attempt.pages + 1) as reading:
            page = await anext(pages, None)
            if page is None:
                reading.discard()
            else:
                reading.set(entries=len(page.entries))
            return page

    def _check_query_allowed(self, scan: Scan, cycle: Cycle) -> None:
        """Check again just before each query: the scan may have run for long, or waited for a 429.

        Raises:
            HoursOverError: the off-peak hours are over.
            NotSettledError: a window has not settled.
        """
        cycle.check_query_allowed()
        check_settled(scan, self._client)

    def _report(self, attempt: _Attempt, record: ScanRecord, merged: Merged) -> None:
        scan = attempt.scan
        redact = self._client.redact  # an outcome's name may contain a secret
        for window, reason, flow_id, outcome in merged.rejects:
            self._emit(
                Event.ENTRY_REJECTED,
                **_window_context(window, record),
                reason=reason,
                flow_id=flow_id and redact(flow_id),
                outcome=outcome and redact(outcome),
            )
        for window in scan.windows:
            context = _window_context(window, record)
            if window in merged.missing:
                missing = merged.missing[window]
                names = [redact(name) for name in missing.sample]
                self._emit(Event.OUTCOME_MISSING, **context, rows=missing.rows, outcomes=names)
            if window in merged.restated:
                self._emit(Event.OUTCOME_RESTATED, **context, rows=merged.restated[window])
            if window in merged.mismatched:
                self._emit(Event.PERCENTAGE_MISMATCH, **context, rows=merged.mismatched[window])
            if rows := _within(window.span, attempt.contradictions):
                self._emit(Event.SPLIT_CONTRADICTED, **context, rows=rows)
            if rows := _within(window.span, attempt.invalid_durations):
                self._emit(Event.DURATION_INVALID, **context, rows=rows)
            self._emit(
                Event.WINDOW_DOUBTED if window in merged.doubted else Event.WINDOW_COMPLETE,
                **context,
                granularity=scan.granularity.value,
                pages=record.pages,
                rows=merged.rows.get(window, 0),
                rejected=merged.rejected.get(window, 0),
                seconds=round(self._clock.monotonic() - record.began_monotonic, 3),
            )


def _within(span: Span, counts: Mapping[datetime, int]) -> int:
    """The sum of the counts in a span."""
    return sum(count for at, count in counts.items() if span.start <= at < span.end)


def check_settled(scan: Scan, client: GenesysClient) -> None:
    """Check that the scan's windows have settled by the API's clock, as far as it is known.

    Raises:
        NotSettledError: a window has not settled.
    """
    server_time = client.server_clock.now()
    if server_time is not None:
        scan.check_settled(server_time)


def scan_context(scan: Scan) -> dict[str, object]:
    """The fields that identify a scan in an event."""
    return {
        "org": scan.org,
        "job": scan.windows[0].job,
        "window_start": scan.span.start,
        "window_end": scan.span.end,
    }


def _window_context(window: Window, record: ScanRecord) -> dict[str, object]:
    return {
        "org": window.org,
        "job": window.job,
        "window_start": window.span.start,
        "window_end": window.span.end,
        "query_hash": record.query_hash,
    }


def _check_attributable(scan: Scan, page: NormalisedPage) -> None:
    """Check that each reject belongs to a known window.

    Raises:
        InvalidResponseError: a reject has no known bucket and the scan several windows; the scanner retries each.
    """
    if len(scan.windows) > 1 and any(reject.bucket_start is None for reject in page.rejects):
        raise InvalidResponseError("an entry's bucket is unknown; retrying its windows one by one")
