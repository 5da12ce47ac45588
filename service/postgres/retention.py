"""How long orgs keep their data, as their APIs last said."""

from __future__ import annotations

from service.postgres.lease import Lease
from service.postgres.pool import Database
from service.postgres.revision import lock_own_org


async def stored_retention_days(database: Database, org: str) -> int | None:
    """The days for which an org keeps data; None where its API did not say.

    Raises:
        DatabaseUnavailableError: the database is unavailable.
    """
    async with database.connection() as connection:
        days: int | None = await connection.fetch_value(
            "SELECT r.days FROM flow_outcomes.org_retention r WHERE r.org = %(org)s", {"org": org}
        )
        return days


async def store_retention_days(database: Database, lease: Lease, days: int | None) -> None:
    """Store the days for which an org keeps data; None deletes them.

    Raises:
        LeaseLostError: another process has acquired the org.
        DatabaseUnavailableError: the database is unavailable.
    """
    async with database.transaction() as connection:
        await lock_own_org(connection, lease.org, lease.epoch)
        parameters = {"org": lease.org, "days": days}
        if days is None:
            await connection.execute("DELETE FROM flow_outcomes.org_retention WHERE org = %(org)s", parameters)
            return
        await connection.execute(
            """
            INSERT INTO flow_outcomes.org_retention (org, days) VALUES (%(org)s, %(days)s)
            ON CONFLICT (org) DO UPDATE SET days = EXCLUDED.days
            """,
            parameters,
        )
