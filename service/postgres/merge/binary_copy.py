"""PostgreSQL's binary COPY format: columns and rows as bytes, and a function that sends them.

Format: https://www.postgresql.org/docs/current/sql-copy.html#id-1.9.3.55.9.4
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from struct import Struct
from typing import LiteralString
from uuid import UUID

from service.postgres.pool import Connection

HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER = b"\xff\xff"
NULL = b"\xff\xff\xff\xff"
"""A null column of any type."""

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_pack_length = Struct("!i").pack
_pack_columns = Struct("!h").pack
_pack_int4 = Struct("!ii").pack
_pack_int8 = Struct("!iq").pack
_pack_float8 = Struct("!id").pack


def pack_prefix(columns: int, *values: bytes) -> bytes:
    """The start of a row: the number of its columns, and the first of them, packed."""
    return _pack_columns(columns) + b"".join(values)


def pack_text(text: str | None) -> bytes:
    """A text or enum column."""
    if text is None:
        return NULL
    encoded = text.encode()
    return _pack_length(len(encoded)) + encoded


def pack_jsonb(text: str) -> bytes:
    """A jsonb column: the version of the format, and JSON as text."""
    encoded = b"\x01" + text.encode()
    return _pack_length(len(encoded)) + encoded


def pack_uuid(value: UUID) -> bytes:
    """A uuid column."""
    return _pack_length(16) + value.bytes


def pack_instant(at: datetime | None) -> bytes:
    """A timestamptz column."""
    return NULL if at is None else _pack_int8(8, (at - _EPOCH) // _MICROSECOND)


def pack_int4(value: int) -> bytes:
    """An integer column."""
    return _pack_int4(4, value)


def pack_int8(value: int | None) -> bytes:
    """A bigint column."""
    return NULL if value is None else _pack_int8(8, value)


def pack_float8(value: float | None) -> bytes:
    """A double precision column."""
    return NULL if value is None else _pack_float8(8, value)


async def copy_in(
    connection: Connection, table: LiteralString, columns: LiteralString, rows: Iterable[bytes]
) -> int:
    """Copy packed rows into a table, and return how many there were.

    Args:
        connection: in a transaction.
        table: with its schema.
        columns: of a packed row, in order.
        rows: in chunks of any size.
    """
    statement = f"COPY {table} ({columns}) FROM STDIN (FORMAT BINARY)"
    async with connection.cursor() as cursor:
        async with cursor.copy(statement.encode()) as copy:
            await copy.write(HEADER)
            for chunk in rows:
                await copy.write(chunk)
            await copy.write(TRAILER)
        return cursor.rowcount
