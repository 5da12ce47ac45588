"""Scans, pages and page tokens."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from service.simulator.api_error import ApiError
from service.simulator.cursors import Cursors
from service.simulator.instants import HOUR, MINUTE, parse_instant
from service.simulator.pages import Position, Scan, open_scan
from service.simulator.static_centre import StaticCentre

FROM = parse_instant("2024-01-01T00:00Z")
LATER = parse_instant("2024-02-01T00:00Z")


def hour(number: int) -> datetime:
    return datetime(2024, 1, 1, number, tzinfo=UTC)


CENTRE = StaticCentre(
    {
        ("f1", hour(0)): {"A": 60, "B": 20, "C": 20},
        ("f1", hour(2)): {"A": 4},
        ("f2", hour(0)): {"A": 0},
        ("f2", hour(1)): {"A": 1, "B": 1},
    }
)


def scan(limit: int = 100, **settings: Any) -> Scan:  # noqa: ANN401 - passed on
    return open_scan(
        CENTRE,
        start=FROM,
        end=FROM + 3 * HOUR,
        step="hourly",
        timezone=ZoneInfo("UTC"),
        at=LATER,
        limit=limit,
        **settings,
    )


def pages(one: Scan) -> list[list[tuple[str, str, list[str]]]]:
    result: list[list[tuple[str, str, list[str]]]] = []
    position: Position | None = Position()
    while position is not None:
        entries, after = one.page(position)
        assert one.page(position) == (entries, after)
        result.append([_entry(entry) for entry in entries])
        position = after
    return result


def _entry(entry: dict[str, Any]) -> tuple[str, str, list[str]]:
    return entry["group"]["flow-id"], entry["interval"][11:13], list(entry["metrics"]["flow-outcomes"])


def test_order_flow_by_flow() -> None:
    """Buckets without records have no entry; the last page has no successor."""
    assert pages(scan(2)) == [
        [("f1", "00", ["A", "B", "C"]), ("f1", "02", ["A"])],
        [("f2", "00", ["A"]), ("f2", "01", ["A", "B"])],
    ]
    assert [len(page) for page in pages(scan(3))] == [3, 1]


def test_order_bucket_by_bucket() -> None:
    """A scan may iterate over buckets first."""
    assert pages(scan(order="bucket")) == [
        [("f1", "00", ["A", "B", "C"]), ("f2", "00", ["A"]), ("f2", "01", ["A", "B"]), ("f1", "02", ["A"])]
    ]


@pytest.mark.parametrize("limit", [1, 2, 4])
def test_split_entries(limit: int) -> None:
    """An entry split over two pages loses no outcome, and its shares stay those of the complete entry."""
    split = pages(scan(limit, split=True))
    joined: dict[tuple[str, str], list[str]] = {}
    for flow, start, names in (entry for page in split for entry in page):
        joined.setdefault((flow, start), []).extend(names)
    assert sorted(joined) == [("f1", "00"), ("f1", "02"), ("f2", "00"), ("f2", "01")]
    assert joined["f1", "00"] == ["A", "B", "C"]
    assert all(len(page) <= limit for page in split)
    assert sum(len(page) for page in split) > 4
    first: Any = scan(1, split=True).page(Position()).entries[0]
    assert first["metrics"]["flow-outcomes"] == {"A": {"count": 60, "percentOfTotal": 0.6}}


def test_percent_of_the_flow_or_of_the_query() -> None:
    """The denominator is the flow's total in the bucket or the query's total; a share of zero is zero."""
    figures = {(flow, start): outcomes for flow, (start, _), outcomes in scan().figures()}
    assert figures["f1", FROM]["B"] == {"count": 20, "percentOfTotal": 0.2}
    assert figures["f2", FROM]["A"] == {"count": 0, "percentOfTotal": 0.0}
    figures = {(flow, start): outcomes for flow, (start, _), outcomes in scan(percent_of="query").figures()}
    assert figures["f1", FROM]["B"] == {"count": 20, "percentOfTotal": round(20 / 106, 4)}


def test_metrics_delay() -> None:
    """Records of that span before the end are ignored, also within an hour; the intervals do not change."""
    assert pages(scan(delay=2 * HOUR)) == [[("f1", "00", ["A", "B", "C"]), ("f2", "00", ["A"])]]
    figures = {(flow, start): outcomes for flow, (start, _), outcomes in scan(delay=150 * MINUTE).figures()}
    assert figures["f1", FROM]["A"]["count"] == 30
    entry: Any = scan(delay=150 * MINUTE).page(Position()).entries[0]
    assert entry["interval"] == "2024-01-01T00:00:00.000Z/2024-01-01T01:00:00.000Z"


def test_flow_filter() -> None:
    """Only the requested flows have entries; an unknown flow has none."""
    assert {flow for flow, _, _ in pages(scan(flows=frozenset({"f2", "f9"})))[0]} == {"f2"}


def test_a_scan_keeps_its_snapshot() -> None:
    """A correction does not change a scan that has already started."""
    centre = StaticCentre({("f1", hour(0)): {"A": 1}})
    started = open_scan(centre, start=FROM, end=FROM + HOUR, step="hourly", timezone=ZoneInfo("UTC"), at=LATER)
    centre.correct("f1", hour(0), "A", 2)
    assert [outcomes["A"]["count"] for _, _, outcomes in started.figures()] == [1]


def test_page_tokens() -> None:
    """A token returns its page every time, but not for another query, after its expiry, or if unknown."""
    cursors, one = Cursors(lifetime=600), scan(2, digest="d")
    token = cursors.issue(one, Position(3), page=2, now=0.0)
    assert cursors.redeem(token, "d", 599.0) == cursors.redeem(token, "d", 0.0)
    assert cursors.redeem(token, "d", 0.0).position == (3, 0)
    assert (cursors.page_of(token), cursors.page_of("?")) == (2, 1)
    for sent, digest, now, status, code in (
        ("unknown", "d", 0.0, 400, "invalid.pageToken"),
        (token, "other", 0.0, 400, "invalid.pageToken"),
        (token, "d", 600.0, 410, "cursor.expired"),
    ):
        with pytest.raises(ApiError) as error:
            cursors.redeem(sent, digest, now)
        assert (error.value.status, error.value.code) == (status, code)
    cursors.sweep(600.0 + 3600.0)
    assert cursors.page_of(token) == 1
