"""The merge of figures that an API reports in parts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from service.errors import ConflictError
from service.model import FlowBucket, OutcomeRow, Reject
from service.postgres.merge import Merged
from tests.support.scan_harness import FIRST, ScanHarness, day_span, scan_harness


@pytest.fixture
async def harness(database: str) -> AsyncIterator[ScanHarness]:
    async with scan_harness(database) as harness:
        yield harness


async def store(harness: ScanHarness, *rows: OutcomeRow, rejects: list[Reject] | None = None) -> Merged:
    """Merge a scan of one day, by outcome ids."""
    return await harness.store_days(range(1), rows, rejects=rejects or (), by_id=True)


async def stored(harness: ScanHarness) -> dict[str, tuple[Any, ...]]:
    """Count, successes and failures by outcome."""
    rows = await harness.rows(
        "SELECT outcome_name, outcome_count, success_count, failure_count FROM flow_outcomes.flow_outcome"
    )
    return {name: tuple(figures) for name, *figures in rows}


def row(part: str, count: int, success: int = 0, failure: int = 0, *, key: str = "o1") -> OutcomeRow:
    return OutcomeRow(FlowBucket("f", *day_span(0), part), key, count, None, False, success, failure)


REJECTED = OutcomeRow(FlowBucket("f", *day_span(0)), "o1", None, None, rejected=True)


async def test_parts_add_up(harness: ScanHarness) -> None:
    """Counts, successes and failures are added; a repeated part counts once."""
    merged = await store(
        harness, row("s", 5, 5), row("f", 3, 0, 3), row("u", 2), row("s", 5, 5), row("s", 1, 1, key="o2")
    )
    assert await stored(harness) == {"o1": (10, 5, 3), "o2": (1, 1, 0)}
    assert list(merged.rows.values()) == [2]
    twice = row("s", 1, 1, key="o2")
    again = await store(harness, row("f", 3, 0, 3), row("u", 2), row("s", 5, 5), twice, twice)
    assert again.changed == 0


async def test_a_repeated_part_and_no_other(harness: ScanHarness) -> None:
    """It counts once, without a percentage and also with nothing but a count."""
    await store(harness, row("s", 5, 5), row("s", 5, 5))
    assert await stored(harness) == {"o1": (5, 5, 0)}
    bare = OutcomeRow(FlowBucket("f", *day_span(0), "s"), "o1", 6, None, rejected=False)
    await store(harness, bare, bare)
    assert await stored(harness) == {"o1": (6, None, None)}


async def test_one_part_with_two_figures_is_a_conflict(harness: ScanHarness) -> None:
    """Also where the sums would be equal."""
    with pytest.raises(ConflictError, match="'o1' of flow f"):
        await store(harness, row("s", 5, 5), row("s", 6, 6), row("f", 1))
    assert await stored(harness) == {}


async def test_a_changed_split_is_a_change(harness: ScanHarness) -> None:
    """A figure differs if its sum is equal and its successes are not."""
    await store(harness, row("s", 5, 5))
    assert (await store(harness, row("s", 2, 2), row("f", 3, 0, 3))).changed == 1
    assert await stored(harness) == {"o1": (5, 2, 3)}


async def test_a_rejected_part_makes_the_sum_unknown(harness: ScanHarness) -> None:
    """So does a sum that does not fit a bigint."""
    reject = Reject("no count", "{}", "f", FIRST, "o1")
    await store(
        harness, row("s", 5, 5), REJECTED, row("s", 2**63 - 1, key="o2"), row("f", 1, key="o2"), rejects=[reject]
    )
    assert await stored(harness) == {"o1": (None, None, None), "o2": (None, None, None)}


@pytest.mark.parametrize(
    ("reject", "unknown"),
    [
        (Reject("?", "{}", "f", FIRST, None), {"o1", "o2"}),
        (Reject("?", "{}", None, FIRST, "o1"), {"o1"}),
        (Reject("?", "{}", "f", None, "o2"), {"o2"}),
        (Reject("?", "{}", "g", FIRST, None), set()),
        (Reject("?", "{}", None, None, None), {"o1", "o2"}),
    ],
)
async def test_outcomes_that_a_rejected_entry_may_belong_to_are_unknown(
    harness: ScanHarness, reject: Reject, unknown: set[str]
) -> None:
    """No other outcome is."""
    await store(harness, row("s", 5, 5), row("s", 1, 1, key="o2"), rejects=[reject])
    assert {name for name, (count, *_) in (await stored(harness)).items() if count is None} == unknown
