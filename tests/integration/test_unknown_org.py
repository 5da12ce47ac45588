"""A merge where the planner's statistics know nothing of the org: it reads no more rows than it has to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import timedelta

import pytest

from service.model import FlowBucket, OutcomeRow, Span
from service.postgres import aliases
from service.postgres.pool import Database
from tests.support.scan_harness import FIRST, ScanHarness

DAY = timedelta(days=1)
DAYS = [Span(FIRST + day * DAY, FIRST + (day + 1) * DAY) for day in range(2)]
MOST = 25
"""Reads a figure. Where a table is read through for each of 2,000 outcomes, it is hundreds."""
READ = """
    SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0))::bigint FROM pg_catalog.pg_stat_all_tables
    WHERE schemaname LIKE 'pg_temp%' OR schemaname = 'flow_outcomes'
"""


@pytest.fixture
async def alone(database: str) -> AsyncIterator[Database]:
    """One connection of each kind, so that what their sessions have read can be asked for."""
    pool = Database(database, size=1, application_name="test")
    await pool.open()
    yield pool
    await pool.close()


def said(
    flows: int, keep: Callable[[int], bool] = lambda _: True, plus: Callable[[int], int] = lambda _: 0
) -> list[OutcomeRow]:
    """Two outcomes of each flow on each day: those with a number to keep, and some more where ``plus`` says so."""
    return [
        OutcomeRow(
            FlowBucket(f"flow {number // 2}", *day), f"Outcome {number % 2}", number + plus(number), None, False
        )
        for day in DAYS
        for number in range(2 * flows)
        if keep(number)
    ]


async def read(database: Database) -> int:
    """How many rows its two sessions have read so far, of the tables and of the merges' own."""
    async with database.merge_transaction() as connection:
        await connection.execute("SELECT pg_stat_force_next_flush()")
    async with database.connection() as connection:
        await connection.execute("SELECT pg_stat_force_next_flush()")
        await connection.execute("SELECT 1")
        cursor = await connection.execute(READ)
        row = await cursor.fetchone()
        assert row is not None
        return int(row[0])


async def settled(alone: Database, known: ScanHarness) -> None:
    """Have the statistics know all of one org."""
    await known.create_org()
    await known.store(DAYS, DAYS, said(500))
    await known.store(DAYS, DAYS, said(500, plus=lambda number: number % 2))
    async with alone.connection() as connection:
        await connection.execute("VACUUM ANALYZE")


async def test_reading_an_org_that_is_new(database: str, alone: Database) -> None:
    """After its first scan the statistics know its outcomes; that it has a few more later, they need not."""
    await settled(alone, ScanHarness(database, alone, "known"))
    new = ScanHarness(database, alone, "new")
    await new.create_org()
    await new.store(DAYS, DAYS, said(1000))
    known = "SELECT most_common_vals::text::text[] FROM pg_stats WHERE tablename = 'series' AND attname = 'org'"
    ((orgs,),) = await new.rows(known)
    assert set(orgs) == {"known", "new"}
    looked = "SELECT last_analyze FROM pg_stat_user_tables WHERE relname = 'series'"
    before = await new.rows(looked)
    await new.store(DAYS, DAYS, said(1050))
    assert await new.rows(looked) == before
    for asked in ("flow_outcome", "flow_outcome_as_of(now())"):
        already = await read(alone)
        async with alone.connection() as connection:
            cursor = await connection.execute(f"SELECT * FROM flow_outcomes.{asked} WHERE org = 'new'")
            assert len(await cursor.fetchall()) == 4200
        assert (await read(alone) - already) / 4200 < MOST, asked


async def test_an_org_that_the_statistics_do_not_know(database: str, alone: Database) -> None:
    """Of another org they know all. Whatever a scan of this one brings costs a few reads a figure."""
    known, unknown = ScanHarness(database, alone, "known"), ScanHarness(database, alone, "unknown")
    await settled(alone, known)
    async with alone.connection() as connection:  # as where it was not possible
        await connection.execute(
            "CREATE OR REPLACE FUNCTION flow_outcomes.analyze_series() RETURNS void LANGUAGE sql AS ''"
        )
    await unknown.create_org()
    cost: dict[str, float] = {}
    for what, rows, changed in (
        ("new", said(1000), 4000),
        ("same", said(1000), 0),
        ("changed", said(1000, plus=lambda number: int(number % 20 == 0)), 200),
        ("gone", said(1000, keep=lambda number: number % 20 != 1), 400),
        ("back", said(1000), 200),
        ("silent", [], 0),
        ("silent again", [], 4000),
        ("whole again", said(1000), 4000),
    ):
        before = await read(alone)
        merged = await unknown.store(DAYS, DAYS, rows)
        assert (what, merged.changed) == (what, changed)
        cost[what] = (await read(alone) - before) / 4000
    before = await read(alone)
    async with alone.connection() as connection:
        await connection.execute(
            "INSERT INTO flow_outcomes.outcome_alias VALUES ('unknown', NULL, 'Outcome 0', 'Outcome 1')"
        )
    assert await aliases.apply(alone, "unknown") == 1000
    cost["renamed"] = (await read(alone) - before) / 4000
    before = await read(alone)
    merged = await unknown.store(DAYS, DAYS, said(1000, plus=lambda number: int(number % 20 == 0)))
    assert (merged.changed, sum(merged.restated.values())) == (200, 200)
    cost["changed under one name"] = (await read(alone) - before) / 4000
    assert {what for what, reads in cost.items() if not 1 < reads <= MOST} == set(), cost


async def test_a_flow_of_many_outcomes(database: str, alone: Database) -> None:
    """Where each flow has a single outcome for all that the statistics know, one of 2,000 costs no more."""
    known, unknown = ScanHarness(database, alone, "known"), ScanHarness(database, alone, "unknown")
    await known.create_org()
    await known.store(DAYS, DAYS, each_day(lambda number: f"flow {number}"))
    async with alone.connection() as connection:
        await connection.execute("VACUUM ANALYZE")
    await unknown.create_org()
    for plus in (0, 0, 1):
        before = await read(alone)
        await unknown.store(DAYS, DAYS, each_day(lambda _: "one flow", plus))
        assert 1 < (await read(alone) - before) / 4000 <= MOST


def each_day(flow: Callable[[int], str], plus: int = 0) -> list[OutcomeRow]:
    """On each day 2,000 outcomes, of the flows that they are said to be of."""
    return [
        OutcomeRow(FlowBucket(flow(number), *day), f"Outcome {number}", number + plus, None, False)
        for day in DAYS
        for number in range(2000)
    ]
