"""Who may begin: so many scans ask at once, the urgent first, and never two over the same buckets."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from service.model import Scan


class AdmissionClosedError(Exception):
    """Nothing new begins here any more."""


@dataclass(order=True)
class _Waiting:
    priority: int
    number: int
    scan: Scan = field(compare=False)
    admitted: asyncio.Future[None] = field(compare=False)


class ScanAdmission:
    """Admits an org's scans.

    Two scans over the same buckets run one after the other, so that of two the one begun later is stored later. A
    scan that has read its last page leaves its place to another while it is stored, so that a merge does not keep
    the limit idle; to one, for what was read is held in memory.

    Args:
        places: scans that ask, at most.
    """

    def __init__(self, places: int) -> None:
        self._places = places
        self._numbers = itertools.count()
        self._waiting: list[_Waiting] = []
        self._inside: list[Scan] = []
        self._asking = 0
        self._closed = asyncio.Event()

    @property
    def inside(self) -> int:
        """Scans in flight."""
        return len(self._inside)

    @property
    def waiting(self) -> int:
        """Scans that wait for a place."""
        return len(self._waiting)

    def widen(self, places: int) -> None:
        """Let in so many from now on, more or fewer than before."""
        self._places = places
        self._admit()

    def close(self) -> None:
        """Let nobody in any more; those inside go on."""
        self._closed.set()
        for each in self._waiting:
            if not each.admitted.done():
                each.admitted.set_exception(AdmissionClosedError())
        self._waiting.clear()

    async def pause(self, seconds: float) -> None:
        """Wait so long, or until the gate closes."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closed.wait()

    @asynccontextmanager
    async def enter(self, scan: Scan, priority: int) -> AsyncIterator[Callable[[], None]]:
        """Wait for a place; the lower the priority's number, the sooner. Gives what to call when it has read all.

        Raises:
            AdmissionClosedError: the gate is closed.
        """
        if self._closed.is_set():
            raise AdmissionClosedError
        each = _Waiting(priority, next(self._numbers), scan, asyncio.get_running_loop().create_future())
        self._waiting.append(each)
        self._admit()
        asking = True

        def release_fetch_slot() -> None:
            nonlocal asking
            if asking:
                asking = False
                self._asking -= 1
                self._admit()

        try:
            await each.admitted
            yield release_fetch_slot
        finally:
            if each in self._waiting:
                self._waiting.remove(each)
            if each.admitted.done() and not each.admitted.cancelled() and each.admitted.exception() is None:
                self._inside.remove(scan)
                self._asking -= asking
            self._admit()

    def _admit(self) -> None:
        for each in sorted(self._waiting):
            if self._asking >= self._places or len(self._inside) > self._places:
                return
            if each.admitted.done() or any(_collide(each.scan, other) for other in self._inside):
                continue
            self._waiting.remove(each)
            self._inside.append(each.scan)
            self._asking += 1
            each.admitted.set_result(None)


def _collide(one: Scan, other: Scan) -> bool:
    return one.granularity is other.granularity and one.span.overlaps(other.span)
