"""Parquet files, from rows of the database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from service.postgres.export import Relation, Type

ROWS_PER_GROUP = 100_000
"""Rows of a row group: fewer cost readers more than their data, more would be held in memory."""

_TYPES = {
    Type.TEXT: pa.string(),
    Type.INSTANT: pa.timestamp("us", tz="UTC"),
    Type.INTEGER: pa.int64(),
    Type.REAL: pa.float64(),
    Type.FLAG: pa.bool_(),
    Type.TEXT_MAP: pa.map_(pa.string(), pa.string()),
}

Rows = AsyncGenerator[list[tuple[Any, ...]], None]


def plain_schema(relation: Relation) -> pa.Schema:
    """The relation's columns, in its order."""
    return pa.schema(
        [pa.field(column.name, _TYPES[column.type], nullable=not column.required) for column in relation.columns]
    )


async def write(
    open_file: Callable[[], BinaryIO], schema: pa.Schema, rows: Rows, *, compression: str = "zstd"
) -> tuple[int, pq.FileMetaData | None]:
    """Write a file; its bytes are written in a thread.

    Args:
        open_file: opens the file; not called where there is no row.
        schema: the columns in the order of the rows' values.
        rows: the rows, in batches.
        compression: Parquet's name of the codec.

    Returns:
        The number of rows, and the file's metadata; 0 and None where there is no row and no file.
    """
    count, pending = 0, []
    held = 0
    async with aclosing(rows):
        first = await anext(rows, None)
        if first is None:
            return 0, None
        file = await asyncio.to_thread(open_file)
        try:
            writer = pq.ParquetWriter(file, schema, compression=compression)
            try:
                batch: list[tuple[Any, ...]] | None = first
                while batch is not None:
                    pending.append(await asyncio.to_thread(_batch, schema, batch))
                    held += len(batch)
                    count += len(batch)
                    if held >= ROWS_PER_GROUP:
                        await asyncio.to_thread(_write_group, writer, pending)
                        pending, held = [], 0
                    batch = await anext(rows, None)
                if pending:
                    await asyncio.to_thread(_write_group, writer, pending)
            finally:
                await asyncio.to_thread(writer.close)
        finally:
            await asyncio.to_thread(file.close)
    return count, writer.writer.metadata


def _batch(schema: pa.Schema, rows: Sequence[tuple[Any, ...]]) -> pa.RecordBatch:
    arrays = [
        pa.array(_values(column, field.type), type=field.type)
        for column, field in zip(zip(*rows, strict=True), schema, strict=True)
    ]
    return pa.record_batch(arrays, schema=schema)


def _values(column: Sequence[Any], kind: pa.DataType) -> Sequence[Any]:
    if pa.types.is_map(kind):
        return [None if value is None else list(value.items()) for value in column]
    return column


def _write_group(writer: pq.ParquetWriter, batches: list[pa.RecordBatch]) -> None:
    writer.write_table(pa.Table.from_batches(batches), row_group_size=ROWS_PER_GROUP + len(batches[0]))
