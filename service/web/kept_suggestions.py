"""Suggested aliases, kept while the figures and the aliases of their org do not change."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from service.model import instant
from service.postgres.pool import Connection
from service.postgres.queries.suggestions import Suggestion, Version, suggestions, versions

SEARCH_TIME = 0.5
"""Seconds of one request after which no further org is searched; the next request goes on."""
MAX_SHOWN = 50

Document = dict[str, Any]


class KeptSuggestions:
    """The suggested aliases of each org, with the version of its figures and aliases that was searched."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[Version, list[Suggestion]]] = {}

    async def read(self, connection: Connection, orgs: Sequence[str]) -> Document:
        """The suggested aliases of these orgs, the most certain first, and how many orgs are not searched yet.

        Raises:
            DatabaseUnavailableError, SchemaError: as the connection.
        """
        loop = asyncio.get_running_loop()
        current, began = await versions(connection, orgs), loop.time()
        for org in self._kept.keys() - current.keys():
            del self._kept[org]
        changed = [
            org for org, version in current.items() if org not in self._kept or self._kept[org][0] != version
        ]
        for place, org in enumerate(changed):
            if place and loop.time() - began >= SEARCH_TIME:
                break
            self._kept[org] = current[org], await suggestions(connection, org, None)
        found = [each for org in current if org in self._kept for each in self._kept[org][1]]
        return {
            "suggestions": listed(found),
            "unsearched": sum(org not in self._kept for org in current),
        }


def listed(found: Sequence[Suggestion]) -> list[Document]:
    """The most certain ones, as they are sent."""
    order = sorted(
        found, key=lambda each: (-each.confidence, each.org, each.flow_id, each.old_name, each.new_name)
    )
    return [
        each._asdict() | {"last_seen": instant(each.last_seen), "first_seen": instant(each.first_seen)}
        for each in order[:MAX_SHOWN]
    ]
