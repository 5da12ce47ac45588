"""Series by dimensions: what changes when a scan groups a bucket by others."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from service.model import FlowBucket, Measure, OutcomeRow
from service.postgres import aliases
from service.postgres.aliases import Alias
from service.postgres.merge import Merged
from tests.support.scan_harness import FIRST, ScanHarness, day_span, scan_harness

MEDIUM = ("mediaType",)
VOICE, CHAT = '{"mediaType": "voice"}', '{"mediaType": "chat"}'


@pytest.fixture
async def harness(database: str) -> AsyncIterator[ScanHarness]:
    async with scan_harness(database) as harness:
        yield harness


def row(count: int | None, dimensions: str = "{}", *, flow: str = "f", day: int = 0, key: str = "A") -> OutcomeRow:
    bucket = FlowBucket(flow, *day_span(day), dimensions=dimensions)
    return OutcomeRow(bucket, key, count, None, rejected=count is None)


async def store(
    harness: ScanHarness,
    *rows: OutcomeRow,
    days: range = range(1),
    group_by: tuple[str, ...] = (),
    **options: Any,  # noqa: ANN401 - of store
) -> Merged:
    return await harness.store_days(days, rows, group_by=group_by, **options)


async def detail(harness: ScanHarness, relation: str = "flow_outcome_detail") -> list[tuple[Any, ...]]:
    """Flow, day, name, medium (empty where it is not split) and count of each row."""
    rows = await harness.rows(
        "SELECT flow_id, bucket_start, outcome_name, CASE WHEN dimensions = '{}' THEN '' ELSE"
        f" dimensions ->> 'mediaType' END, outcome_count FROM flow_outcomes.{relation} ORDER BY 1, 2, 3, 4"
    )
    return [(flow, (at - FIRST).days, *rest) for flow, at, *rest in rows]


async def total(harness: ScanHarness) -> list[tuple[Any, ...]]:
    return await harness.rows(
        "SELECT flow_id, outcome_name, outcome_count FROM flow_outcomes.flow_outcome ORDER BY bucket_start, 1, 2"
    )


async def test_a_combination_that_is_missing_counts_as_absent(harness: ScanHarness) -> None:
    """And is null in the detail, where it is expected; a rejected one makes the total null."""
    await store(harness, row(5, VOICE), row(2, CHAT), group_by=MEDIUM)
    await store(harness, row(6, VOICE, day=1), days=range(1, 2), group_by=MEDIUM)
    await store(harness, row(7, VOICE, day=2), row(None, CHAT, day=2), days=range(2, 3), group_by=MEDIUM)
    assert await total(harness) == [("f", "A", 7), ("f", "A", 6), ("f", "A", None)]
    assert await detail(harness) == [
        ("f", 0, "A", "chat", 2),
        ("f", 0, "A", "voice", 5),
        ("f", 1, "A", "chat", None),
        ("f", 1, "A", "voice", 6),
        ("f", 2, "A", "chat", None),
        ("f", 2, "A", "voice", 7),
    ]


async def test_only_a_total_that_changed_is_restated(harness: ScanHarness) -> None:
    """Under whatever grouping."""
    await store(harness, row(7), row(3, key="B"))
    merged = await store(harness, row(5, VOICE), row(2, CHAT), row(4, VOICE, key="B"), group_by=MEDIUM)
    assert list(merged.restated.values()) == [1]
    restated = "SELECT outcome_name, old_count, new_count FROM flow_outcomes.restatement ORDER BY 1"
    assert await harness.rows(restated) == [("B", 3, 4)]
    await store(harness, row(6, VOICE), row(1, CHAT), row(4, VOICE, key="B"), group_by=MEDIUM)
    assert await harness.rows(restated) == [("B", 3, 4)]
    await store(harness, row(7), group_by=())
    assert await harness.rows(restated) == [("B", 3, 4), ("B", 4, None)]
    assert await total(harness) == [("f", "A", 7)], "the outcome that is no longer reported has no series here"


async def test_a_series_that_ended_is_not_expected(harness: ScanHarness) -> None:
    """Neither in its own buckets nor in later ones, in whatever order they are extracted."""
    await store(harness, row(7), row(7, day=2), days=range(3))
    assert [each[4] for each in await detail(harness)] == [7, None, 7]
    await store(harness, row(4, VOICE, day=1), days=range(1, 2), group_by=MEDIUM)
    await store(harness, row(4, VOICE, day=2), days=range(2, 3), group_by=MEDIUM)
    assert await detail(harness) == [("f", 0, "A", "", 7), ("f", 1, "A", "voice", 4), ("f", 2, "A", "voice", 4)]
    await store(harness, days=range(3, 4), group_by=MEDIUM)
    assert (await detail(harness))[3:] == [("f", 3, "A", "voice", None)]
    await store(harness, row(1, CHAT, day=3), days=range(3, 4), group_by=MEDIUM)
    [(at,)] = await harness.rows("SELECT clock_timestamp()")
    await store(harness, row(9, day=3), days=range(3, 4))
    assert (await detail(harness))[3:] == [("f", 3, "A", "", 9)]
    was = await harness.rows("SELECT dimensions FROM flow_outcomes.flow_outcome_detail_as_of(%s)", at)
    assert sorted(each.get("mediaType", "") for (each,) in was) == ["", "chat", "voice", "voice", "voice"]


async def test_a_series_is_expected_only_under_its_grouping(harness: ScanHarness) -> None:
    """Also where the bucket before it is extracted later."""
    await store(harness, row(4, VOICE, day=1), days=range(1, 2), group_by=MEDIUM)
    await store(harness, row(7))
    assert await detail(harness) == [("f", 0, "A", "", 7), ("f", 1, "A", "voice", 4)]


async def test_a_flow_is_expected_under_its_last_grouping(harness: ScanHarness) -> None:
    """Though an earlier scan of all flows covered the bucket under another one."""
    await store(harness, row(1, day=1, flow="g"), days=range(1, 2))
    await store(harness, row(4, VOICE, day=1), days=range(1, 2), flows=("f",), group_by=MEDIUM)
    await store(harness, row(7), row(8, key="B", flow="g"))
    assert await detail(harness) == [
        ("f", 0, "A", "", 7),
        ("f", 1, "A", "voice", 4),
        ("g", 0, "B", "", 8),
        ("g", 1, "A", "", 1),
        ("g", 1, "B", "", None),
    ]


async def test_flows_that_are_grouped_differently(harness: ScanHarness) -> None:
    """Where scans of other flows group a bucket by others, the last scan of a flow decides what is expected."""
    await store(harness, row(7), row(7, flow="g"))
    await store(harness, row(1, day=1, flow="g"), days=range(1, 2))
    await store(harness, row(5, VOICE), flows=("f",), group_by=MEDIUM)
    await store(harness, row(4, VOICE, day=1, key="B"), days=range(1, 2), flows=("f",), group_by=MEDIUM)
    assert await detail(harness) == [
        ("f", 0, "A", "voice", 5),
        ("f", 1, "A", "voice", None),
        ("f", 1, "B", "voice", 4),
        ("g", 0, "A", "", 7),
        ("g", 1, "A", "", 1),
    ]
    await store(harness, row(1, day=1, flow="g"), days=range(1, 2))
    assert ("f", 1, "A", "voice", None) not in await detail(harness)
    await store(harness, row(8), row(7, flow="g"))
    assert await detail(harness) == [
        ("f", 0, "A", "", 8),
        ("f", 1, "A", "", None),
        ("g", 0, "A", "", 7),
        ("g", 1, "A", "", 1),
    ]


async def test_a_late_scan_of_another_grouping(harness: ScanHarness) -> None:
    """It does not hold for a flow whose last scan has a higher number, although that scan changed nothing."""
    await store(harness, row(7))
    for number in (20, 30):
        await store(harness, days=range(1, 2), flows=("f",), stream="ad hoc", number=number)
    await store(harness, row(1, VOICE, day=1, flow="g"), days=range(1, 2), group_by=MEDIUM, number=25)
    assert await detail(harness) == [("f", 0, "A", "", 7), ("f", 1, "A", "", None), ("g", 1, "A", "voice", 1)]


async def test_an_empty_scan_ends_nothing_before_it_is_confirmed(harness: ScanHarness) -> None:
    """Whatever it is grouped by."""
    await store(harness, row(7))
    merged = await store(harness, group_by=MEDIUM, cycle="one")
    assert len(merged.doubted) == 1
    assert await detail(harness) == [("f", 0, "A", "", 7)]
    await store(harness, group_by=MEDIUM, cycle="two")
    assert await detail(harness) == []


async def test_a_late_scan_ends_nothing_of_a_later_one(harness: ScanHarness) -> None:
    """Of two scans the one that started later decides the grouping too."""
    await store(harness, row(5, VOICE), group_by=MEDIUM, number=20)
    await store(harness, row(7), number=10, stream="ad hoc")
    assert await detail(harness) == [("f", 0, "A", "voice", 5)]


async def test_an_alias_that_is_not_applied_yet_splits_no_outcome(harness: ScanHarness) -> None:
    """A new combination has the name of the former ones until all are renamed."""
    await store(harness, row(5, VOICE), group_by=MEDIUM)
    await aliases.add(harness.database, Alias("acme", None, "A", "X"))
    await store(harness, row(5, VOICE), row(2, CHAT), group_by=MEDIUM)
    assert await total(harness) == [("f", "A", 7)]
    await aliases.apply(harness.database, "acme")
    assert await total(harness) == [("f", "X", 7)]


async def test_measures_are_apart(harness: ScanHarness) -> None:
    """A scan of one neither ends, withdraws nor expects anything of another, of the same names."""
    await store(harness, row(7))
    for measure in (Measure.MILESTONES, Measure.EXECUTIONS):
        key = "nFlow" if measure is Measure.EXECUTIONS else "A"
        await store(harness, row(3, VOICE, key=key), measure=measure, group_by=MEDIUM)
        await store(harness, row(3, VOICE, key=key), measure=measure, group_by=MEDIUM)
        merged = await store(harness, days=range(1, 2), measure=measure, group_by=MEDIUM)
        assert not merged.restated
    assert await detail(harness) == [("f", 0, "A", "", 7)]
    runs = "SELECT execution_count, dimensions FROM flow_outcomes.flow_execution ORDER BY bucket_start"
    assert await harness.rows(runs) == [(3, {"mediaType": "voice"}), (None, {"mediaType": "voice"})]
    reached = "SELECT milestone_count FROM flow_outcomes.flow_milestone ORDER BY bucket_start"
    assert await harness.rows(reached) == [(3,), (None,)]
    await store(harness, expect_for=timedelta(0), days=range(1, 2))
    assert await harness.rows(reached) == [(3,), (None,)]
