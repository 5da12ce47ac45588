"""The state of an org's breaker and its rate-limit pause, stored with the lease for other processes."""

from __future__ import annotations

from service.postgres.pool import Database

_LONGEST_PAUSE = 3600.0  # seconds


async def note_breaker(database: Database, org: str, owner: str, state: str, open_for: float | None) -> None:
    """Store the state of the breaker.

    Args:
        database: the pool.
        org: the org's name.
        owner: this process's name; where another process holds the org, nothing is written.
        state: ``closed``, ``half-open`` or ``open``.
        open_for: seconds for which it stays open; None where it is not open.

    Raises:
        DatabaseUnavailableError: the database is unavailable.
    """
    async with database.transaction() as connection:
        await connection.execute(
            """
            UPDATE flow_outcomes.org_lease
            SET breaker = %(state)s, breaker_until = clock_timestamp() + make_interval(secs => %(open_for)s)
            WHERE org = %(org)s AND owner = %(owner)s
            """,
            {"org": org, "owner": owner, "state": state, "open_for": open_for},
        )


async def note_pause(database: Database, org: str, owner: str, seconds: float) -> None:
    """Store for how long a 429 pauses the org, an hour at most, so that the next owner observes it too.

    Args:
        database: the pool.
        org: the org's name.
        owner: this process's name; where another process holds the org, nothing is written.
        seconds: from now on; a longer pause that is stored already stays.

    Raises:
        DatabaseUnavailableError: the database is unavailable.
    """
    async with database.transaction() as connection:
        await connection.execute(
            """
            UPDATE flow_outcomes.org_lease
            SET paused_until = greatest(paused_until, clock_timestamp() + make_interval(secs => %(seconds)s))
            WHERE org = %(org)s AND owner = %(owner)s
            """,
            {"org": org, "owner": owner, "seconds": min(seconds, _LONGEST_PAUSE)},
        )
