"""The ledger: the state of each window of an org, and the reason why one is not complete."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from service.clock import TOLERANCE
from service.model import Granularity, Measure, Scan, Span, Window
from service.postgres.pool import Database
from service.postgres.windows.requests import INSERT_WINDOWS, columns, request_windows
from service.postgres.windows.splits import IS_OWNER, SplitLedger

AD_HOC = "ad hoc"
_LAST_ERROR_LENGTH = 1000


def stream_of(job: str, measure: str = Measure.OUTCOMES) -> str:
    """The ledger's name for a job's windows; those of another measure are others."""
    return f"job:{job}" if measure == Measure.OUTCOMES else f"job:{job}:{measure}"


def job_of(stream: str) -> str | None:
    """The job's name in a stream; None for ad hoc windows."""
    return None if stream == AD_HOC else stream.split(":")[1]


@dataclass(frozen=True, slots=True)
class LedgerWindow:
    """A window with its state in the ledger.

    Attributes:
        window: the window.
        state: ``pending``, ``running``, ``complete`` or ``failed``.
        flows: the flows that its last stored scan requested; None: all flows, or nothing stored yet.
        doubted: its last scan was completely empty and has not been confirmed yet.
        requested_again: an ad hoc window that was requested again since its last stored scan began.
        isolated: it is requested alone: a page that it shared was invalid, or it was refused by itself.
        attempts: how many scans of it have begun.
        last_error: None where there is none.
    """

    window: Window
    state: str
    flows: frozenset[str] | None
    doubted: bool
    requested_again: bool
    isolated: bool
    attempts: int
    last_error: str | None

    def settled(self, flows: Collection[str]) -> bool:
        """Whether it is complete for the flows that are configured now, so that no scan is due."""
        if self.state != "complete" or self.requested_again:
            return False
        return self.flows is None or (bool(flows) and self.flows.issuperset(flows))


