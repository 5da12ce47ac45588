"""Scans that fail, are stopped, or have not settled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from service.config import OffPeak, config_from
from service.errors import (
    CursorExpiredError,
    DatabaseUnavailableError,
    ExtractionError,
    GivenUpError,
    PrunedError,
    QueryRefusedError,
    QueryTimeoutError,
    RateLimitedError,
    ServerError,
)
from service.extraction.cycle import Cycle, CyclePolicy, CycleRequest
from service.extraction.pipeline import Pipeline
from service.extraction.scanner import Scanner
from service.extraction.splitter import Splitter
from service.genesys.client import GenesysClient
from service.genesys.server_clock import ServerClock
from service.model import Granularity, QueryWidth, Scan, Span, Window
from service.postgres.merge.partitions import Partitions
from service.postgres.windows.ledger import Ledger, LedgerWindow
from service.postgres.windows.splits import SplitLedger
from tests.support.fake_clock import FakeClock

FIRST, DAY = datetime(2024, 1, 1, tzinfo=UTC), timedelta(days=1)
CONFIG = config_from(
    {
        "database": {"dsn": "postgresql://nowhere/none"},
        "orgs": {"acme": {"region": "mypurecloud.com", "client_id": "c", "client_secret": "a-secret"}},
    }
)
POLICY = CyclePolicy(DAY, "auto", DAY, None, Granularity.DAILY)


class RecordingLedger:
    """A ledger and a pipeline that record their calls; the test decides how each scan ends."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error
        self.entries = 10_000.0  # so that each window is a scan of its own
        self.failed: list[Span] = []
        self.isolated: list[bool] = []
        self.requeued: list[Span] = []
        self.extracted: list[Span] = []
        self.events: list[str] = []
        self.clock = FakeClock()
        self.server_clock = ServerClock(self.clock)
        self.splitter = Splitter(cast(SplitLedger, self), self.clock, self.emit)

    async def widths(self) -> dict[Granularity, QueryWidth]:
        return {}

    async def entries_per_bucket(self, *_: object) -> float:
        return self.entries

    async def fail(self, scan: Scan, _reason: str, *, isolate: bool) -> None:
        self.failed.append(scan.span)
        self.isolated.append(isolate)

    async def requeue(self, scan: Scan, _reason: str | None = None) -> None:
        self.requeued.append(scan.span)

    async def note_skipped(self, *_: object) -> None:
        """Not recorded."""

    async def ensure(self, _span: Span) -> None:
        """Every partition exists."""

    async def extract(self, scan: Scan, cycle: Cycle, _release_fetch_slot: Callable[[], None]) -> None:
        self.extracted.append(scan.span)
        if self.error is None:
            self.clock.advance(timedelta(hours=2))
            cycle.check_query_allowed()
            raise AssertionError("the off-peak hours are not over")
        raise self.error

    def cycle(self, policy: CyclePolicy = POLICY) -> Cycle:
        return Cycle(policy, CycleRequest(), self.clock)

    def scanner(self, *, gives_up: bool) -> Scanner:
        return Scanner(
            CONFIG.orgs["acme"],
            cast(
                GenesysClient,
                SimpleNamespace(dialect=SimpleNamespace(query_hash=lambda _: "h"), server_clock=self.server_clock),
            ),
            cast(Ledger, self),
            self.splitter,
            cast(Pipeline, self),
            cast(Partitions, self),
            self.clock,
            self.emit,
            gives_up=gives_up,
        )

    def emit(self, event: str, **_context: Any) -> None:  # noqa: ANN401 - a context holds anything
        self.events.append(event)


def days(number: int) -> list[LedgerWindow]:
    windows = []
    for day in range(number):
        span = Span(FIRST + day * DAY, FIRST + (day + 1) * DAY)
        window = Window("acme", "job:daily", "daily", span, "daily", Granularity.DAILY, span.end)
        windows.append(LedgerWindow(window, "pending", None, False, False, False, 0, None))
    return windows


async def test_a_window_that_is_rate_limited_too_often_fails_alone() -> None:
    """The other windows are extracted."""
    ledger = RecordingLedger(RateLimitedError("HTTP 429", retry_after=1))
    cycle = ledger.cycle()
    await ledger.scanner(gives_up=False).run(days(3), cycle)
    assert len(ledger.extracted) == cycle.result.failed == 3
    assert sorted(ledger.failed) == sorted(each.window.span for each in days(3))
    assert ledger.events == ["window_failed"] * 3


@pytest.mark.parametrize(
    ("error", "isolated"),
    [
        (QueryRefusedError("quota", status=400), True),
        (ServerError("500"), False),
        (QueryTimeoutError("late"), False),
    ],
)
async def test_a_window_that_is_refused_by_itself_is_isolated(error: ExtractionError, isolated: bool) -> None:
    """Requested with others in the next cycle it would fail them too."""
    ledger = RecordingLedger(error)
    await ledger.scanner(gives_up=False).run(days(1), ledger.cycle())
    assert ledger.isolated == [isolated]


