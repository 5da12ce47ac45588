"""Logs suggested aliases, each pair once, at a pace that the database does not notice."""

from __future__ import annotations

from service.clock import Clock
from service.config import Org
from service.model import instant
from service.postgres.pool import Database
from service.postgres.suggestions import current_revision, record_new
from service.telemetry import Emit, Event

INTERVAL = 60.0
"""Seconds between two searches in an org, at least."""
COST_FACTOR = 100.0
"""A search may take one percent of the time."""
BUSY_INTERVAL = 3600.0
"""Seconds after which scans in flight no longer postpone a search."""


class SuggestionLog:
    """Searches an org for suggested aliases after its figures have changed, and logs new ones.

    Args:
        database: the pool.
        clock: the process's clock.
        emit: receives ``alias_suggested``.
    """

    def __init__(self, database: Database, clock: Clock, emit: Emit) -> None:
        self._database = database
        self._clock = clock
        self._emit = emit
        self._revisions: dict[str, int | None] = {}
        self._searched: dict[str, float] = {}
        self._costs: dict[str, float] = {}

    async def poll(self, org: Org, *, busy: bool) -> None:
        """Search if it is time to; ``busy``: scans of the org are in flight or waiting.

        Raises:
            DatabaseUnavailableError: as ``search``.
        """
        if not by_name(org):
            return
        searched = self._searched.get(org.name)
        if searched is not None:
            interval = max(INTERVAL, COST_FACTOR * self._costs[org.name], BUSY_INTERVAL if busy else 0.0)
            if self._clock.monotonic() < searched + interval:
                return
        elif busy:
            self._searched[org.name], self._costs[org.name] = self._clock.monotonic(), 0.0
            return
        revision = await current_revision(self._database, org.name)
        if revision == self._revisions.get(org.name):
            return
        await self.search(org)
        self._revisions[org.name] = revision

    async def search(self, org: Org) -> None:
        """Log the suggested aliases that no process has logged before.

        Raises:
            DatabaseUnavailableError: the database cannot be reached, or the search took too long.
        """
        if not by_name(org):
            return
        began = self._clock.monotonic()
        try:
            suggested = await record_new(self._database, org.name)
        finally:
            self._searched[org.name] = self._clock.monotonic()
            self._costs[org.name] = self._searched[org.name] - began
        for each in suggested:
            evidence = {
                "granularity": each.granularity,
                "last_seen": instant(each.last_seen),
                "first_seen": instant(each.first_seen),
                "days_before": each.days_before,
                "days_after": each.days_after,
                "mean_before": round(each.mean_before, 1),
                "mean_after": round(each.mean_after, 1),
            }
            names = {"flow_name": each.flow_name, "old_name": each.old_name, "new_name": each.new_name}
            self._emit(
                Event.ALIAS_SUGGESTED,
                org=org.name,
                flow_id=each.flow_id,
                **names,
                confidence=each.confidence,
                **evidence,
            )


def by_name(org: Org) -> bool:
    """Whether the org's API identifies outcomes by name alone: one with an id keeps it through a rename."""
    return org.api == "query-builder"
