"""Two orgs on one database, and a warehouse."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from importlib.metadata import files as files_of
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import polars as pl
from pyiceberg.catalog import Catalog, load_catalog
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.table import Table
from sqlalchemy import NullPool, create_engine

from service.config import Export
from service.export.exporter import Exported, export
from service.model import FlowBucket, OutcomeRow, Span
from service.postgres.export import RELATIONS, Relation, Type
from service.postgres.export.relations import FLOW_OUTCOME
from service.postgres.names import name_flows
from service.postgres.pool import Database
from tests.support.scan_harness import ScanHarness

JANUARY = datetime(2024, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
DAYS = [Span(JANUARY + day * DAY, JANUARY + (day + 1) * DAY) for day in range(60)]  # to the end of February
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
os.environ["POLARS_ICEBERG_PLANNER"] = "pyiceberg"  # the plans; polars reads the files

Rows = list[tuple[Any, ...]]


class ExportHarness(NamedTuple):
    """Two orgs on one database, and a warehouse in a folder."""

    acme: ScanHarness
    globex: ScanHarness
    folder: Path

    @property
    def config(self) -> Export:
        """A catalog in the database."""
        return Export(warehouse=f"file://{self.folder}")

    async def export(self, *, full: bool = False) -> Exported:
        return await export(self.acme.dsn, self.config, full=full)

    async def stored(self, relation: Relation = FLOW_OUTCOME) -> Rows:
        """Return the rows of the view, as the warehouse has their types."""
        columns = ", ".join(column.source or column.name for column in relation.columns)
        return ordered(await self.acme.rows(f"SELECT {columns} FROM flow_outcomes.{relation.name}"))

    def catalog(self) -> Catalog:
        """Open the catalog as docs/warehouses.md tells a reader to."""
        return catalog_in(self.acme.dsn)

    def table(self, name: str = "flow_outcome") -> Table:
        """Open a table."""
        return self.catalog().load_table(f"flow_outcomes.{name}")

    def read(self, relation: Relation = FLOW_OUTCOME, snapshot: int | None = None) -> Rows:
        """Return the rows that pyiceberg reads."""
        table = self.table(relation.name).scan(snapshot_id=snapshot).to_arrow().select(relation.column_names)
        return ordered(zip(*(column.to_pylist() for column in table.columns), strict=True))

    def files(self, name: str = "flow_outcome") -> dict[str, str]:
        """Return the file of each partition; a month that is written again has another one."""
        tasks = self.table(name).scan().plan_files()
        return {" ".join(map(str, task.file.partition)): task.file.file_path for task in tasks}  # type: ignore[call-overload]

    def on_disk(self) -> set[str]:
        """Return every file in the warehouse."""
        return {str(file) for file in self.folder.rglob("*") if file.is_file()}


def catalog_in(dsn: str) -> Catalog:
    """The catalog that is kept in the database."""
    uri = dsn.replace("postgresql://", "postgresql+psycopg://", 1)
    joint = "&" if "?" in uri else "?"
    uri = f"{uri}{joint}options=-csearch_path%3Dflow_outcomes"
    catalog = load_catalog("flow_outcomes", type="sql", uri=uri)
    assert isinstance(catalog, SqlCatalog)
    catalog.engine.dispose()
    catalog.engine = create_engine(uri, poolclass=NullPool)  # keeps no connection open
    return catalog


def ordered(rows: Any) -> Rows:  # noqa: ANN401 - any iterable of rows
    """Sort rows that may hold nulls; maps are dictionaries, as the database returns them."""
    return sorted((tuple(map(_value, row)) for row in rows), key=repr)


def _value(value: Any) -> Any:  # noqa: ANN401 - of a reader
    if isinstance(value, list):  # a map's entries, as pyiceberg and as polars return them
        value = dict(tuple(each.values()) if isinstance(each, dict) else each for each in value)
    return dict(sorted(value.items())) if isinstance(value, dict) else value


@contextmanager
def duck_with_iceberg() -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB with its iceberg extension, from the wheels; avro has to be loaded first."""
    with duckdb.connect() as duck:
        for name in ("avro", "iceberg"):
            extension = next(
                file for file in files_of(f"duckdb-extension-{name}") or [] if file.suffix == ".duckdb_extension"
            )
            duck.execute(f"LOAD '{extension.locate()}'")
        yield duck