class Ledger:
    """The windows of one org. Only the org's owner writes here, under its epoch: see ``IS_OWNER``."""

    def __init__(self, database: Database, org: str, epoch: int) -> None:
        self._database = database
        self._org = org
        self._epoch = epoch

    async def windows(self, stream: str) -> list[LedgerWindow]:
        """Every window of a stream, by start."""
        async with self._database.connection() as connection:
            return await connection.fetch_all(_ledger_window, _WINDOWS, {"org": self._org, "stream": stream})

    async def all_settled(self, windows: Sequence[Window], flows: Collection[str]) -> bool:
        """Whether each of these ad hoc windows is settled."""
        known = {each.window.request: each for each in await self.windows(AD_HOC)}
        states = [known.get(window.request) for window in windows]
        return all(state is not None and state.settled(flows) for state in states)

    async def enqueue(self, windows: Sequence[Window]) -> None:
        """Insert windows that are due; those in the ledger already stay as they are."""
        async with self._database.transaction() as connection:
            await connection.execute(
                f"{INSERT_WINDOWS} WHERE {IS_OWNER} ON CONFLICT DO NOTHING",
                {**columns(windows), "epoch": self._epoch},
            )

    async def delete(self, windows: Sequence[Window]) -> None:
        """Delete windows of one stream that are no longer due; those that were ever complete stay."""
        async with self._database.transaction() as connection:
            await connection.execute(
                f"DELETE FROM flow_outcomes.extraction_window WHERE {_THESE} AND completed_at IS NULL",
                self._these(windows),
            )

    async def replace(self, window: Window, by: Window) -> None:
        """Replace a window that the API rejects by a coarser one."""
        if by.span == window.span:
            async with self._database.transaction() as connection:
                await connection.execute(
                    f"""
                    UPDATE flow_outcomes.extraction_window
                    SET granularity = %(granularity)s, coarsened = true
                    WHERE {_THESE}
                    """,
                    {**self._these([window]), "granularity": by.granularity.value},
                )
            return
        await self.delete([window])
        await request_windows(self._database, [by], again=False)

    async def has_entry(self, name: str, content: str) -> bool:
        """Whether an ad hoc entry of the configuration, with this content, was requested already."""
        async with self._database.connection() as connection:
            return bool(
                await connection.fetch_value(
                    """
                    SELECT EXISTS (SELECT FROM flow_outcomes.ad_hoc_entry
                                   WHERE org = %(org)s AND name = %(name)s AND content = %(content)s)
                    """,
                    {"org": self._org, "name": name, "content": content},
                )
            )

    async def note_entry(self, name: str, content: str) -> None:
        """Record that an ad hoc entry of the configuration was requested."""
        async with self._database.transaction() as connection:
            await connection.execute(
                """
                INSERT INTO flow_outcomes.ad_hoc_entry (org, name, content)
                VALUES (%(org)s, %(name)s, %(content)s) ON CONFLICT DO NOTHING
                """,
                {"org": self._org, "name": name, "content": content},
            )

    async def begin(self, scan: Scan, query_hash: str) -> None:
        """Record that a scan begins; a complete window stays complete."""
        await self._update(
            scan.windows,
            """
            attempts = attempts + 1, query_hash = %(query_hash)s, granularity = %(granularity)s,
            state = CASE WHEN state = 'complete' THEN state ELSE 'running' END, requests_begun = requests
            """,
            query_hash=query_hash,
            granularity=scan.granularity.value,
        )

    async def fail(self, scan: Scan, error: str, *, isolate: bool = False) -> None:
        """Record why a scan failed; a complete window stays complete.

        Args:
            scan: whose windows.
            error: for ``last_error``.
            isolate: whether its windows are requested one by one from now on.
        """
        await self._update(
            scan.windows,
            """
            last_error = %(error)s, kept_stored = false, requests_failed = requests_begun,
            isolated = isolated OR %(isolate)s,
            state = CASE WHEN state = 'complete' THEN state ELSE 'failed' END
            """,
            error=_storable(error),
            isolate=isolate,
        )

    async def requeue(self, scan: Scan, reason: str | None = None, *, isolate: bool = False) -> None:
        """Put back a scan that did not fail: it was stopped or split, or the database or the lease was lost.

        Args:
            scan: whose windows.
            reason: for ``last_error``; None leaves it as it is.
            isolate: whether its windows are requested one by one from now on.
        """
        await self._update(
            scan.windows,
            """
            last_error = coalesce(%(reason)s, last_error), kept_stored = kept_stored AND %(reason)s::text IS NULL,
            isolated = isolated OR %(isolate)s,
            state = CASE WHEN state = 'running' THEN 'pending' ELSE state END
            """,
            reason=None if reason is None else _storable(reason),
            isolate=isolate,
        )

    async def note_skipped(self, windows: Sequence[Window], reason: str) -> None:
        """Record why no scan of these windows began; those that have begun before keep their own reason."""
        for kind in {(window.requested, window.measure) for window in windows}:
            await self._update(
                [window for window in windows if (window.requested, window.measure) == kind],
                "last_error = %(reason)s",
                only="state = 'pending'",
                reason=_storable(reason),
            )

    async def reopen(self, stream: str, delay: timedelta, latest: datetime | None) -> list[Span]:
        """Make windows due again that a wrong clock completed too early.

        Args:
            stream: whose windows.
            delay: a window completed before its end plus this is reopened.
            latest: the later of the API's and the process's clocks, where both are known. A window that ends, or
                was completed, more than ``TOLERANCE`` after both it and the database's clock is reopened too.

        Returns:
            The windows' spans, by start.
        """
        values = {
            "org": self._org,
            "stream": stream,
            "delay": delay,
            "latest": latest,
            "tolerance": TOLERANCE,
            "reason": "a clock that was ahead completed it before its end; it is extracted again",
            "epoch": self._epoch,
        }
        async with self._database.transaction() as connection:
            return sorted(await connection.fetch_all(Span, _REOPEN, values))

    async def has_completed_after(self, stream: str, latest: datetime) -> bool:
        """Whether a complete window ends, or was completed, after both this time and the database's clock."""
        async with self._database.connection() as connection:
            return bool(
                await connection.fetch_value(
                    f"""
                    SELECT EXISTS (SELECT FROM flow_outcomes.extraction_window
                                   WHERE org = %(org)s AND work = %(stream)s AND state = 'complete'
                                     AND {_IN_THE_FUTURE})
                    """,
                    {"org": self._org, "stream": stream, "latest": latest, "tolerance": TOLERANCE},
                )
            )

    async def recover(self) -> None:
        """Make the windows pending that a former owner left running."""
        async with self._database.transaction() as connection:
            await connection.execute(
                f"""
                UPDATE flow_outcomes.extraction_window SET state = 'pending'
                WHERE org = %(org)s AND state = 'running' AND {IS_OWNER}
                """,
                {"org": self._org, "epoch": self._epoch},
            )

    async def entries_per_bucket(
        self, stream: str, granularity: Granularity, bucket_seconds: float, measure: Measure = Measure.OUTCOMES
    ) -> float | None:
        """How many entries a bucket had in the last scans, the maximum of 20 windows; None before the first scan.

        Args:
            stream: whose windows; where it has none at this granularity, those of other streams count.
            granularity: of the scans.
            bucket_seconds: the usual length of a bucket.
            measure: of the scans.
        """
        values = {
            "seconds": bucket_seconds,
            "org": self._org,
            "granularity": granularity.value,
            "stream": stream,
            "measure": measure.value,
        }
        async with self._database.connection() as connection:
            entries: float | None = await connection.fetch_value(_ENTRIES_PER_BUCKET, values)
            return entries

    def splits(self, api: str) -> SplitLedger:
        """What was learned of the org's queries to this API."""
        return SplitLedger(self._database, self._org, api, self._epoch)

    async def _update(
        self, windows: Sequence[Window], changes: str, *, only: str = "true", **values: object
    ) -> None:
        async with self._database.transaction() as connection:
            await connection.execute(
                f"UPDATE flow_outcomes.extraction_window SET {changes} WHERE {_THESE} AND {only}",
                {**self._these(windows), **values},
            )

    def _these(self, windows: Sequence[Window]) -> dict[str, object]:
        """The parameters of ``_THESE``."""
        return {
            "org": self._org,
            "stream": windows[0].stream,
            "requested": windows[0].requested,
            "measure": windows[0].measure.value,
            "starts": [window.span.start for window in windows],
            "ends": [window.span.end for window in windows],
            "epoch": self._epoch,
        }


