"""The queries of docs/querying.md, against a small stored history."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from service.model import Duration, FlowBucket, Granularity, Measure, OutcomeRow, Reject, Span
from service.postgres.pool import Database
from tests.support.planted_renames import Planted, store
from tests.support.scan_harness import ScanHarness

TEXT = (Path(__file__).parents[2] / "docs" / "querying.md").read_text()
QUERIES = [
    (heading, query)
    for heading, section in re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", TEXT, re.DOTALL | re.MULTILINE)
    for query in re.findall(r"^```sql\n(.*?)^```", section, re.DOTALL | re.MULTILINE)
]
MARCH = datetime(2024, 3, 1, tzinfo=UTC)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)


GROUP_BY = ("flowVersion", "mediaType")
PUBLISHED = 15
"""The day of March from which version 8.0 is published."""


def days(figures: dict[tuple[int, str, str], int | None]) -> list[OutcomeRow]:
    """Figures of March's days, a third of them from messages; the API's percentages have another denominator.

    Of version 7.0 half succeed, in 40 s each; of version 8.0 all, in 20 s.
    """
    rows = []
    for (day, flow, name), count in figures.items():
        version, taken, part = ("7.0", 40_000, 2) if day < PUBLISHED else ("8.0", 20_000, 1)
        for medium in ("voice", "message"):
            split = None if count is None else count // 3 if medium == "message" else count - count // 3
            success = None if split is None else split // part
            bucket = FlowBucket(
                flow,
                MARCH + day * DAY,
                MARCH + (day + 1) * DAY,
                dimensions=json.dumps({"flowVersion": version, "mediaType": medium}),
            )
            if split is None or success is None:
                rows.append(OutcomeRow(bucket, name, None, None, rejected=True))
            else:
                duration = Duration(success, success * taken, taken, taken)
                failure = split - success
                rows.append(OutcomeRow(bucket, name, split, 0.25, False, success, failure, None, duration))
    return rows


def executions() -> list[OutcomeRow]:
    """200 executions of the billing flow a day, of which 50 end elsewhere."""
    rows = []
    for day in range(31):
        bucket = FlowBucket("billing", MARCH + day * DAY, MARCH + (day + 1) * DAY)
        for key, count in (("nFlow", 200), ("tFlowExit:TRANSFER", 50), ("tFlowDisconnect:DISCONNECT", 150)):
            duration = Duration(count, count * 60_000, 60_000, 60_000)
            rows.append(OutcomeRow(bucket, key, count, None, rejected=False, duration=duration))
    return rows


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
    corrected = days({**figures, (30, "billing", "Paid"): 151})
    await desk.store(spans, spans, days(figures), rejects=[refused], group_by=GROUP_BY)
    await desk.store(spans, spans, corrected, rejects=[refused], group_by=GROUP_BY)
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
    await desk.store(spans, spans, executions(), stream="job:executions", measure=Measure.EXECUTIONS)
    await desk.rows("UPDATE flow_outcomes.flow SET name = 'Billing line' WHERE flow_id = 'billing' RETURNING 1")
    for revision, stamped_at in enumerate(
        ("2024-04-01 05:00Z", "2024-04-05 05:00Z", "2024-04-06 05:00Z", "2024-04-07 05:00Z"), 1
    ):
        await desk.rows(
            "UPDATE flow_outcomes.revision SET stamped_at = %s::timestamptz WHERE revision = %s RETURNING 1",
            stamped_at,
            revision,
        )
    await desk.rows(
        "INSERT INTO flow_outcomes.outcome_alias (org, old_name, new_name)"
        " VALUES ('acme', 'Old', 'New') RETURNING 1"
    )
    rename = [
        ("sales", name, "daily", MARCH + day * DAY, MARCH + (day + 1) * DAY, 10)
        for day in range(31)
        for name in ("Sold" if day < 15 else "Sale", "Lost")
    ]
    store(database, {"globex": Planted(rename)})
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
    _, _, suggested = answers["An outcome was renamed"]
    assert [row[:4] for row in suggested] == [("globex", "sales", "Sold", "Sale")]
    whole, moved = answers["Is the month complete and stable?"]
    of_job = {row[0]: (row[3], row[6], row[7]) for row in whole}
    assert (of_job["daily"], of_job[None]) == ((True, 1, 21), (True, 0, 0))
    assert [(str(row[0]), row[3], row[4]) for row in moved] == [("2024-03-31", 1, 21)]


async def test_success_duration_containment_and_dimensions_are_right(desk: ScanHarness) -> None:
    """By week, by flow, by version before and after a publication, by medium, with the flow's name."""
    answers: dict[str, list[list[tuple[object, ...]]]] = {}
    for heading, query in QUERIES:
        answers.setdefault(heading, []).append(await desk.rows(query.replace("%", "%%")))
    [weekly] = answers["How often does an outcome succeed?"]
    paid = {str(row[2]): str(row[5]) for row in weekly if row[:2] == ("Billing line", "Paid")}
    assert paid["2024-03-04"] == "49.6", "368 of 742: a half of each medium, rounded down"
    assert paid["2024-03-18"] == paid["2024-03-25"] == "100.0"
    [durations] = answers["How long does a success take?"]
    assert [(row[0], str(row[3]), str(row[4]), str(row[5])) for row in durations if row[1] == "Paid"] == [
        ("Billing line", "25.7", "20.0", "40.0")
    ]
    contained, per_execution = answers["How many calls stay in the flow?"]
    assert [(row[0], int(str(row[1])), int(str(row[2])), str(row[3])) for row in contained] == [
        ("Billing line", 6200, 1550, "75.0")
    ]
    assert {row[3] for row in per_execution} == {6200}
    versions, around = answers["What did a publication change?"]
    assert [(row[0], str(row[1]), str(row[2]), str(row[4]), str(row[5])) for row in versions] == [
        ("7.0", "2024-03-01", "2024-03-15", "49.6", "40.0"),
        ("8.0", "2024-03-16", "2024-03-31", "100.0", "20.0"),
    ]
    assert [(row[:2], str(row[3])) for row in around if row[1] == "Paid"] == [
        (("before", "Paid"), "49.6"),
        (("after", "Paid"), "100.0"),
    ]
    [media] = answers["Does it differ by medium?"]
    assert {row[0] for row in media} == {"voice", "message"}
    total = await desk.rows(
        "SELECT outcome_name, sum(outcome_count) FROM flow_outcomes.flow_outcome"
        " WHERE org = 'acme' AND granularity = 'daily' AND bucket_start < '2024-04-01' GROUP BY outcome_name"
    )
    sums: dict[object, int] = {}
    for _, name, count, *_ in media:
        sums[name] = sums.get(name, 0) + int(str(count))
    assert sums == {name: int(str(count)) for name, count in total}
