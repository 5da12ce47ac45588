"""Requests and responses of the query-builder API."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import astuple

from service.errors import InvalidResponseError
from service.extraction.json_values import whole_number
from service.extraction.normalise import BucketGrid, normalise
from service.genesys.dialect import ApiRequest, Response
from service.genesys.query_builder import PATH, QueryBuilder, decode
from service.model import Entry, Figure, Granularity, Page, Query, Span
from tests.support.rows import plain, rows_of

DAY = Span(datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 2, tzinfo=UTC))
INTERVAL = "2024-01-01T00:00:00.000Z/2024-01-02T00:00:00.000Z"
START, END = INTERVAL.split("/")


def figures_of(entry: Entry) -> dict[str, tuple[object, ...]]:
    """An entry's figures, whichever struct has them."""
    return {name: astuple(figure)[:4] for name, figure in (entry.outcomes or {}).items()}


def query(**changed: object) -> Query:
    fields: dict[str, Any] = {
        "org": "acme",
        "span": DAY,
        "granularity": Granularity.DAILY,
        "timezone": "UTC",
        "flows": (),
        "page_size": 100,
        "metrics_delay": None,
        "request_span": DAY,
    }
    return Query(**{**fields, **changed})


def element(**changed: object) -> dict[str, Any]:
    return {
        "group": {"flow-id": "f1"},
        "interval": INTERVAL,
        "metrics": {"flow-outcomes": {"Abandoned": {"count": 42, "percentOfTotal": 0.18}}},
        **changed,
    }


def page(*elements: object, token: object = None) -> bytes:
    return json.dumps({"nextPageToken": token, "metrics": ["flow-outcomes"], "data": elements}).encode()


class TestRequests:
    """The body of a request."""

    def test_page_one_follows_the_guide(self) -> None:
        """Exactly its payload, without a token and without a delay."""
        assert QueryBuilder().body(query()) == {
            "queryBuilder": {
                "queryType": "routing/engagement",
                "dateFrom": "2024-01-01T00:00:00.000Z",
                "dateTo": "2024-01-02T00:00:00.000Z",
                "metrics": ["flow-outcomes"],
                "filters": [],
                "groupBy": ["flow-id"],
                "timeGroup": "daily",
                "limit": 100,
            }
        }

    def test_flows_become_a_filter_and_a_delay_a_duration(self) -> None:
        """Sorted, so that a query has one hash."""
        body = QueryBuilder().body(query(flows=("b", "a"), metrics_delay=timedelta(hours=1)))["queryBuilder"]
        assert body["metricsDelay"] == "PT1H"
        assert body["filters"] == [
            {"type": "dimension", "dimension": "flow-id", "operator": "eq", "values": ["a", "b"]}
        ]

    def test_different_queries_and_orgs_have_different_hashes(self) -> None:
        """Equal queries have the same hash."""
        dialect = QueryBuilder()
        same = {dialect.query_hash(query(flows=flows)) for flows in (("a", "b"), ("b", "a"))}
        assert len(same) == 1
        others = [query(), query(org="other"), query(granularity=Granularity.HOURLY), query(page_size=5)]
        assert len({dialect.query_hash(each) for each in others}) == 4
        assert len(dialect.query_hash(query())) == 64


