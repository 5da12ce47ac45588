"""Stores an org's breaker state in the database, where other processes read it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from service.errors import DatabaseUnavailableError

RETRY_DELAY = 2.0
"""Seconds between two attempts while the database is unavailable."""
CLOSE_TIMEOUT = 3.0
"""Seconds that ``close`` waits for the last write."""

Write = Callable[[str, float | None], Awaitable[None]]
"""Stores a state, and for ``open`` the seconds that it lasts."""


class BreakerStateWriter:
    """Writes the state changes of one breaker in their order; of several that are pending, the last.

    Args:
        write: stores one state.
    """

    def __init__(self, write: Write) -> None:
        self._write = write
        self._pending: tuple[str, float | None] | None = None
        self._task: asyncio.Task[None] | None = None

    def record(self, state: str, open_for: float | None) -> None:
        """Write the state in the background.

        Args:
            state: ``closed``, ``half-open`` or ``open``.
            open_for: seconds for which it stays open; None for other states.
        """
        self._pending = state, open_for
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._drain())

    async def close(self) -> None:
        """Wait for the last write, up to ``CLOSE_TIMEOUT``; call it while this process still holds the org."""
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=CLOSE_TIMEOUT)
            self._task.cancel()

    async def _drain(self) -> None:
        while self._pending is not None:
            pending = self._pending
            try:
                await self._write(*pending)
            except DatabaseUnavailableError:
                await asyncio.sleep(RETRY_DELAY)
                continue
            if self._pending is pending:
                self._pending = None
