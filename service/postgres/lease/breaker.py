"""The state of an org's breaker, written beside its lease for other processes to read."""

from __future__ import annotations

from service.postgres.pool import Database


async def note_breaker(database: Database, org: str, owner: str, state: str, open_for: float | None) -> None:
    """Note how the owner's breaker stands, for those who look from outside.

    Args:
        database: the pool.
        org: the org's name.
        owner: who holds it; nothing is written where that is another one by now.
        state: ``closed``, ``half-open`` or ``open``.
        open_for: seconds that it stays open.

    Raises:
        DatabaseUnavailableError: the database is away.
    """
    async with database.transaction() as connection:
        await connection.execute(
            "UPDATE flow_outcomes.org_lease SET breaker = %(state)s,"
            " breaker_until = clock_timestamp() + make_interval(secs => %(open_for)s)"
            " WHERE org = %(org)s AND owner = %(owner)s",
            {"org": org, "owner": owner, "state": state, "open_for": open_for},
        )
