"""Packed rows, read back by PostgreSQL."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.model import OutcomeRow
from service.postgres.packing import COLUMNS, HEADER, TRAILER, Packer
from service.postgres.staging import _INCOMING

pytestmark = pytest.mark.integration

_FIELDS = (
    "flow_id, bucket_start, bucket_end, source_key, outcome_count, outcome_percentage, rejected,"
    " success_count, failure_count, part"
)
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
START = st.sampled_from([datetime(1999, 12, 31, 23, tzinfo=UTC), datetime(2024, 2, 29, 5, 30, tzinfo=UTC)])
WHOLE = st.none() | st.integers(0, 2**63 - 1)
ROWS = st.lists(
    st.builds(
        lambda flow, start, key, count, share, success, part: OutcomeRow(
            flow, start, start + timedelta(days=1), key, count, share, count is None, success, success, part
        ),
        TEXT,
        START,
        TEXT,
        WHOLE,
        st.none() | st.floats(0, 1),
        WHOLE,
        st.sampled_from(["", "voice"]),
    ),
    max_size=12,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pages=st.lists(ROWS, max_size=3))
def test_what_is_packed_is_what_was_given(database: str, pages: list[list[OutcomeRow]]) -> None:
    """To the letter and the last bit, page after page."""
    packer = Packer()
    packed = [packer.pack(rows) for rows in pages]
    with psycopg.connect(database, options="-c timezone=UTC") as connection, connection.cursor() as cursor:
        cursor.execute(_INCOMING.encode())
        with cursor.copy(f"COPY pg_temp.incoming ({COLUMNS}) FROM STDIN (FORMAT BINARY)".encode()) as copy:
            for each in (HEADER, *packed, TRAILER):
                copy.write(each)
        cursor.execute(f"SELECT {_FIELDS} FROM pg_temp.incoming".encode())
        found = [OutcomeRow(*row) for row in cursor]
    assert found == [row for rows in pages for row in rows]
