"""The merge: what a reader of the tables sees after each scan."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from msgspec.structs import replace

from service.clock import SystemClock
from service.errors import ConflictError, LeaseLostError
from service.model import FlowBucket, Granularity, OutcomeRow, Query, Reject, Scan, Span, Window
from service.postgres.lease.lease import Lease
from service.postgres.merge import Merged, ScanRecord, merge
from service.postgres.merge.staging import Staging
from service.postgres.pool import Database
from service.postgres.windows.ledger import Ledger
from tests.support.scan_harness import page

DAY = timedelta(days=1)
FIRST = datetime(2024, 1, 1, tzinfo=UTC)
CLOCK = SystemClock()

Figures = dict[tuple[int, str, str], int | None]


class Desk:
    """Scans days into a database as the pipeline would, and reads them as a user would."""

    def __init__(self, dsn: str, database: Database) -> None:
        self.dsn = dsn
        self.database = database
        self.lease = Lease("acme", 1, 0.0, CLOCK.monotonic() + 3600, CLOCK, asyncio.Event())
        self.cycle = 0

    async def scan(
        self,
        days: range,
        figures: Figures,
        *,
        flows: tuple[str, ...] = (),
        expect_for: timedelta = 31 * DAY,
        rejects: list[Reject] | None = None,
        cycle: str | None = None,
        work: str = "job:daily",
    ) -> Merged:
        """Merge one scan of these days; a figure of None is a rejected one."""
        self.cycle += 1
        windows = tuple(
            Window("acme", work, "daily", span(day), "daily", Granularity.DAILY, FIRST) for day in days
        )
        whole = Span(windows[0].span.start, windows[-1].span.end)
        query = Query("acme", whole, Granularity.DAILY, "UTC", flows, 100, None, whole)
        scan = Scan(windows, (query,), expect_for)
        ledger = Ledger(self.database, "acme", 1)
        await ledger.enqueue(windows)
        await ledger.begin(scan, "hash")
        staging = Staging(self.database, "acme")
        rows = [
            OutcomeRow(FlowBucket(flow, *span(day)), name, count, None, count is None)
            for (day, flow, name), count in figures.items()
        ]
        await staging.add(page(rows, rejects or []))
        record = ScanRecord(
            scan,
            [span(d) for d in days],
            flows,
            "hash",
            CLOCK.now(),
            1,
            1,
            cycle or f"cycle {self.cycle}",
            self.cycle,
            CLOCK.monotonic(),
        )
        return await merge(self.database, self.lease, staging, record)

    async def rows(self, query: str, *parameters: object) -> list[tuple[Any, ...]]:
        """What a user's query gives."""
        async with await psycopg.AsyncConnection.connect(self.dsn, autocommit=True) as connection:
            cursor = await connection.execute(query.encode(), parameters)
            return await cursor.fetchall()

    async def execute(self, statement: str) -> None:
        """A statement of the owner's."""
        async with self.database.transaction() as connection:
            await connection.execute(statement.encode())

    async def counts(self) -> dict[tuple[int, str, str], int | None]:
        """The counts of flow_outcome by day, flow and name."""
        rows = await self.rows(
            "SELECT bucket_start, flow_id, outcome_name, outcome_count FROM flow_outcomes.flow_outcome"
        )
        return {((start - FIRST).days, flow, name): count for start, flow, name, count in rows}

    async def restatements(self) -> list[tuple[Any, ...]]:
        """Old and new counts in the order in which they were restated."""
        return await self.rows(
            "SELECT outcome_name, old_count, new_count FROM flow_outcomes.restatement ORDER BY restated_at"
        )


def span(day: int) -> Span:
    return Span(FIRST + day * DAY, FIRST + (day + 1) * DAY)


@pytest.fixture
async def desk(database: str) -> AsyncIterator[Desk]:
    pool = Database(database, size=4, application_name="test")
    await pool.open()
    desk = Desk(database, pool)
    await desk.rows("INSERT INTO flow_outcomes.org (org, epoch) VALUES ('acme', 1) RETURNING 1")
    yield desk
    await pool.close()


