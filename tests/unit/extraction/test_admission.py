"""Admission of scans."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import AdmissionClosedError
from service.extraction.admission import ScanAdmission
from service.model import Granularity, Query, Scan, Span, Window

FIRST = datetime(2024, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def scan(first: int, days: int = 1, granularity: Granularity = Granularity.DAILY) -> Scan:
    span = Span(FIRST + first * DAY, FIRST + (first + days) * DAY)
    window = Window("acme", "job:daily", "daily", span, "daily", granularity, FIRST)
    return Scan((window,), (Query("acme", span, granularity, "UTC", (), 100, None, span),), DAY)


class Visitors:
    """Passes scans through an admission and records which were in flight together."""

    def __init__(self, slots: int) -> None:
        self.admission = ScanAdmission(slots)
        self.in_flight: list[Scan] = []
        self.order: list[Scan] = []
        self.most = 0
        self.go_on = asyncio.Event()

    async def visit(self, each: Scan, priority: int = 0) -> None:
        async with self.admission.slot(each, priority):
            assert not any(
                other.span.overlaps(each.span) and other.granularity is each.granularity
                for other in self.in_flight
            )
            self.in_flight.append(each)
            self.order.append(each)
            self.most = max(self.most, len(self.in_flight))
            await self.go_on.wait()
            self.in_flight.remove(each)


async def settle() -> None:
    """Run every task until it waits."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_no_more_scans_than_slots() -> None:
    """Three scans, two slots."""
    visitors = Visitors(2)
    visits = [asyncio.create_task(visitors.visit(scan(day))) for day in range(3)]
    await settle()
    assert (len(visitors.in_flight), visitors.admission.waiting) == (2, 1)
    visitors.go_on.set()
    await asyncio.gather(*visits)
    assert visitors.most == 2
    assert visitors.admission.in_flight == 0


async def test_a_scan_that_was_read_releases_its_fetch_slot_and_keeps_its_buckets() -> None:
    """While it is stored another one is read; one more than there are slots, since each is held in memory."""
    admission, order, stored = ScanAdmission(1), list[int](), asyncio.Event()

    async def visit(number: int, each: Scan) -> None:
        async with admission.slot(each, 0) as release_fetch_slot:
            order.append(number)
            release_fetch_slot()
            release_fetch_slot()
            await stored.wait()

    visits = [asyncio.create_task(visit(*each)) for each in enumerate((scan(0), scan(0), scan(1), scan(2)))]
    await settle()
    assert (order, admission.in_flight) == ([0, 2], 2)
    stored.set()
    await asyncio.gather(*visits)
    assert (sorted(order), admission.in_flight, admission.waiting) == ([0, 1, 2, 3], 0, 0)


async def test_scans_over_the_same_buckets_run_one_after_the_other() -> None:
    """In the order of arrival; scans of another granularity run beside them."""
    visitors = Visitors(4)
    wide, narrow, hours = scan(0, 5), scan(3), scan(3, granularity=Granularity.HOURLY)
    visits = [asyncio.create_task(visitors.visit(each)) for each in (wide, narrow, hours)]
    await settle()
    assert visitors.in_flight == [wide, hours]
    visitors.go_on.set()
    await asyncio.gather(*visits)
    assert visitors.order == [wide, hours, narrow]


async def test_priority_decides_the_order() -> None:
    """Among equals, the order of arrival."""
    visitors = Visitors(1)
    holder = asyncio.create_task(visitors.visit(scan(9)))
    await settle()
    late = [asyncio.create_task(visitors.visit(scan(day), priority)) for day, priority in ((0, 2), (1, 0), (2, 2))]
    await settle()
    visitors.go_on.set()
    await asyncio.gather(holder, *late)
    assert [each.span.start for each in visitors.order[1:]] == [FIRST + DAY, FIRST, FIRST + 2 * DAY]


async def test_a_closed_admission_admits_no_scan_and_those_in_flight_continue() -> None:
    """Waiting scans are rejected."""
    visitors = Visitors(1)
    inside = asyncio.create_task(visitors.visit(scan(0)))
    waiting = asyncio.create_task(visitors.visit(scan(1)))
    await settle()
    visitors.admission.close()
    with pytest.raises(AdmissionClosedError):
        await waiting
    with pytest.raises(AdmissionClosedError):
        await visitors.visit(scan(2))
    assert not inside.done()
    visitors.go_on.set()
    await inside


async def test_a_pause_ends_when_the_admission_closes() -> None:
    """No shutdown waits for a breaker."""
    admission = ScanAdmission(1)
    pause = asyncio.create_task(admission.pause(3600))
    await settle()
    admission.close()
    await pause


async def test_a_cancelled_wait_leaves_no_slot_unused() -> None:
    """Its slot goes to the next scan."""
    visitors = Visitors(1)
    holder = asyncio.create_task(visitors.visit(scan(0)))
    cancelled = asyncio.create_task(visitors.visit(scan(1)))
    await settle()
    cancelled.cancel()
    following = asyncio.create_task(visitors.visit(scan(2)))
    visitors.go_on.set()
    await asyncio.gather(holder, following)
    assert visitors.admission.waiting == visitors.admission.in_flight == 0


async def test_more_slots_admit_waiting_scans() -> None:
    """At once."""
    visitors = Visitors(1)
    visits = [asyncio.create_task(visitors.visit(scan(day))) for day in range(3)]
    await settle()
    visitors.admission.resize(3)
    await settle()
    assert len(visitors.in_flight) == 3
    visitors.go_on.set()
    await asyncio.gather(*visits)


@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(1, 4), st.integers(0, 2)), min_size=1, max_size=12),
    st.integers(1, 4),
)
def test_every_scan_is_admitted(visits: list[tuple[int, int, int]], slots: int) -> None:
    """Never too many at once, and never two over the same buckets."""

    async def play() -> None:
        visitors = Visitors(slots)
        visitors.go_on.set()
        await asyncio.gather(*(visitors.visit(scan(first, days), priority) for first, days, priority in visits))
        assert len(visitors.order) == len(visits)
        assert visitors.most <= slots

    asyncio.run(play())
