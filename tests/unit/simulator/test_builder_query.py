"""Validation of query-builder queries."""

from __future__ import annotations

from typing import Any
from zoneinfo import ZoneInfo

import pytest

from service.simulator.api_error import ApiError
from service.simulator.builder_query import check_granularity, decode, digest_of, parse_query
from service.simulator.instants import HOUR, parse_instant

FILTER = {"type": "dimension", "dimension": "flow-id", "operator": "eq", "values": ["f1", "f2"]}
ABSENT = object()


def query(**changes: object) -> dict[str, Any]:
    builder: dict[str, object] = {
        "queryType": "routing/engagement",
        "dateFrom": "2024-01-01T00:00:00.000Z",
        "dateTo": "2024-01-02T00:00:00.000Z",
        "metrics": ["flow-outcomes"],
        "filters": [],
        "groupBy": ["flow-id"],
        "timeGroup": "daily",
        "limit": 100,
    } | changes
    return {"queryBuilder": {key: value for key, value in builder.items() if value is not ABSENT}}


def test_a_valid_query() -> None:
    """A query as the guide shows it is valid."""
    parsed = parse_query(query(filters=[FILTER], metricsDelay="PT1H", nextPageToken="t"))
    assert (parsed.start, parsed.end) == (parse_instant("2024-01-01T00:00Z"), parse_instant("2024-01-02T00:00Z"))
    assert parsed.flows == frozenset({"f1", "f2"})
    assert (parsed.step, parsed.limit, parsed.delay, parsed.token) == ("daily", 100, HOUR, "t")


def test_two_filters() -> None:
    """A flow must pass every filter."""
    assert parse_query(query(filters=[FILTER, FILTER | {"values": ["f2", "f3"]}])).flows == frozenset({"f2"})


@pytest.mark.parametrize(
    "changes",
    [
        {"queryType": "routing"},
        {"queryType": ABSENT},
        {"dateFrom": "2024-01-01"},
        {"dateFrom": "2024-01-01T00:00:00.000+00:00"},
        {"dateFrom": 1},
        {"dateTo": None},
        {"dateTo": "2024-01-01T00:00:00.000Z"},
        {"metrics": []},
        {"metrics": ["flow-outcomes", "nFlow"]},
        {"groupBy": []},
        {"groupBy": ["flow-id", "media"]},
        {"groupBy": ABSENT},
        {"timeGroup": "weekly"},
        {"timeGroup": None},
        {"timeGroup": ["daily"]},
        {"limit": 0},
        {"limit": 1001},
        {"limit": "100"},
        {"limit": True},
        {"limit": 10.0},
        {"filters": None},
        {"filters": "x"},
        {"filters": [{}]},
        {"filters": [FILTER | {"operator": "in"}]},
        {"filters": [FILTER | {"values": []}]},
        {"filters": [FILTER | {"values": ["f1", 2]}]},
        {"filters": [FILTER | {"more": 1}]},
        {"metricsDelay": "1h"},
        {"metricsDelay": None},
        {"nextPageToken": None},
        {"nextPageToken": ""},
        {"pageSize": 100},
    ],
)
def test_invalid_queries(changes: dict[str, object]) -> None:
    """A query that breaks a rule is rejected with a 400."""
    with pytest.raises(ApiError) as error:
        parse_query(query(**changes))
    assert error.value.status == 400
    assert error.value.code == "bad.request"


@pytest.mark.parametrize(
    "document", [None, [], {}, {"queryBuilder": []}, query() | {"more": 1}, query()["queryBuilder"]]
)
def test_invalid_bodies(document: object) -> None:
    """A body that is not an object with queryBuilder alone is rejected."""
    with pytest.raises(ApiError):
        parse_query(document)


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000])
def test_invalid_json(body: bytes) -> None:
    """A body that is not valid JSON is rejected with a 400."""
    with pytest.raises(ApiError):
        decode(body)


def test_the_digest_excludes_the_token() -> None:
    """Pages of one scan have one digest, whatever the order of keys; another query has another digest."""
    reordered = {"queryBuilder": dict(reversed(query()["queryBuilder"].items()))}
    assert digest_of(query()) == digest_of(query(nextPageToken="x")) == digest_of(reordered)
    assert digest_of(query()) != digest_of(query(limit=99))


def test_granularity_too_fine() -> None:
    """The error has the guide's exact wording."""
    query_of_a_week = parse_query(query(dateTo="2024-01-08T00:00:00.001Z", timeGroup="hourly"))
    with pytest.raises(ApiError) as error:
        check_granularity(query_of_a_week, ZoneInfo("UTC"), (7, 365, 7))
    assert error.value.body() == {
        "status": 400,
        "code": "granularityTooFine",
        "message": "Invalid date range for the specified granularity",
    }
