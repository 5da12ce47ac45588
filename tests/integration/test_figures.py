"""Figures over time: what single decisions of the merge and the views come to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from service.model import FlowBucket, OutcomeRow, Reject, Span
from service.postgres import aliases
from service.postgres.aliases import Alias
from service.postgres.merge import Merged
from service.postgres.merge.staging import Staging
from service.postgres.pool import Connection, Database
from tests.support.scan_harness import FIRST, ScanHarness

DAY = timedelta(days=1)
MAX = 2**63 - 1
SHOWN = (
    "SELECT outcome_name, outcome_count, outcome_percentage, outcome_share FROM flow_outcomes.flow_outcome"
    " ORDER BY bucket_start, outcome_name"
)


def span(day: int) -> Span:
    return Span(FIRST + day * DAY, FIRST + (day + 1) * DAY)


async def scan(desk: ScanHarness, days: range, figures: dict[tuple[int, str], int | None], **more: Any) -> Merged:  # noqa: ANN401
    """Scan days of the flow f."""
    rows = [
        OutcomeRow(FlowBucket("f", *span(day)), name, count, None, rejected=count is None)
        for (day, name), count in figures.items()
    ]
    spans = [span(day) for day in days]
    return await desk.store(spans, spans, rows, **more)


@pytest.fixture
async def desk(database: str) -> AsyncIterator[ScanHarness]:
    pool = Database(database, size=4, application_name="test")
    await pool.open()
    desk = ScanHarness(database, pool)
    await desk.found()
    yield desk
    await pool.close()


async def call(desk: ScanHarness, old: str, new: str) -> None:
    await aliases.add(desk.database, Alias("acme", None, old, new))
    await aliases.apply(desk.database, "acme")


async def test_a_sum_past_what_a_bigint_holds_is_not_known(desk: ScanHarness) -> None:
    """Neither is the total then; every view still answers, and nothing is restated from unknown to unknown."""
    await scan(desk, range(1), {(0, "A"): MAX, (0, "B"): 1, (0, "C"): 2})
    await call(desk, "A", "B")
    assert await desk.rows(SHOWN) == [("B", None, None, None), ("C", 2, None, None)]
    await scan(desk, range(1), {(0, "A"): MAX, (0, "B"): 3, (0, "C"): 2})
    assert await desk.rows("SELECT * FROM flow_outcomes.restatement") == []
    await scan(desk, range(1), {(0, "A"): 1, (0, "B"): 3, (0, "C"): 4})
    assert await desk.rows(SHOWN) == [("B", 4, None, 0.5), ("C", 4, None, 0.5)]
    assert await desk.rows(
        "SELECT outcome_name, old_count, new_count FROM flow_outcomes.restatement ORDER BY 1"
    ) == [
        ("B", None, 4),
        ("C", 2, 4),
    ]
    assert await desk.rows("SELECT restatements, restated_by FROM flow_outcomes.coverage") == [(2, 6)]


async def test_total_past_a_bigint_still_gives_shares(desk: ScanHarness) -> None:
    """Single counts that fit make a total that need not."""
    await scan(desk, range(1), {(0, "A"): MAX, (0, "B"): MAX})
    assert [row[3] for row in await desk.rows(SHOWN)] == [0.5, 0.5]


async def test_a_scan_that_began_earlier_does_not_overwrite_a_later_one(desk: ScanHarness) -> None:
    """Works overlap: the slow scan's other days are stored, and its window is complete."""
    await scan(desk, range(1, 2), {(1, "A"): 2, (1, "New"): 1}, number=9)
    slow = await scan(
        desk,
        range(3),
        {(0, "A"): 1, (1, "A"): 1, (1, "Old"): 9, (2, "A"): 1},
        number=8,
        work="ad hoc",
    )
    assert slow.restated == {}
    rows = await desk.rows(
        "SELECT extract(day FROM bucket_start)::int, outcome_name, outcome_count FROM flow_outcomes.flow_outcome"
        " WHERE outcome_count IS NOT NULL ORDER BY 1, 2"
    )
    assert rows == [(1, "A", 1), (2, "A", 2), (2, "New", 1), (3, "A", 1)]
    assert await desk.rows("SELECT DISTINCT state FROM flow_outcomes.extraction_window") == [("complete",)]
    await scan(desk, range(1, 2), {(1, "A"): 7}, work="ad hoc")
    assert [row[:2] for row in await desk.rows(SHOWN)][:3] == [("A", 1), ("A", 7), ("New", None)]


async def test_a_figure_that_another_work_read_refutes_an_empty_scan(desk: ScanHarness) -> None:
    """Then the next empty scan is the first one again."""
    await scan(desk, range(1), {(0, "A"): 1})
    assert (await scan(desk, range(1), {})).doubted
    await scan(desk, range(1), {(0, "A"): 1}, work="ad hoc")
    assert await desk.rows(
        "SELECT doubted_in, last_error FROM flow_outcomes.extraction_window WHERE job = 'daily'"
    ) == [(None, None)]
    assert (await scan(desk, range(1), {})).doubted
    assert not (await scan(desk, range(1), {})).doubted
    assert await desk.rows(SHOWN) == [("A", None, None, None)]


async def test_a_figure_where_none_was_refutes_an_empty_scan(desk: ScanHarness) -> None:
    """Of three days in one window one has figures; another work reads the others, which nobody had read before."""
    doubts = "SELECT doubted_in FROM flow_outcomes.extraction_window WHERE job = 'daily'"
    await scan(desk, range(1), {(0, "A"): 1}, work="ad hoc")
    all_days = Span(span(0).start, span(2).end)
    assert (await desk.store([all_days], [span(0), span(1), span(2)], [], cycle="first")).doubted
    await scan(desk, range(2, 4), {(2, ""): None, (3, "A"): 2}, work="ad hoc")
    assert await desk.rows(doubts) == [("first",)]
    await scan(desk, range(1, 2), {(1, "A"): 2}, work="ad hoc")
    assert await desk.rows(doubts) == [(None,)]


