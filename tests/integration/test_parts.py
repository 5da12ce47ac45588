"""The merge of figures that an API reports in parts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from service.errors import ConflictError
from service.model import INVALID_DURATION, Duration, FlowBucket, OutcomeRow, Reject
from service.postgres import aliases
from service.postgres.aliases import Alias
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


async def durations(harness: ScanHarness) -> dict[str, tuple[Any, ...]]:
    """Count, success rate and durations by outcome."""
    rows = await harness.rows(
        "SELECT outcome_name, outcome_count, success_rate, duration_count, duration_sum_ms, duration_min_ms,"
        " duration_max_ms FROM flow_outcomes.flow_outcome"
    )
    return {name: tuple(figures) for name, *figures in rows}


def row(
    part: str,
    count: int | None,
    success: int | None = 0,
    failure: int | None = 0,
    *,
    key: str = "o1",
    duration: Duration | None = None,
) -> OutcomeRow:
    bucket = FlowBucket("f", *day_span(0), part)
    return OutcomeRow(bucket, key, count, None, False, success, failure, duration=duration)


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
    """No other outcome is; and none where every figure has one part."""
    parts = [row("s", 5, 5), row("s", 1, 1, key="o2")]
    await store(harness, *parts, rejects=[reject])
    assert None not in {count for count, *_ in (await stored(harness)).values()}
    await store(harness, *parts, row("f", 2, key="o2"), rejects=[reject])
    assert {name for name, (count, *_) in (await stored(harness)).items() if count is None} == unknown


async def test_durations_add_up(harness: ScanHarness) -> None:
    """Counts and sums are added, min and max combined, a repeated part counts once; the rate is of the sums."""
    one = row("s", 5, 5, duration=Duration(5, 500, 50, 150))
    await store(harness, one, one, row("f", 3, 0, 3), row("v", 2, 2, duration=Duration(2, 100, 40, 60)))
    assert await durations(harness) == {"o1": (10, 0.7, 7, 600, 40, 150)}


async def test_durations_apart_from_their_counts(harness: ScanHarness) -> None:
    """They belong to the same figure; alone they are none."""
    alone = row("v", None, None, None, duration=Duration(1, 7, 7, 7))
    await store(
        harness, row("s", 5, 5), alone, row("x", None, None, None, key="o2", duration=Duration(1, 7, 7, 7))
    )
    assert await durations(harness) == {"o1": (5, 1.0, 1, 7, 7, 7)}
    assert await stored(harness) == {"o1": (5, 5, 0)}


async def test_durations_without_a_count_where_nothing_repeats(harness: ScanHarness) -> None:
    """They are no figure; the other outcomes are stored, and counted as rows."""
    alone = row("s", None, None, None, duration=Duration(1, 7, 7, 7))
    merged = await store(harness, alone, row("s", 1, 1, key="o2"))
    assert await stored(harness) == {"o2": (1, 1, 0)}
    assert list(merged.rows.values()) == [1]


async def test_a_part_without_min_or_max(harness: ScanHarness) -> None:
    """Those of the sum are unknown; its count and sum are not."""
    await store(
        harness,
        row("s", 5, 5, duration=Duration(5, 500, None, 150)),
        row("v", 2, 2, duration=Duration(2, 100, 40, None)),
    )
    assert await durations(harness) == {"o1": (7, 1.0, 7, 600, None, None)}


@pytest.mark.parametrize("invalid", [INVALID_DURATION, Duration(1, 2**63 - 1, 1, 1), Duration(2**63 - 1, 1, 1, 1)])
async def test_an_invalid_duration_makes_the_sum_unknown(harness: ScanHarness, invalid: Duration) -> None:
    """Of all parts and, under an alias, of all outcomes; so does a sum past a bigint. Counts stay."""
    valid = Duration(1, 10, 10, 10)
    await store(
        harness,
        row("s", 5, 5, duration=valid),
        row("v", 2, 2, duration=invalid),
        row("s", 1, 1, key="o2", duration=valid),
    )
    assert await durations(harness) == {"o1": (7, 1.0, *[None] * 4), "o2": (1, 1.0, 1, 10, 10, 10)}
    await aliases.add(harness.database, Alias("acme", None, "o2", "o1"))
    await aliases.apply(harness.database, "acme")
    assert await durations(harness) == {"o1": (8, 1.0, *[None] * 4)}


async def test_durations_under_an_alias(harness: ScanHarness) -> None:
    """They fold like counts; an outcome without any adds none, and a rejected one makes them unknown."""
    await store(
        harness,
        row("s", 4, 4, duration=Duration(4, 400, 50, 150)),
        row("s", 1, 1, key="o2", duration=Duration(1, 10, 10, 10)),
        row("f", 3, 0, 3, key="o3"),
        OutcomeRow(FlowBucket("f", *day_span(0)), "o4", None, None, rejected=True),
        rejects=[Reject("no count", "{}", "f", FIRST, "o4")],
    )
    for old in ("o2", "o3"):
        await aliases.add(harness.database, Alias("acme", None, old, "o1"))
    await aliases.apply(harness.database, "acme")
    assert (await durations(harness))["o1"] == (8, 0.625, 5, 410, 10, 150)
    await aliases.add(harness.database, Alias("acme", None, "o4", "o1"))
    await aliases.apply(harness.database, "acme")
    assert await durations(harness) == {"o1": (None, None, *[None] * 4)}


async def test_a_changed_duration_is_a_change(harness: ScanHarness) -> None:
    """It is stored as a version, and restates nothing; as-of has the former one. An equal one writes nothing."""
    one = row("s", 5, 5, duration=Duration(5, 500, 50, 150))
    await store(harness, one)
    [(at,)] = await harness.rows("SELECT clock_timestamp()")
    merged = await store(harness, row("s", 5, 5, duration=Duration(5, 501, 50, 150)))
    assert (merged.changed, merged.restated) == (1, {})
    assert (await durations(harness))["o1"][3] == 501
    query = "SELECT duration_sum_ms, success_rate FROM flow_outcomes.flow_outcome_as_of(%s)"
    assert await harness.rows(query, at) == [(500, 1.0)]
    assert (await store(harness, row("s", 5, 5, duration=Duration(5, 501, 50, 150)))).changed == 0
