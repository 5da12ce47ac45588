"""Entries as rows, rejects, or a failed window."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import InvalidResponseError
from service.extraction.normalise import BucketGrid, normalise, parse_instant
from service.model import Entry, Figure, FlowBucket, Granularity, OutcomeRow, Query, Reject, Span, instant

T0 = datetime(2024, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
SPAN = Span(T0, T0 + 2 * HOUR)
REQUESTED = Span(T0, T0 + 3 * HOUR)
BUCKETS = [Span(T0, T0 + HOUR), Span(T0 + HOUR, T0 + 2 * HOUR)]


def is_edge(at: datetime) -> bool:
    return at.minute == at.second == at.microsecond == 0


def grid() -> BucketGrid:
    query = Query("acme", SPAN, Granularity.HOURLY, "UTC", (), 100, HOUR, REQUESTED)
    return BucketGrid.of(query, BUCKETS, is_edge)


def ends(start: datetime, end: datetime | None = None) -> tuple[str, str]:
    return instant(start), instant(end or start + HOUR)


def entry(
    outcomes: dict[str, Figure] | None, flow_id: object = "f1", interval: tuple[object, object] | None = None
) -> Entry:
    return Entry(flow_id, interval or ends(T0), outcomes, "{…}")


def one(figure: Figure, name: str = "A") -> tuple[list[OutcomeRow], list[Reject]]:
    page = normalise([entry({name: figure})], grid())
    return page.rows, page.rejects


def test_a_figure_becomes_a_row() -> None:
    """With its share, successes and failures."""
    rows, rejects = one(Figure(145, 0.62, 100, 45))
    assert rows == [
        OutcomeRow(FlowBucket("f1", T0, T0 + HOUR), "A", 145, 0.62, rejected=False, success=100, failure=45)
    ]
    assert rejects == []


@pytest.mark.parametrize(("count", "whole"), [(0, 0), (145.0, 145), (1e2, 100), (2**63 - 1, 2**63 - 1), (-0.0, 0)])
def test_a_whole_number_is_a_count_in_any_spelling(count: object, whole: int) -> None:
    """It is stored as an integer."""
    ((row,), rejects) = one(Figure(count))
    assert (row.outcome_count, type(row.outcome_count), rejects) == (whole, int, [])


@pytest.mark.parametrize(
    "count", [True, "7", None, 1.5, -1, -1.0, 2**63, 2.0**63, math.inf, -math.inf, math.nan, [], {}, 10**400]
)
def test_any_other_count_is_rejected_and_marked(count: object) -> None:
    """The outcome is stored as unknown, with the reason."""
    ((row,), (reject,)) = one(Figure(count, 0.5))
    assert (row.outcome_count, row.outcome_percentage, row.rejected) == (None, None, True)
    assert reject.reason.startswith("count is not a whole number")
    assert len(reject.reason) < 200
    assert reject.identified


@pytest.mark.parametrize(
    ("share", "stored"),
    [(None, None), (0, 0.0), (1, 1.0), (1.0001, None), (-0.1, None), (math.inf, None), (10**400, None)],
)
def test_a_share_outside_its_bounds_leaves_the_count(share: object, stored: float | None) -> None:
    """The share becomes null, and nothing is rejected."""
    ((row,), rejects) = one(Figure(7, share))
    assert (row.outcome_count, row.outcome_percentage, rejects) == (7, stored, [])


@pytest.mark.parametrize("share", ["0.5", True, [], {}])
def test_a_share_that_is_not_a_number_rejects_the_outcome(share: object) -> None:
    """The count beside it is rejected too."""
    ((row,), (reject,)) = one(Figure(7, share))
    assert (row.outcome_count, row.rejected) == (None, True)
    assert reject.reason.startswith("percentOfTotal is not a number")


@pytest.mark.parametrize("name", ["", "a\0b", "\ud800", "x" * 513, "é" * 257])
def test_an_invalid_name_leaves_the_total_unknown(name: str) -> None:
    """The entry's other outcomes are stored, and a marker row without a name."""
    result = normalise([entry({name: Figure(1), "A": Figure(2)})], grid())
    assert [(row.source_key, row.outcome_count, row.rejected) for row in result.rows] == [
        ("A", 2, False),
        ("", None, True),
    ]
    assert [(each.outcome, each.identified) for each in result.rejects] == [(None, False)]


@pytest.mark.parametrize("name", [" ", "x" * 512, "é" * 256, "Ünïcødé 😀", "a\nb", "'; DROP TABLE x; --"])
def test_any_other_name_is_stored_unchanged(name: str) -> None:
    """Up to 512 bytes of UTF-8."""
    ((row,), rejects) = one(Figure(1), name)
    assert (row.source_key, rejects) == (name, [])


@pytest.mark.parametrize("flow_id", [None, "", "  ", 7, ["f"], "a\0", "\udfff", "x" * 513])
def test_an_entry_without_a_flow_is_rejected_outcome_by_outcome(flow_id: object) -> None:
    """No row is stored."""
    result = normalise([entry({"A": Figure(1), "B": Figure(2)}, flow_id)], grid())
    assert result.rows == []
    assert [(each.flow_id, each.bucket_start, each.outcome) for each in result.rejects] == [
        (None, T0, "A"),
        (None, T0, "B"),
    ]


