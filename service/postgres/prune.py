"""Removes old months of every org: the ledger in step with the figures, beside a running daemon.

First each org gets its prune date, in one short transaction under the lock of its row that also removes what says
which buckets were read. From then on no process stores or requests anything before that date. Then the figures go,
month by month: as whole partitions where nothing in them stays, else row by row. A run that was interrupted is
completed by the next one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import partial
from typing import LiteralString, NamedTuple, TypeVar

import psycopg

from service.errors import FlowOutcomesError
from service.postgres.pool import Connection, explain

T = TypeVar("T")

LOCK_ATTEMPTS = 150
"""Attempts at a lock, of at most 1 s each; a merge holds the lock of its org while it stores."""
_LOCK_TIMEOUT: LiteralString = "1s"  # shorter than the wait of a scan that needs a new partition
_RETRY_AFTER = 0.2  # seconds


class PruneError(FlowOutcomesError):
    """Something was not removed; running the command again continues."""


class PrunedMonth(NamedTuple):
    """What a month of an org holds, at one granularity.

    Attributes:
        org: the org.
        granularity: ``hourly``, ``daily`` or ``monthly``.
        month: its first day, in UTC.
        figures: rows of ``figure``, of all measures.
        history: previous versions of figures.
    """

    org: str
    granularity: str
    month: date
    figures: int
    history: int


class _Partition(NamedTuple):
    parent: str
    name: str
    month: datetime
    pending: bool


@dataclass(frozen=True)
class Prune:
    """What to remove.

    Attributes:
        before: the start of a month in UTC; buckets that start before it are removed.
        keep_monthly: whether monthly figures stay.
    """

    before: datetime
    keep_monthly: bool

    @classmethod
    def of(cls, day: date, *, keep_monthly: bool) -> Prune:
        """The months in UTC that end on or before a day."""
        return cls(datetime(day.year, day.month, 1, tzinfo=UTC), keep_monthly)

    @property
    def values(self) -> dict[str, object]:
        """The parameters of the statements."""
        return {"before": self.before, "kept": "monthly" if self.keep_monthly else ""}


async def months(connection: Connection, prune: Prune) -> list[PrunedMonth]:
    """What would be removed, by org, granularity and month."""
    return await connection.fetch_all(PrunedMonth, _MONTHS, prune.values)


async def windows(connection: Connection, prune: Prune) -> dict[str, int]:
    """The windows of the ledger that would be removed, by org."""
    rows = await connection.fetch_all(_Count, _WINDOWS, prune.values)
    return dict(rows)


async def prune_months(
    connection: Connection, prune: Prune, found: Sequence[PrunedMonth], orgs: Sequence[str]
) -> list[str]:
    """Remove the months of every org.

    Args:
        connection: in autocommit mode; its role drops the partitions that it owns, and deletes the rows of others.
        prune: what to remove.
        found: the months that hold something.
        orgs: orgs that get the prune date although they may have no figures yet.

    Returns:
        The partitions that were dropped.

    Raises:
        PruneError: a lock was not free, or rows could not be removed.
    """
    await connection.execute(_ADD_ORGS, {"orgs": list(orgs)})
    for org in await connection.fetch_values("SELECT o.org FROM flow_outcomes.org o WHERE o.org <> '' ORDER BY 1"):
        of_org = [each for each in found if each.org == org]
        await _retry_locked(f"org {org}", partial(_prune_org, connection, prune, org, of_org))
    partitions = await connection.fetch_all(_Partition, _PARTITIONS, prune.values)
    dropped = [each.name for each in partitions if await _remove(connection, prune, each)]
    for name in await connection.fetch_values(_DETACHED, prune.values):  # of an earlier run that was interrupted
        await _retry_locked(name, partial(_drop, connection, name))
        dropped.append(name)
    return dropped


async def _prune_org(connection: Connection, prune: Prune, org: str, found: Sequence[PrunedMonth]) -> None:
    values = {
        **prune.values,
        "org": org,
        "granularities": [each.granularity for each in found],
        "months": [each.month for each in found],
    }
    async with connection.transaction():
        await connection.execute(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'")
        for statement in _ORG_STATEMENTS:
            await connection.execute(statement, values)


async def _remove(connection: Connection, prune: Prune, partition: _Partition) -> bool:
    """Remove a partition's rows; whether the partition was dropped."""
    table = psycopg.sql.Identifier("flow_outcomes", partition.name)
    stays = psycopg.sql.SQL(_STAYS).format(table=table)
    if not partition.pending and await connection.fetch_value(stays.as_string(connection), prune.values):
        await _delete(connection, prune, table)
        return False
    try:
        await _retry_locked(partition.name, partial(_detach, connection, partition))
        await _retry_locked(partition.name, partial(_drop, connection, partition.name))
    except psycopg.errors.InsufficientPrivilege:
        await _delete(connection, prune, table)
        return False
    return True