async def test_a_scan_is_stored_with_its_shares_and_its_mark(desk: Desk) -> None:
    """Counts, shares and the key stand as reported, and the window says complete."""
    merged = await desk.scan(range(1), {(0, "f", "Paid"): 3, (0, "f", "Lost"): 1, (0, "g", "Paid"): 0})
    assert merged.changed == 3
    rows = await desk.rows(
        "SELECT outcome_key, outcome_count, outcome_share FROM flow_outcomes.flow_outcome ORDER BY outcome_key"
    )
    assert rows == [("f_Lost", 1, 0.25), ("f_Paid", 3, 0.75), ("g_Paid", 0, None)]
    windows = await desk.rows("SELECT state, rows, job FROM flow_outcomes.extraction_window")
    assert windows == [("complete", 3, "daily")]
    assert await desk.rows("SELECT flow_id FROM flow_outcomes.flow ORDER BY 1") == [("f",), ("g",)]


async def test_an_unchanged_scan_writes_no_figure(desk: Desk) -> None:
    """The second of two equal scans changes nothing and makes no revision."""
    figures: Figures = {(day, "f", "Paid"): day for day in range(5)}
    await desk.scan(range(5), figures)
    assert (await desk.scan(range(5), figures)).changed == 0
    assert await desk.rows("SELECT count(*) FROM flow_outcomes.revision") == [(1,)]
    assert await desk.rows("SELECT count(*) FROM flow_outcomes.figure_history") == [(0,)]


async def test_a_changed_figure_is_restated_and_kept(desk: Desk) -> None:
    """A late correction replaces the count, and the former one is found as of before."""
    await desk.scan(range(1), {(0, "f", "Paid"): 3})
    [(before,)] = await desk.rows("SELECT clock_timestamp()")
    merged = await desk.scan(range(1), {(0, "f", "Paid"): 5, (0, "f", "Late"): 2})
    assert sum(merged.restated.values()) == 2
    assert await desk.counts() == {(0, "f", "Paid"): 5, (0, "f", "Late"): 2}
    assert sorted(await desk.restatements(), key=str) == [("Late", None, 2), ("Paid", 3, 5)]
    assert await desk.rows(
        "SELECT outcome_name, outcome_count FROM flow_outcomes.flow_outcome_as_of(%s)", before
    ) == [("Paid", 3)]


async def test_a_reload_in_a_session_that_has_merged_writes_the_ledger_alone(desk: Desk) -> None:
    """A few hundred bytes a window in the server's log, however many figures it has."""

    async def logged() -> int:
        ((position,),) = await desk.rows("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint")
        return int(position)

    figures: Figures = {(day, "f", f"n{name}"): name for day in range(4) for name in range(500)}
    written = []
    for _ in range(4):
        before = await logged()
        await desk.scan(range(4), figures)
        written.append(await logged() - before)
    assert written[0] > 2000 * 100
    assert written[-1] < 4 * 1500, written


async def test_what_a_complete_scan_no_longer_reports_becomes_null(desk: Desk) -> None:
    """Never a stale figure and never zero; and a restatement."""
    await desk.scan(range(1), {(0, "f", "Paid"): 3, (0, "f", "Gone"): 4})
    merged = await desk.scan(range(1), {(0, "f", "Paid"): 3})
    assert await desk.counts() == {(0, "f", "Paid"): 3, (0, "f", "Gone"): None}
    assert await desk.restatements() == [("Gone", 4, None)]
    [missing] = merged.missing.values()
    assert (missing.rows, missing.sample) == (1, ["Gone"])
    assert (await desk.scan(range(1), {(0, "f", "Paid"): 3})).missing == {}


