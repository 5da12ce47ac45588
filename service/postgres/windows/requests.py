"""Ad hoc windows, asked for by anybody: rows that the org's owner finds and works off."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from service.model import Window
from service.postgres.pool import Database

INSERT = (
    "INSERT INTO flow_outcomes.extraction_window (org, work, job, window_start, window_end,"
    " requested_granularity, granularity, due_at, coarsened)"
    " SELECT %(org)s, %(work)s, w.* FROM unnest(%(jobs)s::text[], %(starts)s::timestamptz[],"
    " %(ends)s::timestamptz[], %(requests)s::text[], %(granularities)s::text[], %(due)s::timestamptz[],"
    " %(coarsened)s::boolean[]) AS w"
)
_NAMED = (
    "org = %(org)s AND work = %(work)s AND (window_start, window_end, requested_granularity) IN"
    " (SELECT * FROM unnest(%(starts)s::timestamptz[], %(ends)s::timestamptz[], %(requests)s::text[]))"
)


async def ask(database: Database, windows: Sequence[Window], *, again: bool) -> None:
    """Ask for ad hoc windows of one org; anybody may, and the org's owner extracts them.

    Those that are there already are asked for once more where ``again`` says so.

    Raises:
        DatabaseUnavailableError: the database is away.
    """
    async with database.transaction() as connection:
        await connection.execute(f"{INSERT} ON CONFLICT DO NOTHING", columns(windows))
        if again:
            await connection.execute(
                f"UPDATE flow_outcomes.extraction_window SET requests = requests_begun + 1 WHERE {_NAMED}"
                " AND requests <= requests_begun",
                columns(windows),
            )


async def orgs_asked(database: Database) -> list[str]:
    """The orgs of which somebody asked for an ad hoc span that nobody has begun yet.

    Raises:
        DatabaseUnavailableError: the database is away.
    """
    async with database.connection() as connection:
        cursor = await connection.execute(
            "SELECT DISTINCT org FROM flow_outcomes.extraction_window"
            " WHERE job IS NULL AND requests > requests_begun"
        )
        return [row[0] for row in await cursor.fetchall()]


class RequestProgress(NamedTuple):
    """How far the windows are that somebody asked for."""

    windows: int
    read: int
    failed: int
    errors: list[str]

    @property
    def over(self) -> bool:
        """Whether every one was read, or could not be."""
        return self.read + self.failed >= self.windows


async def progress(database: Database, windows: Sequence[Window]) -> RequestProgress:
    """How far these ad hoc windows are.

    Raises:
        DatabaseUnavailableError: the database is away.
    """
    async with database.connection() as connection:
        cursor = await connection.execute(_PROGRESS, columns(windows))
        rows = await cursor.fetchall()
    read = sum(bool(row[0]) for row in rows)
    failed = [row[2] for row in rows if row[1] and not row[0]]
    return RequestProgress(len(windows), read, len(failed), [error for error in failed if error])


# A window that the server refused as it was stands no longer in the table; the coarser one in its place counts.
_PROGRESS = """
    SELECT x.requests_read >= x.requests OR (x.doubted_in IS NOT NULL AND x.state = 'complete'),
           x.requests IS NULL OR x.requests_failed >= x.requests, x.last_error
    FROM unnest(%(starts)s::timestamptz[], %(ends)s::timestamptz[], %(requests)s::text[])
         AS w (window_start, window_end, requested)
    LEFT JOIN LATERAL (
        SELECT * FROM flow_outcomes.extraction_window x
        WHERE x.org = %(org)s AND x.work = %(work)s AND x.requested_granularity = w.requested
          AND x.window_start < w.window_end AND x.window_end > w.window_start
        ORDER BY (x.window_start, x.window_end) = (w.window_start, w.window_end) DESC, x.window_start LIMIT 1
    ) x ON true
"""


def columns(windows: Sequence[Window]) -> dict[str, object]:
    """The windows as parameters of ``INSERT``."""
    return {
        "org": windows[0].org,
        "work": windows[0].stream,
        "jobs": [w.job for w in windows],
        "starts": [w.span.start for w in windows],
        "ends": [w.span.end for w in windows],
        "requests": [w.requested for w in windows],
        "granularities": [w.granularity.value for w in windows],
        "due": [w.due_at for w in windows],
        "coarsened": [w.coarsened for w in windows],
    }
