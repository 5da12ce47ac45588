"""How the query-builder API is asked and read."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import astuple

from service.errors import PageError
from service.extraction.json_values import whole_number
from service.extraction.normalise import BucketGrid, normalise
from service.genesys.dialect import ApiRequest
from service.genesys.query_builder import PATH, QueryBuilder, decode
from service.model import Entry, Figure, Granularity, Page, Query, Span
from tests.support.rows import plain, rows_of

DAY = Span(datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 2, tzinfo=UTC))
INTERVAL = "2024-01-01T00:00:00.000Z/2024-01-02T00:00:00.000Z"
START, END = INTERVAL.split("/")


def told(entry: Entry) -> dict[str, tuple[object, ...]]:
    """An entry's figures, whatever struct they were decoded into."""
    return {name: astuple(figure) for name, figure in (entry.outcomes or {}).items()}


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


class TestAsking:
    """What goes out."""

    def test_page_one_is_the_guides_payload(self) -> None:
        """To the letter, without a token, without a delay."""
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
        """In one order, so that one query has one hash."""
        body = QueryBuilder().body(query(flows=("b", "a"), metrics_delay=timedelta(hours=1)))["queryBuilder"]
        assert body["metricsDelay"] == "PT1H"
        assert body["filters"] == [
            {"type": "dimension", "dimension": "flow-id", "operator": "eq", "values": ["a", "b"]}
        ]

    def test_the_hash_tells_queries_and_orgs_apart(self) -> None:
        """And is the same for the same."""
        dialect = QueryBuilder()
        same = {dialect.query_hash(query(flows=flows)) for flows in (("a", "b"), ("b", "a"))}
        assert len(same) == 1
        others = [query(), query(org="other"), query(granularity=Granularity.HOURLY), query(page_size=5)]
        assert len({dialect.query_hash(each) for each in others}) == 4
        assert len(dialect.query_hash(query())) == 64


class TestScanning:
    """From page one to the null."""

    def scan(self, *answers: bytes) -> tuple[list[Page], list[Any]]:
        """The pages of a scan that meets these answers, and the bodies it sent."""
        sent: list[Any] = []
        left = list(answers)

        async def call(request: ApiRequest) -> bytes:
            assert request[:2] == ("POST", PATH)
            sent.append(request.body)
            return left.pop(0)

        async def main() -> list[Page]:
            return [each async for each in QueryBuilder().scan(query(), call)]

        return asyncio.run(main()), sent

    @pytest.mark.parametrize(
        "token", ['"a\\/b"', "7", '{"b": 1.50,  "a":[ ]}', "false", '""', "1e400", '"\\ud800"']
    )
    def test_the_token_goes_back_as_it_came(self, token: str) -> None:
        """To the letter, whatever JSON it is; only null ends the scan."""
        first = b'{"nextPageToken": ' + token.encode() + b' ,"data":[]}'
        pages, sent = self.scan(first, page(element()))
        assert [each.more for each in pages] == [True, False]
        assert b"nextPageToken" not in sent[0]
        assert b'"nextPageToken":' + token.encode() + b"," in sent[1] + b","

    def test_an_empty_page_with_a_token_goes_on(self) -> None:
        """It says nothing of the next."""
        pages, _ = self.scan(page(token="a"), page(token="b"), page(element()))
        assert [len(each.entries) for each in pages] == [0, 0, 1]

    def test_the_same_token_twice_ends_in_an_error(self) -> None:
        """Not in a loop."""
        with pytest.raises(PageError, match="twice"):
            self.scan(page(token="a"), page(token="b"), page(token="a"))