def read_with_duckdb(table: Table, relation: Relation = FLOW_OUTCOME) -> Rows:
    """Return the rows that DuckDB's iceberg extension reads from the table's metadata."""
    with duck_with_iceberg() as duck:
        return read(duck, f"iceberg_scan('{table.metadata_location}')", relation)


def read(duck: duckdb.DuckDBPyConnection, source: str, relation: Relation = FLOW_OUTCOME) -> Rows:
    """Return every row, with values as the database returns them."""
    instants = {column.name for column in relation.columns if column.type is Type.INSTANT}
    columns = [f"epoch_us({name})" if name in instants else name for name in relation.column_names]
    rows = duck.execute(f"SELECT {', '.join(columns)} FROM {source}").fetchall()
    return ordered(
        [
            EPOCH + timedelta(microseconds=value) if name in instants and value is not None else value
            for name, value in zip(relation.column_names, row, strict=True)
        ]
        for row in rows
    )


def read_with_polars(table: Table, relation: Relation = FLOW_OUTCOME) -> Rows:
    """Return the rows that polars reads."""
    return ordered(pl.scan_iceberg(table).select(relation.column_names).collect().rows())


async def store_measures(place: ExportHarness) -> None:
    """Store executions and milestones of a named flow, and dimensions of an outcome, for two days."""
    for name, measure, source_key, dimensions in (
        ("Reached", "milestones", "m-1", '{"mediaType": "voice", "flowVersion": null}'),
        ("", "executions", "nFlow", "{}"),
        ("", "executions", "tFlowExit:DISCONNECT", '{"mediaType": "chat"}'),
        ("Paid", "outcomes", "Paid", '{"mediaType": "Größe 🎧"}'),
    ):
        await place.acme.rows(_STORE_MEASURE, name, measure, source_key, dimensions, DAYS[0].start, DAYS[31].start)
    await rename_flow(place, "Billing")


async def rename_flow(place: ExportHarness, name: str) -> None:
    """Name the flow as the list of the API does."""
    details = (name, "inboundcall", None, None, False)
    assert await name_flows(place.acme.database, place.acme.lease, [("billing", details)]) == 1


_STORE_MEASURE = """
    WITH added AS (
        INSERT INTO flow_outcomes.series
            (org, flow_id, source_key, outcome_id, reported_name, outcome_name, revision, measure, dimensions)
        SELECT 'acme', 'billing', given.source_key, CASE WHEN given.measure = 'milestones' THEN 'm-1' END,
               given.name, given.name, 1, given.measure::flow_outcomes.measure, given.dimensions::jsonb
        FROM (SELECT %s::text AS name, %s::text AS measure, %s::text AS source_key, %s::text AS dimensions) given
        RETURNING series_no, measure
    )
    INSERT INTO flow_outcomes.figure
        (org, granularity, series_no, bucket_start, bucket_end, state, measure, outcome_count, duration_count,
         duration_sum_ms, duration_min_ms, duration_max_ms, extraction_timestamp, revision)
    SELECT 'acme', 'daily', added.series_no, day, day + interval '1 day', 'reported', added.measure, 12, 3, 900,
           100, 500, now(), 1
    FROM added, unnest(ARRAY[%s::timestamptz, %s::timestamptz]) AS day
    RETURNING 1
"""


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


@asynccontextmanager
async def exported_measures(database: str, folder: Path) -> AsyncIterator[ExportHarness]:
    """Store January and February of two orgs, with figures in every relation, and export them."""
    async with two_orgs(database, folder) as place:
        await store_measures(place)
        await place.export()
        yield place


async def restate(place: ExportHarness, day: int = 3, count: int = 8) -> None:
    """Store another count for one day of acme."""
    await place.acme.store(DAYS[day : day + 1], DAYS[day : day + 1], figures(DAYS[day : day + 1], count=count))


async def assert_equal(place: ExportHarness) -> None:
    """Every table holds the rows of its view."""
    for relation in RELATIONS:
        assert place.read(relation) == await place.stored(relation), relation.name
