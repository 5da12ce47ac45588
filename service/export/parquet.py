"""Parquet files that Snowflake, BigQuery, Redshift, DuckDB and Spark read.

All of them support Snappy and microseconds in UTC. The columns have the view's order, since Redshift matches
columns by position.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

from service.errors import ConfigError, Fault
from service.postgres.queries.export import COLUMNS

EXTRA = "needs pyarrow: pip install 'flow-outcomes[export]'"

_TEXT, _COUNT, _SHARE, _INSTANT = "string", "int64", "double", "timestamp"
_TYPES = {
    "bucket_start": _INSTANT,
    "bucket_end": _INSTANT,
    "outcome_count": _COUNT,
    "outcome_percentage": _SHARE,
    "outcome_share": _SHARE,
    "extraction_timestamp": _INSTANT,
    "success_count": _COUNT,
    "failure_count": _COUNT,
}
_NEVER_NULL = {"org", "flow_id", "granularity", "bucket_start", "bucket_end", "outcome_key", "outcome_name"}


class Parquet:
    """Writes Parquet files with pyarrow, which is an optional package.

    Raises:
        ConfigError: pyarrow is not installed.
    """

    def __init__(self) -> None:
        try:
            self._arrow: Any = importlib.import_module("pyarrow")
            self._files: Any = importlib.import_module("pyarrow.parquet")
        except ImportError as error:
            raise ConfigError([Fault("export", EXTRA)]) from error
        types = {_INSTANT: self._arrow.timestamp("us", tz="UTC"), _COUNT: self._arrow.int64()}
        types |= {_SHARE: self._arrow.float64(), _TEXT: self._arrow.string()}
        self._schema = self._arrow.schema(
            [
                self._arrow.field(name, types[_TYPES.get(name, _TEXT)], nullable=name not in _NEVER_NULL)
                for name in COLUMNS
            ]
        )

    async def write(self, path: Path, rows: AsyncGenerator[list[tuple[Any, ...]], None]) -> int:
        """Write a file and flush it to disk; returns the number of rows. Without rows no file is written."""
        count = 0
        async with aclosing(rows):
            first = await anext(rows, None)
            if first is None:
                return count
            path.parent.mkdir(parents=True, exist_ok=True)
            # pyarrow would encode the path as UTF-8, whatever the locale is.
            with path.open("wb") as file:
                with self._files.ParquetWriter(file, self._schema, compression="snappy") as writer:
                    writer.write_batch(self._batch(first))
                    count += len(first)
                    async for batch in rows:
                        writer.write_batch(self._batch(batch))
                        count += len(batch)
                file.flush()
                os.fsync(file.fileno())
        return count

    def _batch(self, rows: Sequence[tuple[Any, ...]]) -> object:
        columns = zip(*rows, strict=True)
        arrays = [
            self._arrow.array(column, type=field.type) for column, field in zip(columns, self._schema, strict=True)
        ]
        return self._arrow.record_batch(arrays, schema=self._schema)