class TestScans:
    """From page one to the token null."""

    def scan(self, *bodies: bytes) -> tuple[list[Page], list[Any]]:
        """The pages of a scan that receives these bodies, and the bodies that it sent."""
        sent: list[Any] = []
        left = list(bodies)

        async def call(request: ApiRequest) -> Response:
            assert request[:2] == ("POST", PATH)
            sent.append(request.body)
            return Response(left.pop(0))

        async def main() -> list[Page]:
            return [each async for each in QueryBuilder().scan(query(), call)]

        return asyncio.run(main()), sent

    @pytest.mark.parametrize(
        "token", ['"a\\/b"', "7", '{"b": 1.50,  "a":[ ]}', "false", '""', "1e400", '"\\ud800"']
    )
    def test_the_token_is_returned_unchanged(self, token: str) -> None:
        """Whatever JSON it is; only null ends the scan."""
        first = b'{"nextPageToken": ' + token.encode() + b' ,"data":[]}'
        pages, sent = self.scan(first, page(element()))
        assert [each.more for each in pages] == [True, False]
        assert b"nextPageToken" not in sent[0]
        assert b'"nextPageToken":' + token.encode() + b"," in sent[1] + b","

    def test_an_empty_page_with_a_token_continues_the_scan(self) -> None:
        """The next page may have entries."""
        pages, _ = self.scan(page(token="a"), page(token="b"), page(element()))
        assert [len(each.entries) for each in pages] == [0, 0, 1]

    def test_a_repeated_token_is_invalid(self) -> None:
        """The scan does not loop."""
        with pytest.raises(InvalidResponseError, match="twice"):
            self.scan(page(token="a"), page(token="b"), page(token="a"))

    @pytest.mark.parametrize("elements", [(), (element(),)], ids=["empty", "repeated"])
    def test_new_tokens_for_ever_are_invalid(self, elements: tuple[dict[str, Any], ...]) -> None:
        """A hundred pages in a row that are empty or repeat an earlier page."""
        with pytest.raises(InvalidResponseError, match="100 pages in a row"):
            self.scan(*(page(*elements, token=f"token-{number}") for number in range(101)))

    def test_99_pages_in_a_row_without_anything_new_are_valid(self) -> None:
        """Any new page begins the count again."""
        idle = [page(token=f"token-{number}") for number in range(198)]
        pages, _ = self.scan(*idle[:99], page(element(), token="new"), *idle[99:], page())
        assert len(pages) == 200

    def test_more_pages_than_a_scan_can_have_are_invalid(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """However new each of them is."""
        monkeypatch.setattr("service.genesys.dialect.PAGES_MAX", 5)
        new = [page(element(**{"flow-id": f"f{number}"}), token=f"token-{number}") for number in range(5)]
        assert len(self.scan(*new[:4], page())[0]) == 5
        with pytest.raises(InvalidResponseError, match="at most 5 pages"):
            self.scan(*new)


class TestPages:
    """From bytes to entries."""

    def one(self, value: object) -> Entry:
        """The entry of this element, the same from the fast and the loose decoder."""
        entries, token = decode(page(value), query())
        others, _ = decode(page(value).replace(b'"data": [', b'"x": "\\ud800", "data": ['), query())
        (fast,), (loose,) = plain(entries), plain(others)
        assert token is None
        assert (fast.flow_id, fast.interval, figures_of(fast), fast.raw) == (
            loose.flow_id,
            loose.interval,
            figures_of(loose),
            loose.raw,
        )
        return fast

    def test_an_entry_has_its_fields_and_its_text(self) -> None:
        """The text is unchanged."""
        entry = self.one(element())
        assert (entry.flow_id, entry.interval) == ("f1", (START, END))
        assert figures_of(entry) == {"Abandoned": (42, 0.18, None, None)}
        assert entry.raw == json.dumps(element())

    def test_other_forms_of_an_entry_are_read(self) -> None:
        """``flow-id`` beside ``metrics``, ``dateFrom`` and ``dateTo``, unknown fields."""
        value = element(**{"flow-id": "f1", "dateFrom": START, "dateTo": END, "extra": [1]})
        del value["group"], value["interval"]
        assert self.one(value).flow_id == "f1"
        assert self.one(value).interval == (START, END)

    @pytest.mark.parametrize(
        "value",
        [None, 1, "x", [], {}, element(metrics=None), element(metrics={}), element(metrics={"flow-outcomes": 1})],
    )
    def test_an_entry_of_unknown_form_stays_one_entry(self, value: object) -> None:
        """Normalisation rejects it alone."""
        entry = self.one(value)
        assert entry.outcomes is None
        assert entry.raw == json.dumps(value)

    @pytest.mark.parametrize(
        ("literal", "value"),
        [
            ("145.0", 145),
            ("1e2", 100),
            ("9007199254740993.0", 9007199254740993),
            ("9223372036854775807", 2**63 - 1),
            ("-0", 0),
            ("0.0e999999999999999999999", 0),
            ("true", True),
            ('"7"', "7"),
            ("null", None),
        ],
    )
    def test_a_count_is_read_exactly(self, literal: str, value: object) -> None:
        """Any other value is left for normalisation to reject."""
        body = page(element()).replace(b'"count": 42', b'"count": ' + literal.encode())
        (entry,), _ = decode(body, query())
        assert entry.outcomes is not None
        assert entry.outcomes["Abandoned"].outcome_count == value

    @pytest.mark.parametrize("literal", ["1e-400", "-1e-400", "0.001e-999999999999999999999", "1e-5"])
    def test_a_number_next_to_zero_is_not_zero(self, literal: str) -> None:
        """A double would round it to a whole number that the API did not report."""
        body = page(element()).replace(b'"count": 42', b'"count": ' + literal.encode())
        (entry,), _ = decode(body, query())
        assert entry.outcomes is not None
        assert whole_number(entry.outcomes["Abandoned"].outcome_count) is None

    @pytest.mark.parametrize(
        "literal", ["1e999", "-1e999", "1" * 5000, "9" * 30, "1e-999999", "0.1e99999999999", "1" * 500 + ".0"]
    )
    def test_a_huge_number_affects_only_its_entry(self, literal: str) -> None:
        """It is not a count, and the next entry is read."""
        body = page(element(), element()).replace(b'"count": 42', b'"count": ' + literal.encode(), 1)
        entries = plain(decode(body, query())[0])
        assert [each.outcomes is not None for each in entries] == [True, True]
        assert figures_of(entries[1]) == {"Abandoned": (42, 0.18, None, None)}

    def test_a_lone_surrogate_affects_only_its_entry(self) -> None:
        """Its text is kept unchanged, escaped."""
        body = page(element(), element()).replace(b"Abandoned", b"A\\ud800", 1)
        entries = plain(decode(body, query())[0])
        assert figures_of(entries[0]) == {"A\ud800": (42, 0.18, None, None)}
        assert "\\ud800" in entries[0].raw
        assert figures_of(entries[1]) == {"Abandoned": (42, 0.18, None, None)}

    @pytest.mark.parametrize(
        ("body", "reason"),
        [
            (b"", "not JSON"),
            (b"<html>busy</html>", "not JSON"),
            (page(element())[:-10], "not JSON"),
            (page(element())[:-1] + b",}", "not JSON"),
            (page(element()).replace(b"f1", b"f\xff"), "UTF-8"),
            (page(element()).replace(b"f1", b"\xed\xa0\x80"), "UTF-8"),
            (page(element()).replace(b"f1", b"f\x00"), "not JSON"),
            (page(element()).replace(b"0.18", b"NaN"), "NaN"),
            (page(element()).replace(b"0.18", b"-Infinity"), "Infinity"),
            (b"\xef\xbb\xbf" + page(element()), "not JSON"),
            (page() + b"{}", "not JSON"),
            (b"[]", "not a JSON object"),
            (b"null", "not a JSON object"),
            (b"{}", "no data"),
            (b'{"nextPageToken":null}', "no data"),
            (b'{"nextPageToken":null,"data":null}', "not an array"),
            (b'{"nextPageToken":null,"data":{}}', "not an array"),
            (b'{"data":[]}', "truncated"),
            (page(element(metrics={"flow-outcomes": []})), "array"),
            (b'{"metrics":{"flow-outcomes":{}}}', "neither flow nor bucket"),
            (b'{"nextPageToken":null,"data":[' + b"[" * 100_000 + b"]" * 100_000 + b"]}", "deep"),
            (b'{"nextPageToken":null,"data":[],"x":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_001, "deep"),
        ],
    )
    def test_an_invalid_page_is_rejected(self, body: bytes, reason: str) -> None:
        """The error says why."""
        with pytest.raises(InvalidResponseError, match=reason):
            decode(body, query())

    @settings(deadline=None)
    @given(st.data())
    def test_corrupted_bytes_raise_no_other_error(self, data: st.DataObject) -> None:
        """Truncated, replaced and repeated anywhere."""
        body = bytearray(page(element(), element(), token="t"))
        for _ in range(data.draw(st.integers(1, 4))):
            at = data.draw(st.integers(0, len(body)))
            length = data.draw(st.integers(0, 8))
            body[at : at + length] = data.draw(
                st.one_of(
                    st.binary(max_size=4), st.sampled_from([b"[", b"{", b'"', b"\\u", b"1e", b"null", b"NaN"])
                )
            )
        try:
            entries, _ = decode(bytes(body), query(flows=("f1",)))
        except InvalidResponseError:
            return
        assert all(isinstance(each.raw, str) for each in plain(entries))

    @given(
        st.lists(
            st.builds(
                lambda flow, figures, interval: {
                    "group": {"flow-id": flow},
                    "interval": interval,
                    "metrics": {"flow-outcomes": figures},
                },
                st.sampled_from(["f1", "", "f\0", "x" * 513]),
                st.dictionaries(
                    st.sampled_from(["Paid", "Löst 🎧", "", "n\0", "y" * 513]),
                    st.fixed_dictionaries(
                        {"count": st.sampled_from([0, 7, 7.0, -1, 2**63, "7", None])},
                        optional={"percentOfTotal": st.sampled_from([0, 0.25, 1, 1.5, -0.1, "0.5", None])},
                    ),
                    max_size=3,
                ),
                st.sampled_from([INTERVAL, "2024-01-02T00:00:00.000Z/2024-01-03T00:00:00.000Z", "soon"]),
            ),
            max_size=4,
        )
    )
    def test_valid_entries_are_normalised_as_all_others(self, elements: list[object]) -> None:
        """The fast path gives the same rows and rejects as the general one."""
        entries, _ = decode(page(*elements), query())
        frame = BucketGrid(dict([DAY]), DAY, DAY, "UTC", lambda at: at == DAY.end)
        short, long = normalise(entries, frame), normalise(plain(entries), frame)
        assert sorted(rows_of(short), key=repr) == sorted(rows_of(long), key=repr)
        assert sorted(short.rejects, key=repr) == sorted(long.rejects, key=repr)
        assert short.shares_fit == long.shares_fit
        assert all(outcomes for _, outcomes in short.valid)  # entries without outcomes are dropped


class TestBareShape:
    """The guide's ``{"metrics": {"flow-outcomes": {…}}}``."""

    BODY = b' {"metrics": {"flow-outcomes": {"Abandoned": {"count": 42}}}} '

    def test_one_flow_and_one_bucket_identify_it(self) -> None:
        """A query for one flow over one bucket has no other entry."""
        (entry,), token = decode(self.BODY, query(flows=("f1",)))
        assert token is None
        assert entry == Entry("f1", (START, END), {"Abandoned": Figure(42)}, self.BODY.decode().strip())

    @pytest.mark.parametrize(
        ("granularity", "timezone", "start", "end", "passes"),
        [
            (Granularity.HOURLY, "UTC", "2024-01-01T00:00Z", "2024-01-01T01:00Z", True),
            (Granularity.HOURLY, "UTC", "2024-01-01T00:00Z", "2024-01-01T02:00Z", False),
            (Granularity.HOURLY, "Australia/Lord_Howe", "2024-04-06T15:00Z", "2024-04-06T15:30Z", True),
            (Granularity.DAILY, "Europe/Berlin", "2024-03-30T23:00Z", "2024-03-31T22:00Z", True),
            (Granularity.DAILY, "UTC", "2024-01-01T00:00Z", "2024-01-03T00:00Z", False),
            (Granularity.MONTHLY, "UTC", "2024-02-01T00:00Z", "2024-03-01T00:00Z", True),
            (Granularity.MONTHLY, "UTC", "2024-02-01T00:00Z", "2024-04-01T00:00Z", False),
        ],
    )
    def test_a_bucket_follows_the_orgs_time_zone(
        self, granularity: Granularity, timezone: str, start: str, end: str, passes: bool
    ) -> None:
        """A day may have 23 hours."""
        span = Span(datetime.fromisoformat(start), datetime.fromisoformat(end))
        one = query(granularity=granularity, timezone=timezone, span=span, request_span=span, flows=("f1",))
        if passes:
            assert len(decode(self.BODY, one)[0]) == 1
        else:
            with pytest.raises(InvalidResponseError, match="neither"):
                decode(self.BODY, one)

    @pytest.mark.parametrize(
        "changed",
        [
            {"flows": ()},
            {"flows": ("f1", "f2")},
            {"flows": ("f1",), "request_span": Span(DAY.start, DAY.end + timedelta(1))},
        ],
    )
    def test_a_wider_query_does_not_identify_it(self, changed: dict[str, Any]) -> None:
        """The page is rejected."""
        with pytest.raises(InvalidResponseError, match="neither"):
            decode(self.BODY, query(**changed))

    def test_with_a_token_its_form_is_unknown(self) -> None:
        """The bare form has one page."""
        with pytest.raises(InvalidResponseError, match="no data"):
            decode(b'{"nextPageToken":"a","metrics":{"flow-outcomes":{}}}', query(flows=("f1",)))
