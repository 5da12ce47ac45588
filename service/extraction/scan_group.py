"""Scans that run side by side."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine

from service.errors import DatabaseUnavailableError, GivenUpError, LeaseLostError

# Expected ends of a cycle; of several errors, another one is raised first.
_EXPECTED = (DatabaseUnavailableError, LeaseLostError, GivenUpError)


class ScanGroup:
    """Runs coroutines side by side; the first unexpected end of one cancels the others.

    No task raises into the group: before Python 3.13 a TaskGroup that has an error of its own to raise drops a
    cancellation from outside, and an org whose lease is lost would be worked on.
    """

    def __init__(self) -> None:
        self._group = asyncio.TaskGroup()
        self._tasks: set[asyncio.Task[None]] = set()
        self._errors: list[Exception] = []

    async def run(self, *coroutines: Coroutine[None, None, None]) -> None:
        """Run these, and what ``start`` adds meanwhile, to the end.

        Raises:
            Exception: what one of them raised; an unexpected error before an expected one.
        """
        async with self._group:
            for each in coroutines:
                self.start(each)
        if self._errors:
            raise next((error for error in self._errors if not isinstance(error, _EXPECTED)), self._errors[0])

    def start(self, coroutine: Coroutine[None, None, None]) -> None:
        """Run one more; call it from one of those that run."""
        task = self._group.create_task(self._attempt(coroutine))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _attempt(self, coroutine: Coroutine[None, None, None]) -> None:
        try:
            await coroutine
        except Exception as error:  # noqa: BLE001 - raised by ``run``
            self._errors.append(error)
            for task in self._tasks:
                if task is not asyncio.current_task():
                    task.cancel()