async def test_an_outcome_once_seen_is_expected_for_a_while(desk: Desk) -> None:
    """Null up to expect_for after the bucket in which it was last seen, in a silent flow too; then no row."""
    await desk.scan(range(1), {(0, "f", "Rare"): 1, (0, "g", "Paid"): 1})
    await desk.scan(range(1, 6), {(day, "g", "Paid"): 1 for day in range(1, 6)}, expect_for=3 * DAY)
    nulls = {key for key, count in (await desk.counts()).items() if count is None}
    assert nulls == {(day, "f", "Rare") for day in (1, 2, 3, 4)}


async def test_the_order_of_the_scans_does_not_matter_for_the_nulls(desk: Desk) -> None:
    """A window extracted late brings the nulls of the windows after it, and takes them back when it changes."""
    await desk.scan(range(1, 4), {(day, "f", "Paid"): 1 for day in range(1, 4)})
    await desk.scan(range(1), {(0, "f", "Paid"): 1, (0, "f", "Rare"): 1})
    assert {k for k, v in (await desk.counts()).items() if v is None} == {(d, "f", "Rare") for d in (1, 2, 3)}
    await desk.scan(range(1), {(0, "f", "Paid"): 1})
    counts = await desk.counts()
    assert {k for k, v in counts.items() if v is None} == {(0, "f", "Rare")}
    assert await desk.restatements() == [("Rare", 1, None)]


async def test_an_empty_scan_is_believed_only_when_a_later_cycle_says_it_again(desk: Desk) -> None:
    """The figures stay until then, and the window stays complete."""
    await desk.scan(range(2), {(0, "f", "Paid"): 3, (1, "f", "Paid"): 4})
    merged = await desk.scan(range(2), {(1, "f", "Paid"): 4}, cycle="second")
    assert len(merged.doubted) == 1
    merged = await desk.scan(range(2), {(1, "f", "Paid"): 4}, cycle="second")
    assert len(merged.doubted) == 1
    assert (await desk.counts())[0, "f", "Paid"] == 3
    assert await desk.rows(
        "SELECT state, last_error IS NULL FROM flow_outcomes.extraction_window ORDER BY window_start"
    ) == [("complete", False), ("complete", True)]
    merged = await desk.scan(range(2), {(1, "f", "Paid"): 4}, cycle="third")
    assert not merged.doubted
    assert (await desk.counts())[0, "f", "Paid"] is None


async def test_a_scan_of_some_flows_leaves_the_others_alone(desk: Desk) -> None:
    """Absence means something only for the flows that were asked for."""
    await desk.scan(range(1), {(0, "f", "Paid"): 3, (0, "g", "Paid"): 4})
    await desk.scan(range(1), {(0, "f", "Other"): 1}, flows=("f",))
    assert await desk.counts() == {(0, "f", "Paid"): None, (0, "f", "Other"): 1, (0, "g", "Paid"): 4}


async def test_a_rejected_count_is_null_and_takes_the_shares_with_it(desk: Desk) -> None:
    """The total is not known then, for the other outcomes of the flow in the bucket neither."""
    reject = Reject("a count of -1", '{"entry": 1}', "f", FIRST, "Bad")
    merged = await desk.scan(range(1), {(0, "f", "Paid"): 3, (0, "f", "Bad"): None}, rejects=[reject])
    assert list(merged.rejected.values()) == [1]
    rows = await desk.rows(
        "SELECT outcome_name, outcome_count, outcome_share FROM flow_outcomes.flow_outcome ORDER BY 1"
    )
    assert rows == [("Bad", None, None), ("Paid", 3, None)]
    assert await desk.rows("SELECT reason, entry FROM flow_outcomes.rejected_entry") == [
        ("a count of -1", '{"entry": 1}')
    ]


