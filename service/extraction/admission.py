"""Admission of an org's scans: a bounded number at a time, by priority, never two over the same buckets."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

from service.errors import AdmissionClosedError
from service.model import Scan


@dataclass(order=True)
class _Slot:
    """A scan's request for a slot, ordered by priority and then by arrival."""

    priority: int
    number: int
    scan: Scan = field(compare=False)
    admitted: asyncio.Future[None] = field(compare=False)
    fetching: bool = field(default=False, compare=False)


class ScanAdmission:
    """Admits an org's scans.

    Scans over the same buckets run one after the other, so that the one that started later is stored later. A scan
    that has read its last page releases its fetch slot while it is stored, so that a merge leaves no request limit
    unused. At most one scan more than there are slots is in flight, because its rows are held in memory.

    Args:
        slots: the maximum number of scans that send queries.
    """

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._numbers = itertools.count()
        self._waiting: list[_Slot] = []
        self._in_flight: list[_Slot] = []
        self._closed = asyncio.Event()

    @property
    def in_flight(self) -> int:
        """The number of admitted scans."""
        return len(self._in_flight)

    @property
    def waiting(self) -> int:
        """The number of scans that wait for a slot."""
        return len(self._waiting)

    def resize(self, slots: int) -> None:
        """Change the number of slots; scans in flight keep theirs."""
        self._slots = slots
        self._admit()

    def close(self) -> None:
        """Admit no further scan; scans in flight continue."""
        self._closed.set()
        for each in self._waiting:
            if not each.admitted.done():
                each.admitted.set_exception(AdmissionClosedError())
        self._waiting.clear()

    async def pause(self, seconds: float) -> None:
        """Sleep for this long, or until the admission is closed."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closed.wait()

    @asynccontextmanager
    async def slot(self, scan: Scan, priority: int) -> AsyncIterator[Callable[[], None]]:
        """Wait for a slot; a lower priority is admitted first.

        Yields:
            ``release_fetch_slot``, to be called after the scan's last page was read.

        Raises:
            AdmissionClosedError: the admission is closed.
        """
        if self._closed.is_set():
            raise AdmissionClosedError
        each = _Slot(priority, next(self._numbers), scan, asyncio.get_running_loop().create_future())
        self._waiting.append(each)
        self._admit()
        try:
            await each.admitted
            yield partial(self._release_fetch_slot, each)
        finally:
            for slots in (self._waiting, self._in_flight):
                with contextlib.suppress(ValueError):
                    slots.remove(each)
            self._admit()

    def _release_fetch_slot(self, slot: _Slot) -> None:
        slot.fetching = False
        self._admit()

    def _admit(self) -> None:
        for each in sorted(self._waiting):
            fetching = sum(slot.fetching for slot in self._in_flight)
            if fetching >= self._slots or len(self._in_flight) > self._slots:
                return
            if each.admitted.done() or any(_collide(each.scan, slot.scan) for slot in self._in_flight):
                continue
            self._waiting.remove(each)
            self._in_flight.append(each)
            each.fetching = True
            each.admitted.set_result(None)


def _collide(one: Scan, other: Scan) -> bool:
    return one.granularity is other.granularity and one.span.overlaps(other.span)
