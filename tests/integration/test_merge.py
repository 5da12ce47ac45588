"""The merge: what a reader of the tables sees after each scan."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from msgspec.structs import replace

from service.errors import ConflictError, LeaseLostError
from service.model import FlowBucket, OutcomeRow, Reject
from service.postgres.merge import MemoryBudget, Merged, ScanBuffer
from tests.support.scan_harness import DAY, FIRST, ScanHarness, day_span, page, scan_harness

Figures = dict[tuple[int, str, str], int | None]


async def scan(harness: ScanHarness, days: range, figures: Figures, **options: Any) -> Merged:  # noqa: ANN401 - of store
    """Merge one scan of these days; a figure of None is a rejected one."""
    rows = [
        OutcomeRow(FlowBucket(flow, *day_span(day)), name, count, None, count is None)
        for (day, flow, name), count in figures.items()
    ]
    return await harness.store_days(days, rows, **options)


async def execute(harness: ScanHarness, statement: str) -> None:
    """Run a statement of the schema's owner."""
    async with harness.database.transaction() as connection:
        await connection.execute(statement.encode())


async def counts(harness: ScanHarness) -> Figures:
    """The counts of flow_outcome by day, flow and name."""
    rows = await harness.rows(
        "SELECT bucket_start, flow_id, outcome_name, outcome_count FROM flow_outcomes.flow_outcome"
    )
    return {((start - FIRST).days, flow, name): count for start, flow, name, count in rows}


async def restatements(harness: ScanHarness) -> list[tuple[Any, ...]]:
    """Old and new counts, in the order of the restatements."""
    return await harness.rows(
        "SELECT outcome_name, old_count, new_count FROM flow_outcomes.restatement ORDER BY restated_at"
    )


@pytest.fixture
async def harness(database: str) -> AsyncIterator[ScanHarness]:
    async with scan_harness(database) as harness:
        yield harness


async def test_a_scan_is_stored_with_its_shares_and_its_mark(harness: ScanHarness) -> None:
    """Counts, shares and the key are as reported, and the window is complete."""
    merged = await scan(harness, range(1), {(0, "f", "Paid"): 3, (0, "f", "Lost"): 1, (0, "g", "Paid"): 0})
    assert merged.changed == 3
    rows = await harness.rows(
        "SELECT outcome_key, outcome_count, outcome_share FROM flow_outcomes.flow_outcome ORDER BY outcome_key"
    )
    assert rows == [("f_Lost", 1, 0.25), ("f_Paid", 3, 0.75), ("g_Paid", 0, None)]
    windows = await harness.rows("SELECT state, rows, job FROM flow_outcomes.extraction_window")
    assert windows == [("complete", 3, "daily")]
    assert await harness.rows("SELECT flow_id FROM flow_outcomes.flow ORDER BY 1") == [("f",), ("g",)]


async def test_an_unchanged_scan_writes_no_figure(harness: ScanHarness) -> None:
    """The second of two equal scans changes nothing and adds no revision."""
    figures: Figures = {(day, "f", "Paid"): day for day in range(5)}
    await scan(harness, range(5), figures)
    assert (await scan(harness, range(5), figures)).changed == 0
    assert await harness.rows("SELECT count(*) FROM flow_outcomes.revision") == [(1,)]
    assert await harness.rows("SELECT count(*) FROM flow_outcomes.figure_history") == [(0,)]


async def test_a_changed_figure_is_restated_and_kept(harness: ScanHarness) -> None:
    """A correction replaces the count, and the previous count is visible as of an earlier instant."""
    await scan(harness, range(1), {(0, "f", "Paid"): 3})
    [(before,)] = await harness.rows("SELECT clock_timestamp()")
    merged = await scan(harness, range(1), {(0, "f", "Paid"): 5, (0, "f", "Late"): 2})
    assert sum(merged.restated.values()) == 2
    assert await counts(harness) == {(0, "f", "Paid"): 5, (0, "f", "Late"): 2}
    assert sorted(await restatements(harness), key=str) == [("Late", None, 2), ("Paid", 3, 5)]
    assert await harness.rows(
        "SELECT outcome_name, outcome_count FROM flow_outcomes.flow_outcome_as_of(%s)", before
    ) == [("Paid", 3)]


