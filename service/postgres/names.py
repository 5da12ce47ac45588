"""Names of flows and outcomes that the API identifies by id."""

from __future__ import annotations

from collections.abc import Mapping

from service.postgres.lease import Lease
from service.postgres.pool import Database
from service.postgres.revision import RENAME_TIMEOUT, STAMP, lock_own_org

_NAME_FLOWS = """
    INSERT INTO flow_outcomes.flow AS fl (org, flow_id, name)
    SELECT %(org)s, listed.id, listed.name
    FROM unnest(%(ids)s::text[], %(names)s::text[]) AS listed (id, name)
    ORDER BY listed.id
    ON CONFLICT (org, flow_id) DO UPDATE SET name = EXCLUDED.name
        WHERE fl.name IS DISTINCT FROM EXCLUDED.name
"""

# Titles of outcomes without a figure are stored too: such an outcome has its name from its first figure on.
_STORE_TITLES = """
    INSERT INTO flow_outcomes.outcome_title AS t (org, outcome_id, name)
    SELECT %(org)s, listed.id, listed.name
    FROM unnest(%(ids)s::text[], %(names)s::text[]) AS listed (id, name)
    ORDER BY listed.id
    ON CONFLICT (org, outcome_id) DO UPDATE SET name = EXCLUDED.name WHERE t.name <> EXCLUDED.name
"""

# (SELECT org) as in the statements of a merge, see merge/scan.py.
_RENAME = """
    WITH
    -- Outcomes whose title differs from their name, and their name after the aliases.
    renamed AS (
        SELECT o.outcome_no, t.name, flow_outcomes.resolve_alias(o.org, o.flow_id, t.name) AS outcome_name
        FROM flow_outcomes.outcome o
        JOIN flow_outcomes.outcome_title t ON t.org = o.org AND t.outcome_id = o.outcome_id
        WHERE o.org = %(org)s AND o.reported_name <> t.name
    ),
    archived AS (
        INSERT INTO flow_outcomes.outcome_history (org, outcome_no, flow_id, outcome_id, reported_name,
                                                   outcome_name, revision, until_revision)
        SELECT o.org, o.outcome_no, o.flow_id, o.outcome_id, o.reported_name,
               o.outcome_name, o.revision, %(revision)s
        FROM flow_outcomes.outcome o
        JOIN renamed ON o.org = (SELECT %(org)s::text) AND o.outcome_no = renamed.outcome_no
    )
    UPDATE flow_outcomes.outcome o
    SET reported_name = renamed.name, outcome_name = renamed.outcome_name, revision = %(revision)s
    FROM renamed WHERE o.org = (SELECT %(org)s::text) AND o.outcome_no = renamed.outcome_no
"""


async def name_flows(database: Database, lease: Lease, names: Mapping[str, str]) -> int:
    """Store the names of flows by id, and return how many are new or have changed.

    Raises:
        LeaseLostError: another process has acquired the org.
        DatabaseUnavailableError: the database cannot be reached.
    """
    async with database.transaction() as connection:
        await lock_own_org(connection, lease.org, lease.epoch)
        cursor = await connection.execute(_NAME_FLOWS, _parameters(lease.org, names))
        return cursor.rowcount


async def name_outcomes(database: Database, lease: Lease, names: Mapping[str, str]) -> int:
    """Store the titles of outcomes by id, and return how many stored outcomes were renamed.

    One row is written per outcome, however many figures it has. The org's row is locked as in a merge, so
    revisions are in order, and a merge sees the names before or after. Aliases are applied to the new names. An
    outcome that is no longer listed keeps its last name.

    Raises:
        LeaseLostError: another process has acquired the org.
        DatabaseUnavailableError: the database cannot be reached.
    """
    async with database.transaction(limit=RENAME_TIMEOUT + 30) as connection:
        await connection.execute(f"SET LOCAL statement_timeout = '{RENAME_TIMEOUT}s'")
        locked = await lock_own_org(connection, lease.org, lease.epoch)
        parameters = {**_parameters(lease.org, names), "revision": locked.revision + 1, "not_after": None}
        await connection.execute(_STORE_TITLES, parameters)
        cursor = await connection.execute(_RENAME, parameters)
        renamed = cursor.rowcount
        if renamed:
            await connection.execute(STAMP, parameters)
    return renamed


def _parameters(org: str, names: Mapping[str, str]) -> dict[str, object]:
    return {"org": org, "ids": list(names), "names": list(names.values())}
