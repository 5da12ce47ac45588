"""Loads a scan into a merge: its buckets, its series, its rows, its rejects."""

from __future__ import annotations

from struct import iter_unpack

from service.errors import ConflictError, TooManySeriesError
from service.model import instant
from service.postgres.merge import scan, spill, window_results
from service.postgres.merge.binary_copy import (
    copy_in,
    pack_instant,
    pack_int4,
    pack_int8,
    pack_prefix,
    pack_text,
)
from service.postgres.merge.buffer import ScanBuffer
from service.postgres.merge.merge_session import MergeSession
from service.postgres.merge.packing import NAME_COLUMNS
from service.postgres.merge.record import Merged, RejectedOutcome, ScanRecord

SERIES_MAX = 100_000
"""Series of one scan that is grouped by dimensions."""


class ScanLoader:
    """Loads a scan, and counts in the merge's result what was loaded."""

    def __init__(self, session: MergeSession, record: ScanRecord, buffer: ScanBuffer, result: Merged) -> None:
        self._session = session
        self._record = record
        self._buffer = buffer
        self._result = result
        self._windows = record.scan.windows

    async def load_buckets(self) -> None:
        """Load the scan's buckets."""
        window_of = {bucket: window for window in self._windows for bucket in self._record.buckets_in(window)}
        await self._session.execute(
            scan.INSERT_BUCKETS,
            bucket_starts=[bucket.start for bucket in window_of],
            bucket_ends=[bucket.end for bucket in window_of],
            bucket_windows=[window.span.start for window in window_of.values()],
        )

    async def load_series(self) -> None:
        """Load the names that the scan reports, and find their series; those that are new are added.

        Raises:
            DatabaseUnavailableError: spilled names are missing.
            TooManySeriesError: it is grouped into more than ``SERIES_MAX``.
        """
        connection, packer = self._session.connection, self._buffer.packer
        prefix = pack_prefix(NAME_COLUMNS.count(",") + 1)
        await copy_in(connection, "pg_temp.scan_name", NAME_COLUMNS, packer.packed_names(prefix))
        await self._buffer.spill.read(connection, spill.NAMES, "scan_name")
        if packer.names > SERIES_MAX and (group_by := self._record.scan.group_by):
            series = await self._session.value(scan.COUNT_SERIES)
            if series > SERIES_MAX:
                raise TooManySeriesError(
                    f"grouped by {', '.join(group_by)} the window has {series} series; at most {SERIES_MAX} are"
                    " stored; remove a dimension from group_by"
                )
        find = scan.FIND_REPEATED_SERIES if packer.may_repeat else scan.FIND_SERIES
        known = await self._session.execute(find)
        if known < packer.names:
            *_, found = await self._session.run_pipelined(scan.DELETE_SERIES, scan.ADD_SERIES, find)
            self._result.outcomes_added = found - known

    async def load_rows(self) -> None:
        """Load the rows into ``scan_figure``, one for each outcome and bucket.

        Raises:
            ConflictError: the scan reports two different figures for one outcome and bucket.
            DatabaseUnavailableError: spilled rows are missing.
        """
        connection, packer = self._session.connection, self._buffer.packer
        table = "scan_figure"
        if packer.may_repeat:
            await connection.execute(scan.CREATE_REPEATS)
            table = "scan_figure_raw"
        columns = self._buffer.spill.columns(spill.ROWS)
        prefix = pack_prefix(columns.count(",") + 1)
        rows = packer.packed_rows(lambda number: prefix + pack_int4(number), parts=True)
        await copy_in(connection, f"pg_temp.{table}", columns, rows)
        self._buffer.clear()
        await self._buffer.spill.read(connection, spill.ROWS, table)
        await self._buffer.spill.delete(connection)
        if packer.may_repeat:
            await self._session.execute(scan.INSERT_PARTS if packer.has_parts else scan.INSERT_REPEATED)
        if packer.has_parts and packer.may_repeat and self._buffer.rejects:
            await self._session.execute(scan.REJECT_INCOMPLETE_SUMS)
        if packer.may_repeat:
            await self._check_conflicts()

    async def _check_conflicts(self) -> None:
        for conflict in await self._session.rows(scan.Conflict, scan.FIND_CONFLICT):
            raise ConflictError(
                f"two different figures for outcome {conflict.source_key!r} of flow {conflict.flow_id}"
                f" in the bucket {instant(conflict.bucket_start)}"
            )

    async def copy_to_figure(self) -> None:
        """Copy the rows into ``figure``. None of them may be stored, and the buffer is ``directly_copyable``."""
        parameters, columns = self._session.parameters, self._buffer.packer.columns
        series_nos = dict(iter_unpack("!iq", await self._session.value(scan.PACK_SERIES)))
        shared = pack_prefix(
            columns.count(",") + 7,
            pack_text(parameters["org"]),
            pack_text(parameters["granularity"]),
            pack_instant(parameters["began_at"]),
            pack_int8(parameters["revision"]),
            pack_text(parameters["measure"]),
        )
        self._result.changed = await copy_in(
            self._session.connection,
            "flow_outcomes.figure",
            f"org, granularity, extraction_timestamp, revision, measure, series_no, {columns}",
            self._buffer.packer.packed_rows(lambda number: shared + pack_int8(series_nos[number])),
        )
        self._buffer.clear()

    async def count_rows(self) -> None:
        """Count the figures that each window reports; in memory, unless an outcome may be there twice."""
        packer, rows = self._buffer.packer, self._result.rows
        if packer.may_repeat or packer.has_parts:
            for counted in await self._session.rows(scan.WindowCount, scan.COUNT_REPORTED):
                rows[self._record.window_at(counted.window_start)] = counted.rows
            return
        reported = packer.reported()
        for window in self._windows:
            if count := sum(reported.get(bucket.start, 0) for bucket in self._record.buckets_in(window)):
                rows[window] = count

    async def load_rejects(self) -> None:
        """Load the rejects into ``scan_reject``.

        Raises:
            DatabaseUnavailableError: spilled rejects are missing.
        """
        connection, columns = self._session.connection, spill.TABLES[spill.REJECTS]
        await connection.execute(scan.CREATE_REJECTS)
        rejects = self._buffer.packed_rejects(pack_prefix(columns.count(",") + 1))
        await copy_in(connection, "pg_temp.scan_reject", columns, rejects)
        await self._buffer.spill.read(connection, spill.REJECTS, "scan_reject")

    async def store_rejects(self) -> None:
        """Store the rejects. Where one may have been any outcome, no absence in its window is conclusive."""
        only_window = self._windows[0].span.start if len(self._windows) == 1 else None
        inconclusive = []
        for counted in await self._session.rows(
            window_results.RejectCount, window_results.COUNT_REJECTS, only_window=only_window
        ):
            self._result.rejected[self._record.window_at(counted.window_start)] = counted.rejected
            if not counted.identified:
                inconclusive.append(counted.window_start)
        await self._session.execute(window_results.MARK_ABSENCE_INCONCLUSIVE, starts=inconclusive)
        await self._session.execute(window_results.STORE_REJECTED_TEXTS)
        stored = await self._session.rows(
            window_results.StoredReject, window_results.STORE_REJECTED, only_window=only_window
        )
        self._result.rejects = [
            RejectedOutcome(
                self._record.window_at(each.window_start), each.reason, each.flow_id, each.outcome_name
            )
            for each in stored
        ]
