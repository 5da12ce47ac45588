"""Stores a scan in one short transaction: a reader sees a window complete or not at all.

Under the org's row lock: find the scan's series, load its rows, find what differs from what is stored, archive
the previous versions, store the new ones, note restatements, update the expected nulls, mark the windows, and
stamp the revision. ``MergePath`` says which of these steps a scan needs. A crash leaves nothing of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import LiteralString

import psycopg

from service.clock import TOLERANCE, Clock, trusted_time
from service.errors import PrunedError, StorageError
from service.model import Measure, Window, instant
from service.postgres.lease import Lease
from service.postgres.merge import expected, figures, scan, window_results
from service.postgres.merge.buffer import ScanBuffer
from service.postgres.merge.loader import ScanLoader
from service.postgres.merge.merge_session import MergeSession
from service.postgres.merge.record import LONGEST_BUCKET, NOT_ACCEPTED_AFTER, Merged, Missing, ScanRecord
from service.postgres.merge.statistics import analyze_series
from service.postgres.pool import MERGE_TIMEOUT, Connection, Database, explain
from service.postgres.revision import STAMP, lock_own_org

DOUBT = "empty response for a window that has data; accepted if a later cycle confirms it"
KEPT = "the window starts before {limit}, the limit of the org's retention; stored figures are kept"
KEPT_IF_EMPTY = (
    f"empty response for a window that has data and is older than {NOT_ACCEPTED_AFTER.days} days, and the org's"
    " retention is unknown; stored figures are kept: set orgs.{org}.retention"
)

# Figures stored a moment ago are not in the planner's statistics, so it would materialise them for each row of a
# scan. Of a temporary table it knows only the size, so it would sort both sides of a join where a hash table fits.
# A small sample is enough for the few tables that are analysed. 16 MB sort a scan's rows in memory.
_SETTINGS: LiteralString = f"""
    SET LOCAL statement_timeout = '{MERGE_TIMEOUT}s';
    SET LOCAL lock_timeout = '{MERGE_TIMEOUT}s';
    SET LOCAL enable_material = off;
    SET LOCAL enable_mergejoin = off;
    SET LOCAL default_statistics_target = 10;
    SET LOCAL work_mem = '16MB';
