"""A scan's way into a merge: its buckets, its outcomes' numbers, its rows, what of it was refused."""

from __future__ import annotations

from struct import iter_unpack

from service.errors import ConflictError
from service.model import instant
from service.postgres.merge import scan, window_results
from service.postgres.merge.binary_copy import pack_instant, pack_int8, pack_text
from service.postgres.merge.merge_session import Session
from service.postgres.merge.record import Merged, ScanRecord
from service.postgres.merge.staging import Staging


class ScanLoader:
    """Brings a scan in, and notes in the merge's result what came."""

    def __init__(self, session: Session, record: ScanRecord, staging: Staging, result: Merged) -> None:
        self._session = session
        self._record = record
        self._staging = staging
        self._result = result
        self._windows = record.scan.windows

    async def take_names(self) -> None:
        """Bring in its buckets, what was refused, and its names, numbered; nearly always all are known."""
        await self._staging.load_names(self._session.connection)
        window_of = {bucket: window for window in self._windows for bucket in self._record.buckets_in(window)}
        take = scan.TAKE_REPEATED_OUTCOMES if self._staging.repeats else scan.TAKE_OUTCOMES
        _, known = await self._session.run_pipelined(
            scan.TAKE_BUCKETS,
            take,
            bucket_starts=[bucket.start for bucket in window_of],
            bucket_ends=[bucket.end for bucket in window_of],
            bucket_windows=[window.span.start for window in window_of.values()],
        )
        if known < self._staging.names:
            *_, all_of_them = await self._session.run_pipelined(scan.FORGET_OUTCOMES, scan.ADD_OUTCOMES, take)
            self._result.outcomes_added = all_of_them - known

    async def take_rows(self) -> None:
        """Bring its rows in, each key once.

        Raises:
            ConflictError: it gives two different figures for one key.
        """
        await self._staging.load_rows(self._session.connection)
        if self._staging.repeats:
            await self._session.run(scan.TAKE_PARTS if self._staging.in_parts else scan.TAKE_REPEATS)
        if self._staging.in_parts and self._staging.rejects:
            await self._session.run(scan.DOUBT_PARTS)
        conflicts = await self._session.run(scan.FIND_CONFLICT) if self._staging.repeats else []
        for flow_id, bucket_start, name in conflicts:
            raise ConflictError(
                f"two different figures for outcome {name!r} of flow {flow_id}"
                f" in the bucket {instant(bucket_start)}"
            )

    async def store_at_once(self) -> None:
        """Store its rows where nothing was stored, without bringing them in first."""
        [(packed,)] = await self._session.run(scan.NUMBERS)
        self._result.changed = await self._staging.store(
            self._session.connection,
            dict(iter_unpack("!iq", packed)),
            org=pack_text(self._record.scan.org),
            granularity=pack_text(self._record.scan.granularity.value),
            extraction_timestamp=pack_instant(self._session.parameters["began_at"]),
            revision=pack_int8(self._session.parameters["revision"]),
        )

    async def count_rows(self) -> None:
        """How many figures each window reports; of those that came more than once the server has to tell."""
        if self._staging.repeats or self._staging.in_parts:
            for start, rows in await self._session.run(scan.COUNT_ROWS):
                self._result.rows[self._record.window_at(start)] = rows
            return
        reported = self._staging.reported()
        for window in self._windows:
            rows = sum(reported.get(bucket.start, 0) for bucket in self._record.buckets_in(window))
            if rows:
                self._result.rows[window] = rows

    async def take_rejects(self) -> None:
        """Keep what was refused; where one may have been any outcome, silence tells nothing."""
        alone = self._windows[0].span.start if len(self._windows) == 1 else None
        untold = []
        for start, rejected, tellable in await self._session.run(window_results.COUNT_REJECTS, alone=alone):
            self._result.rejected[self._record.window_at(start)] = rejected
            if not tellable:
                untold.append(start)
        if self._result.rejected:
            await self._session.run(window_results.SILENCE_UNTOLD, untold=untold)
            await self._session.run(window_results.KEEP_REJECTED_TEXT)
            for start, reason, flow_id, outcome in await self._session.run(
                window_results.KEEP_REJECTED, alone=alone
            ):
                self._result.rejects.append((self._record.window_at(start), reason, flow_id, outcome))
