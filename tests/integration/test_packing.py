"""Packed rows, read back by PostgreSQL."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from service.model import FlowBucket, NormalisedPage, OutcomeRow, ValidFigure
from service.postgres.merge import packing
from service.postgres.merge.binary_copy import HEADER, TRAILER, begin, pack_int4
from service.postgres.merge.packing import COLUMNS, NAME_COLUMNS, Packer
from service.postgres.merge.staging import _TABLES

pytestmark = pytest.mark.integration

SAID = """
    SELECT flow_id, bucket_start, bucket_end, part, source_key, outcome_count, outcome_percentage,
           state = 'rejected', success_count, failure_count
    FROM pg_temp.scanned JOIN pg_temp.incoming_name USING (name_no)
"""
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
DAY = timedelta(days=1)
START = st.sampled_from([datetime(1999, 12, 31, 23, tzinfo=UTC), datetime(2024, 2, 29, 5, 30, tzinfo=UTC)])
WHOLE = st.none() | st.integers(0, 2**63 - 1)
BUCKET = st.builds(
    lambda flow, start, part: FlowBucket(flow, start, start + DAY, part),
    TEXT,
    START,
    st.sampled_from(["", "voice"]),
)
SHARE = st.none() | st.floats(0, 1)
ENTRY = st.builds(
    lambda bucket, told: [
        OutcomeRow(bucket, key, count, share, count is None, success, success)
        for key, (count, share, success) in told.items()
    ],
    BUCKET,
    st.dictionaries(TEXT, st.tuples(WHOLE, SHARE, WHOLE), max_size=4)
    | st.dictionaries(TEXT, st.tuples(st.integers(0, 2**63 - 1), SHARE, st.none()), max_size=4),
)
PAGES = st.lists(st.lists(ENTRY, max_size=4), max_size=3)
Key = tuple[str, datetime, str]


def page_of(*entries: list[OutcomeRow]) -> NormalisedPage:
    """A page of these entries, those that are sound as such."""
    found = NormalisedPage([], [], valid=[])
    for entry in entries:
        figures = {
            row.source_key: ValidFigure(row.outcome_count, row.outcome_percentage)
            for row in entry
            if row.outcome_count is not None and row.success is None
        }
        if entry and not entry[0].bucket.part and len(figures) == len(entry):
            found.valid.append((entry[0].bucket, figures))
        else:
            found.rows.extend(entry)
    return found


def pack(pages: list[list[list[OutcomeRow]]]) -> Packer:
    packer = Packer()
    for page in pages:
        packer.pack(page_of(*page))
    return packer


def told(packer: Packer) -> list[bytes]:
    """Its rows as the session's own table has them."""
    return list(packer.packed(lambda number: begin(9, pack_int4(number)), parts=True))


def keys(pages: list[list[list[OutcomeRow]]]) -> list[Key]:
    return [(r.bucket.flow_id, r.bucket.start, r.source_key) for page in pages for entry in page for r in entry]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pages=PAGES)
def test_what_is_packed_is_what_was_given(database: str, pages: list[list[list[OutcomeRow]]]) -> None:
    """To the letter and the last bit, page after page."""
    packer = pack(pages)
    with psycopg.connect(database, options="-c timezone=UTC") as connection, connection.cursor() as cursor:
        cursor.execute(_TABLES.encode())
        rows_have = f"name_no, part, {COLUMNS}"
        for table, columns, sent in (
            ("incoming_name", NAME_COLUMNS, packer.packed_names()),
            ("scanned", rows_have, told(packer)),
        ):
            with cursor.copy(f"COPY pg_temp.{table} ({columns}) FROM STDIN (FORMAT BINARY)".encode()) as copy:
                for each in (HEADER, *sent, TRAILER):
                    copy.write(each)
        cursor.execute(SAID.encode())
        found = [OutcomeRow(FlowBucket(*row[:4]), *row[4:]) for row in cursor]
    given_rows = [row for page in pages for entry in page for row in entry]
    assert sorted(found, key=repr) == sorted(given_rows, key=repr)
    assert packer.rows == len(given_rows)
    assert packer.numbered == len({(row.bucket.flow_id, row.source_key) for row in given_rows})
    assert packer.parts == any(row.bucket.part for row in given_rows)
    for start, rows in packer.reported().items():
        assert rows == sum(row.bucket.start == start and not row.rejected for row in given_rows)
    assert sum(packer.reported().values()) == sum(not row.rejected for row in given_rows)