async def test_a_name_that_another_is_called_now_is_not_missing(desk: ScanHarness) -> None:
    """Not in a day that is read for the first time, nor in one that is read again."""
    await scan(desk, range(1), {(0, "Old"): 1, (0, "Gone"): 1})
    await call(desk, "Old", "New")
    for days in (range(1, 2), range(1)):
        merged = await scan(desk, days, {(day, "New"): 2 for day in days})
        [missing] = merged.missing.values()
        assert (missing.rows, missing.sample) == (1, ["Gone"])


@pytest.mark.parametrize("at_once", [True, False])
async def test_what_was_never_read_may_be_stored_at_once(
    desk: ScanHarness, monkeypatch: pytest.MonkeyPatch, *, at_once: bool
) -> None:
    """Or brought in first: either way the same is stored, each figure under its own name and day."""
    stored: list[int] = []
    store = Staging.store

    async def noted(self: Staging, connection: Connection, *known: Any, **columns: Any) -> int:  # noqa: ANN401
        stored.append(await store(self, connection, *known, **columns))
        return stored[-1]

    monkeypatch.setattr(Staging, "store", noted)
    if not at_once:
        monkeypatch.setattr(Staging, "plain", False)
    told: dict[tuple[int, str], int | None] = {
        (day, name): day * 10 + place for day in (2, 0, 1) for place, name in enumerate("CAB") if day != place
    }
    merged = await scan(desk, range(3), told)
    assert (merged.changed, sum(merged.rows.values()), sum(stored)) == (8, 6, 6 if at_once else 0)
    days = "SELECT extract(day FROM bucket_start)::int - 1, outcome_name, outcome_count"
    assert await desk.rows(f"{days} FROM flow_outcomes.flow_outcome ORDER BY 1, 2") == [
        *((0, "A", 1), (0, "B", 2)),
        *((1, "A", None), (1, "B", 12), (1, "C", 10)),
        *((2, "A", 21), (2, "B", None), (2, "C", 20)),
    ]
    again = await scan(desk, range(3), told)
    assert (again.changed, sum(again.rows.values()), len(stored)) == (0, 6, int(at_once))


async def test_an_entry_that_may_be_anything_takes_no_null_back(desk: ScanHarness) -> None:
    """It tells nothing of what is missing: neither that it is, nor that it is not."""
    await scan(desk, range(2), {(0, "A"): 1, (0, "B"): 1, (1, "A"): 1})
    before = await desk.rows(SHOWN)
    assert ("B", None, None, None) in before
    reject = Reject("no flow id", "{}", None, FIRST + DAY, "B")
    assert (await scan(desk, range(1, 2), {(1, "A"): 1}, rejects=[reject])).changed == 0
    assert await desk.rows(SHOWN) == before


async def test_each_refused_outcome_is_kept_once(desk: ScanHarness) -> None:
    """Also where the same entry came twice, with others in between; and not again when a later scan brings it."""
    same, other = (Reject("no flow id", text, None, FIRST, None) for text in ('{"same": 1}', '{"other": 1}'))
    for rejects in ([same, other, same], [same, other, same], [other, same]):
        await scan(desk, range(1), {(0, "A"): 1}, rejects=rejects)
    rows = await desk.rows("SELECT entry, count(*) FROM flow_outcomes.rejected_entry GROUP BY 1 ORDER BY 1")
    assert rows == [('{"other": 1}', 1), ('{"same": 1}', 2)]


async def test_coverage_tells_how_a_window_came_about(desk: ScanHarness) -> None:
    """Since when it is complete, when it was confirmed, and what later readings moved."""
    await scan(desk, range(2), {(0, "A"): 10, (1, "A"): 5})
    first = await desk.rows("SELECT complete_since FROM flow_outcomes.coverage ORDER BY window_start")
    await scan(desk, range(1), {(0, "A"): 7, (0, "B"): 1})
    await scan(desk, range(1), {(0, "A"): 8, (0, "B"): 1})
    rows = await desk.rows(
        "SELECT org, job, complete, complete_since < confirmed_at, doubted, restatements, restated_by,"
        " last_restated_at IS NOT NULL FROM flow_outcomes.coverage ORDER BY window_start"
    )
    assert rows == [
        ("acme", "daily", True, True, False, 3, 5, True),
        ("acme", "daily", True, False, False, 0, 0, False),
    ]
    assert first == await desk.rows("SELECT complete_since FROM flow_outcomes.coverage ORDER BY window_start")


async def test_as_of_is_planned_with_the_query_around_it(desk: ScanHarness) -> None:
    """The filters of a dashboard reach the indexes of figures and history: no function is run as a whole."""
    async with await psycopg.AsyncConnection.connect(desk.dsn, autocommit=True) as connection:
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


async def test_names_are_stored_to_the_letter(desk: ScanHarness) -> None:
    """Quotes, backslashes, line ends, marks that turn the writing round, spaces, and what looks like SQL."""
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
    await scan(desk, range(1), {(0, name): number for number, name in enumerate(names)})
    rows = await desk.rows(
        "SELECT outcome_count, outcome_name, outcome_key FROM flow_outcomes.flow_outcome ORDER BY 1"
    )
    assert rows == [(number, name, f"f_{name}") for number, name in enumerate(names)]
    for name in names[1:]:
        await call(desk, name, names[0])
    assert await desk.rows("SELECT outcome_name, outcome_count FROM flow_outcomes.flow_outcome") == [
        (names[0], 45)
    ]
