"""The overviews of orgs whose figures have not changed: read again after a merge or a prune, and at midnight."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from datetime import date, datetime

from service.config import Config, Org
from service.postgres.pool import Connection
from service.postgres.prune_dates import prune_date
from service.postgres.queries.week import org_revision
from service.web import week
from service.web.response_cache import CachedResponse, encode
from service.web.week import Measure

MAX_KEPT = 8
"""Overviews; one of 1,000 flows has 300 KB."""

_Version = tuple[int | None, datetime | None, date, Config]


class KeptWeeks:
    """The last overviews, each with the org's revision that it shows."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, Measure | None], tuple[_Version, CachedResponse]] = OrderedDict()

    async def read(
        self, connection: Connection, config: Config, org: Org, now: datetime, measure: Measure | None
    ) -> CachedResponse:
        """The org's overview, as ``week.document``.

        Raises:
            DatabaseUnavailableError, SchemaError: as the connection.
        """
        pruned_before = await prune_date(connection, org.name)
        version = await org_revision(connection, org.name), pruned_before, now.astimezone(org.tz).date(), config
        key = org.name, measure
        kept = self._kept.get(key)
        if kept is None or kept[0] != version:
            found = await week.document(connection, config, org, now, measure, pruned_before)
            kept = self._kept[key] = version, await asyncio.to_thread(encode, found)
        self._kept.move_to_end(key)
        while len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)
        return kept[1]
