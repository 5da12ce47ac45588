"""Requests and responses of the flow-aggregates API."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from service.errors import (
    ForbiddenError,
    InvalidResponseError,
    QueryRefusedError,
    QueryTooLargeError,
    RequestRejectedError,
    ServerError,
)
from service.extraction.normalise import BucketGrid, normalise
from service.genesys.error_mapping import error_from_response
from service.genesys.flow_aggregates import POLICY, FlowAggregates, decode
from service.genesys.redaction import Redactor
from service.model import INVALID_DURATION, Duration, Entry, Figure, Granularity, Query, Span

DAY = Span(datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 2, tzinfo=UTC))
INTERVAL = "2024-01-01T00:00:00.000Z/2024-01-02T00:00:00.000Z"
QUERY = Query("acme", DAY, Granularity.DAILY, "Europe/Berlin", (), 100, None, DAY)


def datum(total: object = 145, failed: object = None, **changed: object) -> dict[str, Any]:
    metrics = [{"metric": "nFlowOutcome", "stats": {"count": total}}]
    if failed is not None:
        metrics.append({"metric": "nFlowOutcomeFailed", "stats": {"count": failed}})
    return {"interval": INTERVAL, "metrics": metrics, **changed}


def group(value: str | None = "SUCCESS", **more: str) -> dict[str, str]:
    split = {} if value is None else {"flowOutcomeValue": value}
    return {"flowId": "f1", "flowOutcomeId": "o1", **split, **more}


def read(*results: object, **more: object) -> list[Entry]:
    return decode(json.dumps({"results": results, **more}).encode())[0]


def figures(*results: object) -> list[tuple[int | None, int | None, int | None]]:
    """Count, successes and failures of each row; None where normalisation rejects them."""
    frame = BucketGrid.of(QUERY, [DAY], lambda at: at == DAY.start)
    rows = normalise(read(*results), frame).rows
    return [(row.outcome_count, row.success, row.failure) for row in rows]


class TestRequests:
    def test_the_body_follows_the_published_api(self) -> None:
        """Interval in UTC, period, time zone, groups and the metric; no filter for all flows."""
        assert FlowAggregates().body(QUERY) == {
            "interval": INTERVAL,
            "granularity": "P1D",
            "timeZone": "Europe/Berlin",
            "groupBy": ["flowId", "flowOutcomeId", "flowOutcomeValue"],
            "metrics": ["nFlowOutcome", "tFlowOutcome"],
        }

    @pytest.mark.parametrize(
        ("granularity", "period"),
        [(Granularity.HOURLY, "PT1H"), (Granularity.DAILY, "P1D"), (Granularity.MONTHLY, "P1M")],
    )
    def test_granularity_is_a_period(self, granularity: Granularity, period: str) -> None:
        """In ISO 8601."""
        assert FlowAggregates().body(replace(QUERY, granularity=granularity))["granularity"] == period

    def test_flows_are_predicates_of_one_value_each(self) -> None:
        """Joined with or, and sorted."""
        assert FlowAggregates().body(replace(QUERY, flows=("b", "a")))["filter"] == {
            "type": "or",
            "predicates": [
                {"type": "dimension", "dimension": "flowId", "operator": "matches", "value": flow} for flow in "ab"
            ],
        }

    def test_the_interval_is_the_querys_span(self) -> None:
        """This API has no metricsDelay, so the span needs no extension."""
        further = replace(
            QUERY, metrics_delay=timedelta(hours=1), request_span=Span(DAY.start, DAY.end + DAY.duration)
        )
        assert FlowAggregates().body(further) == FlowAggregates().body(QUERY)
        assert FlowAggregates().query_hash(further) == FlowAggregates().query_hash(QUERY)


class TestResponses:
    def test_a_group_in_a_bucket_is_an_entry(self) -> None:
        """Under the outcome's id; its text is the complete group, unchanged."""
        result = {"group": group(), "data": [datum()]}
        [entry] = read(result)
        assert (entry.flow_id, entry.interval) == ("f1", tuple(INTERVAL.split("/")))
        assert entry.outcomes == {"o1": Figure(145, None, 145, 0)}
        assert json.loads(entry.raw) == result

    def test_a_part_is_identified_by_the_other_dimensions(self) -> None:
        """In any order; the loose decoder gives the same part."""
        one, other, reordered, loose = (
            read({"group": each, "data": [datum(count)]})[0].part
            for each, count in (
                (group(mediaType="voice"), 1),
                (group(mediaType="chat"), 1),
                (dict(reversed(group(mediaType="voice").items())), 1),
                (group(mediaType="voice"), 1.0),
            )
        )
        assert one == reordered == loose != other

    @pytest.mark.parametrize(
        ("value", "total", "failed", "expected"),
        [
            ("SUCCESS", 5, None, (5, 5, 0)),
            ("SUCCESS", 5, 0, (5, 5, 0)),
            ("FAILURE", 5, 5, (5, 0, 5)),
            ("FAILURE", 5, None, (5, 0, 5)),
            ("UNKNOWN", 5, None, (5, 0, 0)),
            ("SOMETHING", 5, None, (5, 0, 0)),
            (None, 5, 2, (5, 3, 2)),
            (None, 5, None, (5, None, None)),
            ("SUCCESS", 5.0, None, (5, 5, 0)),
            ("SUCCESS", 0, None, (0, 0, 0)),
            # nFlowOutcomeFailed contradicts the count or the value: the split is null
            ("SUCCESS", 5, 1, (5, None, None)),
            ("SUCCESS", 0, 1, (0, None, None)),
            ("FAILURE", 5, 3, (5, None, None)),
            ("FAILURE", 10, 9, (10, None, None)),
            ("FAILURE", 5, 6, (5, None, None)),
            ("FAILURE", 5, "5", (5, None, None)),
            ("FAILURE", 5, -5, (5, None, None)),
            ("UNKNOWN", 5, 5, (5, None, None)),
            (None, 5, 6, (5, None, None)),
            (None, 5, "2", (5, None, None)),
            (None, 5, 1.5, (5, None, None)),
            ("SUCCESS", "5", None, (None, None, None)),
            ("SUCCESS", -5, None, (None, None, None)),
            ("FAILURE", 1.5, None, (None, None, None)),
            ("SUCCESS", True, None, (None, None, None)),
            ("SUCCESS", 2**63, None, (None, None, None)),
        ],
    )
    def test_success_and_failure(
        self, value: str | None, total: object, failed: object, expected: tuple[int | None, ...]
    ) -> None:
        """The group's value splits; nFlowOutcomeFailed splits where the groups do not, and must agree."""
        assert figures({"group": group(value), "data": [datum(total, failed)]}) == [expected]

    @pytest.mark.parametrize(
        ("value", "stats", "expected"),
        [
            ("SUCCESS", {"count": 2, "sum": 5000, "min": 2000, "max": 3000}, Duration(2, 5000, 2000, 3000)),
            ("SUCCESS", {"count": 2.0, "sum": 4999.6, "min": 1.4, "max": 3e3}, Duration(2, 5000, 1, 3000)),
            ("SUCCESS", {"count": 2, "sum": 5000}, Duration(2, 5000, None, None)),
            ("SUCCESS", {"count": 0, "sum": 0}, None),
            ("SUCCESS", None, None),
            # of successes alone
            ("FAILURE", {"count": 2, "sum": 5000, "min": 2000, "max": 3000}, None),
            ("UNKNOWN", {"count": 2, "sum": 5000, "min": 2000, "max": 3000}, None),
            (None, {"count": 2, "sum": 5000, "min": 2000, "max": 3000}, None),
            # invalid: the count is not in doubt
            ("SUCCESS", {"count": 2}, INVALID_DURATION),
            ("SUCCESS", {}, INVALID_DURATION),
            ("SUCCESS", {"count": -2, "sum": 5000}, INVALID_DURATION),
            ("SUCCESS", {"count": 2, "sum": "5000"}, INVALID_DURATION),
            ("SUCCESS", {"count": 2, "sum": 5000, "min": -1}, INVALID_DURATION),
            ("SUCCESS", {"count": 2, "sum": 5000, "max": True}, INVALID_DURATION),
            ("SUCCESS", {"count": 2, "sum": 2**63}, INVALID_DURATION),
        ],
    )
    def test_durations_are_those_of_successes(
        self, value: str | None, stats: dict[str, object] | None, expected: Duration | None
    ) -> None:
        """In whole milliseconds; an invalid one leaves the count, and is counted for a warning."""
        more = [] if stats is None else [{"metric": "tFlowOutcome", "stats": stats}]
        metrics = [{"metric": "nFlowOutcome", "stats": {"count": 5}}, *more]
        grid = BucketGrid.of(QUERY, [DAY], lambda at: at == DAY.start)
        page = normalise(read({"group": group(value), "data": [datum(metrics=metrics)]}), grid)
        assert [(row.outcome_count, row.duration) for row in page.rows] == [(5, expected)]
        assert sum(page.invalid_durations.values()) == (expected is INVALID_DURATION)

    def test_a_part_may_have_durations_alone(self) -> None:
        """Its count is absent, so that it is added to another part, or is no figure."""
        stats = {"count": 1, "sum": 7, "min": 7, "max": 7}
        result = {"group": group(), "data": [datum(metrics=[{"metric": "tFlowOutcome", "stats": stats}])]}
        page = normalise(read(result), BucketGrid.of(QUERY, [DAY], lambda at: at == DAY.start))
        assert [(row.outcome_count, row.rejected, row.duration) for row in page.rows] == [
            (None, False, Duration(1, 7, 7, 7))
        ]
        assert not page.rejects

    def test_absent_data_gives_no_entry(self) -> None:
        """A group without buckets, a bucket without the metric: neither null nor zero."""
        other = {"metric": "nFlow", "stats": {"count": 9}}
        none = {"metric": "nFlowOutcomeFailed", "stats": {"count": 0}}
        assert read(
            {"group": group(), "data": []},
            {"group": group(), "data": [datum(metrics=[])]},
            {"group": group(), "data": [datum(metrics=[other, none])]},
            {"group": {"flowId": "f1"}, "data": [datum(metrics=[other])]},
            {"group": group()},
            {"group": group(), "data": None},
            {"group": group(), "data": [{"interval": INTERVAL}]},
            {"group": group(), "data": [datum(metrics=None)]},
            {"group": group(), "data": [{}]},
        ) == []  # fmt: skip

    @pytest.mark.parametrize(
        "result",
        [
            {"group": group(), "data": {}},
            {"group": group(), "data": [17]},
            {"group": group(), "data": [datum(metrics=17)]},
            {"group": group(), "data": [datum(metrics=[17])]},
            {"group": group(), "data": [datum(interval=None)]},
            {"group": group(), "data": [datum(interval="yesterday")]},
            {"group": {"flowId": "f1", "flowOutcomeValue": "SUCCESS"}, "data": [datum()]},
            {"group": {"flowOutcomeId": "o1"}, "data": [datum()]},
            {"group": {"flowId": "f1", "flowOutcomeId": 5}, "data": [datum()]},
            {"group": group(), "data": [datum(metrics=[{"metric": "nFlowOutcome"}])]},
            {"group": group(), "data": [datum(metrics=[{"metric": "nFlowOutcome", "stats": {}}])]},
            {"group": group(), "data": [datum(metrics=[*datum(1)["metrics"], *datum(2)["metrics"]])]},
            {"group": group(), "data": [datum(metrics=datum(0, 3)["metrics"][1:])]},
        ],
    )
    def test_an_invalid_entry_affects_only_itself(self, result: object) -> None:
        """It is rejected, and its neighbour is stored."""
        frame = BucketGrid.of(QUERY, [DAY], lambda at: at == DAY.start)
        valid = {"group": {**group(), "flowOutcomeId": "o2"}, "data": [datum(7)]}
        found = normalise(read(result, valid), frame)
        assert len(found.rejects) == 1
        assert json.loads(found.rejects[0].raw) == result
        assert [row.outcome_count for row in found.rows if row.source_key == "o2"] == [7]
        assert all(row.rejected for row in found.rows if row.source_key != "o2")

    @pytest.mark.parametrize(
        "body",
        [
            b"[]",
            b"null",
            b"<html>",
            b'{"results": {}}',
            b'{"results": false}',
            b'{"results": ""}',
            b'{"code": "internal.error"}',
            b'{"status": 500, "results": null}',
            b'{"results": null, "cursor": 5}',
            b'{"results": []',
            b'{"results": ["\xff"]}',
            b'{"results": [], "cursor": 5}',
            b'{"results": [], "cursor": ""}',
            b'{"results": [17]}',
            b'{"results": [null]}',
            b'{"results": [{"data": []}]}',
        ],
    )
    def test_an_invalid_page(self, body: bytes) -> None:
        """It is rejected as a whole; results of a wrong type, or an error in their place, are no empty page."""
        with pytest.raises(InvalidResponseError):
            decode(body)

    @pytest.mark.parametrize(
        ("body", "cursor"),
        [
            (b"{}", None),
            (b'{"results": null}', None),
            (b'{"results": null, "cursor": null, "code": null}', None),
            (b'{"cursor": "a"}', "a"),
            (b'{"total": 0}', None),
        ],
    )
    def test_absent_results_are_an_empty_page(self, body: bytes, cursor: str | None) -> None:
        """Absent or null, on a page of a job too."""
        assert decode(body) == ([], cursor)

    @pytest.mark.parametrize("body", [b"{}", b'{"results": null}', b'{"state": "PENDING"}'])
    def test_absent_results_with_another_status_are_no_empty_page(self, body: bytes) -> None:
        """202 says that they are not there yet; results that are there are read."""
        with pytest.raises(InvalidResponseError, match="HTTP 202 without results"):
            decode(body, status=202)
        assert decode(b'{"results": []}', status=202) == ([], None)

    def test_a_datum_without_metrics_leaves_its_neighbours(self) -> None:
        """Only what has metrics gives an entry, and nothing is rejected."""
        assert figures({"group": group(), "data": [{"interval": INTERVAL}, datum(7)]}) == [(7, 7, 0)]

    def test_an_unusual_number_affects_only_its_entry(self) -> None:
        """A number past a double's range, a count that a double would round."""
        text = json.dumps({"results": [{"group": group(), "data": [datum(1), datum(2), datum(3)]}]})
        text = text.replace('"count": 2', '"count": 1e999').replace('"count": 3', '"count": 9007199254740993.0')
        frame = BucketGrid.of(QUERY, [DAY], lambda at: at == DAY.start)
        rows = normalise(decode(text.encode())[0], frame).rows
        assert [row.outcome_count for row in rows] == [1, None, 2**53 + 1]

    def test_the_cursor_is_returned(self) -> None:
        """None on the last page."""
        assert decode(b'{"results": []}') == ([], None)
        assert decode(b'{"results": [], "cursor": null}') == ([], None)
        assert decode(b'{"cursor": "a+/=", "results": []}') == ([], "a+/=")
        assert decode(b'{"cursor": "\\ud800", "results": []}')[1] == "\ud800"


