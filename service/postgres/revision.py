"""The row of an org: the lock under which revisions are numbered, and the time stamp of a revision."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from psycopg.rows import class_row

from service.errors import LeaseLostError
from service.postgres.pool import Connection

RENAME_TIMEOUT = 300
"""Seconds for a statement that renames outcomes."""


class LockedOrg(NamedTuple):
    """An org whose row is locked until the end of the transaction.

    Attributes:
        epoch: of its current owner.
        revision: the last one.
        locked_at: the database's clock.
        pruned_before: its prune date; None where nothing was pruned.
    """

    epoch: int
    revision: int
    locked_at: datetime
    pruned_before: datetime | None


_LOCK = """
    SELECT epoch, revision, clock_timestamp() AS locked_at, pruned_before
    FROM flow_outcomes.org WHERE org = %s FOR NO KEY UPDATE
"""

# The last statement of a transaction: from this instant readers see the revision. Stamps are in the order of the
# revisions, whatever the clock does. not_after is given where the database's clock is far ahead of the deciding
# one: a stamp in the future would hide the revision from those who read as of now once the clock is right.
STAMP = """
    WITH
    numbered AS (
        UPDATE flow_outcomes.org SET revision = %(revision)s WHERE org = %(org)s
    )
    INSERT INTO flow_outcomes.revision (org, revision, stamped_at)
    SELECT %(org)s, %(revision)s,
           greatest(least(clock_timestamp(), %(not_after)s::timestamptz),
                    max(stamped_at) + interval '1 microsecond')
    FROM (
        SELECT stamped_at FROM flow_outcomes.revision WHERE org = %(org)s ORDER BY revision DESC LIMIT 1
    ) latest
"""

# A part of statements that rename series: the former names of those in ``renamed``, until the new revision.
ARCHIVE_RENAMED = """archived AS (
        INSERT INTO flow_outcomes.series_history (org, series_no, flow_id, outcome_id, reported_name,
                                                   outcome_name, revision, until_revision)
        SELECT o.org, o.series_no, o.flow_id, o.outcome_id, o.reported_name,
               o.outcome_name, o.revision, %(revision)s
        FROM flow_outcomes.series o
        JOIN renamed ON o.org = (SELECT %(org)s::text) AND o.series_no = renamed.series_no
    )"""


async def lock_org(connection: Connection, org: str) -> LockedOrg | None:
    """Lock an org's row against other writers of figures and names; None if there is no such org."""
    async with connection.cursor(row_factory=class_row(LockedOrg)) as cursor:
        await cursor.execute(_LOCK, (org,))
        return await cursor.fetchone()


async def lock_own_org(connection: Connection, org: str, epoch: int) -> LockedOrg:
    """Lock an org's row for its owner.

    Raises:
        LeaseLostError: the epoch is no longer the org's.
    """
    locked = await lock_org(connection, org)
    if locked is None or locked.epoch != epoch:
        raise LeaseLostError(f"another process has acquired org {org}")
    return locked
