"""After months were pruned, merges give the figures that they would have given."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from datetime import date, timedelta
from typing import Any

import psycopg
import pytest

from service.errors import PrunedError
from service.model import FlowBucket, OutcomeRow, Span
from service.postgres import prune
from service.postgres.probe import open_connection
from service.postgres.prune import Prune, PruneError
from tests.support.scan_harness import ScanHarness, day_span, scan_harness

DAYS, PRUNED = 75, 31
"""The history begins on 1 January; the prune date is 1 February."""
WHAT = Prune.of(date(2024, 2, 20), keep_monthly=False)


@pytest.fixture
async def harness(database: str) -> AsyncIterator[ScanHarness]:
    async with scan_harness(database) as harness:
        yield harness


async def prune_all(harness: ScanHarness, what: Prune = WHAT) -> list[str]:
    async with open_connection(harness.dsn, "test", timeout=60, read_only=False) as connection:
        return await prune.prune_months(connection, what, await prune.months(connection, what), [])


def row(day: int, name: str, count: int | None, flow: str = "f") -> OutcomeRow:
    span = day_span(day)
    return OutcomeRow(FlowBucket(flow, span.start, span.end), name, count, None, count is None)


async def scan(harness: ScanHarness, choose: random.Random, first: int) -> None:
    """Merge some days from ``first`` on, with some of the outcomes."""
    start = choose.randrange(first, DAYS)
    days = range(start, min(DAYS, start + choose.randrange(1, 25)))
    often = {name: choose.choice([0.05, 0.5, 1.0]) for name in "abcd"}
    rows = [
        row(day, name, choose.choice([None, 0, 1, 2, 3]), flow)
        for day in days
        for flow in "fg"
        for name, chance in often.items()
        if choose.random() < chance
    ]
    flows = choose.choice([(), (), ("f",)])
    rows = [each for each in rows if not flows or each.bucket.flow_id in flows]
    expect_for = timedelta(days=choose.choice([5, 31]))
    await harness.store_days(days, rows, flows=flows, expect_for=expect_for)


async def figures(harness: ScanHarness) -> list[tuple[Any, ...]]:
    columns = "flow_id, bucket_start, outcome_name, outcome_count, outcome_share"
    query = (
        f"SELECT {columns} FROM flow_outcomes.flow_outcome WHERE org = %s AND bucket_start >= %s ORDER BY 1, 2, 3"
    )
    return await harness.rows(query, harness.org, WHAT.before)


@pytest.mark.parametrize("seed", range(6))
async def test_later_scans_store_the_same(harness: ScanHarness, seed: int) -> None:
    """Expected nulls included, although the figure that makes them expected was removed."""
    results = []
    for org, pruned in (("acme", False), ("twin", True)):
        if org != "acme":
            harness = ScanHarness(harness.dsn, harness.database, org)
            await harness.create_org()
        choose = random.Random(seed)  # noqa: S311 - not a secret
        for _ in range(8):
            await scan(harness, choose, 0)
        before = await figures(harness)
        if pruned:
            await prune_all(harness)
            assert await figures(harness) == before
        for _ in range(8):
            await scan(harness, choose, PRUNED)
        results.append((before, await figures(harness)))
    assert results[0] == results[1]
    assert sum(row[3] is None for row in results[0][1]) > 10


async def test_nothing_before_the_date_is_stored(harness: ScanHarness) -> None:
    """A scan that began before the org was pruned is not merged."""
    await harness.store_days(range(20, 40), [row(day, "a", 1) for day in range(20, 40)])
    await prune_all(harness)
    kept = await figures(harness)
    with pytest.raises(PrunedError) as raised:
        await harness.store_days(range(25, 35), [row(day, "a", 2) for day in range(25, 35)])
    assert raised.value.before == WHAT.before
    assert await figures(harness) == kept
    assert await harness.rows("SELECT min(bucket_start) FROM flow_outcomes.figure") == [(WHAT.before,)]


async def test_the_date_never_goes_back(harness: ScanHarness) -> None:
    """An earlier date removes nothing that is left, and later ones move it."""
    await harness.store_days(range(20, 70), [row(day, "a", 1) for day in range(20, 70)])
    await prune_all(harness)
    for day, expected in ((date(2024, 1, 5), 2), (date(2024, 3, 1), 3)):
        await prune_all(harness, Prune.of(day, keep_monthly=False))
        [(found,)] = await harness.rows("SELECT pruned_before FROM flow_outcomes.org WHERE org = 'acme'")
        assert (found.month, found.day) == (expected, 1)
    assert await harness.rows("SELECT granularity, month FROM flow_outcomes.pruned_month ORDER BY month") == [
        ("daily", date(2024, 1, 1)),
        ("daily", date(2024, 2, 1)),
    ]


async def test_an_interrupted_run_is_completed(harness: ScanHarness) -> None:
    """A partition whose detachment was interrupted goes, as does one that was detached and not dropped."""
    await harness.store_days(range(20, 40), [row(day, "a", 1) for day in range(20, 40)])
    kept = await figures(harness)
    async with open_connection(harness.dsn, "test", timeout=60, read_only=False) as connection:
        await connection.execute(
            "ALTER TABLE flow_outcomes.figure_history DETACH PARTITION flow_outcomes.figure_history_y2024m01"
        )
        async with await psycopg.AsyncConnection.connect(harness.dsn) as reader:
            await reader.execute("SELECT FROM flow_outcomes.figure")
            await connection.execute("SET lock_timeout = '200ms'")
            with pytest.raises(psycopg.errors.LockNotAvailable):
                await connection.execute(
                    "ALTER TABLE flow_outcomes.figure DETACH PARTITION flow_outcomes.figure_y2024m01 CONCURRENTLY"
                )
    assert await harness.rows("SELECT count(*) FROM pg_inherits WHERE inhdetachpending") == [(1,)]
    assert sorted(await prune_all(harness)) == ["figure_history_y2024m01", "figure_y2024m01"]
    assert await harness.rows("SELECT count(*) FROM pg_class WHERE relname ~ 'y2024m01$'") == [(0,)]
    assert await figures(harness) == kept


async def test_a_lock_that_is_not_released(harness: ScanHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what was not removed and what to do; nothing of that org is removed."""
    monkeypatch.setattr(prune, "LOCK_ATTEMPTS", 2)
    await harness.store_days(range(20, 40), [row(day, "a", 1) for day in range(20, 40)])
    async with await psycopg.AsyncConnection.connect(harness.dsn) as merge:
        await merge.execute("SELECT FROM flow_outcomes.org FOR NO KEY UPDATE")
        with pytest.raises(PruneError, match="org acme is not pruned: another transaction"):
            await prune_all(harness)
    assert await harness.rows("SELECT min(bucket_start) FROM flow_outcomes.figure") == [(day_span(20).start,)]
    assert await harness.rows("SELECT pruned_before FROM flow_outcomes.org") == [(None,)]


async def test_a_window_that_contains_the_date_begins_there(harness: ScanHarness) -> None:
    """It stays complete, with the rows that it still has; one without a bucket after the date goes."""
    for first, end in ((21, 28), (28, 35)):
        span = Span(day_span(first).start, day_span(end).start)
        rows = [row(day, "a", 1) for day in range(first, end)]
        await harness.store([span], [day_span(day) for day in range(first, end)], rows)
    await prune_all(harness)
    query = "SELECT window_start, window_end, state, rows, entries FROM flow_outcomes.extraction_window"
    assert await harness.rows(query) == [(day_span(31).start, day_span(35).start, "complete", 4, 1)]
    assert await harness.rows("SELECT count(*), min(bucket_start) FROM flow_outcomes.bucket_coverage") == [
        (4, day_span(31).start)
    ]