async def _delete(connection: Connection, prune: Prune, table: psycopg.sql.Identifier) -> None:
    try:
        delete = psycopg.sql.SQL(_DELETE).format(table=table)
        await connection.execute(delete.as_string(connection), prune.values)
    except psycopg.OperationalError:
        raise
    except psycopg.Error as error:
        raise PruneError(f"PostgreSQL rejected the removal: {explain(error)}") from error


async def _detach(connection: Connection, partition: _Partition) -> None:
    """Detach a partition with no lock that a reader waits for; a plain detach would lock the whole table."""
    pending = await connection.fetch_value(_PENDING, {"name": partition.name})
    if pending is None:
        return
    statement = psycopg.sql.SQL("ALTER TABLE {parent} DETACH PARTITION {name} {how}").format(
        parent=psycopg.sql.Identifier("flow_outcomes", partition.parent),
        name=psycopg.sql.Identifier("flow_outcomes", partition.name),
        how=psycopg.sql.SQL("FINALIZE" if pending else "CONCURRENTLY"),
    )
    await connection.execute(f"SET lock_timeout = '{_LOCK_TIMEOUT}'")
    await connection.execute(statement.as_string(connection))


async def _drop(connection: Connection, name: str) -> None:
    await connection.execute(f"SET lock_timeout = '{_LOCK_TIMEOUT}'")
    table = psycopg.sql.Identifier("flow_outcomes", name)
    await connection.execute(psycopg.sql.SQL("DROP TABLE {}").format(table).as_string(connection))


async def _retry_locked(what: str, attempt: Callable[[], Awaitable[T]]) -> T:
    """Repeat an attempt whose lock is not free, ``LOCK_ATTEMPTS`` times.

    Raises:
        PruneError: the lock did not become free.
    """
    for _ in range(LOCK_ATTEMPTS):
        try:
            return await attempt()
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
            await asyncio.sleep(_RETRY_AFTER)
    raise PruneError(
        f"{what} is not pruned: another transaction holds a lock on it; end that transaction and run the command"
        " again"
    )


class _Count(NamedTuple):
    org: str
    windows: int


# What a removal covers. A bucket belongs to the month in UTC in which it starts. kept is empty, or a granularity.
_MONTHS = """
    SELECT r.org, r.granularity, r.month, sum(r.figures)::bigint AS figures, sum(r.history)::bigint AS history
    FROM (
        SELECT f.org, f.granularity, date_trunc('month', f.bucket_start AT TIME ZONE 'UTC')::date AS month,
               count(*) AS figures, 0 AS history
        FROM flow_outcomes.figure f
        WHERE f.bucket_start < %(before)s AND f.granularity <> %(kept)s
        GROUP BY 1, 2, 3
        UNION ALL
        SELECT fh.org, fh.granularity, date_trunc('month', fh.bucket_start AT TIME ZONE 'UTC')::date, 0, count(*)
        FROM flow_outcomes.figure_history fh
        WHERE fh.bucket_start < %(before)s AND fh.granularity <> %(kept)s
        GROUP BY 1, 2, 3
    ) r
    GROUP BY 1, 2, 3
    ORDER BY 1, 2, 3
"""

_WINDOWS = """
    SELECT w.org, count(*) AS windows
    FROM flow_outcomes.extraction_window w
    WHERE w.window_end <= %(before)s AND NOT (w.granularity = %(kept)s AND w.state = 'complete')
    GROUP BY w.org
    ORDER BY w.org
"""

_ADD_ORGS = """
    INSERT INTO flow_outcomes.org (org) SELECT unnest(%(orgs)s::text[]) ON CONFLICT DO NOTHING
"""