def _ledger_window(
    *,
    org: str,
    stream: str,
    job: str | None,
    window_start: datetime,
    window_end: datetime,
    requested_granularity: str,
    granularity: str,
    due_at: datetime,
    coarsened: bool,
    measure: str,
    flow_ids: list[str] | None,
    **state: Any,
) -> LedgerWindow:
    """A row of ``_WINDOWS``."""
    span, step = Span(window_start, window_end), Granularity(granularity)
    window = Window(org, stream, job, span, requested_granularity, step, due_at, coarsened, Measure(measure))
    return LedgerWindow(window, flows=None if flow_ids is None else frozenset(flow_ids), **state)


_THESE = f"""
    org = %(org)s AND work = %(stream)s AND requested_granularity = %(requested)s AND measure = %(measure)s
    AND (window_start, window_end) IN (SELECT * FROM unnest(%(starts)s::timestamptz[], %(ends)s::timestamptz[]))
    AND {IS_OWNER}
"""

_IN_THE_FUTURE = (
    "greatest(window_end, completed_at) > greatest(%(latest)s::timestamptz, clock_timestamp()) + %(tolerance)s"
)

_WINDOWS = """
    SELECT w.org, w.work AS stream, w.job, w.window_start, w.window_end, w.requested_granularity, w.granularity,
           w.due_at, w.coarsened, w.measure, w.state, w.flow_ids, w.doubted_in IS NOT NULL AS doubted,
           w.job IS NULL AND w.requests > w.requests_read AS requested_again,
           w.isolated, w.attempts, w.last_error
    FROM flow_outcomes.extraction_window w
    WHERE w.org = %(org)s AND w.work = %(stream)s
    ORDER BY w.window_start, w.window_end
"""

_REOPEN = f"""
    UPDATE flow_outcomes.extraction_window
    SET state = 'pending', last_error = %(reason)s, completed_at = NULL, complete_since = NULL, doubted_in = NULL
    WHERE org = %(org)s AND work = %(stream)s AND state = 'complete' AND {IS_OWNER}
      AND (completed_at < window_end + %(delay)s OR (%(latest)s::timestamptz IS NOT NULL AND {_IN_THE_FUTURE}))
    RETURNING window_start AS start, window_end AS "end"
"""

_ENTRIES_PER_BUCKET = """
    SELECT max(latest.entries * %(seconds)s / extract(epoch FROM latest.window_end - latest.window_start))::float8
    FROM (
        SELECT w.entries, w.window_start, w.window_end
        FROM flow_outcomes.extraction_window w
        WHERE w.org = %(org)s AND w.granularity = %(granularity)s AND w.measure = %(measure)s
          AND w.entries IS NOT NULL
        ORDER BY w.work = %(stream)s DESC, w.scan_number DESC
        LIMIT 20
    ) AS latest
"""


def _storable(error: str) -> str:
    """Bounded, and without NUL, which PostgreSQL cannot store."""
    return error[:_LAST_ERROR_LENGTH].replace("\0", "\\0")
