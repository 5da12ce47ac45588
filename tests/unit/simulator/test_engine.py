"""What the engine takes for a query."""

from __future__ import annotations

from typing import Any
from zoneinfo import ZoneInfo

import pytest

from service.simulator.engine import check_granularity, decode, digest_of, parse_query
from service.simulator.instants import HOUR, parse_instant
from service.simulator.refusal import Refusal

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


def test_a_query_is_understood() -> None:
    """What the contract shows is taken."""
    parsed = parse_query(query(filters=[FILTER], metricsDelay="PT1H", nextPageToken="t"))
    assert (parsed.start, parsed.end) == (parse_instant("2024-01-01T00:00Z"), parse_instant("2024-01-02T00:00Z"))
    assert parsed.flows == frozenset({"f1", "f2"})
    assert (parsed.step, parsed.limit, parsed.delay, parsed.token) == ("daily", 100, HOUR, "t")


def test_two_filters_are_both_kept() -> None:
    """A flow passes where every filter lets it through."""
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
def test_what_breaks_a_rule_is_refused(changes: dict[str, object]) -> None:
    """Every rule is kept to: a 400 says which one was broken."""
    with pytest.raises(Refusal) as refusal:
        parse_query(query(**changes))
    assert refusal.value.status == 400
    assert refusal.value.code == "bad.request"


@pytest.mark.parametrize(
    "document", [None, [], {}, {"queryBuilder": []}, query() | {"more": 1}, query()["queryBuilder"]]
)
def test_the_envelope_is_kept_to(document: object) -> None:
    """The body is an object with queryBuilder alone."""
    with pytest.raises(Refusal):
        parse_query(document)


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000])
def test_what_is_not_json(body: bytes) -> None:
    """A body that cannot be read is a 400."""
    with pytest.raises(Refusal):
        decode(body)


def test_the_digest_leaves_the_token_out() -> None:
    """Pages of one scan share a digest; another query has another, whatever the order of its keys."""
    reordered = {"queryBuilder": dict(reversed(query()["queryBuilder"].items()))}
    assert digest_of(query()) == digest_of(query(nextPageToken="x")) == digest_of(reordered)
    assert digest_of(query()) != digest_of(query(limit=99))


def test_too_fine_is_refused_to_the_letter() -> None:
    """The refusal is the contract's own."""
    asked = parse_query(query(dateTo="2024-01-08T00:00:00.001Z", timeGroup="hourly"))
    with pytest.raises(Refusal) as refusal:
        check_granularity(asked, ZoneInfo("UTC"), (7, 365, 7))
    assert refusal.value.body() == {
        "status": 400,
        "code": "granularityTooFine",
        "message": "Invalid date range for the specified granularity",
    }
