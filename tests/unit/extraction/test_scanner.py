"""What becomes of scans that fail."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from service.clock import FakeClock
from service.config import config_from
from service.errors import (
    DatabaseUnavailableError,
    ExtractionError,
    QueryTimeoutError,
    RateLimitedError,
    ServerError,
)
from service.extraction.cycle import CyclePolicy, CycleResult
from service.extraction.pipeline import Pipeline
from service.extraction.scanner import RECENT, GivenUpError, Scanner
from service.genesys.client import GenesysClient
from service.genesys.server_clock import ServerClock
from service.model import Granularity, Scan, Span, Window
from service.postgres.merge.partitions import Partitions
from service.postgres.windows.ledger import Ledger, LedgerWindow

FIRST, DAY = datetime(2024, 1, 1, tzinfo=UTC), timedelta(days=1)
CONFIG = config_from(
    {
        "database": {"dsn": "postgresql://nowhere/none"},
        "orgs": {"acme": {"region": "mypurecloud.com", "client_id": "c", "client_secret": "a-secret"}},
    }
)
TERMS = CyclePolicy(DAY, "auto", DAY, lambda _: True, lambda _: True, Granularity.DAILY)


class RecordingLedger:
    """A ledger and a pipeline that write down what they are told; each scan ends as the test says."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error
        self.entries = 10_000.0  # so that each window is a scan of its own
        self.failed: list[Span] = []
        self.alone: list[bool] = []
        self.stopped: list[Span] = []
        self.asked: list[Span] = []
        self.told: list[str] = []
        self.server_clock = ServerClock(FakeClock())

    async def entries_per_bucket(self, *_: object) -> float:
        return self.entries

    async def fail(self, scan: Scan, _reason: str, *, ask_alone: bool) -> None:
        self.failed.append(scan.span)
        self.alone.append(ask_alone)

    async def interrupt(self, scan: Scan, _reason: str | None = None) -> None:
        self.stopped.append(scan.span)

    async def note_skipped(self, *_: object) -> None:
        """Nobody looks at it here."""

    async def ensure(self, _span: Span) -> None:
        """There are partitions enough."""

    async def extract(
        self, scan: Scan, _cycle: str, may_begin: Callable[[], None], _has_read: Callable[[], None]
    ) -> None:
        self.asked.append(scan.span)
        if self.error is None:
            may_begin()
            raise AssertionError("the hours were to be over by now")
        raise self.error

    def scanner(self, *, gives_up: bool) -> Scanner:
        return Scanner(
            CONFIG.orgs["acme"],
            cast(
                GenesysClient,
                SimpleNamespace(dialect=SimpleNamespace(query_hash=lambda _: "h"), server_clock=self.server_clock),
            ),
            cast(Ledger, self),
            cast(Pipeline, self),
            cast(Partitions, self),
            FakeClock(),
            self.emit,
            gives_up=gives_up,
        )

    def emit(self, event: str, **_context: Any) -> None:  # noqa: ANN401 - a context holds anything
        self.told.append(event)


def days(number: int) -> list[LedgerWindow]:
    found = []
    for day in range(number):
        span = Span(FIRST + day * DAY, FIRST + (day + 1) * DAY)
        window = Window("acme", "job:daily", "daily", span, "daily", Granularity.DAILY, span.end)
        found.append(LedgerWindow(window, "pending", None, False, False, False, 0, None))
    return found


async def test_a_window_that_the_limit_refused_too_often_fails_and_harms_no_other() -> None:
    """The daemon goes on with the others."""
    notes, tally = RecordingLedger(RateLimitedError("HTTP 429", retry_after=1)), CycleResult()
    await notes.scanner(gives_up=False).run(days(3), TERMS, "c", tally, lambda _: RECENT)
    assert len(notes.asked) == tally.failed == 3
    assert sorted(notes.failed) == sorted(each.window.span for each in days(3))
    assert notes.told == ["window_failed"] * 3


