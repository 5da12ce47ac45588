"""Requests and groups of each measure of the flow-aggregates API."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from service.extraction.normalise import BucketGrid, normalise
from service.genesys.flow_aggregates import FlowAggregates, decode
from service.model import Duration, Entry, Granularity, Measure, NormalisedPage, Query, Span

DAY = Span(datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 2, tzinfo=UTC))
INTERVAL = "2024-01-01T00:00:00.000Z/2024-01-02T00:00:00.000Z"
QUERY = Query("acme", DAY, Granularity.DAILY, "UTC", (), 100, None, DAY)
GROUP_BY = ("flowVersion", "mediaType")
STATS = {"count": 2, "sum": 70, "min": 30, "max": 40}


def entry(group: dict[str, Any], **metrics: object) -> dict[str, Any]:
    sent = [{"metric": name, "stats": stats} for name, stats in metrics.items()]
    return {"group": group, "data": [{"interval": INTERVAL, "metrics": sent}]}


def read(measure: Measure, *results: object, group_by: tuple[str, ...] = ()) -> NormalisedPage:
    query = replace(QUERY, measure=measure, group_by=group_by)
    body = json.dumps({"results": results}).encode()
    grid = BucketGrid.of(query, [DAY], lambda at: at == DAY.start)
    return normalise(decode(body, measure, group_by)[0], grid)


@pytest.mark.parametrize(
    ("measure", "groups", "metrics"),
    [
        (Measure.OUTCOMES, ["flowId", "flowOutcomeId", "flowOutcomeValue"], ["nFlowOutcome", "tFlowOutcome"]),
        (Measure.EXECUTIONS, ["flowId", "exitReason"], ["nFlow", "tFlow", "tFlowDisconnect", "tFlowExit"]),
        (Measure.MILESTONES, ["flowId", "flowMilestoneId"], ["nFlowMilestone", "oFlowMilestone"]),
    ],
)
def test_the_request_of_a_measure(measure: Measure, groups: list[str], metrics: list[str]) -> None:
    """The dimensions of the job follow; each has a query hash of its own."""
    query = replace(QUERY, measure=measure)
    body = FlowAggregates().body(replace(query, group_by=GROUP_BY))
    assert (body["groupBy"], body["metrics"]) == ([*groups, *GROUP_BY], metrics)
    assert FlowAggregates().body(query)["groupBy"] == groups
    hashes = {FlowAggregates().query_hash(each) for each in (QUERY, replace(query, group_by=GROUP_BY), query)}
    assert len(hashes) == (2 if measure is Measure.OUTCOMES else 3)


def test_executions_and_exits_of_one_group() -> None:
    """Executions of all reasons are parts of one figure; exits have the reason in their key."""
    group = {"flowId": "f", "exitReason": "TRANSFER"}
    page = read(Measure.EXECUTIONS, entry(group, nFlow={"count": 3}, tFlow=STATS, tFlowExit=STATS))
    rows = {row.source_key: row for row in page.rows}
    assert rows.keys() == {"nFlow", "tFlowExit:TRANSFER"}
    assert (rows["nFlow"].outcome_count, rows["nFlow"].duration) == (3, Duration(2, 70, 30, 40))
    assert rows["tFlowExit:TRANSFER"].outcome_count == 2
    assert rows["nFlow"].bucket.part


@pytest.mark.parametrize("reason", [None, 5, ""])
def test_an_exit_without_a_reason(reason: object) -> None:
    """Its reason is empty, not null: null stands for all executions."""
    page = read(Measure.EXECUTIONS, entry({"flowId": "f", "exitReason": reason}, tFlowDisconnect=STATS))
    assert [row.source_key for row in page.rows] == ["tFlowDisconnect:"]


def test_executions_that_only_ended_in_the_bucket() -> None:
    """None began in it, so their count is zero."""
    [row] = read(Measure.EXECUTIONS, entry({"flowId": "f"}, tFlow=STATS)).rows
    assert (row.outcome_count, row.duration) == (0, Duration(2, 70, 30, 40))


def test_an_invalid_execution_is_rejected_alone() -> None:
    """Under its key; the exit beside it is stored."""
    group = {"flowId": "f", "exitReason": "A"}
    page = read(Measure.EXECUTIONS, entry(group, nFlow={"count": -3}, tFlowExit=STATS))
    assert [reject.outcome for reject in page.rejects] == ["nFlow"]
    assert {row.source_key: row.outcome_count for row in page.rows} == {"nFlow": None, "tFlowExit:A": 2}


@pytest.mark.parametrize("uncounted", [{}, {"count": None}, None])
@pytest.mark.parametrize(
    ("measure", "metrics", "key"),
    [
        (Measure.OUTCOMES, ("nFlowOutcome", "tFlowOutcome"), "o"),
        (Measure.EXECUTIONS, ("nFlow", "tFlow"), "nFlow"),
        (Measure.EXECUTIONS, ("tFlowExit",), "tFlowExit:A"),
    ],
)
def test_a_metric_without_a_count(measure: Measure, metrics: tuple[str, ...], key: str, uncounted: object) -> None:
    """Is rejected, also beside durations: only an absent metric reports nothing."""
    group = {"flowId": "f", "flowOutcomeId": "o", "flowOutcomeValue": "SUCCESS", "exitReason": "A"}
    page = read(measure, entry(group, **{**dict.fromkeys(metrics, STATS), metrics[0]: uncounted}))
    assert [reject.outcome for reject in page.rejects] == [key]
    assert [(row.source_key, row.outcome_count, row.rejected) for row in page.rows] == [(key, None, True)]


@pytest.mark.parametrize(
    ("stats", "executions"),
    [
        ({"count": 4}, 4),
        ({"count": 4.0}, 4),
        ({"current": 4}, None),
        ({"count": -1}, None),
        ({}, None),
        (None, None),
    ],
)
def test_executions_of_a_milestone(stats: object, executions: int | None) -> None:
    """Null where the statistics are no count, which rejects nothing."""
    more = {} if stats is None else {"oFlowMilestone": stats}
    group = {"flowId": "f", "flowMilestoneId": "m"}
    page = read(Measure.MILESTONES, entry(group, nFlowMilestone={"count": 5}, **more))
    assert [(row.source_key, row.outcome_count, row.executions) for row in page.rows] == [("m", 5, executions)]
    assert not page.rejects


def test_a_milestone_that_is_not_counted() -> None:
    """Its executions alone are no figure."""
    group = {"flowId": "f", "flowMilestoneId": "m"}
    assert read(Measure.MILESTONES, entry(group, oFlowMilestone={"count": 5})).rows == []


@pytest.mark.parametrize("measure", list(Measure))
def test_a_group_without_what_identifies_a_figure(measure: Measure) -> None:
    """Is rejected alone."""
    metrics = {"nFlowOutcome": STATS, "nFlow": STATS, "nFlowMilestone": STATS}
    page = read(measure, entry({"mediaType": "voice"}, **metrics))
    assert page.rows == []
    assert {(each.reason, each.flow_id, each.bucket_start) for each in page.rejects} == {
        ("the entry has no flow id", None, page.rejects[0].bucket_start)
    }


@pytest.mark.parametrize(
    ("more", "dimensions"),
    [
        ({"mediaType": "voice", "flowVersion": "7.0"}, {"flowVersion": "7.0", "mediaType": "voice"}),
        ({"mediaType": "voice", "direction": "inbound"}, {"flowVersion": None, "mediaType": "voice"}),
        ({"mediaType": None}, {"flowVersion": None, "mediaType": None}),
        ({"mediaType": "", "flowVersion": "é⚑"}, {"flowVersion": "é⚑", "mediaType": ""}),
    ],
)
def test_dimensions(more: dict[str, object], dimensions: dict[str, object]) -> None:
    """Those of the job and no others; what a group lacks is null."""
    group = {"flowId": "f", "flowOutcomeId": "o", "flowOutcomeValue": "SUCCESS", **more}
    [row] = read(Measure.OUTCOMES, entry(group, nFlowOutcome={"count": 2}), group_by=GROUP_BY).rows
    assert json.loads(row.bucket.dimensions) == dimensions
    [row] = read(Measure.OUTCOMES, entry(group, nFlowOutcome={"count": 2})).rows
    assert row.bucket.dimensions == "{}"


@pytest.mark.parametrize("value", [5, True, ["voice"], {"a": 1}, "a\0b", "\ud800", "x" * 513])
def test_an_invalid_dimension(value: object) -> None:
    """Rejects its entry, and the flow's total is unknown; its neighbour is stored."""
    group = {"flowId": "f", "flowOutcomeId": "o", "flowOutcomeValue": "SUCCESS", "mediaType": value}
    valid = {**group, "mediaType": "voice"}
    counted = {"nFlowOutcome": {"count": 2}}
    page = read(Measure.OUTCOMES, entry(group, **counted), entry(valid, **counted), group_by=GROUP_BY)
    [reject] = page.rejects
    assert (reject.flow_id, reject.outcome, reject.identified) == ("f", None, False)
    assert "mediaType" in reject.reason
    assert [(row.source_key, row.outcome_count, row.rejected) for row in page.rows] == [
        ("", None, True),
        ("o", 2, False),
    ]


def test_an_entry_keeps_its_text() -> None:
    """Of every measure."""
    for measure in Measure:
        result = entry(
            {"flowId": "f", "flowMilestoneId": "m"}, nFlow=STATS, nFlowOutcome=STATS, nFlowMilestone=STATS
        )
        found: list[Entry] = decode(json.dumps({"results": [result]}).encode(), measure)[0]
        assert json.loads(found[0].raw) == result