class TestReading:
    """From bytes to entries."""

    def one(self, value: object) -> Entry:
        """The entry that this element becomes, the same by either way of reading."""
        entries, token = decode(page(value), query())
        others, _ = decode(page(value).replace(b'"data": [', b'"x": "\\ud800", "data": ['), query())
        (fast,), (slow,) = plain(entries), plain(others)
        assert token is None
        assert (fast.flow_id, fast.interval, told(fast), fast.raw) == (
            slow.flow_id,
            slow.interval,
            told(slow),
            slow.raw,
        )
        return fast

    def test_an_entry_has_its_parts_and_its_text(self) -> None:
        """The text to the letter."""
        entry = self.one(element())
        assert (entry.flow_id, entry.interval) == ("f1", (START, END))
        assert told(entry) == {"Abandoned": (42, 0.18, None, None)}
        assert entry.raw == json.dumps(element())

    def test_the_other_spellings_are_read(self) -> None:
        """``flow-id`` beside ``metrics``, ``dateFrom`` and ``dateTo``, unknown fields."""
        value = element(**{"flow-id": "f1", "dateFrom": START, "dateTo": END, "extra": [1]})
        del value["group"], value["interval"]
        assert self.one(value).flow_id == "f1"
        assert self.one(value).interval == (START, END)

    @pytest.mark.parametrize(
        "value",
        [None, 1, "x", [], {}, element(metrics=None), element(metrics={}), element(metrics={"flow-outcomes": 1})],
    )
    def test_an_odd_entry_stays_one_entry(self, value: object) -> None:
        """To be refused by itself."""
        entry = self.one(value)
        assert entry.outcomes is None
        assert entry.raw == json.dumps(value)

    @pytest.mark.parametrize(
        ("literal", "read"),
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
    def test_a_count_is_read_exactly(self, literal: str, read: object) -> None:
        """Or left for the judge."""
        body = page(element()).replace(b'"count": 42', b'"count": ' + literal.encode())
        (entry,), _ = decode(body, query())
        assert entry.outcomes is not None
        assert entry.outcomes["Abandoned"].outcome_count == read

    @pytest.mark.parametrize("literal", ["1e-400", "-1e-400", "0.001e-999999999999999999999", "1e-5"])
    def test_next_to_nothing_is_no_zero(self, literal: str) -> None:
        """A double rounds it to a whole number that the API did not say."""
        body = page(element()).replace(b'"count": 42', b'"count": ' + literal.encode())
        (entry,), _ = decode(body, query())
        assert entry.outcomes is not None
        assert whole_number(entry.outcomes["Abandoned"].outcome_count) is None

    @pytest.mark.parametrize(
        "literal", ["1e999", "-1e999", "1" * 5000, "9" * 30, "1e-999999", "0.1e99999999999", "1" * 500 + ".0"]
    )
    def test_a_huge_number_costs_its_entry_alone(self, literal: str) -> None:
        """It is read as something that is no count."""
        body = page(element(), element()).replace(b'"count": 42', b'"count": ' + literal.encode(), 1)
        entries = plain(decode(body, query())[0])
        assert [each.outcomes is not None for each in entries] == [True, True]
        assert told(entries[1]) == {"Abandoned": (42, 0.18, None, None)}

    def test_a_lone_surrogate_costs_its_entry_alone(self) -> None:
        """Its text is kept as it came, escaped."""
        body = page(element(), element()).replace(b"Abandoned", b"A\\ud800", 1)
        entries = plain(decode(body, query())[0])
        assert told(entries[0]) == {"A\ud800": (42, 0.18, None, None)}
        assert "\\ud800" in entries[0].raw
        assert told(entries[1]) == {"Abandoned": (42, 0.18, None, None)}

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
            (b"[]", "no JSON object"),
            (b"null", "no JSON object"),
            (b"{}", "no data"),
            (b'{"nextPageToken":null}', "no data"),
            (b'{"nextPageToken":null,"data":null}', "no array"),
            (b'{"nextPageToken":null,"data":{}}', "no array"),
            (b'{"data":[]}', "cut short"),
            (page(element(metrics={"flow-outcomes": []})), "array"),
            (b'{"metrics":{"flow-outcomes":{}}}', "neither flow nor bucket"),
            (b'{"nextPageToken":null,"data":[' + b"[" * 100_000 + b"]" * 100_000 + b"]}", "deep"),
            (b'{"nextPageToken":null,"data":[],"x":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_001, "deep"),
        ],
    )
    def test_a_page_at_fault_is_no_page(self, body: bytes, reason: str) -> None:
        """With the reason in words."""
        with pytest.raises(PageError, match=reason):
            decode(body, query())

    @settings(deadline=None)
    @given(st.data())
    def test_mangled_bytes_raise_nothing_else(self, data: st.DataObject) -> None:
        """Cut, patched and doubled anywhere."""
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
        except PageError:
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
    def test_what_is_sound_is_judged_as_if_it_were_not(self, elements: list[object]) -> None:
        """The short way gives the rows and rejects of the long one."""
        entries, _ = decode(page(*elements), query())
        frame = BucketGrid(dict([DAY]), DAY, DAY, "UTC", lambda at: at == DAY.end)
        short, long = normalise(entries, frame), normalise(plain(entries), frame)
        assert sorted(rows_of(short), key=repr) == sorted(rows_of(long), key=repr)
        assert sorted(short.rejects, key=repr) == sorted(long.rejects, key=repr)
        assert short.shares_fit == long.shares_fit
        assert all(outcomes for _, outcomes in short.valid)  # what says nothing is not kept for the packer