@pytest.mark.parametrize(("error", "alone"), [(QueryTimeoutError("late"), True), (ServerError("500"), False)])
async def test_what_was_too_slow_together_is_to_be_asked_alone(error: ExtractionError, alone: bool) -> None:
    """In the next cycle; else a year that no engine answers as a whole would be asked for again and again."""
    notes = RecordingLedger(error)
    notes.entries = 1.0
    await notes.scanner(gives_up=False).run(days(3), TERMS, "c", CycleResult(), lambda _: RECENT)
    assert (notes.failed, notes.alone) == ([Span(FIRST, FIRST + 3 * DAY)], [alone])
    notes = RecordingLedger(error)
    await notes.scanner(gives_up=False).run(days(1), TERMS, "c", CycleResult(), lambda _: RECENT)
    assert notes.alone == [False]


async def test_with_once_the_org_is_given_up() -> None:
    """Its other windows say why nobody came to them."""
    notes, tally = RecordingLedger(RateLimitedError("held", retry_after=400, status=None)), CycleResult()
    with pytest.raises(GivenUpError, match="held"):
        await notes.scanner(gives_up=True).run(days(1), TERMS, "c", tally, lambda _: RECENT)
    assert tally.failed == 1


async def test_a_scan_that_the_end_of_the_hours_stops_stays_due() -> None:
    """It has not failed."""
    notes, tally = RecordingLedger(None), CycleResult()
    over = replace(TERMS, in_hours=lambda _: False)
    await notes.scanner(gives_up=False).run(days(1), over, "c", tally, lambda _: RECENT)
    assert (tally.put_back, tally.failed, notes.told) == (1, 0, [])
    assert notes.stopped == notes.asked == [days(1)[0].window.span]


class Gone(RecordingLedger):
    """The database goes while the first scan asks; the other one takes its time to be put back."""

    def __init__(self) -> None:
        super().__init__(DatabaseUnavailableError("gone"))
        self.asking, self.stopping, self.put_back = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def extract(
        self, scan: Scan, cycle: str, may_begin: Callable[[], None], release_fetch_slot: Callable[[], None]
    ) -> None:
        if self.asked:
            self.asked.append(scan.span)
            self.asking.set()
            await asyncio.Event().wait()
        self.asked.append(scan.span)
        await self.asking.wait()
        await super().extract(scan, cycle, may_begin, release_fetch_slot)

    async def interrupt(self, scan: Scan, _reason: str | None = None) -> None:
        self.stopping.set()
        await self.put_back.wait()
        await super().interrupt(scan)


async def test_who_stops_a_cycle_has_it_stopped_though_a_scan_of_it_has_just_failed() -> None:
    """Or an org that is lost with its database would be worked on under the lost lease, and not taken anew."""
    notes = Gone()
    cycle = asyncio.create_task(
        notes.scanner(gives_up=False).run(days(2), TERMS, "c", CycleResult(), lambda _: RECENT)
    )
    async with asyncio.timeout(5):
        await notes.stopping.wait()
        cycle.cancel()
        await asyncio.sleep(0)
        notes.put_back.set()
        await asyncio.wait({cycle})
    assert cycle.cancelled()


async def test_what_has_not_settled_is_not_requested() -> None:
    """By the API's clock, as its last response showed it; what has settled of the same scan is."""
    notes, tally = RecordingLedger(QueryTimeoutError("no answer")), CycleResult()
    notes.entries = 1.0  # so that the windows are one scan
    notes.server_clock.observe(FIRST + 3 * DAY)
    await notes.scanner(gives_up=False).run(days(4), TERMS, "c", tally, lambda _: RECENT)
    assert [span.end for span in notes.asked[:1]] == [FIRST + 2 * DAY], "a delay of one day"
    assert (tally.postponed, tally.failed, tally.unfinished) == (2, 2, 4)
    assert tally.settles_in == DAY.total_seconds()
    assert "window_postponed" in notes.told
