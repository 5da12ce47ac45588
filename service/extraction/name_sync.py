"""The names of an org's flows and outcomes, asked for now and then, where the API knows these by id."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from service.clock import Clock
from service.errors import CircuitOpenError, ExtractionError, RateLimitedError
from service.genesys import FLOWS, OUTCOMES, GenesysClient, Listing, listed
from service.postgres.lease import Lease
from service.postgres.names import name_flows, name_outcomes
from service.postgres.pool import Database

EVERY = 3600.0
"""Seconds from one look at the names to the next: a rename does not hurry, and each look costs requests."""
AGAIN_AFTER = 300.0
"""Seconds after which names that could not be had are asked for again."""

Emit = Callable[..., None]


class NameSync:
    """Keeps the names of one org present. Without them the ids serve, and nothing fails.

    Args:
        client: asks the org's API.
        lease: the hold on the org.
        database: where the names go.
        clock: tells when it is time to look again.
        emit: told ``names_unavailable`` once for each reason, and ``outcomes_renamed``.
    """

    def __init__(self, client: GenesysClient, lease: Lease, database: Database, clock: Clock, emit: Emit) -> None:
        self._client = client
        self._lease = lease
        self._database = database
        self._clock = clock
        self._emit = emit
        self._alone = asyncio.Lock()
        self._next_look = float("-inf")
        self._unknown: tuple[str, ...] = ()

    async def refresh(self) -> None:
        """Ask for the names where it is time to.

        Raises:
            DatabaseUnavailableError: the database is away.
            LeaseLostError: another process works the org now.
        """
        if not self._client.dialect.by_id:
            return
        async with self._alone:
            if self._clock.monotonic() < self._next_look:
                return
            unknown: list[str] = []
            if flows := await self._listed(FLOWS, unknown):
                await name_flows(self._database, self._lease, flows)
            if outcomes := await self._listed(OUTCOMES, unknown):
                renamed = await name_outcomes(self._database, self._lease, outcomes)
                if renamed:
                    self._emit("outcomes_renamed", org=self._lease.org, outcomes=renamed)
            self._next_look = self._clock.monotonic() + (AGAIN_AFTER if unknown else EVERY)
            self._tell(tuple(filter(None, unknown)))

    def invalidate(self) -> None:
        """Have the next refresh ask, however lately that was done."""
        self._next_look = float("-inf")

    async def _listed(self, listing: Listing, unknown: list[str]) -> dict[str, str]:
        """Names by id; none, and a reason, where they cannot be had. That now is not the time is no reason."""
        try:
            return await listed(listing, self._client.call)
        except (CircuitOpenError, RateLimitedError):
            unknown.append("")
            return {}
        except ExtractionError as error:
            unknown.append(f"{listing.path}: {error}")
            return {}

    def _tell(self, unknown: tuple[str, ...]) -> None:
        """Warn once: not again for the same kind of trouble."""
        kinds = tuple(each.partition(" [contextId")[0] for each in unknown)
        if unknown and kinds != self._unknown:
            self._emit(
                "names_unavailable", org=self._lease.org, reason="; ".join(unknown), hint="the ids serve as names"
            )
        self._unknown = kinds