"""


@dataclass(frozen=True)
class MergePath:
    """The steps that a merge needs.

    Attributes:
        first_scan: no scan has covered any of the buckets, so no figure is stored in them.
        superseded: a scan with a higher number has covered some of the buckets, whose rows are left out.
        direct_copy: rows are copied from memory into ``figure``, and ``scan_figure`` stays empty. Figures are then
            all new, and none needs a check.
        counted_in_memory: the packer's counts are those of ``scan_figure``.
    """

    first_scan: bool
    superseded: bool
    direct_copy: bool
    counted_in_memory: bool

    @classmethod
    def choose(cls, buffer: ScanBuffer, *, covered_before: int, superseded: int) -> MergePath:
        """The path of a scan.

        Args:
            buffer: its rows.
            covered_before: rows of ``previous_coverage``.
            superseded: rows of ``superseded``.
        """
        return cls(
            first_scan=not covered_before,
            superseded=bool(superseded),
            direct_copy=buffer.directly_copyable and not (covered_before or superseded),
            counted_in_memory=not (superseded or buffer.packer.may_repeat or buffer.packer.has_parts),
        )


class Merge:
    """The transaction of one scan."""

    def __init__(self, connection: Connection, record: ScanRecord, buffer: ScanBuffer, clock: Clock) -> None:
        self._record = record
        self._buffer = buffer
        self._clock = clock
        self._windows = record.scan.windows
        self._session = MergeSession(
            connection,
            {
                "org": record.scan.org,
                "measure": record.scan.measure.value,
                "group_by": ",".join(record.scan.group_by),
                "regroups": False,
                "granularity": record.scan.granularity.value,
                "start": record.scan.span.start,
                "end": record.scan.span.end,
                "flows": list(record.flows) or None,
                "scope": record.scope,
                "expect_for": record.scan.expect_for,
                "scan_number": record.number,
                "stream": self._windows[0].stream,
                "by_id": record.by_id,
                "window_starts": [w.span.start for w in self._windows],
                "window_ends": [w.span.end for w in self._windows],
            },
        )
        self.result = Merged()
        self._loader = ScanLoader(self._session, record, buffer, self.result)
        self._clock_offset = record.began_at  # deciding clock at the monotonic clock's zero
        self._database_ahead = False
        self._notes: dict[Window, str] = {}  # windows whose stored figures are kept

    async def run(self, lease: Lease) -> Merged:
        """Store the scan; the caller commits.

        Raises:
            LeaseLostError: another process has acquired the org.
            NotSettledError: one of its windows has not settled.
            PrunedError: one of its windows starts before the org's prune date.
            ConflictError: the scan reports two different figures for one outcome and bucket.
            TooManySeriesError: it is grouped into too many series.
            DatabaseUnavailableError: spilled rows are missing.
        """
        await self._session.connection.execute(_SETTINGS + scan.CREATE_TABLES)
        locked = await lock_own_org(self._session.connection, lease.org, lease.epoch)
        self._check_not_pruned(locked.pruned_before)
        self._session.parameters["revision"] = locked.revision + 1
        self._set_times(locked.locked_at)
        path = await self._load()
        self._note_expired_windows()
        await self._doubt_empty_windows()
        await self._keep_stored(path)
        if not path.first_scan:
            regroups = await self._session.value(expected.FIND_REGROUPED)
            self._session.parameters["regroups"] = regroups
            if regroups and path.superseded:
                await self._session.execute(window_results.RENUMBER_SUPERSEDING)
        _, newly_covered = await self._session.run_pipelined(expected.ADD_SCOPE, expected.COVER)
        if not path.direct_copy:
            await self._store_figures(path)
        if self.result.changed and not self._buffer.shares_fit:
            await self._count_mismatches(path)
        if self.result.changed and not path.first_scan and self._record.scan.measure is Measure.OUTCOMES:
            for restated in await self._session.rows(scan.WindowCount, figures.RESTATE):
                self.result.restated[self._record.window_at(restated.window_start)] = restated.rows
        if self.result.changed or newly_covered:
            await self._update_expected(path, newly_covered)
        await self._complete(path)
        return self.result

    async def _load(self) -> MergePath:
        """Load the scan, and decide its path as soon as its buckets are known."""
        loader = self._loader
        await loader.load_buckets()
        await loader.load_series()
        if self._buffer.rejects:
            await loader.load_rejects()
        superseded, covered_before = await self._session.run_pipelined(
            window_results.FIND_SUPERSEDED, expected.NOTE_PREVIOUS_COVERAGE
        )
        path = MergePath.choose(self._buffer, covered_before=covered_before, superseded=superseded)
        await (loader.copy_to_figure() if path.direct_copy else loader.load_rows())
        await loader.count_rows()
        if path.superseded:
            await self._session.execute(window_results.DELETE_SUPERSEDED)
        if self._buffer.rejects:
            await loader.store_rejects()
        return path

    def _set_times(self, database: datetime) -> None:
        """Check that every window has settled, and set the times under which the scan is stored.

        A clock that is far from the deciding one sets none of them.
        """
        record, process = self._record, self._clock.now()
        self.result.database_time = database
        date = trusted_time(record.api_date, process, database)
        record.scan.check_settled(date)
        seen_at = record.api_monotonic if record.api_date else self._clock.monotonic()
        self._clock_offset = date - timedelta(seconds=seen_at)
        now = self._trusted_now()
        elapsed = timedelta(seconds=self._clock.monotonic() - record.began_monotonic)
        self._session.parameters.update(
            began_at=record.began_at if abs(process - now) <= TOLERANCE else now - elapsed,
            completed_at=max(
                database if abs(database - now) <= TOLERANCE else now,
                self._windows[-1].span.end + record.scan.delay,
            ),
        )
        self._database_ahead = database - now > TOLERANCE

    def _check_not_pruned(self, before: datetime | None) -> None:
        """Check that the scan stores nothing before the org's prune date, which may be newer than the scan.

        Raises:
            PrunedError: it would.
        """
        if before is not None and self._record.scan.span.start < before:
            raise PrunedError(f"the org was pruned before {before:%Y-%m-%d}", before=before)

    def _trusted_now(self) -> datetime:
        """The present by the deciding clock."""
        return self._clock_offset + timedelta(seconds=self._clock.monotonic())

    def _note_expired_windows(self) -> None:
        """Note the windows whose data the org may have deleted."""
        retention = self._record.retention
        if retention is not None and retention.kept is not None:
            limit = retention.limit(self._trusted_now())
            note = KEPT.format(limit=instant(limit))
            self._notes = {window: note for window in self._windows if window.span.start < limit}

    async def _keep_stored(self, path: MergePath) -> None:
        """Keep the stored figures of the noted windows; figures that are new are stored all the same."""
        if self._notes and not path.first_scan:
            await self._session.execute(
                window_results.KEEP_STORED, starts=[window.span.start for window in self._notes]
            )
            await self._session.execute(figures.DELETE_OF_STORED)

    async def _doubt_empty_windows(self) -> None:
        """Do not accept an empty window that has figures, unless an earlier cycle found it empty too.

        One that is so old that its data may have been deleted is never accepted as empty, and never doubted.
        """
        reported = self.result.rows.keys() | self.result.rejected.keys() | self._notes.keys()
        empty = [window for window in self._windows if window not in reported]
        if not empty:
            return
        found = await self._session.rows(
            window_results.EmptyWindow,
            window_results.FIND_EMPTY_WITH_FIGURES,
            empty_starts=[window.span.start for window in empty],
            empty_ends=[window.span.end for window in empty],
            requested=empty[0].requested,
        )
        retention = self._record.retention
        limit = None if retention is None or retention.kept is not None else retention.limit(self._trusted_now())
        old = [each for each in found if limit is not None and each.window_start < limit]
        note = KEPT_IF_EMPTY.format(org=self._record.scan.org)
        self._notes.update((self._record.window_at(each.window_start), note) for each in old)
        found = [each for each in found if each not in old]
        doubted = [each.window_start for each in found if each.doubted_in in (None, self._record.cycle)]
        self.result.doubted.update(self._record.window_at(start) for start in doubted)
        await self._session.execute(window_results.EXCLUDE_UNCONFIRMED, starts=doubted)

    async def _store_figures(self, path: MergePath) -> None:
        """Store the figures of ``scan_figure`` that are new or differ, and archive the previous versions."""
        if path.first_scan:
            self.result.changed = await self._session.execute(figures.INSERT_ALL)
            return
        self.result.changed = await self._session.execute(figures.FIND_CHANGES)
        if self.result.changed:
            await self._session.connection.execute("ANALYZE pg_temp.change")
            regroups = self._session.parameters["regroups"]
            ended = await self._session.execute(figures.MARK_ENDED) if regroups else 0
            if await self._session.execute(figures.ARCHIVE_PREVIOUS):
                await self._session.execute(figures.UPDATE_CHANGED)
            if ended:
                await self._session.execute(figures.DELETE_ENDED)
            await self._session.execute(figures.INSERT_NEW)

    async def _count_mismatches(self, path: MergePath) -> None:
        """Count the shares that fit no denominator."""
        await self._session.connection.execute(scan.CREATE_SHARES)
        if path.first_scan:
            await self._session.insert_and_analyze(figures.FIND_ALL_CHANGED, "change")
        await self._session.insert_and_analyze(figures.TOTAL_FLOWS, "flow_total")
        if await self._session.insert_and_analyze(figures.FIND_SUSPECTS, "suspect"):
            for mismatched in await self._session.rows(scan.WindowCount, figures.COUNT_MISMATCHES):
                self.result.mismatched[self._record.window_at(mismatched.window_start)] = mismatched.rows

    async def _update_expected(self, path: MergePath, newly_covered: int) -> None:
        """Add and delete expected nulls. They follow from figures and coverage, so only where these changed."""
        longest = await self._session.value(expected.LONGEST_EXPECTATION) or self._record.scan.expect_for
        longest_bucket = LONGEST_BUCKET[self._record.scan.granularity]
        self._session.parameters.update(
            longest_bucket=longest_bucket,
            seen_from=self._record.scan.span.start - longest - longest_bucket,
            expected_to=self._record.scan.span.end + longest,
            sparse=(
                self._buffer.packer.sparse(len(self._record.buckets))
                if path.counted_in_memory
                else await self._session.value(scan.FIND_SPARSE)
            ),
        )
        await self._session.connection.execute(scan.CREATE_EXPECTED)
        find = [expected.FIND_EXPECTED_HERE] if newly_covered else []
        if newly_covered and not path.first_scan:
            find.append(expected.FIND_EXPECTED_BEFORE)
        find.append(
            expected.FIND_EXPECTED_AFTER_FIRST_SCAN if path.first_scan else expected.FIND_EXPECTED_AFTER_CHANGES
        )
        candidates = sum(await self._session.run_pipelined(*find))
        if candidates:
            await self._session.connection.execute("ANALYZE pg_temp.candidate")
            self.result.changed += await self._session.execute(expected.DELETE_UNEXPECTED)
            self.result.changed += await self._session.insert_and_analyze(expected.STORE_EXPECTED, "expected_null")
        elif path.first_scan:
            return
        for missing in await self._session.rows(expected.MissingCount, expected.COUNT_MISSING):
            window = self._record.window_at(missing.window_start)
            self.result.missing[window] = Missing(missing.rows, missing.sample)

    async def _complete(self, path: MergePath) -> None:
        """Mark the windows, and last, where something changed, stamp the revision."""
        parameters = {
            **self._session.parameters,
            "query_hash": self._record.query_hash,
            "pages": self._record.pages,
            "cycle": self._record.cycle,
            "doubt": DOUBT,
        }
        execute = self._session.connection.execute
        async with self._session.connection.pipeline():
            if self.result.rows:
                clear = window_results.CLEAR_DOUBT_AFTER_COPY if path.direct_copy else window_results.CLEAR_DOUBT
                await execute(clear, parameters)
            for window in self._windows:
                doubted = window in self.result.doubted
                own = {
                    "window_start": window.span.start,
                    "window_end": window.span.end,
                    "requested": window.requested,
                    "entries": self._record.entries_of(window),
                    "rows": self.result.rows.get(window, 0),
                    "rejected": self.result.rejected.get(window, 0),
                    "note": self._notes.get(window),
                }
                statement = window_results.DOUBT_WINDOW if doubted else window_results.COMPLETE_WINDOW
                await execute(statement, {**parameters, **own})
            if self.result.changed:
                not_after = self._trusted_now() if self._database_ahead else None
                await execute(STAMP, {**parameters, "not_after": not_after})


async def merge(database: Database, lease: Lease, buffer: ScanBuffer, record: ScanRecord) -> Merged:
    """Store a scan whose last page was read, and mark its windows, in one transaction.

    Raises:
        LeaseLostError: another process has acquired the org; nothing was written.
        NotSettledError: one of its windows has not settled; nothing was written.
        PrunedError: the org was pruned since the scan began; nothing was written.
        ConflictError: the scan reports two different figures for one outcome and bucket; nothing was written.
        TooManySeriesError: it is grouped into too many series; nothing was written.
        StorageError: PostgreSQL rejected the write; nothing was written.
        DatabaseUnavailableError: nothing was written, or the connection broke during the commit.
    """
    try:
        async with database.merge_transaction() as connection:
            merged = await Merge(connection, record, buffer, lease.clock).run(lease)
    except psycopg.Error as error:
        raise StorageError(f"PostgreSQL rejected the write: {explain(error)}") from error
    await analyze_series(database, added=merged.outcomes_added, reported=buffer.packer.names)
    return merged