async def test_a_name_that_cannot_be_told_hides_the_total_and_believes_no_silence(desk: Desk) -> None:
    """It may have been any of the outcomes that are missing."""
    await desk.scan(range(1), {(0, "f", "Paid"): 3, (0, "f", "Lost"): 1})
    reject = Reject("the name is empty", "{}", "f", FIRST, None)
    await desk.scan(range(1), {(0, "f", "Paid"): 3, (0, "f", ""): None}, rejects=[reject])
    rows = await desk.rows(
        "SELECT outcome_name, outcome_count, outcome_share FROM flow_outcomes.flow_outcome ORDER BY 1"
    )
    assert rows == [("Lost", 1, None), ("Paid", 3, None)]
    await desk.scan(range(1), {(0, "f", "Paid"): 3})
    rows = await desk.rows(
        "SELECT outcome_name, outcome_count, outcome_share FROM flow_outcomes.flow_outcome ORDER BY 1"
    )
    assert rows == [("Lost", None, None), ("Paid", 3, 1.0)]


async def test_two_different_figures_for_one_key_fail_the_scan(desk: Desk) -> None:
    """Nothing of it is stored; equal ones count once, with a percentage or without."""
    windows = (Window("acme", "job:daily", "daily", span(0), "daily", Granularity.DAILY, FIRST),)
    query = Query("acme", span(0), Granularity.DAILY, "UTC", (), 100, None, span(0))
    record = ScanRecord(
        Scan(windows, (query,), DAY), [span(0)], (), "hash", CLOCK.now(), 1, 1, "c", 1, CLOCK.monotonic()
    )
    row = OutcomeRow(FlowBucket("f", *span(0)), "Paid", 3, 0.5, rejected=False)
    bare = replace(row, outcome_percentage=None)
    for rows, fails in (
        ([row, replace(row, outcome_count=4)], True),
        ([bare, replace(bare, outcome_count=4)], True),
        ([row, replace(row, outcome_percentage=0.25)], True),
        ([row, row], False),
        ([bare, bare], False),
    ):
        staging = Staging(desk.database, "acme")
        await staging.add(page(rows))
        if fails:
            with pytest.raises(ConflictError):
                await merge(desk.database, desk.lease, staging, record)
            assert await desk.counts() == {}
        else:
            await merge(desk.database, desk.lease, staging, record)
            assert await desk.counts() == {(0, "f", "Paid"): 3}


@pytest.mark.parametrize("percentage", [None, 0.5])
async def test_a_figure_that_came_twice_counts_once(desk: Desk, percentage: float | None) -> None:
    """With a percentage or without one; told once with and once without, it is two figures."""
    windows = (Window("acme", "job:daily", "daily", span(0), "daily", Granularity.DAILY, FIRST),)
    query = Query("acme", span(0), Granularity.DAILY, "UTC", (), 100, None, span(0))
    record = ScanRecord(
        Scan(windows, (query,), DAY), [span(0)], (), "hash", CLOCK.now(), 1, 1, "c", 1, CLOCK.monotonic()
    )
    row = OutcomeRow(FlowBucket("f", *span(0)), "Paid", 3, percentage, rejected=False)
    other = replace(row, outcome_percentage=0.25 if percentage is None else None)
    staging = Staging(desk.database, "acme")
    await staging.add(page([row, other]))
    with pytest.raises(ConflictError):
        await merge(desk.database, desk.lease, staging, record)
    staging = Staging(desk.database, "acme")
    await staging.add(page([row, row]))
    await merge(desk.database, desk.lease, staging, record)
    assert await desk.rows(
        "SELECT outcome_name, outcome_count, outcome_percentage, outcome_share FROM flow_outcomes.flow_outcome"
    ) == [("Paid", 3, percentage, 1.0)]