def error_for(status: int, code: str, message: str = "m") -> Exception:
    body = json.dumps({"code": code, "message": message, "contextId": "c-1"}).encode()
    return error_from_response(status, body, None, DAY.start, Redactor().redact_message, POLICY)


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "response.entity.too.large", QueryTooLargeError),
        (413, "response.entity.too.large", QueryTooLargeError),
        (504, "request.timeout", ServerError),
        (504, "", ServerError),
        (503, "service.unavailable", ServerError),
        (502, "", ServerError),
        (408, "request.timeout", ServerError),
        (400, "bad.request", QueryRefusedError),
        (400, "invalid.date", QueryRefusedError),
        (400, "invalid.value", RequestRejectedError),
        (403, "missing.any.permissions", ForbiddenError),
    ],
)
def test_each_error_of_this_api(status: int, code: str, kind: type[Exception]) -> None:
    """The API's own code names the size; a 504 comes from a gateway."""
    assert type(error_for(status, code)) is kind


@pytest.mark.parametrize(
    "message",
    [
        "Result set is larger than result limit of 30000",
        "The response would be larger than the allowed maximum",
        "Result limit exceeded",
        "Query exceeds the limit of 30,000 results",
        "Too many results",
        "too many groups in the response",
    ],
)
def test_words_for_a_query_that_is_too_large(message: str) -> None:
    """Whatever the code: the query is split."""
    assert type(error_for(400, "bad.request", message)) is QueryTooLargeError


@pytest.mark.parametrize(
    "message",
    [
        "Too many requests",
        "Too many concurrent queries",
        "The limit of 300 requests per minute is exceeded",
        "pageSize must not be larger than 1000",
    ],
)
def test_words_that_a_smaller_query_would_not_change(message: str) -> None:
    """They are about the rate, or about a page."""
    assert type(error_for(400, "bad.request", message)) is RequestRejectedError


def test_a_403_names_what_is_missing() -> None:
    """The permission of this API and the context id; client credentials have roles, and no scope."""
    message = str(error_for(403, "missing.any.permissions"))
    assert "analytics:flowAggregate:view" in message
    assert "scope" not in message + ForbiddenError.hint
    assert "contextId c-1" in message
