"""The ledger: what is owed, how far it is, and why not further."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from service.clock import TOLERANCE
from service.model import Granularity, Scan, Span, SplitHint, Window
from service.postgres.pool import Database
from service.postgres.windows.requests import INSERT, ask, columns

AD_HOC = "ad hoc"
LAST_ERROR_LENGTH = 1000


def work_of(job: str) -> str:
    """The ledger's name for a job's windows."""
    return f"job:{job}"


@dataclass(frozen=True, slots=True)
class LedgerWindow:
    """A window as the ledger has it.

    Attributes:
        window: the window itself.
        state: ``pending``, ``running``, ``complete`` or ``failed``.
        flows: the flows that its last stored scan asked for; None is all of them, or none stored yet.
        doubted: a wholly empty answer is not believed yet.
        unread: ad hoc work that was asked for again since its last stored scan began.
        ask_alone: a page that it shared was at fault, or what it was asked with took too long.
        attempts, last_error: so far.
    """

    window: Window
    state: str
    flows: frozenset[str] | None
    doubted: bool
    unread: bool
    ask_alone: bool
    attempts: int
    last_error: str | None

    def settled(self, flows: Collection[str]) -> bool:
        """Whether nothing is owed of it: complete, for all the flows that are asked for now."""
        if self.state != "complete" or self.unread:
            return False
        return self.flows is None or (bool(flows) and self.flows.issuperset(flows))


class Ledger:
    """One org's windows. All it writes is for the org's owner alone, under its epoch."""

    def __init__(self, database: Database, org: str, epoch: int) -> None:
        self._database = database
        self._org = org
        self._epoch = epoch

    async def windows(self, work: str) -> list[LedgerWindow]:
        """Every window of a work that the ledger knows, by start."""
        async with self._database.connection() as connection:
            cursor = await connection.execute(
                "SELECT job, window_start, window_end, requested_granularity, granularity, due_at,"
                " state, flow_ids, doubted_in IS NOT NULL, job IS NULL AND requests > requests_read,"
                " ask_alone, attempts, last_error, coarsened"
                " FROM flow_outcomes.extraction_window WHERE org = %s AND work = %s"
                " ORDER BY window_start, window_end",
                (self._org, work),
            )
            return [self._window(work, row) for row in await cursor.fetchall()]

    def _window(self, work: str, row: tuple[Any, ...]) -> LedgerWindow:
        job, start, end, requested, granularity, due_at, state, flows, *rest, coarsened = row
        span, step = Span(start, end), Granularity(granularity)
        window = Window(self._org, work, job, span, requested, step, due_at, coarsened)
        return LedgerWindow(window, state, None if flows is None else frozenset(flows), *rest)

    async def all_settled(self, windows: Sequence[Window], flows: Collection[str]) -> bool:
        """Whether nothing of these ad hoc windows is left to do."""
        known = {(each.window.span, each.window.requested): each for each in await self.windows(AD_HOC)}
        there = [known.get((window.span, window.requested)) for window in windows]
        return all(each is not None and each.settled(flows) for each in there)

    async def enqueue(self, windows: Sequence[Window]) -> None:
        """Enter windows that are owed; those that are there already stay as they are."""
        async with self._database.transaction() as connection:
            await connection.execute(
                f"{INSERT} WHERE EXISTS"
                " (SELECT 1 FROM flow_outcomes.org WHERE org = %(org)s AND epoch = %(epoch)s)"
                " ON CONFLICT DO NOTHING",
                {**columns(windows), "epoch": self._epoch},
            )

    async def forget(self, windows: Sequence[Window]) -> None:
        """Take out windows of one work that are not owed any more and were never completed."""
        async with self._database.transaction() as connection:
            await connection.execute(
                f"DELETE FROM flow_outcomes.extraction_window WHERE {_THESE} AND completed_at IS NULL",
                self._these(windows),
            )

    async def replace(self, window: Window, by: Window) -> None:
        """Owe another window in the place of one that cannot be had as it is."""
        if by.span == window.span:
            async with self._database.transaction() as connection:
                await connection.execute(
                    "UPDATE flow_outcomes.extraction_window SET granularity = %(granularity)s, coarsened = true"
                    f" WHERE {_THESE}",
                    {**self._these([window]), "granularity": by.granularity.value},
                )
            return
        await self.forget([window])
        await ask(self._database, [by], again=False)

    async def entry_known(self, name: str, content: str) -> bool:
        """Whether an ad hoc entry of the configuration was asked for already, by name and content."""
        async with self._database.connection() as connection:
            cursor = await connection.execute(
                "SELECT 1 FROM flow_outcomes.ad_hoc_entry WHERE org = %s AND name = %s AND content = %s",
                (self._org, name, content),
            )
            return await cursor.fetchone() is not None

    async def enter(self, name: str, content: str) -> None:
        """Note that an ad hoc entry of the configuration was asked for."""
        async with self._database.transaction() as connection:
            await connection.execute(
                "INSERT INTO flow_outcomes.ad_hoc_entry (org, name, content) VALUES (%s, %s, %s)"
                " ON CONFLICT DO NOTHING",
                (self._org, name, content),
            )

    async def begin(self, scan: Scan, query_hash: str) -> None:
        """Note that a scan begins; what was complete stays so."""
        await self._each(
            scan,
            "attempts = attempts + 1, query_hash = %(query_hash)s, granularity = %(granularity)s,"
            " state = CASE WHEN state = 'complete' THEN state ELSE 'running' END, requests_begun = requests",
            query_hash=query_hash,
            granularity=scan.granularity.value,
        )

    async def fail(self, scan: Scan, error: str, *, ask_alone: bool = False) -> None:
        """Note why a scan failed; what was complete stays so."""
        await self._each(
            scan,
            "last_error = %(error)s, requests_failed = requests_begun, ask_alone = ask_alone OR %(ask_alone)s,"
            " state = CASE WHEN state = 'complete' THEN state ELSE 'failed' END",
            error=_clean(error),
            ask_alone=ask_alone,
        )

    async def interrupt(self, scan: Scan, reason: str | None = None, *, ask_alone: bool = False) -> None:
        """Put a scan back that did not fail: it was stopped or split, or the database or the org was away."""
        await self._each(
            scan,
            "last_error = coalesce(%(reason)s, last_error), ask_alone = ask_alone OR %(ask_alone)s,"
            " state = CASE WHEN state = 'running' THEN 'pending' ELSE state END",
            reason=None if reason is None else _clean(reason),
            ask_alone=ask_alone,
        )

    async def note_skipped(self, windows: Sequence[Window], reason: str) -> None:
        """Note why nobody came to these windows; those that were begun know better."""
        for requested in {window.requested for window in windows}:
            async with self._database.transaction() as connection:
                await connection.execute(
                    "UPDATE flow_outcomes.extraction_window SET last_error = %(reason)s"
                    f" WHERE {_THESE} AND state = 'pending'",
                    {
                        **self._these([window for window in windows if window.requested == requested]),
                        "reason": _clean(reason),
                    },
                )

    async def reopen(self, work: str, delay: timedelta, latest: datetime | None) -> list[Span]:
        """Make due again what a wrong clock completed too early.

        Args:
            work: whose windows.
            delay: a window completed before its end plus this is reopened.
            latest: the latest of the API's and the process's clocks, where both are known. A window that ends, or
                was completed, more than five minutes after it and after the database's clock is reopened too.

        Returns:
            The windows' spans, by start.
        """
        async with self._database.transaction() as connection:
            cursor = await connection.execute(
                _REOPEN,
                {
                    "org": self._org,
                    "work": work,
                    "delay": delay,
                    "latest": latest,
                    "tolerance": TOLERANCE,
                    "reason": "a clock that was ahead completed it before its end; it is extracted again",
                    "epoch": self._epoch,
                },
            )
            return sorted(Span(start, end) for start, end in await cursor.fetchall())

    async def completed_after(self, work: str, latest: datetime) -> bool:
        """Whether a window is complete that ends, or was completed, after this time and the database's clock."""
        async with self._database.connection() as connection:
            cursor = await connection.execute(
                f"SELECT EXISTS (SELECT 1 FROM flow_outcomes.extraction_window"
                f" WHERE org = %(org)s AND work = %(work)s AND state = 'complete' AND {_OF_THE_FUTURE})",
                {"org": self._org, "work": work, "latest": latest, "tolerance": TOLERANCE},
            )
            row = await cursor.fetchone()
            return bool(row and row[0])

    async def recover(self) -> None:
        """Put back what an owner left running that is no more."""
        async with self._database.transaction() as connection:
            await connection.execute(
                "UPDATE flow_outcomes.extraction_window SET state = 'pending' WHERE org = %s AND state = 'running'"
                " AND EXISTS (SELECT 1 FROM flow_outcomes.org WHERE org = %s AND epoch = %s)",
                (self._org, self._org, self._epoch),
            )

    async def entries_per_bucket(self, work: str, granularity: Granularity, bucket_seconds: float) -> float | None:
        """How many entries a bucket had lately; None where none was ever read.

        Args:
            work: whose windows; those of other works at the granularity serve where it has none.
            granularity: the step.
            bucket_seconds: the usual length of a bucket.
        """
        async with self._database.connection() as connection:
            cursor = await connection.execute(
                "SELECT max(entries * %(seconds)s / extract(epoch FROM window_end - window_start))::float8"
                " FROM (SELECT entries, window_start, window_end FROM flow_outcomes.extraction_window"
                "       WHERE org = %(org)s AND granularity = %(granularity)s AND entries IS NOT NULL"
                "       ORDER BY work = %(work)s DESC, scan_number DESC LIMIT 20) lately",
                {
                    "seconds": bucket_seconds,
                    "org": self._org,
                    "granularity": granularity.value,
                    "work": work,
                },
            )
            row = await cursor.fetchone()
            return row[0] if row else None

    async def cuts(self) -> list[SplitHint]:
        """The queries that came out too large."""
        async with self._database.connection() as connection:
            cursor = await connection.execute(
                "SELECT granularity, span_start, span_end, by_flow, half"
                " FROM flow_outcomes.query_cut WHERE org = %s",
                (self._org,),
            )
            return [
                SplitHint(Granularity(granularity), Span(start, end), *size)
                for granularity, start, end, *size in await cursor.fetchall()
            ]

    async def cut(self, query_hash: str, cut: SplitHint) -> None:
        """Remember that a query came out too large."""
        async with self._database.transaction() as connection:
            await connection.execute(
                "INSERT INTO flow_outcomes.query_cut"
                " (org, query_hash, granularity, span_start, span_end, by_flow, half)"
                " VALUES (%s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
                (self._org, query_hash, cut.granularity.value, *cut.span, cut.by_flow, cut.half),
            )

    async def _each(self, scan: Scan, change: str, **parameters: object) -> None:
        async with self._database.transaction() as connection:
            await connection.execute(
                f"UPDATE flow_outcomes.extraction_window SET {change} WHERE {_THESE}",
                {**self._these(scan.windows), **parameters},
            )

    def _these(self, windows: Sequence[Window]) -> dict[str, object]:
        return {
            "org": self._org,
            "work": windows[0].stream,
            "requested": windows[0].requested,
            "starts": [w.span.start for w in windows],
            "ends": [w.span.end for w in windows],
            "epoch": self._epoch,
        }