async def test_a_reload_in_a_session_that_has_merged_writes_the_ledger_alone(harness: ScanHarness) -> None:
    """A few hundred bytes of WAL per window, however many figures it has."""

    async def logged() -> int:
        ((position,),) = await harness.rows("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint")
        return int(position)

    figures: Figures = {(day, "f", f"n{name}"): name for day in range(4) for name in range(500)}
    written = []
    for _ in range(4):
        before = await logged()
        await scan(harness, range(4), figures)
        written.append(await logged() - before)
    assert written[0] > 2000 * 100
    assert written[-1] < 4 * 1500, written


async def test_what_a_complete_scan_no_longer_reports_becomes_null(harness: ScanHarness) -> None:
    """It is neither kept nor set to zero, and it is restated."""
    await scan(harness, range(1), {(0, "f", "Paid"): 3, (0, "f", "Gone"): 4})
    merged = await scan(harness, range(1), {(0, "f", "Paid"): 3})
    assert await counts(harness) == {(0, "f", "Paid"): 3, (0, "f", "Gone"): None}
    assert await restatements(harness) == [("Gone", 4, None)]
    [missing] = merged.missing.values()
    assert (missing.rows, missing.sample) == (1, ["Gone"])
    assert (await scan(harness, range(1), {(0, "f", "Paid"): 3})).missing == {}


async def test_an_outcome_once_seen_is_expected_for_a_while(harness: ScanHarness) -> None:
    """Null up to expect_for after the bucket in which it was last seen, in an absent flow too; then no row."""
    await scan(harness, range(1), {(0, "f", "Rare"): 1, (0, "g", "Paid"): 1})
    await scan(harness, range(1, 6), {(day, "g", "Paid"): 1 for day in range(1, 6)}, expect_for=3 * DAY)
    nulls = {key for key, count in (await counts(harness)).items() if count is None}
    assert nulls == {(day, "f", "Rare") for day in (1, 2, 3, 4)}


async def test_the_order_of_the_scans_does_not_matter_for_the_nulls(harness: ScanHarness) -> None:
    """A window extracted late adds nulls to the windows after it, and deletes them when it changes."""
    await scan(harness, range(1, 4), {(day, "f", "Paid"): 1 for day in range(1, 4)})
    await scan(harness, range(1), {(0, "f", "Paid"): 1, (0, "f", "Rare"): 1})
    assert {k for k, v in (await counts(harness)).items() if v is None} == {(d, "f", "Rare") for d in (1, 2, 3)}
    await scan(harness, range(1), {(0, "f", "Paid"): 1})
    assert {k for k, v in (await counts(harness)).items() if v is None} == {(0, "f", "Rare")}
    assert await restatements(harness) == [("Rare", 1, None)]


async def test_an_empty_scan_is_accepted_once_a_later_cycle_confirms_it(harness: ScanHarness) -> None:
    """The figures stay until then, and the window stays complete."""
    await scan(harness, range(2), {(0, "f", "Paid"): 3, (1, "f", "Paid"): 4})
    merged = await scan(harness, range(2), {(1, "f", "Paid"): 4}, cycle="second")
    assert len(merged.doubted) == 1
    merged = await scan(harness, range(2), {(1, "f", "Paid"): 4}, cycle="second")
    assert len(merged.doubted) == 1
    assert (await counts(harness))[0, "f", "Paid"] == 3
    assert await harness.rows(
        "SELECT state, last_error IS NULL FROM flow_outcomes.extraction_window ORDER BY window_start"
    ) == [("complete", False), ("complete", True)]
    merged = await scan(harness, range(2), {(1, "f", "Paid"): 4}, cycle="third")
    assert not merged.doubted
    assert (await counts(harness))[0, "f", "Paid"] is None


async def test_a_scan_of_some_flows_leaves_the_others_alone(harness: ScanHarness) -> None:
    """Absence is conclusive only for the flows that were requested."""
    await scan(harness, range(1), {(0, "f", "Paid"): 3, (0, "g", "Paid"): 4})
    await scan(harness, range(1), {(0, "f", "Other"): 1}, flows=("f",))
    assert await counts(harness) == {(0, "f", "Paid"): None, (0, "f", "Other"): 1, (0, "g", "Paid"): 4}


