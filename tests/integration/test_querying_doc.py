"""The queries of docs/querying.md, against a small stored history."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from service.model import FlowBucket, Granularity, OutcomeRow, Reject, Span
from service.postgres.pool import Database
from tests.support.scan_harness import ScanHarness

TEXT = (Path(__file__).parents[2] / "docs" / "querying.md").read_text()
QUERIES = [
    (heading, query)
    for heading, section in re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", TEXT, re.DOTALL | re.MULTILINE)
    for query in re.findall(r"^```sql\n(.*?)^```", section, re.DOTALL | re.MULTILINE)
]
MARCH = datetime(2024, 3, 1, tzinfo=UTC)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)


def days(figures: dict[tuple[int, str, str], int | None]) -> list[OutcomeRow]:
    """Figures of March's days; the API's percentages are those of another denominator."""
    return [
        OutcomeRow(
            FlowBucket(flow, MARCH + day * DAY, MARCH + (day + 1) * DAY),
            name,
            count,
            None if count is None else 0.5,
            count is None,
        )
        for (day, flow, name), count in figures.items()
    ]


@pytest.fixture
async def desk(database: str) -> AsyncIterator[ScanHarness]:
    """March in days and its last week in hours; the days were read on the 1st of April and again on the 5th."""
    pool = Database(database, size=2, application_name="test")
    await pool.open()
    desk = ScanHarness(database, pool)
    await desk.create_org()
    figures: dict[tuple[int, str, str], int | None] = {}
    for day in range(31):
        figures |= {(day, "billing", "Paid"): 100 + day, (day, "billing", "Lost"): 50}
        if day != 20:
            figures[day, "support", "Solved"] = 30
        if day not in (12, 20):
            figures[day, "support", "Closed"] = 4
    figures[9, "support", "Closed"] = None
    spans = [Span(MARCH + day * DAY, MARCH + (day + 1) * DAY) for day in range(31)]
    refused = Reject("a count of -1", '{"count": -1}', "support", MARCH + 9 * DAY, "Closed")
    await desk.store(spans, spans, days(figures), rejects=[refused])
    await desk.store(spans, spans, days({**figures, (30, "billing", "Paid"): 151}), rejects=[refused])
    hours = [Span(MARCH + 24 * DAY + hour * HOUR, MARCH + 24 * DAY + (hour + 1) * HOUR) for hour in range(7 * 24)]
    await desk.store(
        [Span(hours[0].start, hours[-1].end)],
        hours,
        [
            OutcomeRow(FlowBucket("billing", *hour), "Paid", hour.start.hour, None, rejected=False)
            for hour in hours
        ],
        granularity=Granularity.HOURLY,
        stream="ad hoc",
    )
    for revision, stamped_at in enumerate(("2024-04-01 05:00Z", "2024-04-05 05:00Z", "2024-04-06 05:00Z"), 1):
        await desk.rows(
            "UPDATE flow_outcomes.revision SET stamped_at = %s::timestamptz WHERE revision = %s RETURNING 1",
            stamped_at,
            revision,
        )
    await desk.rows(
        "INSERT INTO flow_outcomes.outcome_alias (org, old_name, new_name)"
        " VALUES ('acme', 'Old', 'New') RETURNING 1"
    )
    yield desk
    await pool.close()


def test_there_are_queries() -> None:
    """The document was read."""
    assert len(QUERIES) > 12


async def test_each_query_answers(desk: ScanHarness) -> None:
    """Run one after the other as a reader would: every one gives rows."""
    for heading, query in QUERIES:
        rows = await desk.rows(query.replace("%", "%%"))
        assert rows, heading


async def test_the_answers_are_right(desk: ScanHarness) -> None:
    """What was changed, silent, missing and stood on the 3rd of April comes out of the queries as written."""
    answers: dict[str, list[list[tuple[object, ...]]]] = {}
    for heading, query in QUERIES:
        answers.setdefault(heading, []).append(await desk.rows(query.replace("%", "%%")))
    trend, together = answers["How does an outcome's share change?"]
    assert [str(each) for each in trend[0][1:]] == ["100", "66.7", "66.7"]
    assert len(trend) == 31
    assert [row[3] for row in together][9] == 1
    restated, differing = answers["What changed since Monday's report?"]
    assert [row[5:] for row in restated] == [(130, 151, 21)]
    assert [row[3:] for row in differing] == [(130, 151)]
    [stood] = answers["What was March's figure on the 3rd of April?"]
    march = sum(100 + day for day in range(31))
    assert [(name, then, now) for name, then, now in stood if name == "Paid"] == [("Paid", march, march + 21)]
    silent, missing = answers["Which flows reported nothing?"]
    assert [(str(day), flow, expected) for day, flow, expected in silent] == [("2024-03-21", "support", 2)]
    assert [(name, str(day)) for _, name, day in missing] == [("Closed", "2024-03-10"), ("Closed", "2024-03-13")]
    whole, moved = answers["Is the month complete and stable?"]
    assert [(row[0], row[3], row[6], row[7]) for row in whole] == [("daily", True, 1, 21), (None, True, 0, 0)]
    assert [(str(row[0]), row[3], row[4]) for row in moved] == [("2024-03-31", 1, 21)]
