"""Requested ad hoc windows: rows that any process enters, and that the org's owner finds and extracts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from service.model import Window
from service.postgres.pool import Database

INSERT_WINDOWS = """
    INSERT INTO flow_outcomes.extraction_window (
        org, work, job, window_start, window_end, requested_granularity, granularity, due_at, coarsened, measure
    )
    SELECT %(org)s, %(stream)s, given.*
    FROM unnest(%(jobs)s::text[], %(starts)s::timestamptz[], %(ends)s::timestamptz[], %(requested)s::text[],
                %(granularities)s::text[], %(due)s::timestamptz[], %(coarsened)s::boolean[],
                %(measures)s::text[]) AS given
"""
_REQUEST_AGAIN = """
    UPDATE flow_outcomes.extraction_window SET requests = requests_begun + 1
    WHERE org = %(org)s AND work = %(stream)s AND requests <= requests_begun
      AND (window_start, window_end, requested_granularity, measure) IN (
          SELECT * FROM unnest(%(starts)s::timestamptz[], %(ends)s::timestamptz[], %(requested)s::text[],
                               %(measures)s::text[]))
"""
_REQUESTED_ORGS = """
    SELECT DISTINCT w.org
    FROM flow_outcomes.extraction_window w
    WHERE w.job IS NULL AND w.requests > w.requests_begun
"""


async def request_windows(database: Database, windows: Sequence[Window], *, again: bool) -> None:
    """Enter ad hoc windows of one org; any process may, and the org's owner extracts them.

    Args:
        database: the pool.
        windows: at least one.
        again: whether those that are in the ledger already are extracted again.

    Raises:
        DatabaseUnavailableError: the database is unavailable.
    """
    async with database.transaction() as connection:
        await connection.execute(f"{INSERT_WINDOWS} ON CONFLICT DO NOTHING", columns(windows))
        if again:
            await connection.execute(_REQUEST_AGAIN, columns(windows))


async def requested_orgs(database: Database) -> list[str]:
    """The orgs with a requested ad hoc window that no scan has begun yet.

    Raises:
        DatabaseUnavailableError: the database is unavailable.
    """
    async with database.connection() as connection:
        return await connection.fetch_values(_REQUESTED_ORGS)


class RequestProgress(NamedTuple):
    """The progress of a request: its windows, those complete and failed, and the pages of the complete ones."""

    windows: int
    complete: int
    failed: int
    pages: int
    errors: list[str]

    @property
    def finished(self) -> bool:
        """Whether each window is complete or failed."""
        return self.complete + self.failed >= self.windows


class _State(NamedTuple):
    complete: bool
    failed: bool
    pages: int | None
    last_error: str | None


async def request_progress(database: Database, windows: Sequence[Window]) -> RequestProgress:
    """The progress of requested ad hoc windows.

    Raises:
        DatabaseUnavailableError: the database is unavailable.
    """
    async with database.connection() as connection:
        states = await connection.fetch_all(_State, _PROGRESS, columns(windows))
    failed = [each for each in states if each.failed and not each.complete]
    return RequestProgress(
        windows=len(windows),
        complete=sum(each.complete for each in states),
        failed=len(failed),
        pages=sum(each.pages or 0 for each in states if each.complete),
        errors=[each.last_error for each in failed if each.last_error],
    )


_PROGRESS = """
    SELECT coalesce(w.requests_read >= w.requests OR (w.doubted_in IS NOT NULL AND w.state = 'complete'), false)
               AS complete,
           w.requests IS NULL OR w.requests_failed >= w.requests AS failed,
           w.pages,
           w.last_error
    FROM unnest(%(starts)s::timestamptz[], %(ends)s::timestamptz[], %(requested)s::text[], %(measures)s::text[])
         AS given (window_start, window_end, requested, measure)
    LEFT JOIN LATERAL (
        -- the window itself, else the coarser one that replaced it, as the API rejected it
        SELECT * FROM flow_outcomes.extraction_window w
        WHERE w.org = %(org)s AND w.work = %(stream)s AND w.requested_granularity = given.requested
          AND w.measure = given.measure
          AND w.window_start < given.window_end AND w.window_end > given.window_start
        ORDER BY (w.window_start, w.window_end) = (given.window_start, given.window_end) DESC, w.window_start
        LIMIT 1
    ) w ON true
"""


def columns(windows: Sequence[Window]) -> dict[str, object]:
    """The windows of one org and stream as the parameters of ``INSERT_WINDOWS``."""
    return {
        "org": windows[0].org,
        "stream": windows[0].stream,
        "jobs": [window.job for window in windows],
        "starts": [window.span.start for window in windows],
        "ends": [window.span.end for window in windows],
        "requested": [window.requested for window in windows],
        "granularities": [window.granularity.value for window in windows],
        "due": [window.due_at for window in windows],
        "coarsened": [window.coarsened for window in windows],
        "measures": [window.measure.value for window in windows],
    }