class TestBareShape:
    """The guide's ``{"metrics": {"flow-outcomes": {…}}}``."""

    BODY = b' {"metrics": {"flow-outcomes": {"Abandoned": {"count": 42}}}} '

    def test_one_flow_and_one_bucket_name_it(self) -> None:
        """There is nothing else that it can be."""
        (entry,), token = decode(self.BODY, query(flows=("f1",)))
        assert token is None
        assert entry == Entry("f1", (START, END), {"Abandoned": Figure(42)}, self.BODY.decode().strip())

    @pytest.mark.parametrize(
        ("granularity", "timezone", "start", "end", "passes"),
        [
            (Granularity.HOURLY, "UTC", "2024-01-01T00:00Z", "2024-01-01T01:00Z", True),
            (Granularity.HOURLY, "UTC", "2024-01-01T00:00Z", "2024-01-01T02:00Z", False),
            (Granularity.DAILY, "Europe/Berlin", "2024-03-30T23:00Z", "2024-03-31T22:00Z", True),
            (Granularity.DAILY, "UTC", "2024-01-01T00:00Z", "2024-01-03T00:00Z", False),
            (Granularity.MONTHLY, "UTC", "2024-02-01T00:00Z", "2024-03-01T00:00Z", True),
            (Granularity.MONTHLY, "UTC", "2024-02-01T00:00Z", "2024-04-01T00:00Z", False),
        ],
    )
    def test_a_bucket_is_one_by_the_orgs_time_zone(
        self, granularity: Granularity, timezone: str, start: str, end: str, passes: bool
    ) -> None:
        """A day of 23 hours is one."""
        span = Span(datetime.fromisoformat(start), datetime.fromisoformat(end))
        asked = query(granularity=granularity, timezone=timezone, span=span, request_span=span, flows=("f1",))
        if passes:
            assert len(decode(self.BODY, asked)[0]) == 1
        else:
            with pytest.raises(PageError, match="neither"):
                decode(self.BODY, asked)

    @pytest.mark.parametrize(
        "changed",
        [
            {"flows": ()},
            {"flows": ("f1", "f2")},
            {"flows": ("f1",), "request_span": Span(DAY.start, DAY.end + timedelta(1))},
        ],
    )
    def test_anything_else_could_be_anyones(self, changed: dict[str, Any]) -> None:
        """So it is refused."""
        with pytest.raises(PageError, match="neither"):
            decode(self.BODY, query(**changed))

    def test_with_a_token_it_is_no_known_shape(self) -> None:
        """It has one page."""
        with pytest.raises(PageError, match="no data"):
            decode(b'{"nextPageToken":"a","metrics":{"flow-outcomes":{}}}', query(flows=("f1",)))