# Under the lock of the org's row: a merge that is in progress is waited for, and a later one sees the date.
_SET_DATE = """
    UPDATE flow_outcomes.org SET pruned_before = greatest(pruned_before, %(before)s) WHERE org = %(org)s
"""

_MARK_MONTHS = """
    INSERT INTO flow_outcomes.pruned_month (org, granularity, month)
    SELECT c.org, c.granularity, date_trunc('month', c.bucket_start AT TIME ZONE 'UTC')::date
    FROM flow_outcomes.bucket_coverage c
    WHERE c.org = %(org)s AND c.bucket_start < %(before)s AND c.granularity <> %(kept)s
    UNION
    SELECT %(org)s, m.granularity, m.month
    FROM unnest(%(granularities)s::text[], %(months)s::date[]) AS m (granularity, month)
    ON CONFLICT DO NOTHING
"""

# Figures of half a year are enough, or of the longest expectation: nothing older makes an outcome expected.
_NOTE_SEEN = """
    INSERT INTO flow_outcomes.pruned_series AS p (org, granularity, series_no, seen_to)
    SELECT o.org, g.granularity, o.series_no, f.bucket_end
    FROM flow_outcomes.series o
    CROSS JOIN unnest(ARRAY['hourly', 'daily', 'monthly']) AS g (granularity)
    CROSS JOIN LATERAL (
        SELECT f.bucket_end FROM flow_outcomes.figure f
        WHERE f.org = o.org AND f.series_no = o.series_no AND f.granularity = g.granularity
          AND f.outcome_count IS NOT NULL AND f.bucket_start < %(before)s
          AND f.bucket_start >= %(before)s - interval '40 days' - (
              SELECT greatest(max(c.expect_for), interval '180 days')
              FROM flow_outcomes.bucket_coverage c WHERE c.org = %(org)s)
        ORDER BY f.bucket_start DESC LIMIT 1
    ) f
    WHERE o.org = %(org)s AND g.granularity <> %(kept)s
    ON CONFLICT (org, series_no, granularity) DO UPDATE SET seen_to = greatest(p.seen_to, EXCLUDED.seen_to)
"""

# A complete window that contains the date begins at its first bucket that stays.
_TRIM_WINDOWS = """
    WITH
    trimmed AS MATERIALIZED (
        SELECT w.ctid AS place, w.window_start, w.window_end, first.bucket_start
        FROM flow_outcomes.extraction_window w
        CROSS JOIN LATERAL (
            SELECT min(c.bucket_start) AS bucket_start FROM flow_outcomes.bucket_coverage c
            WHERE c.org = w.org AND c.granularity = w.granularity AND c.measure::text = w.measure
              AND c.bucket_start >= %(before)s AND c.bucket_start < w.window_end
        ) first
        WHERE w.org = %(org)s AND w.state = 'complete' AND w.granularity <> %(kept)s
          AND w.window_start < %(before)s AND w.window_end > %(before)s
          AND first.bucket_start IS NOT NULL
          AND NOT EXISTS (
              SELECT FROM flow_outcomes.extraction_window o
              WHERE o.org = w.org AND o.work = w.work AND o.window_start = first.bucket_start
                AND o.window_end = w.window_end AND o.requested_granularity = w.requested_granularity
                AND o.measure = w.measure)
    ),
    -- Their rejected entries stay theirs.
    moved AS (
        UPDATE flow_outcomes.rejected_outcome ro SET window_start = t.bucket_start
        FROM (SELECT DISTINCT window_start, window_end, bucket_start FROM trimmed) t
        WHERE ro.org = %(org)s AND ro.window_start = t.window_start AND ro.window_end = t.window_end
          AND ro.bucket_start >= t.bucket_start
          AND NOT EXISTS (
              SELECT FROM flow_outcomes.rejected_outcome o
              WHERE o.org = ro.org AND o.window_start = t.bucket_start AND o.window_end = ro.window_end)
    )
    UPDATE flow_outcomes.extraction_window w
    SET window_start = t.bucket_start,
        entries = round(w.entries * extract(epoch FROM w.window_end - t.bucket_start)
                        / extract(epoch FROM w.window_end - w.window_start)),
        rows = least(w.rows, (
            SELECT count(*) FROM flow_outcomes.figure f
            WHERE f.org = w.org AND f.granularity = w.granularity AND f.measure::text = w.measure
              AND f.bucket_start >= t.bucket_start AND f.bucket_start < w.window_end AND f.state = 'reported'))
    FROM trimmed t
    WHERE w.org = %(org)s AND w.ctid = t.place
"""

