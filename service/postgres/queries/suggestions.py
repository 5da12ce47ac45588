"""Suggested aliases: pairs of names that are probably one outcome before and after a rename."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import NamedTuple

from service.postgres.pool import Connection


class Suggestion(NamedTuple):
    """A suggested alias; its columns in ``alias_suggestion``.

    Attributes:
        org, flow_id: the flow that reported both names.
        flow_name: None where the API gives none.
        old_name, new_name: the names, after the aliases that exist.
        confidence: from 0.5 to 1.
        granularity: of the figures that were compared. Hours are added up to days.
        last_seen: the start of the old name's last bucket.
        first_seen: the start of the new name's first bucket.
        days_before, days_after: days with the old name, of the last 28, and with the new one, of the first 28. Of
            monthly figures months, of 12.
        mean_before, mean_after: mean counts of these days.
        ratio: the new name's count over what the old name's means of the same weekdays predict.
    """

    org: str
    flow_id: str
    flow_name: str | None
    old_name: str
    new_name: str
    confidence: float
    granularity: str
    last_seen: datetime
    first_seen: datetime
    days_before: int
    days_after: int
    mean_before: float
    mean_after: float
    ratio: float


async def suggestions(connection: Connection, org: str, flow_id: str | None) -> list[Suggestion]:
    """The suggested aliases of an org, or of one of its flows, the most certain first."""
    return await connection.fetch_all(
        Suggestion,
        """
        SELECT s.org, s.flow_id, s.flow_name, s.old_name, s.new_name, s.confidence, s.granularity, s.last_seen,
               s.first_seen, s.days_before, s.days_after, s.mean_before, s.mean_after, s.ratio
        FROM flow_outcomes.alias_suggestion_since(%(org)s, %(flow_id)s, '-infinity') s
        ORDER BY s.confidence DESC, s.flow_id, s.old_name, s.new_name
        """,
        {"org": org, "flow_id": flow_id},
    )


class Version(NamedTuple):
    """What an org's suggestions depend on; ``alias_changes`` counts the edits of its aliases."""

    org: str
    revision: int
    alias_changes: int
    pruned_before: datetime | None


async def versions(connection: Connection, orgs: Collection[str]) -> dict[str, Version]:
    """The version of each org's figures and aliases, of the orgs with figures; with it change its suggestions."""
    rows = await connection.fetch_all(
        Version,
        """
        SELECT o.org, o.revision, coalesce(g.changes, 0) AS alias_changes, o.pruned_before
        FROM flow_outcomes.org o
        LEFT JOIN flow_outcomes.alias_guard g ON g.org = o.org
        WHERE o.org = ANY (%(orgs)s)
        ORDER BY o.org
        """,
        {"orgs": list(orgs)},
    )
    return {row.org: row for row in rows}