@pytest.mark.parametrize("after_pages", [True, False])
async def test_windows_whose_scan_outlasts_its_cursor_are_isolated(after_pages: bool) -> None:
    """In one scan they would fail again and again; a cursor that expires at once says nothing of the scan."""
    error = CursorExpiredError("HTTP 410: cursor.expired", status=410)
    error.after_pages = after_pages
    ledger = RecordingLedger(error)
    await ledger.scanner(gives_up=False).run(days(3), ledger.cycle())
    assert set(ledger.isolated) == {after_pages}


async def test_once_gives_up_the_org() -> None:
    """The error is raised to the run."""
    ledger = RecordingLedger(RateLimitedError("held", retry_after=400, status=None))
    cycle = ledger.cycle()
    with pytest.raises(GivenUpError, match="held"):
        await ledger.scanner(gives_up=True).run(days(1), cycle)
    assert cycle.result.failed == 1


async def test_a_scan_stopped_by_the_end_of_the_off_peak_hours_stays_due() -> None:
    """It has not failed."""
    ledger = RecordingLedger(None)
    cycle = ledger.cycle(replace(POLICY, off_peak=OffPeak(time(11), time(13))))
    await ledger.scanner(gives_up=False).run(days(1), cycle)
    assert (cycle.result.requeued, cycle.result.failed, ledger.events) == (1, 0, [])
    assert ledger.requeued == ledger.extracted == [days(1)[0].window.span]


class FailingLedger(RecordingLedger):
    """The database fails during the first scan; requeuing the other one takes until the test releases it."""

    def __init__(self) -> None:
        super().__init__(DatabaseUnavailableError("gone"))
        self.reading, self.requeuing, self.release = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def extract(self, scan: Scan, cycle: Cycle, release_fetch_slot: Callable[[], None]) -> None:
        if self.extracted:
            self.extracted.append(scan.span)
            self.reading.set()
            await asyncio.Event().wait()
        self.extracted.append(scan.span)
        await self.reading.wait()
        await super().extract(scan, cycle, release_fetch_slot)

    async def requeue(self, scan: Scan, _reason: str | None = None) -> None:
        self.requeuing.set()
        await self.release.wait()
        await super().requeue(scan)


async def test_a_cancelled_cycle_ends_cancelled_though_one_of_its_scans_has_just_failed() -> None:
    """Otherwise an org lost with its database would be worked on under the lost lease, and not acquired again."""
    ledger = FailingLedger()
    task = asyncio.create_task(ledger.scanner(gives_up=False).run(days(2), ledger.cycle()))
    async with asyncio.timeout(5):
        await ledger.requeuing.wait()
        task.cancel()
        await asyncio.sleep(0)
        ledger.release.set()
        await asyncio.wait({task})
    assert task.cancelled()


async def test_a_window_that_has_not_settled_is_not_requested() -> None:
    """By the API's clock, as its last response showed it; settled windows of the same scan are requested."""
    ledger = RecordingLedger(QueryTimeoutError("no answer"))
    cycle = ledger.cycle()
    result = cycle.result
    ledger.entries = 1.0  # so that the windows are one scan
    ledger.server_clock.observe(FIRST + 3 * DAY)
    await ledger.scanner(gives_up=False).run(days(4), cycle)
    assert [span.end for span in ledger.extracted[:1]] == [FIRST + 2 * DAY], "a delay of one day"
    assert (result.postponed, result.failed, result.unfinished) == (2, 2, 4)
    assert result.settles_in == DAY.total_seconds()
    assert "window_postponed" in ledger.events


class PrunedMeanwhile(RecordingLedger):
    """The org is pruned while the first scan runs."""

    async def extract(self, scan: Scan, _cycle: Cycle, _release_fetch_slot: Callable[[], None]) -> Any:  # noqa: ANN401
        self.extracted.append(scan.span)
        if len(self.extracted) == 1:
            raise PrunedError("pruned", before=FIRST + 1.5 * DAY)
        return SimpleNamespace(doubted=[])


async def test_a_scan_over_a_new_prune_date() -> None:
    """The windows after the date are extracted, the one that contains it waits, the others are not due."""
    ledger = PrunedMeanwhile(None)
    ledger.entries = 1.0
    cycle = ledger.cycle()
    await ledger.scanner(gives_up=False).run(days(4), cycle)
    assert ledger.extracted == [Span(FIRST, FIRST + 4 * DAY), Span(FIRST + 2 * DAY, FIRST + 4 * DAY)]
    assert (cycle.result.complete, cycle.result.requeued, cycle.result.failed) == (2, 1, 0)
    assert ledger.events == []
