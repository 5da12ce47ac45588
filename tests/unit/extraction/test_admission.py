"""Who may begin."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.extraction.admission import AdmissionClosedError, ScanAdmission
from service.model import Granularity, Query, Scan, Span, Window

FIRST = datetime(2024, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def scan(first: int, days: int = 1, granularity: Granularity = Granularity.DAILY) -> Scan:
    span = Span(FIRST + first * DAY, FIRST + (first + days) * DAY)
    window = Window("acme", "job:daily", "daily", span, "daily", granularity, FIRST)
    return Scan((window,), (Query("acme", span, granularity, "UTC", (), 100, None, span),), DAY)


class Room:
    """Sends scans through a gate and notes who was inside with whom."""

    def __init__(self, places: int) -> None:
        self.gate = ScanAdmission(places)
        self.inside: list[Scan] = []
        self.order: list[Scan] = []
        self.most = 0
        self.go_on = asyncio.Event()

    async def visit(self, each: Scan, priority: int = 0) -> None:
        async with self.gate.enter(each, priority):
            assert not any(
                other.span.overlaps(each.span) and other.granularity is each.granularity for other in self.inside
            )
            self.inside.append(each)
            self.order.append(each)
            self.most = max(self.most, len(self.inside))
            await self.go_on.wait()
            self.inside.remove(each)


async def settle() -> None:
    """Let every task come as far as it can."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_no_more_than_its_places() -> None:
    """Three scans, two places."""
    room = Room(2)
    visits = [asyncio.create_task(room.visit(scan(day))) for day in range(3)]
    await settle()
    assert (len(room.inside), room.gate.waiting) == (2, 1)
    room.go_on.set()
    await asyncio.gather(*visits)
    assert room.most == 2
    assert room.gate.inside == 0


async def test_who_has_read_all_leaves_its_place_and_keeps_its_buckets() -> None:
    """While it is stored another one asks; one more than its places, for each is held in memory."""
    gate, order, stored = ScanAdmission(1), list[int](), asyncio.Event()

    async def visit(number: int, each: Scan) -> None:
        async with gate.enter(each, 0) as release_fetch_slot:
            order.append(number)
            release_fetch_slot()
            release_fetch_slot()
            await stored.wait()

    visits = [asyncio.create_task(visit(*each)) for each in enumerate((scan(0), scan(0), scan(1), scan(2)))]
    await settle()
    assert (order, gate.inside) == ([0, 2], 2)
    stored.set()
    await asyncio.gather(*visits)
    assert (sorted(order), gate.inside, gate.waiting) == ([0, 1, 2, 3], 0, 0)


async def test_scans_over_the_same_buckets_run_one_after_the_other() -> None:
    """In the order in which they came; another granularity is another row."""
    room = Room(4)
    wide, narrow, hours = scan(0, 5), scan(3), scan(3, granularity=Granularity.HOURLY)
    visits = [asyncio.create_task(room.visit(each)) for each in (wide, narrow, hours)]
    await settle()
    assert room.inside == [wide, hours]
    room.go_on.set()
    await asyncio.gather(*visits)
    assert room.order == [wide, hours, narrow]


async def test_the_urgent_go_first() -> None:
    """Whoever has waited longer among equals."""
    room = Room(1)
    holder = asyncio.create_task(room.visit(scan(9)))
    await settle()
    late = [asyncio.create_task(room.visit(scan(day), priority)) for day, priority in ((0, 2), (1, 0), (2, 2))]
    await settle()
    room.go_on.set()
    await asyncio.gather(holder, *late)
    assert [each.span.start for each in room.order[1:]] == [FIRST + DAY, FIRST, FIRST + 2 * DAY]


async def test_closed_it_lets_nobody_in_and_those_inside_go_on() -> None:
    """Those who wait are told."""
    room = Room(1)
    inside = asyncio.create_task(room.visit(scan(0)))
    waiting = asyncio.create_task(room.visit(scan(1)))
    await settle()
    room.gate.close()
    with pytest.raises(AdmissionClosedError):
        await waiting
    with pytest.raises(AdmissionClosedError):
        await room.visit(scan(2))
    assert not inside.done()
    room.go_on.set()
    await inside


async def test_a_pause_ends_when_the_gate_closes() -> None:
    """Nobody waits out a breaker on the way to the end."""
    gate = ScanAdmission(1)
    pause = asyncio.create_task(gate.pause(3600))
    await settle()
    gate.close()
    await pause


async def test_one_who_gives_up_waiting_leaves_no_gap() -> None:
    """Its place goes to the next."""
    room = Room(1)
    holder = asyncio.create_task(room.visit(scan(0)))
    quitter = asyncio.create_task(room.visit(scan(1)))
    await settle()
    quitter.cancel()
    following = asyncio.create_task(room.visit(scan(2)))
    room.go_on.set()
    await asyncio.gather(holder, following)
    assert room.gate.waiting == room.gate.inside == 0


async def test_wider_it_lets_in_those_who_wait() -> None:
    """At once."""
    room = Room(1)
    visits = [asyncio.create_task(room.visit(scan(day))) for day in range(3)]
    await settle()
    room.gate.widen(3)
    await settle()
    assert len(room.inside) == 3
    room.go_on.set()
    await asyncio.gather(*visits)


@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(1, 4), st.integers(0, 2)), min_size=1, max_size=12),
    st.integers(1, 4),
)
def test_everybody_gets_through(visits: list[tuple[int, int, int]], places: int) -> None:
    """Never too many at once, never two over the same buckets, and nobody is forgotten."""

    async def play() -> None:
        room = Room(places)
        room.go_on.set()
        await asyncio.gather(*(room.visit(scan(first, days), priority) for first, days, priority in visits))
        assert len(room.order) == len(visits)
        assert room.most <= places

    asyncio.run(play())
