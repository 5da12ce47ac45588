"""One scan into the tables: the short transaction that shows a window whole or not at all.

Step by step, under the org's row lock: bring the scan in, number its outcomes, find what differs from what is
stored, keep the former versions, store the new ones, note what silence means, restate, mark the windows
complete, stamp the revision. A crash at any instant leaves nothing of it.
"""

from __future__ import annotations

from bisect import bisect_left
from datetime import datetime, timedelta
from typing import Any, LiteralString

import psycopg

from service.clock import Clock
from service.errors import ConflictError, LeaseLostError, StorageError
from service.model import Span, Window, instant
from service.postgres.lease import Lease
from service.postgres.merge import expected, figures, scan, windows
from service.postgres.merge.record import LONGEST_BUCKET, Merged, Missing, ScanRecord, scope_of
from service.postgres.pool import MERGE_TIMEOUT, Connection, Database, explain
from service.postgres.revision import STAMP
from service.postgres.staging import Staging
from service.postgres.statistics import note_outcomes

# Figures stored a moment ago are not in the planner's statistics: it takes thousands of rows for few, and would
# materialise them all for each row of a scan. Of the session's own tables it knows the size alone, and would sort
# both sides of a join where one fits in a hash table. Of the few that are analysed some rows tell enough. Sixteen
# megabytes sort a scan's rows without the disk.
_SETTINGS: LiteralString = f"""
    SET LOCAL statement_timeout = '{MERGE_TIMEOUT}s';
    SET LOCAL lock_timeout = '{MERGE_TIMEOUT}s';
    SET LOCAL enable_material = off;
    SET LOCAL enable_mergejoin = off;
    SET LOCAL default_statistics_target = 10;
    SET LOCAL work_mem = '16MB';
"""


