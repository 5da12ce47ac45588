"""How long an org keeps its data: the configuration's value, or what the API says, read at intervals."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from service.clock import Clock
from service.config import Org
from service.errors import ExtractionError, ForbiddenError, InvalidResponseError, RequestRejectedError
from service.genesys import GenesysClient, read_retention_days
from service.postgres.lease import Lease
from service.postgres.merge import Retention
from service.postgres.pool import Database
from service.postgres.retention import store_retention_days, stored_retention_days

REFRESH_INTERVAL = 3600.0
"""Seconds between two readings of the API's value."""
RETRY_INTERVAL = 300.0
"""Seconds until the next reading after the API was unavailable."""
_NOT_AVAILABLE = (ForbiddenError, InvalidResponseError, RequestRejectedError)


class RetentionSync:
    """Keeps the retention of one org up to date; the database keeps the API's last value for the next process.

    Args:
        org: its configuration.
        client: its API.
        lease: this process's hold on the org.
        database: where the API's value is stored.
        clock: the process's clock.
    """

    def __init__(self, org: Org, client: GenesysClient, lease: Lease, database: Database, clock: Clock) -> None:
        self.org = org
        self._client = client
        self._lease = lease
        self._database = database
        self._clock = clock
        self._lock = asyncio.Lock()
        self._next_refresh = float("-inf")
        self._days: int | None = None
        self._loaded = False

    def current(self) -> Retention | None:
        """The retention as it is known now; None on an API whose figures do not expire."""
        if not self._client.dialect.by_id:
            return None
        if self.org.retention is not None:
            return Retention(self.org.retention)
        return Retention(None if self._days is None else timedelta(days=self._days))

    async def refresh(self) -> None:
        """Read the API's value if it is due and the configuration has none.

        Raises:
            DatabaseUnavailableError: the database is unavailable.
            LeaseLostError: another process holds the org.
        """
        if not self._client.dialect.by_id or self.org.retention is not None:
            return
        async with self._lock:
            if not self._loaded:
                self._days = await stored_retention_days(self._database, self._lease.org)
                self._loaded = True
            if self._clock.monotonic() < self._next_refresh:
                return
            days, interval = self._days, REFRESH_INTERVAL
            try:
                days = await read_retention_days(self._client.call)
            except _NOT_AVAILABLE:
                days = None
            except ExtractionError:
                interval = RETRY_INTERVAL
            if days != self._days:
                await store_retention_days(self._database, self._lease, days)
                self._days = days
            self._next_refresh = self._clock.monotonic() + interval
