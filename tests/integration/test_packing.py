"""Packed rows, read back by PostgreSQL."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from service.model import Duration, FlowBucket, NormalisedPage, OutcomeRow, ValidFigure
from service.postgres.merge import packing, scan
from service.postgres.merge.binary_copy import HEADER, TRAILER, pack_int4, pack_prefix
from service.postgres.merge.packing import ALL_COLUMNS, NAME_COLUMNS, Packer

pytestmark = pytest.mark.integration

STORED = """
    SELECT flow_id, bucket_start, bucket_end, part, dimensions::text, source_key, outcome_count,
           outcome_percentage, state = 'rejected', success_count, failure_count, execution_count,
           duration_count, duration_sum_ms, duration_min_ms, duration_max_ms
    FROM pg_temp.scan_figure JOIN pg_temp.scan_name USING (name_no)
"""
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
DAY = timedelta(days=1)
START = st.sampled_from([datetime(1999, 12, 31, 23, tzinfo=UTC), datetime(2024, 2, 29, 5, 30, tzinfo=UTC)])
COUNT = st.none() | st.integers(0, 2**63 - 1)
BUCKET = st.builds(
    lambda flow, start, part, dimensions: FlowBucket(flow, start, start + DAY, part, dimensions),
    TEXT,
    START,
    st.sampled_from(["", "voice"]),
    st.sampled_from(["{}", '{"mediaType": "voice"}', '{"mediaType": null}']),
)
DURATION = st.none() | st.builds(Duration, st.integers(-1, 2**63 - 1), COUNT, COUNT, COUNT)
SHARE = st.none() | st.floats(0, 1)
ENTRY = st.builds(
    lambda bucket, figures: [
        OutcomeRow(bucket, key, count, share, count is None, success, success, success, duration)
        for key, (count, share, success, duration) in figures.items()
    ],
    BUCKET,
    st.dictionaries(TEXT, st.tuples(COUNT, SHARE, COUNT, DURATION), max_size=4)
    | st.dictionaries(TEXT, st.tuples(st.integers(0, 2**63 - 1), SHARE, st.none(), st.none()), max_size=4),
)
PAGES = st.lists(st.lists(ENTRY, max_size=4), max_size=3)
Key = tuple[str, str, datetime, str]


def page_of(*entries: list[OutcomeRow]) -> NormalisedPage:
    """A page of these entries; entries with nothing but counts and shares are valid ones."""
    found = NormalisedPage([], [], valid=[])
    for entry in entries:
        figures = {
            row.source_key: ValidFigure(row.outcome_count, row.outcome_percentage)
            for row in entry
            if row.outcome_count is not None and row.success is None and row.duration is None
        }
        if entry and not entry[0].bucket.part and len(figures) == len(entry):
            found.valid.append((entry[0].bucket, figures))
        else:
            found.rows.extend(entry)
    return found


def pack(pages: list[list[list[OutcomeRow]]]) -> Packer:
    packer = Packer()
    for page in pages:
        packer.add(page_of(*page))
    return packer


def packed(packer: Packer) -> list[bytes]:
    """Its rows for the temporary table."""
    columns = packer.columns.count(",") + 3
    return list(packer.packed_rows(lambda number: pack_prefix(columns, pack_int4(number)), parts=True))


def keys(pages: list[list[list[OutcomeRow]]]) -> list[Key]:
    return [
        (row.bucket.flow_id, row.bucket.dimensions, row.bucket.start, row.source_key)
        for page in pages
        for entry in page
        for row in entry
    ]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pages=PAGES)
def test_packed_rows_are_read_back_unchanged(database: str, pages: list[list[list[OutcomeRow]]]) -> None:
    """To the last character and bit, on all pages."""
    packer = pack(pages)
    with psycopg.connect(database, options="-c timezone=UTC") as connection, connection.cursor() as cursor:
        cursor.execute(scan.CREATE_TABLES.encode())
        row_columns = f"name_no, part, {ALL_COLUMNS}"
        for table, columns, sent in (
            ("scan_name", NAME_COLUMNS, packer.packed_names(pack_prefix(4))),
            ("scan_figure", row_columns, packed(packer)),
        ):
            with cursor.copy(f"COPY pg_temp.{table} ({columns}) FROM STDIN (FORMAT BINARY)".encode()) as copy:
                for each in (HEADER, *sent, TRAILER):
                    copy.write(each)
        cursor.execute(STORED.encode())
        found = [
            replace(
                OutcomeRow(FlowBucket(*row[:5]), *row[5:12]),
                duration=None if row[12:] == (None,) * 4 else Duration(*row[12:]),
            )
            for row in cursor
        ]
    given_rows = [row for page in pages for entry in page for row in entry]
    assert sorted(found, key=repr) == sorted(given_rows, key=repr)
    assert packer.rows == len(given_rows)
    assert packer.names == len({(row.bucket.flow_id, row.bucket.dimensions, row.source_key) for row in given_rows})
    assert packer.has_parts == any(row.bucket.part for row in given_rows)
    for start, rows in packer.reported().items():
        assert rows == sum(row.bucket.start == start and not row.rejected for row in given_rows)
    assert sum(packer.reported().values()) == sum(not row.rejected for row in given_rows)


@given(pages=PAGES, size=st.integers(1, 4))
def test_entries_are_sent_in_the_order_of_their_prefixes(pages: list[list[list[OutcomeRow]]], size: int) -> None:
    """Whatever the size of a chunk; rows that were cleared are not sent again."""
    packer, plain = pack(pages), pack(pages)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "ROWS_PER_CHUNK", size)
        sent = list(packer.packed_rows(lambda number: bytes([255 - number])))
    numbers = [entry.numbers[0] for entry in packer._entries]
    assert numbers == sorted(numbers, reverse=True)
    assert len(b"".join(sent)) == len(b"".join(plain.packed_rows(lambda _: b"-")))
    packer.clear()
    assert (b"".join(packed(packer)), list(packer.packed_names(b"")), packer.memory) == (b"", [], 0)


@given(pages=PAGES)
def test_sparse_names(pages: list[list[list[OutcomeRow]]]) -> None:
    """The names that are not in both buckets, by number."""
    packer = pack(pages)
    times: dict[tuple[str, str, str], set[datetime]] = {}
    for flow, dimensions, start, key in keys(pages):
        times.setdefault((flow, dimensions, key), set()).add(start)
    if not packer.may_repeat:
        assert len(packer.sparse(2)) == sum(len(starts) < 2 for starts in times.values())
        assert packer.sparse(0) == []
        sparse = packer.sparse(2)
        packer.clear()
        assert packer.sparse(2) == sparse


def test_a_chunk_is_small_whatever_the_entries() -> None:
    """It ends with the entry that gives it enough rows."""
    start = datetime(2024, 1, 1, tzinfo=UTC)
    day = FlowBucket("f", start, start + DAY)
    for outcomes in (1, 5, 700):
        names = [f"outcome {number}" for number in range(outcomes)]
        entries = [
            [OutcomeRow(replace(day, flow_id=f"flow {flow}"), name, 1, 0.5, rejected=False) for name in names]
            for flow in range(2100 // outcomes)
        ]
        chunks = [len(chunk) for chunk in packed(pack([entries]))]
        assert max(chunks) < 110 * (512 + outcomes)
        assert sum(chunks) > 2000 * 80


@given(pages=PAGES)
def test_no_repeat_is_overlooked(pages: list[list[list[OutcomeRow]]]) -> None:
    """An outcome that is in a bucket twice is always noticed; entries that all differ are no repeat."""
    packer = pack(pages)
    reported = keys(pages)
    if len(set(reported)) < len(reported):
        assert packer.may_repeat
    entries = [
        (entry[0].bucket.flow_id, entry[0].bucket.dimensions, entry[0].bucket.start)
        for page in pages
        for entry in page
        if entry
    ]
    assert packer.may_repeat == (len(set(entries)) < len(entries))


def test_names_that_are_not_cached_get_a_new_number_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory stays flat; repeats are then not noticed, and so assumed."""
    monkeypatch.setattr(packing, "_NAMES_MAX", 3)
    start = datetime(2024, 1, 1, tzinfo=UTC)
    days = [FlowBucket("f", start + number * DAY, start + (number + 1) * DAY) for number in range(4)]
    packer = pack([[[OutcomeRow(day, name, 1, 0.5, rejected=False) for name in "ABC"] for day in days]])
    assert (packer.names, packer.may_repeat) == (3, False)
    other = page_of([OutcomeRow(FlowBucket("g", start, start + DAY), "D", 1, 0.5, rejected=False)])
    packer.add(other)
    packer.add(other)
    assert (packer.names, packer.may_repeat) == (5, True)
    assert b"".join(packer.packed_names(b"")).count(b"g\0\0\0\1D") == 2
    packer.add(page_of([OutcomeRow(days[0], "A", 1, 0.5, rejected=False)]))
    assert packer.names == 5


def test_buckets_past_the_bound_may_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bit is kept for each bucket of a flow, up to a bound."""
    monkeypatch.setattr(packing, "_BITS_MAX", 2)
    start = datetime(2024, 1, 1, tzinfo=UTC)
    days = [FlowBucket("f", start + number * DAY, start + (number + 1) * DAY) for number in range(3)]
    packer = pack([[[OutcomeRow(day, "A", 1, 0.5, rejected=False)] for day in days[:2]]])
    assert not packer.may_repeat
    packer.add(page_of([OutcomeRow(days[2], "A", 1, 0.5, rejected=False)]))
    assert packer.may_repeat
