"""Figures as CSV, in the columns of ``flow_outcome``."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from typing import NamedTuple

from psycopg import sql

from service.postgres.pool import Connection
from service.postgres.queries.flow_figures import FlowSpan, source

BYTES_PER_PIECE = 32 * 1024


async def copy_figures(
    connection: Connection,
    within: FlowSpan,
    at: datetime | None,
    *,
    escape_formulas: bool,
    without_rows: bool = False,
) -> AsyncIterator[bytes]:
    """The header and the figures of a flow, or of all flows where ``flow_id`` is empty, in pieces.

    Args:
        connection: the database.
        within: the flow and the buckets.
        at: None for the present figures.
        escape_formulas: whether a text that a spreadsheet would execute begins with an apostrophe.
        without_rows: whether the header is all.
    """
    columns = await connection.fetch_all(_Column, _COLUMNS)
    names = [
        _ESCAPED.format(sql.Identifier(each.name), sql.Identifier(each.name))
        if escape_formulas and each.is_text
        else sql.Identifier(each.name)
        for each in columns
    ]
    statement = sql.SQL(_COPY.replace("<source>", source(at))).format(sql.SQL(", ").join(names))
    values = within.values(at) | {"limit": 0 if without_rows else None}
    piece = bytearray()
    async with connection.cursor() as cursor, cursor.copy(statement, values) as rows:
        async for row in rows:
            piece += row
            if len(piece) >= BYTES_PER_PIECE:
                yield bytes(piece)
                piece.clear()
    yield bytes(piece)


class _Column(NamedTuple):
    name: str
    is_text: bool


_COLUMNS = """
    SELECT a.attname::text AS name, a.atttypid = 'text'::regtype AS is_text
    FROM pg_catalog.pg_attribute a
    WHERE a.attrelid = 'flow_outcomes.flow_outcome'::regclass AND a.attnum > 0 AND NOT a.attisdropped
    ORDER BY a.attnum
"""

_ESCAPED = sql.SQL("CASE WHEN {0} ~ '^[-=+@\\t\\r]' THEN '''' || {0} ELSE {0} END AS {1}")

_COPY = """
    COPY (
        SELECT {0}
        FROM <source> f
        WHERE org = %(org)s AND (%(flow)s = '' OR flow_id = %(flow)s) AND granularity = %(granularity)s
          AND bucket_start >= %(start)s AND bucket_start < %(end)s
        ORDER BY flow_id, bucket_start, outcome_name
        LIMIT %(limit)s
    ) TO STDOUT (FORMAT csv, HEADER true)
"""
