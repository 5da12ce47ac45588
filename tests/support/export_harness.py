"""Two orgs on one database, and an export folder."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import duckdb

from service.export.exporter import Exported, export
from service.model import FlowBucket, OutcomeRow, Span
from service.postgres.pool import Database
from service.postgres.queries.export import COLUMNS
from tests.support.scan_harness import ScanHarness

JANUARY = datetime(2024, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
DAYS = [Span(JANUARY + day * DAY, JANUARY + (day + 1) * DAY) for day in range(60)]  # to the end of February
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
INSTANTS = {"bucket_start", "bucket_end", "extraction_timestamp"}


class ExportHarness(NamedTuple):
    """Two orgs on one database, and an export folder."""

    acme: ScanHarness
    globex: ScanHarness
    folder: Path

    async def export(self, *, since_last: bool = True) -> Exported:
        return await export(self.acme.dsn, self.folder, since_last=since_last)

    async def stored(self) -> list[tuple[Any, ...]]:
        """Return the rows of the database."""
        return await self.acme.rows(
            f"SELECT {', '.join(COLUMNS)} FROM flow_outcomes.flow_outcome"
            " ORDER BY org, granularity, flow_id, bucket_start, outcome_name"
        )

    def read(self) -> list[tuple[Any, ...]]:
        """Return the rows of the exported files."""
        with duckdb.connect() as duck:
            return read(duck, f"read_parquet('{self.folder}/**/*.parquet', hive_partitioning = true)")

    def files(self) -> dict[str, int]:
        """Return the inode number of each file; a rewritten file has another one."""
        files = self.folder.rglob("*.parquet")
        return {str(file.parent.relative_to(self.folder)): file.stat().st_ino for file in files}


def read(duck: duckdb.DuckDBPyConnection, source: str) -> list[tuple[Any, ...]]:
    """Return every row, with values as the database returns them."""
    columns = [f"epoch_us({name})" if name in INSTANTS else name for name in COLUMNS]
    rows = duck.execute(
        f"SELECT {', '.join(columns)} FROM {source} ORDER BY org, granularity, flow_id, bucket_start, outcome_name"
    ).fetchall()
    return [
        tuple(
            EPOCH + timedelta(microseconds=value) if name in INSTANTS else value
            for name, value in zip(COLUMNS, row, strict=True)
        )
        for row in rows
    ]


def figures(days: list[Span], name: str = "Paid", count: int = 7) -> list[OutcomeRow]:
    return [
        OutcomeRow(FlowBucket(flow, *day), outcome, each, 0.5, rejected=False)
        for day in days
        for flow in ("billing", "support")
        for outcome, each in ((name, count), ("Löst 🎧", 0))
    ]


@asynccontextmanager
async def two_orgs(database: str, folder: Path) -> AsyncIterator[ExportHarness]:
    """Store January and February of two orgs."""
    pool = Database(database, size=2, application_name="test")
    await pool.open()
    acme, globex = ScanHarness(database, pool, "acme"), ScanHarness(database, pool, "globex")
    for harness in (acme, globex):
        await harness.create_org()
        await harness.store(DAYS, DAYS, figures(DAYS))
    yield ExportHarness(acme, globex, folder)
    await pool.close()