async def test_a_null_that_is_only_expected_leaves_a_folded_figure_its_time(desk: Desk) -> None:
    """An older bucket read later makes the retired name expected: the figure is still the first scan's."""
    await desk.scan(range(1, 2), {(1, "f", "Settled"): 3})
    await desk.rows("INSERT INTO flow_outcomes.outcome_alias VALUES ('acme', NULL, 'Paid', 'Settled') RETURNING 1")
    [(first,)] = await desk.rows("SELECT extraction_timestamp FROM flow_outcomes.flow_outcome")
    await desk.scan(range(1), {(0, "f", "Paid"): 2})
    assert await desk.rows("SELECT count(*) FROM flow_outcomes.figure WHERE state = 'expected'") == [(1,)]
    for source in ("flow_outcome", "flow_outcome_as_of(now())"):
        found = await desk.rows(
            f"SELECT outcome_name, outcome_count, extraction_timestamp > %s FROM flow_outcomes.{source}"
            " ORDER BY bucket_start",
            first,
        )
        assert found == [("Settled", 2, True), ("Settled", 3, False)]


async def test_a_merge_under_an_old_epoch_writes_nothing(desk: Desk) -> None:
    """Another process has taken the org."""
    await desk.rows("UPDATE flow_outcomes.org SET epoch = 2 RETURNING 1")
    desk.lease.epoch = 1
    with pytest.raises(LeaseLostError):
        await desk.scan(range(1), {(0, "f", "Paid"): 3})
    assert await desk.counts() == {}


async def test_a_scan_that_outgrows_memory_is_stored_the_same(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes on in the unlogged table, and nothing stays there."""
    monkeypatch.setattr("service.postgres.merge.staging.MEMORY", 1)
    reject = Reject("bad", "{}", "f", FIRST, "Bad")
    await desk.scan(range(1), {(0, "f", "Paid"): 3, (0, "f", "Bad"): None}, rejects=[reject])
    assert await desk.counts() == {(0, "f", "Paid"): 3, (0, "f", "Bad"): None}
    assert await desk.rows("SELECT count(*) FROM flow_outcomes.staging") == [(0,)]
    assert await desk.rows("SELECT count(*) FROM flow_outcomes.rejected_entry") == [(1,)]


async def test_a_merge_does_not_need_to_know_how_much_was_stored(desk: Desk) -> None:
    """A load corrected before the server has gathered statistics: as quick as ever, where it took minutes."""
    for table in ("outcome", "figure_default"):
        await desk.execute(f"ALTER TABLE flow_outcomes.{table} SET (autovacuum_enabled = false)")
    await desk.execute(
        "CREATE OR REPLACE FUNCTION flow_outcomes.analyse_outcomes() RETURNS void LANGUAGE sql AS ''"
    )
    names = [(flow, f"n{name}") for flow in "fghi" for name in range(500)]
    first: Figures = {(day, flow, name): 1 for day in range(8) for flow, name in names}
    await desk.scan(range(8), first)
    unknown = "SELECT reltuples FROM pg_class WHERE oid = 'flow_outcomes.outcome'::regclass"
    assert await desk.rows(unknown) == [(-1,)]
    second: Figures = {key: 2 for key in first if key[1] != "f"}
    async with asyncio.timeout(60):
        await desk.scan(range(8), second)
    assert await desk.counts() == {**dict.fromkeys(first), **second}
    assert await desk.rows(unknown) == [(-1,)]
    assert await desk.rows("SELECT count(*) FROM flow_outcomes.restatement") == [(len(first),)]


async def test_many_scans_share_what_memory_there_is(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where all of them hold too much each holds less, and nothing counts as held in the end."""
    monkeypatch.setattr("service.postgres.merge.staging.MEMORY_OF_ALL", 1500)
    monkeypatch.setattr("service.postgres.merge.staging.MEMORY_WHEN_SCARCE", 500)
    rows = [
        OutcomeRow(FlowBucket("f", *span(0)), f"outcome {number}", 1, 0.1, rejected=False) for number in range(8)
    ]
    one, other = Staging(desk.database, "acme"), Staging(desk.database, "acme")
    await one.add(page(rows))
    assert not one.spilled
    assert desk.database.held > 500
    for _ in range(2):
        await other.add(page(rows))
    assert other.spilled
    await one.discard()
    await other.discard()
    assert desk.database.held == 0
    assert await desk.rows("SELECT count(*) FROM flow_outcomes.staging") == [(0,)]
