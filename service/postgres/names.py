"""Names of flows, outcomes and milestones that the API identifies by id."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from service.model import Measure
from service.postgres.lease import Lease
from service.postgres.pool import Database
from service.postgres.revision import ARCHIVE_RENAMED, RENAME_TIMEOUT, STAMP, lock_own_org

_NAME_FLOWS = """
    INSERT INTO flow_outcomes.flow AS fl
        (org, flow_id, name, flow_type, division_id, division_name, deleted, revision)
    SELECT %(org)s, listed.id, listed.name, listed.kind, listed.division_id, listed.division_name, listed.deleted,
           %(revision)s
    FROM unnest(%(ids)s::text[], %(names)s::text[], %(kinds)s::text[], %(division_ids)s::text[],
                %(division_names)s::text[], %(deleted)s::boolean[])
        AS listed (id, name, kind, division_id, division_name, deleted)
    ORDER BY listed.id
    ON CONFLICT (org, flow_id) DO UPDATE
        SET name = EXCLUDED.name, flow_type = EXCLUDED.flow_type, division_id = EXCLUDED.division_id,
            division_name = EXCLUDED.division_name, deleted = EXCLUDED.deleted,
            revision = CASE WHEN fl.name IS DISTINCT FROM EXCLUDED.name THEN EXCLUDED.revision ELSE fl.revision END
        WHERE (fl.name, fl.flow_type, fl.division_id, fl.division_name, fl.deleted)
            IS DISTINCT FROM (EXCLUDED.name, EXCLUDED.flow_type, EXCLUDED.division_id, EXCLUDED.division_name,
                              EXCLUDED.deleted)
    RETURNING fl.revision = %(revision)s AS named
"""

# Titles of outcomes without a figure are stored too: such an outcome has its name from its first figure on.
_STORE_TITLES = """
    INSERT INTO flow_outcomes.outcome_title AS t (org, outcome_id, name, measure)
    SELECT %(org)s, listed.id, listed.name, %(measure)s::flow_outcomes.measure
    FROM unnest(%(ids)s::text[], %(names)s::text[]) AS listed (id, name)
    ORDER BY listed.id
    ON CONFLICT (org, outcome_id, measure) DO UPDATE SET name = EXCLUDED.name WHERE t.name <> EXCLUDED.name
"""

# (SELECT org) as in the statements of a merge, see merge/scan.py.
_RENAME = f"""
    WITH
    -- Series whose title differs from their name, and their name after the aliases, which only outcomes have.
    renamed AS (
        SELECT o.series_no, t.name,
               CASE WHEN o.measure = 'outcomes' THEN flow_outcomes.resolve_alias(o.org, o.flow_id, t.name)
                    ELSE t.name END AS outcome_name
        FROM flow_outcomes.series o
        JOIN flow_outcomes.outcome_title t
          ON t.org = o.org AND t.outcome_id = o.outcome_id AND t.measure = o.measure
        WHERE o.org = %(org)s AND o.measure = %(measure)s::flow_outcomes.measure AND o.reported_name <> t.name
    ),
    {ARCHIVE_RENAMED}
    UPDATE flow_outcomes.series o
    SET reported_name = renamed.name, outcome_name = renamed.outcome_name, revision = %(revision)s
    FROM renamed WHERE o.org = (SELECT %(org)s::text) AND o.series_no = renamed.series_no
"""


FlowDetails = tuple[str, str | None, str | None, str | None, bool]
"""A flow's name, type, division's id and name, and whether it is deleted."""


async def name_flows(database: Database, lease: Lease, flows: Sequence[tuple[str, FlowDetails]]) -> int:
    """Store the names and details of flows by id, and return how many are new or have changed.

    A new name is a revision: the present figures have it, so an export has to write them again.

    Raises:
        LeaseLostError: another process has acquired the org.
        DatabaseUnavailableError: the database cannot be reached.
    """
    async with database.transaction() as connection:
        locked = await lock_own_org(connection, lease.org, lease.epoch)
        columns = ("names", "kinds", "division_ids", "division_names", "deleted")
        parameters: dict[str, object] = {"org": lease.org, "ids": [flow_id for flow_id, _ in flows]}
        parameters |= {"revision": locked.revision + 1, "not_after": None}
        for place, column in enumerate(columns):
            parameters[column] = [details[place] for _, details in flows]
        stored: list[bool] = await connection.fetch_values(_NAME_FLOWS, parameters)
        if any(stored):
            await connection.execute(STAMP, parameters)
    return len(stored)


async def name_outcomes(
    database: Database, lease: Lease, names: Mapping[str, str], measure: Measure = Measure.OUTCOMES
) -> int:
    """Store the titles of outcomes or milestones by id, and return how many stored series were renamed.

    One row is written per series, however many figures it has. The org's row is locked as in a merge, so
    revisions are in order, and a merge sees the names before or after. Aliases are applied to the new names. An
    outcome that is no longer listed keeps its last name.

    Raises:
        LeaseLostError: another process has acquired the org.
        DatabaseUnavailableError: the database cannot be reached.
    """
    async with database.transaction(limit=RENAME_TIMEOUT + 30) as connection:
        await connection.execute(f"SET LOCAL statement_timeout = '{RENAME_TIMEOUT}s'")
        locked = await lock_own_org(connection, lease.org, lease.epoch)
        parameters = {
            **_parameters(lease.org, names),
            "measure": measure.value,
            "revision": locked.revision + 1,
            "not_after": None,
        }
        await connection.execute(_STORE_TITLES, parameters)
        cursor = await connection.execute(_RENAME, parameters)
        renamed = cursor.rowcount
        if renamed:
            await connection.execute(STAMP, parameters)
    return renamed


def _parameters(org: str, names: Mapping[str, str]) -> dict[str, object]:
    return {"org": org, "ids": list(names), "names": list(names.values())}
