"""PostgreSQL's binary COPY: how rows and their columns are spelled.

The format: https://www.postgresql.org/docs/current/sql-copy.html#id-1.9.3.55.9.4
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from struct import Struct

HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER = b"\xff\xff"
NULL = b"\xff\xff\xff\xff"
"""A column of any type."""

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_pack_length = Struct("!i").pack
_pack_columns = Struct("!h").pack
_pack_int4 = Struct("!ii").pack
_pack_int8 = Struct("!iq").pack
_pack_float8 = Struct("!id").pack


def begin(columns: int, *values: bytes) -> bytes:
    """What a row of so many columns begins with: its first ones, packed."""
    return _pack_columns(columns) + b"".join(values)


def pack_text(text: str) -> bytes:
    """A text column, or one of an enum."""
    encoded = text.encode()
    return _pack_length(len(encoded)) + encoded


def pack_instant(at: datetime) -> bytes:
    """A timestamptz column."""
    return _pack_int8(8, (at - _EPOCH) // _MICROSECOND)


def pack_int4(value: int) -> bytes:
    """An integer column."""
    return _pack_int4(4, value)


def pack_int8(value: int | None) -> bytes:
    """A bigint column."""
    return NULL if value is None else _pack_int8(8, value)


def pack_float8(value: float | None) -> bytes:
    """A double precision column."""
    return NULL if value is None else _pack_float8(8, value)
