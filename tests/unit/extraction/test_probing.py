"""The first requests of a backlog whose size is unknown: as many as may be sent, and no more than are needed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.config import config_from
from service.extraction.cycle import Cycle, CyclePolicy, CycleRequest
from service.extraction.pipeline import Pipeline
from service.extraction.scanner import Scanner
from service.extraction.splitter import Splitter
from service.genesys.client import GenesysClient
from service.genesys.server_clock import ServerClock
from service.model import Entry, Granularity, Page, QueryWidth, Scan, Span, Window
from service.plan.buckets import buckets
from service.plan.grouping import SOON_PAGES, group_windows
from service.plan.splitting import width
from service.postgres.merge.partitions import Partitions
from service.postgres.windows.ledger import Ledger, LedgerWindow
from service.postgres.windows.splits import SplitLedger
from tests.support.fake_clock import FakeClock

FIRST, DAY = datetime(2024, 1, 1, tzinfo=UTC), timedelta(days=1)
ORG = config_from(
    {
        "database": {"dsn": "postgresql://nowhere/none"},
        "orgs": {"acme": {"region": "mypurecloud.com", "client_id": "c", "client_secret": "a-secret"}},
    }
).orgs["acme"]
POLICY = CyclePolicy(DAY, "auto", DAY, None, Granularity.DAILY)
HOURLY, DAILY, _ = Granularity


def windows(number: int, days: int, step: Granularity) -> list[LedgerWindow]:
    found = []
    for each in range(number):
        span = Span(FIRST + each * days * DAY, FIRST + (each + 1) * days * DAY)
        window = Window("acme", "job:x", "x", span, step.value, step, span.end)
        found.append(LedgerWindow(window, "pending", None, False, False, False, 0, None))
    return found


class Backlog:
    """An API with the same flows in every bucket, a ledger and a pipeline, in which a page takes one turn.

    Attributes:
        flows: the entries of a bucket.
        by_flow: whether pages are ordered by flow.
        requests: the number of pages so far.
        scans: the windows of each scan, in the order in which they started.
        lengths: the buckets of each of its queries.
        in_flight: the most scans in flight before each page.
        stores: set once a scan may be stored.
    """

    def __init__(self, flows: int, *, by_flow: bool = False) -> None:
        self.flows = flows
        self.by_flow = by_flow
        self.requests = 0
        self.scans: list[int] = []
        self.lengths: list[list[int]] = []
        self.reading = 0
        self.in_flight: list[int] = []
        self.stored: list[float] = []
        self.stores = asyncio.Event()
        self.clock = FakeClock()
        self.learned: dict[Granularity, QueryWidth] = {}

    async def widths(self) -> dict[Granularity, QueryWidth]:
        return self.learned

    async def note_width(self, *_: object) -> None:
        """Not recorded."""

    async def entries_per_bucket(self, *_: object) -> float | None:
        return self.stored[0] if self.stored else None

    async def ensure(self, _span: Span) -> None:
        """Every partition exists."""

    def pages(self, scan: Scan) -> Iterator[tuple[int, Page]]:
        for query in scan.queries:
            steps = buckets(query.span, query.granularity, query.timezone)
            keys = [(flow, step) for step in steps for flow in range(self.flows)]
            keys = sorted(keys) if self.by_flow else keys
            parts = [keys[at : at + query.page_size] for at in range(0, len(keys) or 1, query.page_size)]
            for number, part in enumerate(parts, 1):
                entries = [Entry(str(flow), (str(step.start), ""), None, "") for flow, step in part]
                yield len(steps), Page(entries, more=number < len(parts))

    async def extract(self, scan: Scan, cycle: Cycle, release_fetch_slot: Callable[[], None]) -> SimpleNamespace:
        self.scans.append(len(scan.windows))
        self.lengths.append([width(query) for query in scan.queries])
        count, total = None, 0
        async with self._fetching():
            for wide, page in self.pages(scan):
                self.requests += 1
                await asyncio.sleep(0)
                self.in_flight.append(self.reading)
                count = count or cycle.estimate(scan.granularity, scan.measure).query(wide)
                count.add(page)
                count = count if page.more else None
                total += len(page.entries)
        release_fetch_slot()
        await self.stores.wait()
        days = scan.span.duration / scan.granularity.bucket_length
        self.stored.append(total / days)
        return SimpleNamespace(doubted=[])

    @asynccontextmanager
    async def _fetching(self) -> AsyncIterator[None]:
        self.reading += 1
        yield
        self.reading -= 1

    def scanner(self, page_size: int = 100, **org: object) -> Scanner:
        return Scanner(
            ORG.model_copy(update={"page_size": page_size, **org}),
            cast(GenesysClient, SimpleNamespace(server_clock=ServerClock(self.clock))),
            cast(Ledger, self),
            Splitter(cast(SplitLedger, self), self.clock, lambda *_, **__: None),
            cast(Pipeline, self),
            cast(Partitions, self),
            self.clock,
            lambda *_, **__: None,
            gives_up=False,
        )

    async def run(self, given: list[LedgerWindow], page_size: int = 100, **org: object) -> None:
        cycle = Cycle(POLICY, CycleRequest(), self.clock)
        async with asyncio.timeout(60):
            await self.scanner(page_size, **org).run(given, cycle)
        assert cycle.result.complete == len(given)


async def test_windows_that_no_query_can_cover_together_are_requested_side_by_side() -> None:
    """From the first request on: grouping them is impossible, so they cost no request more."""
    backlog = Backlog(flows=50)
    backlog.stores.set()
    await backlog.run(windows(8, 7, HOURLY))
    assert set(backlog.in_flight[:300]) == {ORG.concurrency}
    assert backlog.scans == [1] * 8


@pytest.mark.parametrize("by_flow", [False, True])
@pytest.mark.parametrize(("days", "step", "flows"), [(1, HOURLY, 50), (1, DAILY, 1000), (7, DAILY, 300)])
async def test_the_second_page_ends_the_probe(days: int, step: Granularity, flows: int, *, by_flow: bool) -> None:
    """It shows that the backlog is long: others are requested beside it, two windows a scan."""
    backlog = Backlog(flows, by_flow=by_flow)
    backlog.stores.set()
    await backlog.run(windows(120, days, step))
    assert backlog.in_flight[:2] == [1, 1]
    assert set(backlog.in_flight[3:25]) == {ORG.concurrency}
    assert backlog.scans[:4] == [1, 2, 2, 2]


async def test_the_rest_does_not_wait_until_the_probe_is_stored() -> None:
    """Its last page shows all that is needed to group the others."""
    backlog = Backlog(flows=10)
    task = asyncio.create_task(backlog.run(windows(100, 1, DAILY)))
    for _ in range(50):
        await asyncio.sleep(0)
    assert (backlog.scans, backlog.stored) == ([1, 99], [])
    backlog.stores.set()
    await task


@pytest.mark.parametrize("known", [False, True])
async def test_a_window_over_the_limit_of_a_response_is_planned_in_parts(*, known: bool) -> None:
    """As soon as the size is known: by the first window, or by a stored one."""
    backlog = Backlog(flows=2000)
    backlog.stores.set()
    backlog.stored = [2000.0] if known else []
    await backlog.run(windows(3, 31, DAILY), 100_000, api="flow-aggregates")
    assert backlog.lengths == [[11, 10, 10] if known else [31], [11, 10, 10], [11, 10, 10]]
    paged = Backlog(flows=2000)
    paged.stores.set()
    await paged.run(windows(3, 31, DAILY), 100_000)
    assert [len(lengths) for lengths in paged.lengths] == [1] * len(paged.lengths)


async def test_after_a_refused_bucket_one_window_is_requested_first() -> None:
    """Until its second page comes: the others would be refused alike, also where none can be joined."""
    backlog = Backlog(flows=50)
    backlog.learned[HOURLY] = QueryWidth(None, None, backlog.clock.now(), "an earlier cycle")
    backlog.stores.set()
    await backlog.run(windows(8, 7, HOURLY))
    assert backlog.in_flight[:2] == [1, 1]
    assert set(backlog.in_flight[3:100]) == {ORG.concurrency}


@settings(max_examples=40)
@given(
    st.integers(1, 120),
    st.sampled_from([(1, DAILY), (1, HOURLY), (7, HOURLY), (7, DAILY)]),
    st.integers(0, 150),
    st.sampled_from([20, 100]),
    st.booleans(),
)
def test_a_small_org_needs_no_more_requests(
    number: int, kind: tuple[int, Granularity], flows: int, page_size: int, by_flow: bool
) -> None:
    """No more scans than where one window is read to its end before all others; each wastes half a page."""
    given = windows(number, *kind)
    given = given[: max(1, int(SOON_PAGES * page_size / max(flows, 1) / _buckets(given[:1])))]
    backlog = Backlog(flows, by_flow=by_flow)
    backlog.stores.set()
    asyncio.run(backlog.run(given, page_size))
    plain = [each.window for each in given]
    settings = backlog.scanner(page_size).settings
    later = group_windows(plain[1:], settings, entries_per_bucket=max(flows, 1.0), delay=DAY, metrics_delay="auto")
    assert len(backlog.scans) <= 1 + len(later.scans)
    assert backlog.requests <= _buckets(given) * flows / page_size + 1 + len(later.scans)


def _buckets(given: list[LedgerWindow]) -> int:
    return sum(len(buckets(each.window.span, each.window.granularity, "UTC")) for each in given)
