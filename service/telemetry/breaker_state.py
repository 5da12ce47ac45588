"""An org's breaker lives in its owner's memory; here it is noted where other processes can see it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from service.errors import DatabaseUnavailableError
from service.telemetry.events import Emit

AWAY_RETRY = 2.0  # seconds between two tries while the database is away
END_WITHIN = 3.0  # seconds that the last note gets

_STATES = {"circuit_opened": "open", "circuit_half_open": "half-open", "circuit_closed": "closed"}

Write = Callable[[str, float | None], Awaitable[None]]
"""Notes a state, and the seconds for which it is open."""


class BreakerNotes:
    """Follows one org's events and notes each turn of its breaker, in order; of several that wait, the last.

    Args:
        write: notes one.
        emit: told every event, as if this were not there.
    """

    def __init__(self, write: Write, emit: Emit) -> None:
        self._write = write
        self._told = emit
        self._latest: tuple[str, float | None] | None = None
        self._writing: asyncio.Task[None] | None = None

    def emit(self, event: str, **context: Any) -> None:  # noqa: ANN401 - a context holds anything
        """Pass the event on, and note what it says of the breaker."""
        self._told(event, **context)
        if event in _STATES:
            self._latest = _STATES[event], context.get("open_for")
            if self._writing is None or self._writing.done():
                self._writing = asyncio.create_task(self._note())

    async def close(self) -> None:
        """Give the last note its time: the org is still ours to write of."""
        if self._writing is not None:
            await asyncio.wait({self._writing}, timeout=END_WITHIN)
            self._writing.cancel()

    async def _note(self) -> None:
        while self._latest is not None:
            latest = self._latest
            try:
                await self._write(*latest)
            except DatabaseUnavailableError:
                await asyncio.sleep(AWAY_RETRY)
                continue
            if self._latest is latest:
                self._latest = None