async def test_a_rejected_count_is_null_and_takes_the_shares_with_it(harness: ScanHarness) -> None:
    """The total is unknown, so the other outcomes of the flow have no share in this bucket either."""
    reject = Reject("a count of -1", '{"entry": 1}', "f", FIRST, "Bad")
    merged = await scan(harness, range(1), {(0, "f", "Paid"): 3, (0, "f", "Bad"): None}, rejects=[reject])
    assert list(merged.rejected.values()) == [1]
    rows = await harness.rows(
        "SELECT outcome_name, outcome_count, outcome_share FROM flow_outcomes.flow_outcome ORDER BY 1"
    )
    assert rows == [("Bad", None, None), ("Paid", 3, None)]
    assert await harness.rows("SELECT reason, entry FROM flow_outcomes.rejected_entry") == [
        ("a count of -1", '{"entry": 1}')
    ]


async def test_an_unknown_name_makes_the_total_unknown_and_absence_inconclusive(harness: ScanHarness) -> None:
    """It may be any of the missing outcomes."""
    await scan(harness, range(1), {(0, "f", "Paid"): 3, (0, "f", "Lost"): 1})
    reject = Reject("the name is empty", "{}", "f", FIRST, None)
    await scan(harness, range(1), {(0, "f", "Paid"): 3, (0, "f", ""): None}, rejects=[reject])
    rows = await harness.rows(
        "SELECT outcome_name, outcome_count, outcome_share FROM flow_outcomes.flow_outcome ORDER BY 1"
    )
    assert rows == [("Lost", 1, None), ("Paid", 3, None)]
    await scan(harness, range(1), {(0, "f", "Paid"): 3})
    rows = await harness.rows(
        "SELECT outcome_name, outcome_count, outcome_share FROM flow_outcomes.flow_outcome ORDER BY 1"
    )
    assert rows == [("Lost", None, None), ("Paid", 3, 1.0)]


async def test_two_different_figures_for_one_key_fail_the_scan(harness: ScanHarness) -> None:
    """Nothing of it is stored; equal figures count once, with a percentage or without."""
    row = OutcomeRow(FlowBucket("f", *day_span(0)), "Paid", 3, 0.5, rejected=False)
    bare = replace(row, outcome_percentage=None)
    for rows in (
        [row, replace(row, outcome_count=4)],
        [bare, replace(bare, outcome_count=4)],
        [row, replace(row, outcome_percentage=0.25)],
    ):
        with pytest.raises(ConflictError):
            await harness.store_days(range(1), rows)
        assert await counts(harness) == {}
    for rows in ([row, row], [bare, bare]):
        await harness.store_days(range(1), rows)
        assert await counts(harness) == {(0, "f", "Paid"): 3}


@pytest.mark.parametrize("percentage", [None, 0.5])
async def test_a_repeated_figure_counts_once(harness: ScanHarness, percentage: float | None) -> None:
    """With a percentage or without one; once with and once without, it is a conflict."""
    row = OutcomeRow(FlowBucket("f", *day_span(0)), "Paid", 3, percentage, rejected=False)
    other = replace(row, outcome_percentage=0.25 if percentage is None else None)
    with pytest.raises(ConflictError):
        await harness.store_days(range(1), [row, other])
    await harness.store_days(range(1), [row, row])
    assert await harness.rows(
        "SELECT outcome_name, outcome_count, outcome_percentage, outcome_share FROM flow_outcomes.flow_outcome"
    ) == [("Paid", 3, percentage, 1.0)]


