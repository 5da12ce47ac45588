"""The corridor: fetch a scan's pages, normalise them, store them whole, tell of it.

Everything else is a room off it. What it is given is planned already; what it raises, the worker judges.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus

from service.clock import Clock, ClockMonitor
from service.errors import CursorExpiredError, ExtractionError, PageError, QueryTooLargeError
from service.extraction.normalise import BucketGrid, normalise
from service.genesys import GenesysClient
from service.model import Normalised, Query, Scan, SplitHint, Window
from service.plan.buckets import buckets, is_edge
from service.plan.splitting import halve, largest, size, split_hint
from service.postgres.lease import Lease
from service.postgres.merge import Merged, ScanRecord, Staging, merge
from service.postgres.pool import Database
from service.postgres.windows import Ledger

RESTARTS = 2  # times that a scan begins again from page one when its cursor has gone
Emit = Callable[..., None]


@dataclass
class _Tally:
    pages: int = 0
    entries: int = 0
    date: datetime | None = None  # of the last response,
    date_at: float = 0.0  # which came then, in seconds of the monotonic clock


class Pipeline:
    """Extracts scans of one org for as long as its lease is good."""

    def __init__(
        self,
        client: GenesysClient,
        database: Database,
        ledger: Ledger,
        lease: Lease,
        clock: Clock,
        monitor: ClockMonitor,
        emit: Emit,
    ) -> None:
        self._client = client
        self._database = database
        self._ledger = ledger
        self._lease = lease
        self._clock = clock
        self._monitor = monitor
        self._emit = emit
        self._merging = asyncio.Lock()  # the org's row admits one at a time: wait here, and keep no connection
        self._cuts: list[SplitHint] | None = None
        # of the org's scans: a lease has an epoch of its own, and an owner numbers its scans as they begin
        self._numbers = itertools.count((lease.epoch << 32) + 1)

    async def extract(
        self, scan: Scan, cycle: str, may_begin: Callable[[], None], release_fetch_slot: Callable[[], None]
    ) -> Merged:
        """Bring one scan in, from its first page to its mark in the ledger.

        Args:
            scan: which.
            cycle: the cycle that it belongs to.
            may_begin: called just before each of its queries begins; raises where none may.
            release_fetch_slot: called after its last page, before it is stored.

        Raises:
            ExtractionError: it did not come to its end; nothing of it is stored.
            HoursOverError: what ``may_begin`` raised; nothing of it is stored.
            DatabaseUnavailableError: the database was away; nothing of it is stored.
            LeaseLostError: another process works the org now.
        """
        query_hash = self._client.dialect.query_hash(scan.queries[0])
        await self._ledger.begin(scan, query_hash)
        for attempt in range(RESTARTS + 1):
            staging, tally = Staging(self._database, scan.org, self._client.hide), _Tally()
            number, began_at, began = next(self._numbers), self._clock.now(), self._clock.monotonic()
            try:
                for query in scan.queries:
                    await self._fetch(query, scan, staging, tally, may_begin)
                record = ScanRecord(
                    scan=scan,
                    buckets=buckets(scan.span, scan.granularity, scan.queries[0].timezone),
                    flows=scan.queries[0].flows,
                    query_hash=query_hash,
                    number=number,
                    began_at=began_at,
                    began_monotonic=began,
                    api_date=tally.date,
                    api_monotonic=tally.date_at,
                    pages=tally.pages,
                    entries=tally.entries,
                    cycle=cycle,
                    by_id=self._client.dialect.by_id,
                )
                release_fetch_slot()
                async with self._merging:
                    merged = await merge(self._database, self._lease, staging, record)
            except CursorExpiredError as error:
                await staging.discard()
                if attempt == RESTARTS:
                    raise
                self._emit("window_restarted", **about(scan), query_hash=query_hash, reason=str(error))
            except BaseException as error:
                await staging.abandon()
                if isinstance(error, ExtractionError):
                    self._client.clean(error)
                raise
            else:
                self._monitor.observe("database", merged.database_time)
                self._tell(scan, record, merged)
                return merged
        raise AssertionError("the last attempt returns or raises")

    async def _fetch(
        self, query: Query, scan: Scan, staging: Staging, tally: _Tally, may_begin: Callable[[], None]
    ) -> None:
        """Read one query to its end, in halves where the engine finds it too large."""
        waiting, too_slow = [query], []
        most = largest(query, scan.span, await self._known_cuts())
        while waiting:
            query = waiting.pop(0)
            halves = halve(query)
            if halves and size(query) > most:
                waiting[:0] = halves
                continue
            pages_before = tally.pages
            try:
                async with aclosing(self._pages(query, tally, may_begin)) as pages:
                    async for normalised in pages:
                        _attributable(scan, normalised)
                        await staging.add(normalised)
            except QueryTooLargeError as error:
                if halves is None:
                    raise
                midway = tally.pages > pages_before
                if error.status == HTTPStatus.GATEWAY_TIMEOUT and not midway:
                    too_slow.append((query, halves))
                else:
                    await self._remember_cut(query, halves)
                if midway:
                    raise CursorExpiredError(f"too large, and told midway: {error}") from error
                waiting[:0] = halves
        for slow, halves in too_slow:  # its halves did pass, so it was the size, and not the server's bad hour
            await self._remember_cut(slow, halves)

    async def _pages(
        self, query: Query, tally: _Tally, may_begin: Callable[[], None]
    ) -> AsyncGenerator[Normalised, None]:
        frame = BucketGrid.of(
            query,
            buckets(query.span, query.granularity, query.timezone),
            lambda at: is_edge(at, query.granularity, query.timezone),
        )
        async with aclosing(self._client.scan(query, may_begin)) as pages:
            async for page in pages:
                tally.pages += 1
                tally.date, tally.date_at = page.date, self._clock.monotonic()
                tally.entries += len(page.entries)
                self._emit("page_read", org=query.org, page=tally.pages, entries=len(page.entries))
                yield normalise(page.entries, frame)

    async def _remember_cut(self, query: Query, halves: tuple[Query, Query]) -> None:
        cut = split_hint(query, halves)
        await self._ledger.cut(self._client.dialect.query_hash(query), cut)
        (await self._known_cuts()).append(cut)

    async def _known_cuts(self) -> list[SplitHint]:
        if self._cuts is None:
            self._cuts = await self._ledger.cuts()
        return self._cuts

    def _tell(self, scan: Scan, record: ScanRecord, merged: Merged) -> None:
        hide = self._client.hide  # the log has no secrets, even where the server names an outcome after one
        for window, reason, flow_id, outcome in merged.rejects:
            self._emit(
                "entry_rejected",
                **_of_window(window, record),
                reason=reason,
                flow_id=flow_id and hide(flow_id),
                outcome=outcome and hide(outcome),
            )
        for window in scan.windows:
            known = _of_window(window, record)
            if window in merged.missing:
                missing = merged.missing[window]
                names = [hide(name) for name in missing.sample]
                self._emit("outcome_missing", **known, rows=missing.rows, outcomes=names)
            if window in merged.restated:
                self._emit("outcome_restated", **known, rows=merged.restated[window])
            if window in merged.mismatched:
                self._emit("percentage_mismatch", **known, rows=merged.mismatched[window])
            self._emit(
                "window_doubted" if window in merged.doubted else "window_complete",
                **known,
                granularity=scan.granularity.value,
                pages=record.pages,
                rows=merged.rows.get(window, 0),
                rejected=merged.rejected.get(window, 0),
                seconds=round(self._clock.monotonic() - record.began_monotonic, 3),
            )


def _of_window(window: Window, record: ScanRecord) -> dict[str, object]:
    return {
        "org": window.org,
        "job": window.job,
        "window_start": window.span.start,
        "window_end": window.span.end,
        "query_hash": record.query_hash,
    }


def about(scan: Scan) -> dict[str, object]:
    """What an event says of a scan."""
    return {
        "org": scan.org,
        "job": scan.windows[0].job,
        "window_start": scan.span.start,
        "window_end": scan.span.end,
    }


def _attributable(scan: Scan, normalised: Normalised) -> None:
    """A refused entry whose bucket cannot be told has to be put down to one window.

    Raises:
        PageError: the scan has several; the worker then asks for them one by one.
    """
    if len(scan.windows) > 1 and any(reject.bucket_start is None for reject in normalised.rejects):
        raise PageError("an entry's bucket cannot be told, so its windows have to be asked for one by one")
