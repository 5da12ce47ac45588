"""The names of an org's flows, outcomes and milestones, read at intervals where the API reports ids."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection

from service.clock import Clock
from service.errors import CircuitOpenError, ExtractionError, RateLimitedError
from service.genesys import FLOW_NAMES, MILESTONE_NAMES, OUTCOME_NAMES, GenesysClient, Listed, NameList, list_names
from service.model import Measure
from service.postgres.lease import Lease
from service.postgres.names import name_flows, name_outcomes
from service.postgres.pool import Database
from service.telemetry import Emit, Event

_ID_OF_RESPONSE = re.compile(r" \[(contextId|ININ-Correlation-Id) [^]]*\]")
_LISTS = {Measure.OUTCOMES: OUTCOME_NAMES, Measure.MILESTONES: MILESTONE_NAMES}
REFRESH_INTERVAL = 3600.0
"""Seconds between two readings of the names: renames are rare, and each reading costs requests."""
RETRY_INTERVAL = 300.0
"""Seconds until the next reading after names were unavailable."""


class NameSync:
    """Keeps the names of one org up to date. Where they are unavailable the ids serve as names.

    Args:
        client: the org's API.
        lease: this process's hold on the org.
        database: where the names are stored.
        clock: the process's clock.
        emit: receives ``outcomes_renamed``, and ``names_unavailable`` once for each reason.
    """

    def __init__(self, client: GenesysClient, lease: Lease, database: Database, clock: Clock, emit: Emit) -> None:
        self._client = client
        self._lease = lease
        self._database = database
        self._clock = clock
        self._emit = emit
        self._lock = asyncio.Lock()
        self._next_refresh = float("-inf")
        self._reported: tuple[str, ...] = ()

    async def refresh(self, measures: Collection[Measure]) -> None:
        """Read the names if they are due: of flows, and of what is measured.

        Raises:
            DatabaseUnavailableError: the database is unavailable.
            LeaseLostError: another process holds the org.
        """
        if not self._client.dialect.by_id:
            return
        async with self._lock:
            if self._clock.monotonic() < self._next_refresh:
                return
            flows, flows_error = await self._read(FLOW_NAMES)
            if flows:
                await name_flows(self._database, self._lease, list(flows.items()))
            failures = [flows_error]
            for measure, listing in _LISTS.items():
                if measure in measures:
                    failures.append(await self._name(measure, listing))
            errors = [error for error in failures if error is not None]
            self._next_refresh = self._clock.monotonic() + (RETRY_INTERVAL if errors else REFRESH_INTERVAL)
            self._report([error for error in errors if error])

    def invalidate(self) -> None:
        """Make the names due at the next refresh."""
        self._next_refresh = float("-inf")

    async def _name(self, measure: Measure, listing: NameList) -> str | None:
        """Store the names of a list; why they are unavailable, as ``_read`` says it."""
        listed, error = await self._read(listing)
        if listed:
            names = {source_id: each.name for source_id, each in listed.items()}
            renamed = await name_outcomes(self._database, self._lease, names, measure)
            if renamed:
                self._emit(Event.OUTCOMES_RENAMED, org=self._lease.org, outcomes=renamed)
        return error

    async def _read(self, listing: NameList) -> tuple[dict[str, Listed], str | None]:
        """What is listed, by id, and why it is unavailable: None if it is not, empty if reported elsewhere."""
        try:
            return await list_names(listing, self._client.call), None
        except (CircuitOpenError, RateLimitedError):
            return {}, ""
        except ExtractionError as error:
            return {}, f"{listing.path}: {error}"

    def _report(self, reasons: list[str]) -> None:
        """Warn, unless the last warning had the same reasons."""
        kinds = tuple(_ID_OF_RESPONSE.sub("", reason) for reason in reasons)
        if reasons and kinds != self._reported:
            self._emit(
                Event.NAMES_UNAVAILABLE,
                org=self._lease.org,
                reason="; ".join(reasons),
                hint="the ids serve as names",
            )
        self._reported = kinds