@pytest.mark.parametrize(
    "interval",
    [
        (None, None),
        ("yesterday", "today"),
        (7, 8),
        ("2024-01-01T00:00:00.000", "2024-01-01T01:00:00.000"),
        ("2024-01-01", "2024-01-02"),
        ("20240101T000000Z", "20240101T010000Z"),
        ("2024-02-30T00:00:00Z", "2024-02-30T01:00:00Z"),
        ends(T0 - HOUR),
        ends(T0 + 3 * HOUR),
        ends(T0 + 1000 * HOUR),
        ("0001-01-01T00:00:00Z", "0001-01-01T01:00:00Z"),
    ],
)
def test_an_entry_outside_the_window_is_rejected(interval: tuple[object, object]) -> None:
    """So is one without a valid interval."""
    result = normalise([entry({"A": Figure(1)}, "f1", interval)], grid())
    assert result.rows == []
    assert [(each.flow_id, each.bucket_start, each.outcome) for each in result.rejects] == [("f1", None, "A")]


def test_outcomes_of_unknown_shape_are_one_reject_and_a_marker() -> None:
    """The flow's total in that bucket is unknown."""
    result = normalise([entry(None)], grid())
    assert [(row.source_key, row.rejected) for row in result.rows] == [("", True)]
    assert [each.outcome for each in result.rejects] == [None]


def test_an_offset_is_read_like_z() -> None:
    """It denotes the same instant."""
    result = normalise(
        [entry({"A": Figure(1)}, "f1", ("2024-01-01T02:00+02:00", "2024-01-01T03:00+0200"))], grid()
    )
    assert [row.bucket.start for row in result.rows] == [T0]


def test_the_surplus_of_a_delay_is_dropped() -> None:
    """It was requested only so that nothing of the window is lost."""
    result = normalise([entry({"A": Figure("x")}, None, ends(T0 + 2 * HOUR))], grid())
    assert (result.rows, result.rejects) == ([], [])


@pytest.mark.parametrize(
    "interval",
    [
        ends(T0 + HOUR / 2),
        ends(T0 - HOUR / 2),
        ends(T0 + 2.5 * HOUR),
        ends(T0, T0 + 2 * HOUR),
        ends(T0, T0 + HOUR / 2),
        ends(T0, T0),
    ],
)
def test_a_bucket_off_the_edges_fails_the_window(interval: tuple[str, str]) -> None:
    """The API used another time zone or granularity, so no figure is usable."""
    with pytest.raises(
        InvalidResponseError,
        match=r"(in|as) the time zone UTC(;| and the granularity require;) check the org's timezone",
    ):
        normalise([entry({"A": Figure(1)}), entry({"A": Figure(1)}, "f1", interval)], grid())


JSON = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.lists(st.integers(), max_size=2)
)
ENTRIES = st.lists(
    st.builds(
        Entry,
        st.one_of(st.sampled_from(["f1", "f2"]), JSON),
        st.one_of(
            st.sampled_from([ends(T0), ends(T0 + HOUR), ends(T0 + 2 * HOUR), ends(T0 - HOUR)]),
            st.tuples(JSON, JSON),
        ),
        st.one_of(st.none(), st.dictionaries(st.text(max_size=3), st.builds(Figure, JSON, JSON), max_size=4)),
        st.just("{}"),
    ),
    max_size=6,
)


@given(ENTRIES)
def test_every_outcome_is_a_row_or_a_reject_and_no_other_row_exists(entries: list[Entry]) -> None:
    """For any page."""
    result = normalise(entries, grid())
    surplus = [each for each in entries if each.interval == ends(T0 + 2 * HOUR)]
    reported = {
        (each.flow_id, str(each.interval), name, figure.outcome_count)
        for each in entries
        for name, figure in (each.outcomes or {}).items()
        if isinstance(each.flow_id, str) and isinstance(figure.outcome_count, (int, float))
    }
    valid = [row for row in result.rows if not row.rejected]
    for row in valid:
        assert (
            row.bucket.flow_id,
            str(ends(row.bucket.start, row.bucket.end)),
            row.source_key,
            row.outcome_count,
        ) in reported
    for row in result.rows:
        assert row.rejected == (row.outcome_count is None)
        assert row.bucket.start in (T0, T0 + HOUR)
    outcomes = sum(len(each.outcomes or ()) for each in entries if each not in surplus)
    named = sum(each.outcome is not None for each in result.rejects)
    assert len(valid) + named <= outcomes <= len(valid) + len(result.rejects)


@given(st.text(max_size=40))
def test_only_instants_are_instants(text: str) -> None:
    """And no error is raised."""
    assert parse_instant(text) is None or text[10] == "T"


@pytest.mark.parametrize(
    ("figures", "fit"),
    [
        ({"A": Figure(1, 0.25), "B": Figure(3, 0.75)}, True),
        ({"A": Figure(1, 0.255), "B": Figure(3, None)}, True),
        ({"A": Figure(0, 0.0)}, True),
        ({"A": Figure(1, 0.26), "B": Figure(3, 0.75)}, False),
        ({"A": Figure(0, 0.5)}, False),
        ({"A": Figure(1, 0.25), "B": Figure("three", 0.75)}, False),
    ],
)
def test_shares_are_compared_with_the_total_of_their_own_entry(figures: dict[str, Figure], *, fit: bool) -> None:
    """A share that does not fit, or an unknown total, is left to the merge, which has the other entries."""
    page = [entry({"A": Figure(1, 1.0)}), entry(figures), entry({"A": Figure(1, 1.0)})]
    assert normalise(page, grid()).shares_fit is fit
