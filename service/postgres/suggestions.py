"""Which suggested aliases were logged."""

from __future__ import annotations

from service.postgres.pool import Database
from service.postgres.queries.suggestions import Suggestion

SUGGESTIONS_TIMEOUT = 60.0
"""Seconds for the search."""
RECENT = "100 days"
"""Names that were not seen for so long are not searched. The command and the view search all."""

_REVISION = "SELECT org.revision FROM flow_outcomes.org WHERE org.org = %(org)s"

_RECORD_NEW = f"""
    WITH
    suggested AS MATERIALIZED (
        SELECT s.* FROM flow_outcomes.alias_suggestion_since(%(org)s, NULL, now() - interval '{RECENT}') s
    ),
    recorded AS (
        INSERT INTO flow_outcomes.alias_suggested AS a (org, flow_id, old_name, new_name)
        SELECT s.org, s.flow_id, s.old_name, s.new_name FROM suggested s
        ON CONFLICT (org, flow_id, old_name, new_name) DO NOTHING
        RETURNING a.flow_id, a.old_name, a.new_name
    )
    SELECT s.org, s.flow_id, s.flow_name, s.old_name, s.new_name, s.confidence, s.granularity, s.last_seen,
           s.first_seen, s.days_before, s.days_after, s.mean_before, s.mean_after, s.ratio
    FROM suggested s
    JOIN recorded r ON r.flow_id = s.flow_id AND r.old_name = s.old_name AND r.new_name = s.new_name
    ORDER BY s.flow_id, s.old_name, s.new_name
"""


async def current_revision(database: Database, org: str) -> int | None:
    """The number of the last merge that changed the org's figures; None before the first scan.

    Raises:
        DatabaseUnavailableError: the database cannot be reached.
    """
    async with database.connection() as connection:
        revision: int | None = await connection.fetch_value(_REVISION, {"org": org})
    return revision


async def record_new(database: Database, org: str) -> list[Suggestion]:
    """The org's suggested aliases that no process has logged before; they are recorded as logged.

    Raises:
        DatabaseUnavailableError: the database cannot be reached, or the search took too long.
    """
    async with database.transaction(limit=SUGGESTIONS_TIMEOUT) as connection:
        return await connection.fetch_all(Suggestion, _RECORD_NEW, {"org": org})