_DELETE_WINDOWS = """
    DELETE FROM flow_outcomes.extraction_window w
    WHERE w.org = %(org)s AND w.window_start < %(before)s
      AND NOT (w.granularity = %(kept)s AND w.state = 'complete')
"""

_DELETE_COVERAGE = """
    DELETE FROM flow_outcomes.bucket_coverage c
    WHERE c.org = %(org)s AND c.bucket_start < %(before)s AND c.granularity <> %(kept)s
"""

_DELETE_RESTATED = """
    DELETE FROM flow_outcomes.restated s
    WHERE s.org = %(org)s AND s.bucket_start < %(before)s AND s.granularity <> %(kept)s
"""

_DELETE_REJECTED = """
    DELETE FROM flow_outcomes.rejected_outcome ro
    WHERE ro.org = %(org)s AND coalesce(ro.bucket_start, ro.window_start) < %(before)s
      AND NOT EXISTS (
          SELECT FROM flow_outcomes.extraction_window w
          WHERE w.org = ro.org AND w.window_start = ro.window_start AND w.window_end = ro.window_end)
"""

_DELETE_REJECTED_TEXTS = """
    DELETE FROM flow_outcomes.rejected_text rt
    WHERE rt.org = %(org)s AND NOT EXISTS (
        SELECT FROM flow_outcomes.rejected_outcome ro WHERE ro.org = rt.org AND ro.digest = rt.digest)
"""

_ORG_STATEMENTS = (
    _SET_DATE,
    _MARK_MONTHS,
    _NOTE_SEEN,
    _TRIM_WINDOWS,
    _DELETE_WINDOWS,
    _DELETE_COVERAGE,
    _DELETE_RESTATED,
    _DELETE_REJECTED,
    _DELETE_REJECTED_TEXTS,
)

_MONTH_OF_NAME: LiteralString = "to_date(right(c.relname, 7), 'YYYY\"m\"MM')::timestamp AT TIME ZONE 'UTC'"

# The partitions of the months, the oldest first; one whose detachment was interrupted before all others.
_PARTITIONS = f"""
    SELECT p.relname AS parent, c.relname AS name, {_MONTH_OF_NAME} AS month, i.inhdetachpending AS pending
    FROM pg_inherits i
    JOIN pg_class c ON c.oid = i.inhrelid
    JOIN pg_class p ON p.oid = i.inhparent
    WHERE p.relnamespace = 'flow_outcomes'::regnamespace AND p.relkind = 'p' AND c.relnamespace = p.relnamespace
      AND c.relname ~ '_y[0-9]{{4}}m[0-9]{{2}}$' AND {_MONTH_OF_NAME} < %(before)s
    ORDER BY i.inhdetachpending DESC, month, p.relname
"""

# Tables that were partitions of these months and were detached.
_DETACHED = f"""
    SELECT c.relname
    FROM pg_class c
    WHERE c.relnamespace = 'flow_outcomes'::regnamespace AND c.relkind = 'r' AND NOT c.relispartition
      AND c.relname ~ '^figure(_history)?_y[0-9]{{4}}m[0-9]{{2}}$' AND {_MONTH_OF_NAME} < %(before)s
      AND pg_has_role(c.relowner, 'USAGE')
"""

_PENDING = """
    SELECT i.inhdetachpending FROM pg_inherits i
    WHERE i.inhrelid = to_regclass('flow_outcomes.' || quote_ident(%(name)s))
"""

# Rows that stay: of the granularity that is kept, and of an org that came after the orgs were pruned.
_STAYS = """
    SELECT EXISTS (
        SELECT FROM {table} f
        WHERE f.granularity = %(kept)s OR NOT EXISTS (
            SELECT FROM flow_outcomes.org o WHERE o.org = f.org AND o.pruned_before >= %(before)s))
"""

_DELETE = """
    DELETE FROM {table} f
    USING flow_outcomes.org o
    WHERE o.org = f.org AND o.pruned_before >= %(before)s AND f.granularity <> %(kept)s
"""
