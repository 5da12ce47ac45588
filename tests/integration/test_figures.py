"""Single decisions of the merge and the views."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest

from service.model import FlowBucket, OutcomeRow, Reject, Span
from service.postgres import aliases
from service.postgres.aliases import Alias
from service.postgres.merge import Merged, ScanBuffer
from service.postgres.merge.loader import ScanLoader
from tests.support.scan_harness import FIRST, ScanHarness, day_span, scan_harness

MAX = 2**63 - 1
SHOWN = (
    "SELECT outcome_name, outcome_count, outcome_percentage, outcome_share FROM flow_outcomes.flow_outcome"
    " ORDER BY bucket_start, outcome_name"
)


async def scan(
    harness: ScanHarness,
    days: range,
    figures: dict[tuple[int, str], int | None],
    **options: Any,  # noqa: ANN401 - of store
) -> Merged:
    """Merge one scan of days of the flow f; a figure of None is a rejected one."""
    rows = [
        OutcomeRow(FlowBucket("f", *day_span(day)), name, count, None, rejected=count is None)
        for (day, name), count in figures.items()
    ]
    return await harness.store_days(days, rows, **options)


@pytest.fixture
async def harness(database: str) -> AsyncIterator[ScanHarness]:
    async with scan_harness(database) as harness:
        yield harness


async def rename(harness: ScanHarness, old: str, new: str) -> None:
    await aliases.add(harness.database, Alias("acme", None, old, new))
    await aliases.apply(harness.database, "acme")


async def test_a_sum_that_does_not_fit_a_bigint_is_unknown(harness: ScanHarness) -> None:
    """So is the total; no view fails, and nothing is restated from unknown to unknown."""
    await scan(harness, range(1), {(0, "A"): MAX, (0, "B"): 1, (0, "C"): 2})
    await rename(harness, "A", "B")
    assert await harness.rows(SHOWN) == [("B", None, None, None), ("C", 2, None, None)]
    await scan(harness, range(1), {(0, "A"): MAX, (0, "B"): 3, (0, "C"): 2})
    assert await harness.rows("SELECT * FROM flow_outcomes.restatement") == []
    await scan(harness, range(1), {(0, "A"): 1, (0, "B"): 3, (0, "C"): 4})
    assert await harness.rows(SHOWN) == [("B", 4, None, 0.5), ("C", 4, None, 0.5)]
    assert await harness.rows(
        "SELECT outcome_name, old_count, new_count FROM flow_outcomes.restatement ORDER BY 1"
    ) == [
        ("B", None, 4),
        ("C", 2, 4),
    ]
    assert await harness.rows("SELECT restatements, restated_by FROM flow_outcomes.coverage") == [(2, 6)]


async def test_a_total_that_does_not_fit_a_bigint_gives_shares(harness: ScanHarness) -> None:
    """Counts that fit a bigint may have a total that does not."""
    await scan(harness, range(1), {(0, "A"): MAX, (0, "B"): MAX})
    assert [row[3] for row in await harness.rows(SHOWN)] == [0.5, 0.5]


async def test_a_scan_that_began_earlier_does_not_overwrite_a_later_one(harness: ScanHarness) -> None:
    """Streams overlap: the other days of the slow scan are stored, and its window is complete."""
    await scan(harness, range(1, 2), {(1, "A"): 2, (1, "New"): 1}, number=9)
    slow = await scan(
        harness,
        range(3),
        {(0, "A"): 1, (1, "A"): 1, (1, "Old"): 9, (2, "A"): 1},
        number=8,
        stream="ad hoc",
    )
    assert slow.restated == {}
    rows = await harness.rows(
        "SELECT extract(day FROM bucket_start)::int, outcome_name, outcome_count FROM flow_outcomes.flow_outcome"
        " WHERE outcome_count IS NOT NULL ORDER BY 1, 2"
    )
    assert rows == [(1, "A", 1), (2, "A", 2), (2, "New", 1), (3, "A", 1)]
    assert await harness.rows("SELECT DISTINCT state FROM flow_outcomes.extraction_window") == [("complete",)]
    await scan(harness, range(1, 2), {(1, "A"): 7}, stream="ad hoc")
    assert [row[:2] for row in await harness.rows(SHOWN)][:3] == [("A", 1), ("A", 7), ("New", None)]


async def test_a_figure_of_another_stream_clears_a_doubt(harness: ScanHarness) -> None:
    """The next empty scan is the first one again."""
    await scan(harness, range(1), {(0, "A"): 1})
    assert (await scan(harness, range(1), {})).doubted
    await scan(harness, range(1), {(0, "A"): 1}, stream="ad hoc")
    assert await harness.rows(
        "SELECT doubted_in, last_error FROM flow_outcomes.extraction_window WHERE job = 'daily'"
    ) == [(None, None)]
    assert (await scan(harness, range(1), {})).doubted
    assert not (await scan(harness, range(1), {})).doubted
    assert await harness.rows(SHOWN) == [("A", None, None, None)]


async def test_a_figure_where_none_was_stored_clears_a_doubt(harness: ScanHarness) -> None:
    """Of three days in one window one has figures; another stream then reads the others for the first time."""
    doubts = "SELECT doubted_in FROM flow_outcomes.extraction_window WHERE job = 'daily'"
    await scan(harness, range(1), {(0, "A"): 1}, stream="ad hoc")
    all_days = Span(day_span(0).start, day_span(2).end)
    assert (await harness.store([all_days], [day_span(day) for day in range(3)], [], cycle="first")).doubted
    await scan(harness, range(2, 4), {(2, ""): None, (3, "A"): 2}, stream="ad hoc")
    assert await harness.rows(doubts) == [("first",)]
    await scan(harness, range(1, 2), {(1, "A"): 2}, stream="ad hoc")
    assert await harness.rows(doubts) == [(None,)]


async def test_a_name_with_an_alias_is_not_missing(harness: ScanHarness) -> None:
    """Neither in a day that is read for the first time, nor in one that is read again."""
    await scan(harness, range(1), {(0, "Old"): 1, (0, "Gone"): 1})
    await rename(harness, "Old", "New")
    for days in (range(1, 2), range(1)):
        merged = await scan(harness, days, {(day, "New"): 2 for day in days})
        [missing] = merged.missing.values()
        assert (missing.rows, missing.sample) == (1, ["Gone"])


@pytest.mark.parametrize("copied", [True, False])
async def test_a_first_scan_may_be_copied_directly(
    harness: ScanHarness, monkeypatch: pytest.MonkeyPatch, *, copied: bool
) -> None:
    """With or without the temporary tables the same is stored, each figure under its name and day."""
    copies: list[int] = []
    copy_to_figure = ScanLoader.copy_to_figure

    async def counted(self: ScanLoader) -> None:
        await copy_to_figure(self)
        copies.append(self._result.changed)

    monkeypatch.setattr(ScanLoader, "copy_to_figure", counted)
    if not copied:
        monkeypatch.setattr(ScanBuffer, "directly_copyable", False)
    figures: dict[tuple[int, str], int | None] = {
        (day, name): day * 10 + place for day in (2, 0, 1) for place, name in enumerate("CAB") if day != place
    }
    merged = await scan(harness, range(3), figures)
    assert (merged.changed, sum(merged.rows.values()), sum(copies)) == (8, 6, 6 if copied else 0)
    days = "SELECT extract(day FROM bucket_start)::int - 1, outcome_name, outcome_count"
    assert await harness.rows(f"{days} FROM flow_outcomes.flow_outcome ORDER BY 1, 2") == [
        *((0, "A", 1), (0, "B", 2)),
        *((1, "A", None), (1, "B", 12), (1, "C", 10)),
        *((2, "A", 21), (2, "B", None), (2, "C", 20)),
    ]
    again = await scan(harness, range(3), figures)
    assert (again.changed, sum(again.rows.values()), len(copies)) == (0, 6, int(copied))


async def test_an_unidentified_entry_deletes_no_null(harness: ScanHarness) -> None:
    """It makes absence inconclusive, so a null is neither added nor deleted."""
    await scan(harness, range(2), {(0, "A"): 1, (0, "B"): 1, (1, "A"): 1})
    before = await harness.rows(SHOWN)
    assert ("B", None, None, None) in before
    reject = Reject("no flow id", "{}", None, day_span(1).start, "B")
    assert (await scan(harness, range(1, 2), {(1, "A"): 1}, rejects=[reject])).changed == 0
    assert await harness.rows(SHOWN) == before


async def test_each_rejected_outcome_is_stored_once(harness: ScanHarness) -> None:
    """Also where an entry is repeated, with others in between; a later scan does not add it again."""
    same, other = (Reject("no flow id", text, None, FIRST, None) for text in ('{"same": 1}', '{"other": 1}'))
    for rejects in ([same, other, same], [same, other, same], [other, same]):
        await scan(harness, range(1), {(0, "A"): 1}, rejects=rejects)
    rows = await harness.rows("SELECT entry, count(*) FROM flow_outcomes.rejected_entry GROUP BY 1 ORDER BY 1")
    assert rows == [('{"other": 1}', 1), ('{"same": 1}', 2)]


async def test_coverage_shows_the_history_of_a_window(harness: ScanHarness) -> None:
    """Since when it is complete, when it was confirmed, and how far later scans changed it."""
    await scan(harness, range(2), {(0, "A"): 10, (1, "A"): 5})
    first = await harness.rows("SELECT complete_since FROM flow_outcomes.coverage ORDER BY window_start")
    await scan(harness, range(1), {(0, "A"): 7, (0, "B"): 1})
    await scan(harness, range(1), {(0, "A"): 8, (0, "B"): 1})
    rows = await harness.rows(
        "SELECT org, job, complete, complete_since < confirmed_at, doubted, restatements, restated_by,"
        " last_restated_at IS NOT NULL FROM flow_outcomes.coverage ORDER BY window_start"
    )
    assert rows == [
        ("acme", "daily", True, True, False, 3, 5, True),
        ("acme", "daily", True, False, False, 0, 0, False),
    ]
    assert first == await harness.rows("SELECT complete_since FROM flow_outcomes.coverage ORDER BY window_start")


async def test_as_of_is_planned_with_the_query_around_it(harness: ScanHarness) -> None:
    """The function is inlined: the filters of a dashboard reach the indexes of figures and history."""
    async with await psycopg.AsyncConnection.connect(harness.dsn, autocommit=True) as connection:
        await connection.execute("SET enable_seqscan = off")
        await connection.execute("SELECT flow_outcomes.ensure_partitions('2024-01-01Z', '2024-12-01Z')")
        cursor = await connection.execute(
            "EXPLAIN SELECT * FROM flow_outcomes.flow_outcome_as_of('2024-05-01Z') WHERE org = 'acme'"
            " AND granularity = 'daily' AND bucket_start >= '2024-03-01Z' AND bucket_start < '2024-04-01Z'"
        )
        plan = "\n".join(row[0] for row in await cursor.fetchall())
    assert "Function Scan" not in plan
    assert "figure_y2024m03_pkey" in plan
    assert "figure_history_y2024m03_pkey" in plan
    assert "2024m04" not in plan


async def test_a_reader_of_the_view_needs_no_right_on_the_tables(harness: ScanHarness) -> None:
    """The view reads with its owner's rights."""
    await scan(harness, range(1), {(0, "A"): 1})
    async with await psycopg.AsyncConnection.connect(harness.dsn) as connection:
        await connection.execute("CREATE ROLE view_reader")
        await connection.execute("GRANT USAGE ON SCHEMA flow_outcomes TO view_reader")
        await connection.execute("GRANT SELECT ON flow_outcomes.flow_outcome TO view_reader")
        await connection.execute("SET ROLE view_reader")
        cursor = await connection.execute("SELECT outcome_name, outcome_count FROM flow_outcomes.flow_outcome")
        assert await cursor.fetchall() == [("A", 1)]
        await connection.rollback()


async def test_names_are_stored_to_the_letter(harness: ScanHarness) -> None:
    """Quotes, backslashes, line breaks, right-to-left marks, spaces, and text that looks like SQL."""
    names = [
        "'; DROP TABLE x; --",
        "\\N",
        "a\nb\t",
        "\u202eevil",
        " ",
        "%s%%{0}$1",
        "e\u0301",
        "é",
        "🏴‍☠️",
        "x" * 512,
    ]
    await scan(harness, range(1), {(0, name): number for number, name in enumerate(names)})
    rows = await harness.rows(
        "SELECT outcome_count, outcome_name, outcome_key FROM flow_outcomes.flow_outcome ORDER BY 1"
    )
    assert rows == [(number, name, f"f_{name}") for number, name in enumerate(names)]
    for name in names[1:]:
        await rename(harness, name, names[0])
    assert await harness.rows("SELECT outcome_name, outcome_count FROM flow_outcomes.flow_outcome") == [
        (names[0], 45)
    ]