@given(pages=PAGES, size=st.integers(1, 4))
def test_entries_are_sent_in_the_order_asked_for(pages: list[list[list[OutcomeRow]]], size: int) -> None:
    """Those of one outcome side by side, however many go in one piece; what is forgotten is not sent again."""
    packer, plain = pack(pages), pack(pages)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "ROWS_PER_CHUNK", size)
        sent = list(packer.packed(lambda number: bytes([255 - number])))
    numbers = [entry.numbers[0] for entry in packer._entries]
    assert numbers == sorted(numbers, reverse=True)
    assert len(b"".join(sent)) == len(b"".join(plain.packed(lambda _: b"-")))
    packer.forget()
    assert (b"".join(told(packer)), list(packer.packed_names()), packer.held) == (b"", [], 0)


@given(pages=PAGES)
def test_what_comes_seldom_is_told(pages: list[list[list[OutcomeRow]]]) -> None:
    """The outcomes that not both buckets have, by number."""
    packer = pack(pages)
    times: dict[tuple[str, str], set[datetime]] = {}
    for flow, start, key in keys(pages):
        times.setdefault((flow, key), set()).add(start)
    if not packer.repeats:
        assert len(packer.sparse(2)) == sum(len(starts) < 2 for starts in times.values())
        assert packer.sparse(0) == []
        sparse = packer.sparse(2)
        packer.forget()
        assert packer.sparse(2) == sparse


def test_a_piece_is_small_whatever_entries_are_like() -> None:
    """It ends with the entry in which it has enough rows."""
    start = datetime(2024, 1, 1, tzinfo=UTC)
    day = FlowBucket("f", start, start + DAY)
    for outcomes in (1, 5, 700):
        names = [f"outcome {number}" for number in range(outcomes)]
        entries = [
            [OutcomeRow(replace(day, flow_id=f"flow {flow}"), name, 1, 0.5, rejected=False) for name in names]
            for flow in range(2100 // outcomes)
        ]
        pieces = [len(piece) for piece in told(pack([entries]))]
        assert max(pieces) < 100 * (512 + outcomes)
        assert sum(pieces) > 2000 * 80


@given(pages=PAGES)
def test_no_repeat_is_overlooked(pages: list[list[list[OutcomeRow]]]) -> None:
    """An outcome twice in one bucket is always told, whatever stood between; entries that all differ tell none."""
    packer = pack(pages)
    came = keys(pages)
    if len(set(came)) < len(came):
        assert packer.repeats
    entries = [(entry[0].bucket.flow_id, entry[0].bucket.start) for page in pages for entry in page if entry]
    assert packer.repeats == (len(set(entries)) < len(entries))


def test_names_past_a_bound_get_a_new_number_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that memory stays flat; what repeats is then not known, and taken as if it did."""
    monkeypatch.setattr(packing, "_NAMES", 3)
    start = datetime(2024, 1, 1, tzinfo=UTC)
    days = [FlowBucket("f", start + number * DAY, start + (number + 1) * DAY) for number in range(4)]
    packer = pack([[[OutcomeRow(day, name, 1, 0.5, rejected=False) for name in "ABC"] for day in days]])
    assert (packer.numbered, packer.repeats) == (3, False)
    other = page_of([OutcomeRow(FlowBucket("g", start, start + DAY), "D", 1, 0.5, rejected=False)])
    packer.pack(other)
    packer.pack(other)
    assert (packer.numbered, packer.repeats) == (5, True)
    assert b"".join(packer.packed_names()).count(b"g\0\0\0\1D") == 2
    packer.pack(page_of([OutcomeRow(days[0], "A", 1, 0.5, rejected=False)]))
    assert packer.numbered == 5


def test_more_buckets_than_are_kept_may_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bit for each flow's bucket is kept up to a bound."""
    monkeypatch.setattr(packing, "_SEEN", 2)
    start = datetime(2024, 1, 1, tzinfo=UTC)
    days = [FlowBucket("f", start + number * DAY, start + (number + 1) * DAY) for number in range(3)]
    packer = pack([[[OutcomeRow(day, "A", 1, 0.5, rejected=False)] for day in days[:2]]])
    assert not packer.repeats
    packer.pack(page_of([OutcomeRow(days[2], "A", 1, 0.5, rejected=False)]))
    assert packer.repeats
