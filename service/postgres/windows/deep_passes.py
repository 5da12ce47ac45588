"""When a job's deep lookback last passed, and how far a pass in progress has come."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from service.model import Span
from service.postgres.pool import Database


class DeepPass(NamedTuple):
    """The deep lookback of a job.

    Attributes:
        completed_at: when the last pass was complete; None before the first.
        from_scan: scans with a higher number belong to the pass in progress; None where there is none.
        job_began_at: when the first of the job's windows was complete; None before that.
    """

    completed_at: datetime | None
    from_scan: int | None
    job_began_at: datetime | None

    @property
    def last(self) -> datetime | None:
        """The time from which the next pass is due ``every`` later."""
        return self.completed_at or self.job_began_at


_NONE = DeepPass(None, None, None)

_READ = """
    SELECT p.completed_at, p.from_scan, began.at AS job_began_at
    FROM (
        SELECT min(w.complete_since) AS at FROM flow_outcomes.extraction_window w
        WHERE w.org = %(org)s AND w.work = %(stream)s
    ) began
    LEFT JOIN flow_outcomes.deep_pass p ON p.org = %(org)s AND p.work = %(stream)s
"""

_REMAINING = """
    SELECT w.window_start AS start, w.window_end AS "end"
    FROM flow_outcomes.extraction_window w
    JOIN flow_outcomes.deep_pass p ON p.org = w.org AND p.work = w.work
    WHERE w.org = %(org)s AND w.work = %(stream)s AND w.state = 'complete'
      AND coalesce(w.scan_number, 0) <= p.from_scan
"""

_BEGIN = """
    INSERT INTO flow_outcomes.deep_pass AS p (org, work, from_scan)
    SELECT %(org)s, %(stream)s, coalesce(max(w.scan_number), 0)
    FROM flow_outcomes.extraction_window w
    WHERE w.org = %(org)s
    HAVING EXISTS (SELECT FROM flow_outcomes.org WHERE org = %(org)s AND epoch = %(epoch)s)
    ON CONFLICT (org, work) DO UPDATE SET from_scan = coalesce(p.from_scan, EXCLUDED.from_scan)
"""

_COMPLETE = """
    UPDATE flow_outcomes.deep_pass SET completed_at = %(at)s, from_scan = NULL
    WHERE org = %(org)s AND work = %(stream)s
      AND EXISTS (SELECT FROM flow_outcomes.org WHERE org = %(org)s AND epoch = %(epoch)s)
"""


class DeepPasses:
    """The deep lookbacks of one org's jobs; only the org's owner writes here, under its epoch."""

    def __init__(self, database: Database, org: str, epoch: int) -> None:
        self._database = database
        self._org = org
        self._epoch = epoch

    async def read(self, stream: str) -> DeepPass:
        """The deep lookback of a stream.

        Raises:
            DatabaseUnavailableError: the database is unavailable.
        """
        async with self._database.connection() as connection:
            rows = await connection.fetch_all(DeepPass, _READ, {"org": self._org, "stream": stream})
        return rows[0] if rows else _NONE

    async def begin(self, stream: str) -> None:
        """Begin a pass, unless one is in progress.

        Raises:
            DatabaseUnavailableError: the database is unavailable.
        """
        async with self._database.transaction() as connection:
            await connection.execute(_BEGIN, self._values(stream))

    async def remaining(self, stream: str) -> set[Span]:
        """The stream's complete windows that the pass in progress has not read.

        Raises:
            DatabaseUnavailableError: the database is unavailable.
        """
        async with self._database.connection() as connection:
            return set(await connection.fetch_all(Span, _REMAINING, {"org": self._org, "stream": stream}))

    async def complete(self, stream: str, at: datetime) -> None:
        """Record that the pass in progress is complete.

        Raises:
            DatabaseUnavailableError: the database is unavailable.
        """
        async with self._database.transaction() as connection:
            await connection.execute(_COMPLETE, {**self._values(stream), "at": at})

    def _values(self, stream: str) -> dict[str, object]:
        return {"org": self._org, "stream": stream, "epoch": self._epoch}