class Merge:
    """One scan's transaction."""

    def __init__(self, connection: Connection, record: ScanRecord, clock: Clock) -> None:
        self._connection = connection
        self._record = record
        self._clock = clock
        self._windows = record.scan.windows
        self._by_start = {window.span.start: window for window in record.scan.windows}
        self.result = Merged()
        self._newly_covered = 0
        self._parameters: dict[str, Any] = {
            "org": record.scan.org,
            "granularity": record.scan.granularity.value,
            "start": record.scan.span.start,
            "end": record.scan.span.end,
            "flows": list(record.flows) or None,
            "scope": scope_of(record.flows),
            "expect_for": record.scan.expect_for,
            "began_at": record.began_at,
            "work": self._windows[0].work,
            "by_id": record.by_id,
            "window_starts": [w.span.start for w in self._windows],
            "window_ends": [w.span.end for w in self._windows],
        }

    async def run(self, lease: Lease, staging: Staging) -> Merged:
        """Do it; the caller commits.

        Raises:
            LeaseLostError: another process has taken the org.
            ConflictError: the scan gives two different figures for one key.
        """
        await self._connection.execute(_SETTINGS + scan.TABLES)
        await self._lock(lease)
        await staging.pour(self._connection)
        await self._take_scan(staging)
        if staging.rejects:
            await self._take_rejects()
        await self._doubt()
        covered_before = await self._cover()
        await (self._change() if covered_before else self._store_all())
        if self.result.changed and not staging.shares_fit:
            await self._mismatch(all_new=not covered_before)
        if self.result.changed and covered_before:
            await self._restate()
        await self._expect(all_new=not covered_before)
        await self._complete()
        if self.result.changed:
            await self._run(STAMP)
        return self.result

    async def _run(self, statement: LiteralString, **more: object) -> list[tuple[Any, ...]]:
        cursor = await self._connection.execute(statement, {**self._parameters, **more})
        return await cursor.fetchall() if cursor.description else []

    async def _count(self, statement: LiteralString, **more: object) -> int:
        cursor = await self._connection.execute(statement, {**self._parameters, **more})
        return cursor.rowcount

    async def _fill(self, statement: LiteralString, table: LiteralString) -> int:
        """Fill one of the session's own tables, and let the planner know how large it is; its rows."""
        rows = await self._count(statement)
        await self._run(f"ANALYZE pg_temp.{table}")
        return rows

    async def _in_turn(self, *statements: LiteralString) -> None:
        """Run statements whose results nobody needs, without waiting for the one before."""
        async with self._connection.pipeline():
            for statement in statements:
                await self._connection.execute(statement, self._parameters)

    async def _lock(self, lease: Lease) -> None:
        row = await self._run(scan.LOCK_ORG)
        if not row or row[0][0] != lease.epoch:
            raise LeaseLostError(f"{lease.org} was taken over")
        self._parameters["revision"] = row[0][1] + 1

    async def _take_scan(self, staging: Staging) -> None:
        window_of = {bucket: window for window in self._windows for bucket in self._buckets_in(window)}
        await self._run(
            scan.TAKE_BUCKETS,
            bucket_starts=[bucket.start for bucket in window_of],
            bucket_ends=[bucket.end for bucket in window_of],
            bucket_windows=[window.span.start for window in window_of.values()],
        )
        await self._take_outcomes(staging)
        if staging.repeats:
            await self._run(scan.TAKE_PARTS if staging.in_parts else scan.TAKE_REPEATS)
        if staging.in_parts and staging.rejects:
            await self._run(scan.DOUBT_PARTS)
        for flow_id, bucket_start, name in await self._run(scan.FIND_CONFLICT) if staging.repeats else ():
            raise ConflictError(
                f"two different figures for outcome {name!r} of flow {flow_id}"
                f" in the bucket {instant(bucket_start)}"
            )
        for start, rows in await self._run(scan.COUNT_ROWS):
            self.result.rows[self._window(start)] = rows
        if await self._count(windows.FIND_OUTDONE, elapsed=self._elapsed()):
            await self._run(windows.LEAVE_OUTDONE)

    async def _take_outcomes(self, staging: Staging) -> None:
        """Number the outcomes that the scan names; nearly always all of them are known."""
        take = scan.TAKE_REPEATED_OUTCOMES if staging.repeats else scan.TAKE_OUTCOMES
        known = await self._count(take)
        if known < staging.names:
            await self._in_turn(scan.FORGET_OUTCOMES, scan.ADD_OUTCOMES)
            self.result.outcomes_added = await self._count(take) - known

    def _buckets_in(self, window: Window) -> list[Span]:
        first = bisect_left(self._record.buckets, window.span.start, key=lambda bucket: bucket.start)
        last = bisect_left(self._record.buckets, window.span.end, key=lambda bucket: bucket.start)
        return list(self._record.buckets[first:last])

    def _window(self, start: datetime) -> Window:
        return self._by_start[start]

    async def _take_rejects(self) -> None:
        """Keep what was refused; where one may have been any outcome, silence tells nothing."""
        alone = self._windows[0].span.start if len(self._windows) == 1 else None
        untold = []
        for start, rejected, tellable in await self._run(windows.COUNT_REJECTS, alone=alone):
            self.result.rejected[self._window(start)] = rejected
            if not tellable:
                untold.append(start)
        if self.result.rejected:
            await self._run(windows.SILENCE_UNTOLD, untold=untold)
            await self._run(windows.KEEP_REJECTED_TEXT)
            for start, reason, flow_id, outcome in await self._run(windows.KEEP_REJECTED, alone=alone):
                self.result.rejects.append((self._window(start), reason, flow_id, outcome))

    async def _doubt(self) -> None:
        """Do not believe a wholly empty window over stored figures, until a later cycle says it again."""
        empty = [w for w in self._windows if w not in self.result.rows and w not in self.result.rejected]
        if not empty:
            return
        found = await self._run(
            windows.FIND_DOUBTED,
            empty_starts=[window.span.start for window in empty],
            empty_ends=[window.span.end for window in empty],
            requested=empty[0].requested,
        )
        doubted = [start for start, doubted_in in found if doubted_in in (None, self._record.cycle)]
        self.result.doubted.update(self._window(start) for start in doubted)
        await self._run(windows.DISBELIEVE, doubted=doubted)

    async def _cover(self) -> bool:
        """Note the coverage; tells whether any of it was covered before, so that something may be stored."""
        covered_before = await self._count(expected.NOTE_COVERED_BEFORE)
        await self._run(expected.ADD_SCOPE)
        self._newly_covered = await self._count(expected.COVER)
        return covered_before > 0

    async def _store_all(self) -> None:
        """Store what was scanned where nothing was stored."""
        self.result.changed = await self._count(figures.STORE_ALL)

    async def _change(self) -> None:
        """Find what differs from what is stored, keep the former versions, and store it."""
        self.result.changed = await self._count(figures.FIND_CHANGES)
        if self.result.changed:
            await self._run("ANALYZE pg_temp.change")
            if await self._count(figures.KEEP_FORMER):
                await self._run(figures.STORE_CHANGED)
            await self._run(figures.STORE_NEW)

    async def _mismatch(self, *, all_new: bool) -> None:
        """Tell of shares that fit nothing; where each fits its own entry's total, there are none."""
        await self._connection.execute(scan.TABLES_OF_SHARES)
        if all_new:
            await self._fill(figures.FIND_NEW, "change")
        await self._fill(figures.TOTAL_FLOWS, "flow_total")
        if await self._fill(figures.FIND_SUSPECTS, "suspect"):
            for start, rows in await self._run(figures.COUNT_MISMATCHES):
                self.result.mismatched[self._window(start)] = rows

    async def _restate(self) -> None:
        for start, restated in await self._run(figures.RESTATE):
            self.result.restated[self._window(start)] = restated

    async def _expect(self, *, all_new: bool) -> None:
        """Bring the nulls up to date: they follow from figures and coverage, so only where these changed."""
        if not (self.result.changed or self._newly_covered):
            return
        longest = (await self._run(expected.LONGEST_EXPECTATION))[0][0] or self._record.scan.expect_for
        longest_bucket = LONGEST_BUCKET[self._record.scan.granularity]
        bounds = {
            "longest_bucket": longest_bucket,
            "seen_from": self._record.scan.span.start - longest - longest_bucket,
            "expected_to": self._record.scan.span.end + longest,
        }
        self._parameters.update(bounds)
        await self._connection.execute(scan.TABLES_OF_SILENCE)
        candidates = 0
        if self._newly_covered:
            candidates += await self._count(expected.FIND_EXPECTED_HERE)
            if not all_new:
                candidates += await self._count(expected.FIND_EXPECTED_BEFORE)
        later = expected.FIND_EXPECTED_AFTER_NEW if all_new else expected.FIND_EXPECTED_AFTER_CHANGES
        candidates += await self._count(later)
        if candidates:
            await self._run("ANALYZE pg_temp.candidate")
            self.result.changed += await self._count(expected.TAKE_BACK_EXPECTED)
            self.result.changed += await self._fill(expected.STORE_EXPECTED, "missing")
        if all_new and not candidates:
            return
        for start, rows, sample in await self._run(expected.COUNT_MISSING):
            self.result.missing[self._window(start)] = Missing(rows, sample)

    async def _complete(self) -> None:
        if self.result.rows:
            await self._run(windows.REFUTE_DOUBTS)
        known = {
            **self._parameters,
            "query_hash": self._record.query_hash,
            "pages": self._record.pages,
            "cycle": self._record.cycle,
            "elapsed": self._elapsed(),
            "doubt": "a wholly empty answer over stored figures is believed when a later cycle says it again",
        }
        async with self._connection.pipeline():
            for window in self._windows:
                doubted = window in self.result.doubted
                its = {
                    "window_start": window.span.start,
                    "window_end": window.span.end,
                    "requested": window.requested,
                    "entries": self._share_of_entries(window),
                    "rows": self.result.rows.get(window, 0),
                    "rejected": self.result.rejected.get(window, 0),
                }
                statement = windows.DOUBT_WINDOW if doubted else windows.COMPLETE_WINDOW
                await self._connection.execute(statement, {**known, **its})

    def _elapsed(self) -> timedelta:
        return self._clock.now() - self._record.began_at

    def _share_of_entries(self, window: Window) -> int:
        return round(self._record.entries * len(self._buckets_in(window)) / max(1, len(self._record.buckets)))


async def merge(database: Database, lease: Lease, staging: Staging, record: ScanRecord) -> Merged:
    """Store a scan that came to its end, and mark its windows complete, in one transaction.

    Raises:
        LeaseLostError: another process has taken the org; nothing was written.
        ConflictError: the scan gives two different figures for one key; nothing was written.
        StorageError: PostgreSQL refuses it; nothing was written.
        DatabaseAwayError: nothing was written, or the answer to the commit was lost.
    """
    try:
        async with (
            database.merging,
            database.transaction(limit=MERGE_TIMEOUT + 30, patience=MERGE_TIMEOUT) as connection,
        ):
            merged = await Merge(connection, record, lease.clock).run(lease, staging)
    except psycopg.Error as error:
        raise StorageError(f"PostgreSQL refuses it: {explain(error)}") from error
    await note_outcomes(database, merged.outcomes_added, staging.names)
    return merged