# Windows of one work, for the org's owner alone.
_THESE = (
    "org = %(org)s AND work = %(work)s AND requested_granularity = %(requested)s"
    " AND (window_start, window_end) IN"
    "     (SELECT * FROM unnest(%(starts)s::timestamptz[], %(ends)s::timestamptz[]))"
    " AND EXISTS (SELECT 1 FROM flow_outcomes.org WHERE org = %(org)s AND epoch = %(epoch)s)"
)


_OF_THE_FUTURE = (
    "greatest(window_end, completed_at) > greatest(%(latest)s::timestamptz, clock_timestamp()) + %(tolerance)s"
)
_REOPEN = f"""
    UPDATE flow_outcomes.extraction_window
    SET state = 'pending', last_error = %(reason)s, completed_at = NULL, complete_since = NULL, doubted_in = NULL
    WHERE org = %(org)s AND work = %(work)s AND state = 'complete'
      AND (completed_at < window_end + %(delay)s OR (%(latest)s::timestamptz IS NOT NULL AND {_OF_THE_FUTURE}))
      AND EXISTS (SELECT 1 FROM flow_outcomes.org WHERE org = %(org)s AND epoch = %(epoch)s)
    RETURNING window_start, window_end
"""


def _clean(error: str) -> str:
    return error[:LAST_ERROR_LENGTH].replace("\0", "\\0")
