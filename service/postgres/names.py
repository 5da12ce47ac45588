"""Present names of flows and outcomes that the API knows by id: a rename takes hold of all that is stored."""

from __future__ import annotations

from collections.abc import Mapping

from service.errors import LeaseLostError
from service.postgres.lease import Lease
from service.postgres.pool import Database
from service.postgres.revision import STAMP


async def name_flows(database: Database, lease: Lease, names: Mapping[str, str]) -> int:
    """Write down the names of flows; tells how many are new or other ones.

    Raises:
        LeaseLostError: another process has taken the org.
        DatabaseUnavailableError: the database is away.
    """
    async with database.transaction() as connection:
        cursor = await connection.execute(
            "SELECT epoch FROM flow_outcomes.org WHERE org = %s FOR NO KEY UPDATE", (lease.org,)
        )
        row = await cursor.fetchone()
        if row is None or row[0] != lease.epoch:
            raise LeaseLostError(f"{lease.org} was taken over")
        cursor = await connection.execute(_NAME_FLOWS, _parameters(lease.org, names))
        return cursor.rowcount


async def name_outcomes(database: Database, lease: Lease, names: Mapping[str, str]) -> int:
    """Give outcomes their present names, by id; tells how many of those that are stored got another one.

    Names stand in one place, so that a row an outcome is written, however many figures there are. It holds the
    org's row as a merge does: revisions stay in order, and either sees the names before or after. What the aliases
    make of a name is worked out anew. An outcome that is not listed any more keeps its last name.

    Raises:
        LeaseLostError: another process has taken the org.
        DatabaseUnavailableError: the database is away.
    """
    async with database.transaction(limit=330) as connection:
        await connection.execute("SET LOCAL statement_timeout = '300s'")
        cursor = await connection.execute(
            "SELECT epoch, revision FROM flow_outcomes.org WHERE org = %s FOR NO KEY UPDATE", (lease.org,)
        )
        row = await cursor.fetchone()
        if row is None or row[0] != lease.epoch:
            raise LeaseLostError(f"{lease.org} was taken over")
        parameters = {**_parameters(lease.org, names), "revision": row[1] + 1, "not_after": None}
        await connection.execute(_TAKE_TITLES, parameters)
        cursor = await connection.execute(_RENAME, parameters)
        renamed = cursor.rowcount
        if renamed:
            await connection.execute(STAMP, parameters)
    return renamed


def _parameters(org: str, names: Mapping[str, str]) -> dict[str, object]:
    return {"org": org, "ids": list(names), "names": list(names.values())}


_NAME_FLOWS = """
    INSERT INTO flow_outcomes.flow AS f (org, flow_id, name)
    SELECT %(org)s, id, name FROM unnest(%(ids)s::text[], %(names)s::text[]) AS told (id, name) ORDER BY id
    ON CONFLICT (org, flow_id) DO UPDATE SET name = EXCLUDED.name
        WHERE f.name IS DISTINCT FROM EXCLUDED.name
"""

# Kept for outcomes without a figure too: one that turns up later has its name at once.
_TAKE_TITLES = """
    INSERT INTO flow_outcomes.outcome_title AS t (org, outcome_id, name)
    SELECT %(org)s, id, name FROM unnest(%(ids)s::text[], %(names)s::text[]) AS told (id, name) ORDER BY id
    ON CONFLICT (org, outcome_id) DO UPDATE SET name = EXCLUDED.name WHERE t.name <> EXCLUDED.name
"""

# Why (SELECT org): as in a merge's statements, see merge/scan.py.
_RENAME = """
    WITH moved AS (
        SELECT o.outcome_no, t.name, flow_outcomes.resolve_alias(o.org, o.flow_id, t.name) AS outcome_name
        FROM flow_outcomes.outcome o
        JOIN flow_outcomes.outcome_title t ON t.org = o.org AND t.outcome_id = o.outcome_id
        WHERE o.org = %(org)s AND o.reported_name <> t.name
    ), kept AS (
        INSERT INTO flow_outcomes.outcome_history (org, outcome_no, flow_id, outcome_id, reported_name,
                                                   outcome_name, revision, until_revision)
        SELECT o.org, o.outcome_no, o.flow_id, o.outcome_id, o.reported_name,
               o.outcome_name, o.revision, %(revision)s
        FROM flow_outcomes.outcome o
        JOIN moved ON o.org = (SELECT %(org)s::text) AND o.outcome_no = moved.outcome_no
    )
    UPDATE flow_outcomes.outcome o
    SET reported_name = moved.name, outcome_name = moved.outcome_name, revision = %(revision)s
    FROM moved WHERE o.org = (SELECT %(org)s::text) AND o.outcome_no = moved.outcome_no
"""
