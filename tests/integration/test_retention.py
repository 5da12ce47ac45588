"""A merge of a window that starts before the limit of the org's retention."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from service.model import FlowBucket, OutcomeRow, Reject
from service.postgres.merge import Retention
from tests.support.scan_harness import ScanHarness, day_span, scan_harness

KNOWN, UNKNOWN = Retention(timedelta(days=30)), Retention(None)


@pytest.fixture
async def harness(database: str) -> AsyncIterator[ScanHarness]:
    async with scan_harness(database) as harness:
        yield harness


def row(day: int, name: str, count: int | None, flow: str = "f") -> OutcomeRow:
    span = day_span(day)
    return OutcomeRow(FlowBucket(flow, span.start, span.end), name, count, None, count is None)


async def stored(harness: ScanHarness) -> dict[tuple[str, str], Any]:
    query = "SELECT flow_id, outcome_name, outcome_count FROM flow_outcomes.flow_outcome"
    return {(flow, name): count for flow, name, count in await harness.rows(query)}


async def window(harness: ScanHarness) -> tuple[Any, ...]:
    query = "SELECT state, last_error, doubted_in, kept_stored FROM flow_outcomes.extraction_window"
    [found] = await harness.rows(query)
    return found


async def test_stored_figures_stay_and_new_ones_are_added(harness: ScanHarness) -> None:
    """Fewer, other and no counts change nothing and restate nothing; an outcome that is new is added."""
    await harness.store_days(range(1), [row(0, "a", 5), row(0, "b", 7), row(0, "c", None)])
    merged = await harness.store_days(
        range(1), [row(0, "a", 2), row(0, "c", 4), row(0, "d", 1), row(0, "e", 3, "g")], retention=KNOWN
    )
    assert (merged.doubted, merged.missing, merged.changed) == (set(), {}, 3)
    after = {("f", "a"): 5, ("f", "b"): 7, ("f", "c"): 4, ("f", "d"): 1, ("g", "e"): 3}
    assert await stored(harness) == after
    restated = await harness.rows("SELECT outcome_name, old_count FROM flow_outcomes.restatement ORDER BY 1")
    assert restated == [("c", None), ("d", None), ("e", None)]
    state, note, doubted_in, kept = await window(harness)
    assert (state, doubted_in, kept) == ("complete", None, True)
    assert "limit of the org's retention" in note
    await harness.store_days(range(1), [row(0, "a", 2)])
    assert (await stored(harness))["f", "a"] == 2
    assert await window(harness) == ("complete", None, None, False)


async def test_an_empty_scan_is_neither_accepted_nor_doubted(harness: ScanHarness) -> None:
    """Whether or not the retention is known, as the window is old; also after a doubt from before."""
    for retention in (KNOWN, UNKNOWN):
        await harness.store_days(range(1), [row(0, "a", 5)])
        assert (await harness.store_days(range(1), [])).doubted
        for _ in range(2):
            merged = await harness.store_days(range(1), [], retention=retention)
            assert (merged.doubted, merged.changed) == (set(), 0)
            assert await stored(harness) == {("f", "a"): 5}
            assert (await window(harness))[2:] == (None, True)


async def test_an_unknown_retention_protects_from_empty_scans_alone(harness: ScanHarness) -> None:
    """A scan that reports something is the truth of an old window too."""
    await harness.store_days(range(1), [row(0, "a", 5), row(0, "b", 7)])
    await harness.store_days(range(1), [row(0, "a", 2)], retention=UNKNOWN)
    assert await stored(harness) == {("f", "a"): 2, ("f", "b"): None}
    assert await window(harness) == ("complete", None, None, False)


async def test_no_other_outcome_of_a_stored_name_is_added(harness: ScanHarness) -> None:
    """A reader would see their sum: a changed figure. An outcome of another name is added."""
    await harness.store_days(range(1), [row(0, "new", 5)])
    await harness.rows("INSERT INTO flow_outcomes.outcome_alias VALUES ('acme', NULL, 'old', 'new') RETURNING 1")
    await harness.store_days(range(1), [row(0, "old", 3), row(0, "other", 1)], retention=KNOWN)
    assert await stored(harness) == {("f", "new"): 5, ("f", "other"): 1}


async def test_a_rejected_outcome_takes_no_figure_and_no_share(harness: ScanHarness) -> None:
    """Of the stored name, of another one, or of none; in a flow without figures it is stored as null."""
    shares = "SELECT outcome_name, outcome_share FROM flow_outcomes.flow_outcome WHERE flow_id = 'f' ORDER BY 1"
    await harness.store_days(range(1), [row(0, "a", 5), row(0, "b", 5)])
    rows = [row(0, "a", None), row(0, "c", None), row(0, "", None), row(0, "d", None, "g")]
    reject = Reject("count is no whole number", "{}", "f", day_span(0).start, None)
    merged = await harness.store_days(range(1), rows, rejects=[reject], retention=KNOWN)
    assert list(merged.rejected.values()) == [1]
    assert await harness.rows(shares) == [("a", 0.5), ("b", 0.5)]
    assert (await stored(harness))["g", "d"] is None


async def test_a_window_after_the_limit_in_the_same_scan_is_extracted_as_ever(harness: ScanHarness) -> None:
    """The limit is each window's own."""
    age = await harness.rows("SELECT extract(day FROM now() - '2024-01-02T00:00:00Z'::timestamptz)::integer")
    retention = Retention(timedelta(days=age[0][0] + 1))  # the limit plus a day is within the second day
    days = range(3)
    await harness.store_days(days, [row(day, "a", 5) for day in days])
    await harness.store_days(days, [row(day, "a", 2) for day in days], retention=retention)
    counts = await harness.rows("SELECT outcome_count FROM flow_outcomes.flow_outcome ORDER BY bucket_start")
    kept = await harness.rows("SELECT kept_stored FROM flow_outcomes.extraction_window ORDER BY window_start")
    assert (counts, kept) == ([(5,), (5,), (2,)], [(True,), (True,), (False,)])