async def test_an_expected_null_does_not_change_the_time_of_a_folded_figure(harness: ScanHarness) -> None:
    """An older bucket that is read later makes the old name expected; the figure keeps its first timestamp."""
    await scan(harness, range(1, 2), {(1, "f", "Settled"): 3})
    await harness.rows(
        "INSERT INTO flow_outcomes.outcome_alias VALUES ('acme', NULL, 'Paid', 'Settled') RETURNING 1"
    )
    [(first,)] = await harness.rows("SELECT extraction_timestamp FROM flow_outcomes.flow_outcome")
    await scan(harness, range(1), {(0, "f", "Paid"): 2})
    assert await harness.rows("SELECT count(*) FROM flow_outcomes.figure WHERE state = 'expected'") == [(1,)]
    for source in ("flow_outcome", "flow_outcome_as_of(now())"):
        found = await harness.rows(
            f"SELECT outcome_name, outcome_count, extraction_timestamp > %s FROM flow_outcomes.{source}"
            " ORDER BY bucket_start",
            first,
        )
        assert found == [("Settled", 2, True), ("Settled", 3, False)]


async def test_a_merge_under_an_old_epoch_writes_nothing(harness: ScanHarness) -> None:
    """Another process has acquired the org."""
    await harness.rows("UPDATE flow_outcomes.org SET epoch = 2 RETURNING 1")
    harness.lease.epoch = 1
    with pytest.raises(LeaseLostError):
        await scan(harness, range(1), {(0, "f", "Paid"): 3})
    assert await counts(harness) == {}


async def test_a_scan_that_exceeds_memory_is_stored_the_same(
    harness: ScanHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its rows are spilled to the unlogged tables, which are empty afterwards."""
    monkeypatch.setattr(MemoryBudget, "PER_SCAN", 1)
    reject = Reject("bad", "{}", "f", FIRST, "Bad")
    await scan(harness, range(1), {(0, "f", "Paid"): 3, (0, "f", "Bad"): None}, rejects=[reject])
    assert await counts(harness) == {(0, "f", "Paid"): 3, (0, "f", "Bad"): None}
    assert await harness.rows("SELECT count(*) FROM flow_outcomes.staging") == [(0,)]
    assert await harness.rows("SELECT count(*) FROM flow_outcomes.rejected_entry") == [(1,)]


async def test_a_merge_does_not_depend_on_statistics(harness: ScanHarness) -> None:
    """A load that is corrected before the server has statistics takes seconds, not minutes."""
    await execute(harness, "SELECT flow_outcomes.ensure_partitions('2024-01-01Z', '2024-02-01Z')")
    for table in ("series", "figure_y2024m01"):
        await execute(harness, f"ALTER TABLE flow_outcomes.{table} SET (autovacuum_enabled = false)")
    await execute(
        harness, "CREATE OR REPLACE FUNCTION flow_outcomes.analyze_series() RETURNS void LANGUAGE sql AS ''"
    )
    names = [(flow, f"n{name}") for flow in "fghi" for name in range(500)]
    first: Figures = {(day, flow, name): 1 for day in range(8) for flow, name in names}
    await scan(harness, range(8), first)
    unknown = "SELECT reltuples FROM pg_class WHERE oid = 'flow_outcomes.series'::regclass"
    assert await harness.rows(unknown) == [(-1,)]
    second: Figures = {key: 2 for key in first if key[1] != "f"}
    async with asyncio.timeout(60):
        await scan(harness, range(8), second)
    assert await counts(harness) == {**dict.fromkeys(first), **second}
    assert await harness.rows(unknown) == [(-1,)]
    assert await harness.rows("SELECT count(*) FROM flow_outcomes.restatement") == [(len(first),)]


async def test_many_scans_share_the_memory_budget(harness: ScanHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each may hold less while all of them exceed it, and nothing is accounted at the end."""
    monkeypatch.setattr(MemoryBudget, "PER_SCAN", 4000)
    monkeypatch.setattr(MemoryBudget, "ALL_SCANS", 1500)
    rows = [
        OutcomeRow(FlowBucket("f", *day_span(0)), f"outcome {number}", 1, 0.1, rejected=False)
        for number in range(8)
    ]
    budget = MemoryBudget()
    one, other = (ScanBuffer(harness.database, "acme", budget) for _ in range(2))
    await one.add(page(rows))
    assert not one.spill.used
    assert budget.used > budget.PER_SCAN // 8
    for _ in range(2):
        await other.add(page(rows))
    assert other.spill.used
    await one.discard()
    await other.discard()
    assert budget.used == 0
    assert await harness.rows("SELECT count(*) FROM flow_outcomes.staging") == [(0,)]
