"""One scan into the tables: the short transaction that shows a window whole or not at all.

Step by step, under the org's row lock: number the scan's outcomes, bring its rows in, find what differs from
what is stored, keep the former versions, store the new ones, note what silence means, restate, mark the windows
complete, stamp the revision. Where nothing is stored yet, a scan's rows go to where they belong at once. A crash
at any instant leaves nothing of it.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import LiteralString

import psycopg

from service.clock import TOLERANCE, Clock, trusted_time
from service.errors import LeaseLostError, StorageError
from service.model import Window
from service.postgres.lease import Lease
from service.postgres.merge import expected, figures, scan, window_results
from service.postgres.merge.loader import ScanLoader
from service.postgres.merge.merge_session import Session
from service.postgres.merge.record import LONGEST_BUCKET, Merged, Missing, ScanRecord, scope_of
from service.postgres.merge.staging import Staging
from service.postgres.merge.statistics import note_outcomes
from service.postgres.pool import MERGE_TIMEOUT, Connection, Database, explain
from service.postgres.revision import STAMP

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

    def __init__(self, connection: Connection, record: ScanRecord, staging: Staging, clock: Clock) -> None:
        self._record = record
        self._staging = staging
        self._clock = clock
        self._windows = record.scan.windows
        self._session = Session(
            connection,
            {
                "org": record.scan.org,
                "granularity": record.scan.granularity.value,
                "start": record.scan.span.start,
                "end": record.scan.span.end,
                "flows": list(record.flows) or None,
                "scope": scope_of(record.flows),
                "expect_for": record.scan.expect_for,
                "scan_number": record.number,
                "work": self._windows[0].stream,
                "by_id": record.by_id,
                "window_starts": [w.span.start for w in self._windows],
                "window_ends": [w.span.end for w in self._windows],
            },
        )
        self.result = Merged()
        self._intake = ScanLoader(self._session, record, staging, self.result)
        self._newly_covered = 0
        self._all_new = self._at_once = self._counted = False
        self._monotonic_zero = record.began_at  # the time that decides less the monotonic clock's seconds
        self._database_ahead = False

    async def run(self, lease: Lease) -> Merged:
        """Do it; the caller commits.

        Raises:
            LeaseLostError: another process has taken the org.
            NotSettledError: one of its windows has not settled.
            ConflictError: the scan gives two different figures for one key.
        """
        await self._session.connection.execute(_SETTINGS + scan.TABLES)
        await self._lock(lease)
        await self._intake.take_names()
        superseded, covered_before = await self._session.run_pipelined(
            window_results.FIND_OUTDONE, expected.NOTE_COVERED_BEFORE
        )
        self._all_new = not covered_before
        self._at_once = self._all_new and not superseded and self._staging.plain
        self._counted = not (superseded or self._staging.repeats)
        await (self._intake.store_at_once() if self._at_once else self._intake.take_rows())
        await self._intake.count_rows()
        if superseded:
            await self._session.run(window_results.LEAVE_OUTDONE)
        if self._staging.rejects:
            await self._intake.take_rejects()
        await self._doubt()
        _, self._newly_covered = await self._session.run_pipelined(expected.ADD_SCOPE, expected.COVER)
        if not self._at_once:
            await (self._store_all() if self._all_new else self._change())
        if self.result.changed and not self._staging.shares_fit:
            await self._mismatch()
        if self.result.changed and covered_before:
            await self._restate()
        await self._expect()
        await self._complete()
        return self.result

    async def _lock(self, lease: Lease) -> None:
        row = await self._session.run(scan.LOCK_ORG)
        if not row or row[0][0] != lease.epoch:
            raise LeaseLostError(f"{lease.org} was taken over")
        self._session.parameters["revision"] = row[0][1] + 1
        self._check_time(row[0][2])

    def _check_time(self, database: datetime) -> None:
        """See that every window has settled, and choose the times under which the scan is stored.

        A clock that is far from the one that decides gives none of them.
        """
        record, process = self._record, self._clock.now()
        self.result.database_time = database
        date = trusted_time(record.api_date, process, database)
        record.scan.check_settled(date)
        seen_at = record.api_monotonic if record.api_date else self._clock.monotonic()
        self._monotonic_zero = date - timedelta(seconds=seen_at)
        now = self._decisive_now()
        elapsed = timedelta(seconds=self._clock.monotonic() - record.began_monotonic)
        self._session.parameters.update(
            began_at=record.began_at if abs(process - now) <= TOLERANCE else now - elapsed,
            completed_at=max(
                database if abs(database - now) <= TOLERANCE else now,
                self._windows[-1].span.end + record.scan.delay,
            ),
        )
        self._database_ahead = database - now > TOLERANCE

    def _decisive_now(self) -> datetime:
        """The present by the clock that decides."""
        return self._monotonic_zero + timedelta(seconds=self._clock.monotonic())

    async def _doubt(self) -> None:
        """Do not believe a wholly empty window over stored figures, until a later cycle says it again."""
        empty = [w for w in self._windows if w not in self.result.rows and w not in self.result.rejected]
        if not empty:
            return
        found = await self._session.run(
            window_results.FIND_DOUBTED,
            empty_starts=[window.span.start for window in empty],
            empty_ends=[window.span.end for window in empty],
            requested=empty[0].requested,
        )
        doubted = [start for start, doubted_in in found if doubted_in in (None, self._record.cycle)]
        self.result.doubted.update(self._record.window_at(start) for start in doubted)
        await self._session.run(window_results.EXCLUDE_UNCONFIRMED, doubted=doubted)

    async def _store_all(self) -> None:
        """Store what was brought in where nothing was stored."""
        self.result.changed = await self._session.count(figures.STORE_ALL)

    async def _change(self) -> None:
        """Find what differs from what is stored, keep the former versions, and store it."""
        self.result.changed = await self._session.count(figures.FIND_CHANGES)
        if self.result.changed:
            await self._session.run("ANALYZE pg_temp.change")
            if await self._session.count(figures.ARCHIVE_PREVIOUS):
                await self._session.run(figures.STORE_CHANGED)
            await self._session.run(figures.STORE_NEW)

    async def _mismatch(self) -> None:
        """Tell of shares that fit nothing; where each fits its own entry's total, there are none."""
        await self._session.connection.execute(scan.TABLES_OF_SHARES)
        if self._all_new:
            await self._session.insert_and_analyze(figures.FIND_NEW, "change")
        await self._session.insert_and_analyze(figures.TOTAL_FLOWS, "flow_total")
        if await self._session.insert_and_analyze(figures.FIND_SUSPECTS, "suspect"):
            for start, rows in await self._session.run(figures.COUNT_MISMATCHES):
                self.result.mismatched[self._record.window_at(start)] = rows

    async def _restate(self) -> None:
        for start, restated in await self._session.run(figures.RESTATE):
            self.result.restated[self._record.window_at(start)] = restated

    async def _expect(self) -> None:
        """Bring the nulls up to date: they follow from figures and coverage, so only where these changed."""
        if not (self.result.changed or self._newly_covered):
            return
        longest = (await self._session.run(expected.LONGEST_EXPECTATION))[0][0] or self._record.scan.expect_for
        longest_bucket = LONGEST_BUCKET[self._record.scan.granularity]
        bounds = {
            "longest_bucket": longest_bucket,
            "seen_from": self._record.scan.span.start - longest - longest_bucket,
            "expected_to": self._record.scan.span.end + longest,
        }
        self._session.parameters.update(bounds, sparse=await self._sparse())
        await self._session.connection.execute(scan.TABLES_OF_SILENCE)
        find = [expected.FIND_EXPECTED_HERE] if self._newly_covered else []
        if self._newly_covered and not self._all_new:
            find.append(expected.FIND_EXPECTED_BEFORE)
        find.append(expected.FIND_EXPECTED_AFTER_NEW if self._all_new else expected.FIND_EXPECTED_AFTER_CHANGES)
        candidates = sum(await self._session.run_pipelined(*find))
        if candidates:
            await self._session.run("ANALYZE pg_temp.candidate")
            self.result.changed += await self._session.count(expected.TAKE_BACK_EXPECTED)
            self.result.changed += await self._session.insert_and_analyze(expected.STORE_EXPECTED, "missing")
        if self._all_new and not candidates:
            return
        for start, rows, sample in await self._session.run(expected.COUNT_MISSING):
            self.result.missing[self._record.window_at(start)] = Missing(rows, sample)

    async def _sparse(self) -> list[int]:
        """The scan's names, by number, that not each of its buckets has."""
        if self._counted:
            return self._staging.sparse(len(self._record.buckets))
        [(numbers,)] = await self._session.run(scan.FIND_SELDOM)
        return list(numbers)

    async def _complete(self) -> None:
        """Mark the windows, and last of all, where something changed, stamp the revision."""
        known = {
            **self._session.parameters,
            "query_hash": self._record.query_hash,
            "pages": self._record.pages,
            "cycle": self._record.cycle,
            "doubt": "a wholly empty answer over stored figures is believed when a later cycle says it again",
        }
        execute = self._session.connection.execute
        async with self._session.connection.pipeline():
            if self.result.rows:
                await execute(
                    window_results.REFUTE_DOUBTS_BY_NEW if self._at_once else window_results.REFUTE_DOUBTS, known
                )
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
                statement = window_results.DOUBT_WINDOW if doubted else window_results.COMPLETE_WINDOW
                await execute(statement, {**known, **its})
            if self.result.changed:
                await execute(
                    STAMP, {**known, "not_after": self._decisive_now() if self._database_ahead else None}
                )

    def _share_of_entries(self, window: Window) -> int:
        return round(
            self._record.entries * len(self._record.buckets_in(window)) / max(1, len(self._record.buckets))
        )


async def merge(database: Database, lease: Lease, staging: Staging, record: ScanRecord) -> Merged:
    """Store a scan that came to its end, and mark its windows complete, in one transaction.

    Raises:
        LeaseLostError: another process has taken the org; nothing was written.
        NotSettledError: one of its windows has not settled; nothing was written.
        ConflictError: the scan gives two different figures for one key; nothing was written.
        StorageError: PostgreSQL refuses it; nothing was written.
        DatabaseUnavailableError: nothing was written, or the answer to the commit was lost.
    """
    try:
        async with database.merge_transaction() as connection:
            merged = await Merge(connection, record, staging, lease.clock).run(lease)
    except psycopg.Error as error:
        raise StorageError(f"PostgreSQL refuses it: {explain(error)}") from error
    await note_outcomes(database, merged.outcomes_added, staging.names)
    return merged
