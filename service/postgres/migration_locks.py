"""What a migration waits for: a lock that another session holds."""

from __future__ import annotations

from service.postgres.migrate import NAME
from service.postgres.probe import open_connection

_TIMEOUT = 10.0

_BLOCKED = """
    -- a role without pg_read_all_stats sees the state of its own sessions alone
    SELECT DISTINCT ON (blocker.pid)
           (SELECT l.relation::regclass::text FROM pg_locks l
            WHERE l.pid = waiting.pid AND NOT l.granted AND l.relation IS NOT NULL LIMIT 1) AS relation,
           blocker.pid, blocker.usename AS role, nullif(blocker.application_name, '') AS application,
           blocker.state,
           extract(epoch FROM clock_timestamp() - blocker.xact_start)::float8 AS seconds
    FROM pg_stat_activity waiting
    CROSS JOIN LATERAL unnest(pg_blocking_pids(waiting.pid)) AS blocking (pid)
    JOIN pg_stat_activity blocker ON blocker.pid = blocking.pid
    WHERE waiting.application_name = %(name)s AND waiting.datname = current_database()
      AND waiting.wait_event_type = 'Lock'
    ORDER BY blocker.pid
"""


async def blocking_sessions(dsn: str) -> list[str]:
    """A line for each session that holds a lock for which a migration of this database waits.

    Raises:
        DatabaseUnavailableError: the database is unreachable.
    """
    async with open_connection(dsn, "flow-outcomes", timeout=_TIMEOUT) as connection:
        return await connection.fetch_all(_line, _BLOCKED, {"name": NAME})


def _line(
    *,
    relation: str | None,
    pid: int,
    role: str | None,
    application: str | None,
    state: str | None,
    seconds: float | None,
) -> str:
    """A row of ``_BLOCKED``."""
    details = [f"role {role}"] if role else []
    details += [application] if application else []
    details += [state] if state else []
    details += [f"its transaction began {seconds:.0f} s ago"] if seconds is not None else []
    lock = f"a lock on {relation}" if relation else "a lock"
    return (
        f"the migration waits for {lock} of session {pid} ({', '.join(details)}); end it, for instance with"
        f" SELECT pg_terminate_backend({pid})"
    )
