"""The merge where an API tells figures in parts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from service.clock import SystemClock
from service.errors import ConflictError
from service.model import FlowBucket, Granularity, OutcomeRow, Query, Reject, Scan, Span, Window
from service.postgres.lease.lease import Lease
from service.postgres.merge import Merged, ScanRecord, merge
from service.postgres.merge.staging import Staging
from service.postgres.pool import Database
from service.postgres.windows.ledger import Ledger
from tests.support.scan_harness import page

START = datetime(2024, 1, 1, tzinfo=UTC)
DAY = Span(START, START + timedelta(days=1))
CLOCK = SystemClock()


class Desk:
    """Merges one day's rows, and reads them as a user would."""

    def __init__(self, dsn: str, database: Database) -> None:
        self.dsn = dsn
        self.database = database
        self.scans = 0

    async def merge(self, *rows: OutcomeRow, rejects: list[Reject] | None = None) -> Merged:
        window = Window("acme", "job:daily", "daily", DAY, "daily", Granularity.DAILY, START)
        scan = Scan(
            (window,), (Query("acme", DAY, Granularity.DAILY, "UTC", (), 1, None, DAY),), timedelta(days=31)
        )
        ledger = Ledger(self.database, "acme", 1)
        await ledger.enqueue([window])
        await ledger.begin(scan, "hash")
        staged = Staging(self.database, "acme")
        await staged.add(page(rows, rejects or []))
        lease = Lease("acme", 1, 0.0, CLOCK.monotonic() + 3600, CLOCK, asyncio.Event())
        self.scans += 1
        record = ScanRecord(
            scan, [DAY], (), "hash", CLOCK.now(), 1, len(rows), "cycle", self.scans, CLOCK.monotonic(), by_id=True
        )
        return await merge(self.database, lease, staged, record)

    async def stored(self) -> dict[str, tuple[Any, ...]]:
        """Count, successes and failures by outcome."""
        async with await psycopg.AsyncConnection.connect(self.dsn) as connection:
            cursor = await connection.execute(
                "SELECT outcome_name, outcome_count, success_count, failure_count FROM flow_outcomes.flow_outcome"
            )
            return {name: tuple(figures) for name, *figures in await cursor.fetchall()}


@pytest.fixture
async def desk(database: str) -> AsyncIterator[Desk]:
    pool = Database(database, size=4, application_name="test")
    await pool.open()
    async with pool.transaction() as connection:
        await connection.execute("INSERT INTO flow_outcomes.org (org, epoch) VALUES ('acme', 1)")
    yield Desk(database, pool)
    await pool.close()


def row(part: str, count: int, success: int = 0, failure: int = 0, *, key: str = "o1") -> OutcomeRow:
    return OutcomeRow(FlowBucket("f", *DAY, part), key, count, None, False, success, failure)


REJECTED = OutcomeRow(FlowBucket("f", *DAY), "o1", None, None, rejected=True)


async def test_parts_add_up(desk: Desk) -> None:
    """Counts, successes and failures; a part that came twice counts once."""
    merged = await desk.merge(
        row("s", 5, 5), row("f", 3, 0, 3), row("u", 2), row("s", 5, 5), row("s", 1, 1, key="o2")
    )
    assert await desk.stored() == {"o1": (10, 5, 3), "o2": (1, 1, 0)}
    assert list(merged.rows.values()) == [2]
    twice = row("s", 1, 1, key="o2")
    again = await desk.merge(row("f", 3, 0, 3), row("u", 2), row("s", 5, 5), twice, twice)
    assert again.changed == 0


async def test_a_part_that_came_twice_and_no_other(desk: Desk) -> None:
    """It counts once, where no percentage is told and where nothing but the count is."""
    await desk.merge(row("s", 5, 5), row("s", 5, 5))
    assert await desk.stored() == {"o1": (5, 5, 0)}
    bare = OutcomeRow(FlowBucket("f", *DAY, "s"), "o1", 6, None, rejected=False)
    await desk.merge(bare, bare)
    assert await desk.stored() == {"o1": (6, None, None)}


async def test_one_part_with_two_figures_is_a_conflict(desk: Desk) -> None:
    """Another part's equal sum does not hide it."""
    with pytest.raises(ConflictError, match="'o1' of flow f"):
        await desk.merge(row("s", 5, 5), row("s", 6, 6), row("f", 1))
    assert await desk.stored() == {}


async def test_the_same_counts_another_way(desk: Desk) -> None:
    """A sum that stays while its split moves is another figure."""
    await desk.merge(row("s", 5, 5))
    assert (await desk.merge(row("s", 2, 2), row("f", 3, 0, 3))).changed == 1
    assert await desk.stored() == {"o1": (5, 2, 3)}


async def test_a_part_that_was_refused_leaves_no_sum(desk: Desk) -> None:
    """Nor does a sum that no bigint holds."""
    reject = Reject("no count", "{}", "f", START, "o1")
    await desk.merge(
        row("s", 5, 5), REJECTED, row("s", 2**63 - 1, key="o2"), row("f", 1, key="o2"), rejects=[reject]
    )
    assert await desk.stored() == {"o1": (None, None, None), "o2": (None, None, None)}


@pytest.mark.parametrize(
    ("reject", "unknown"),
    [
        (Reject("?", "{}", "f", START, None), {"o1", "o2"}),
        (Reject("?", "{}", None, START, "o1"), {"o1"}),
        (Reject("?", "{}", "f", None, "o2"), {"o2"}),
        (Reject("?", "{}", "g", START, None), set()),
        (Reject("?", "{}", None, None, None), {"o1", "o2"}),
    ],
)
async def test_what_a_refused_entry_may_be_a_part_of_is_not_known(
    desk: Desk, reject: Reject, unknown: set[str]
) -> None:
    """And nothing else."""
    await desk.merge(row("s", 5, 5), row("s", 1, 1, key="o2"), rejects=[reject])
    assert {name for name, (count, *_) in (await desk.stored()).items() if count is None} == unknown
