"""Exports after a restore, beside other writers, and over files, months and tables that are gone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Operation

from service.errors import ExportError
from service.export.exporter import export
from service.export.parquet import plain_schema
from service.export.table import WarehouseTable
from service.postgres.export import RELATIONS, Month
from service.postgres.export.relations import COVERAGE, FLOW_OUTCOME, RESTATEMENT
from tests.support.export_harness import (
    ExportHarness,
    assert_equal,
    read_with_duckdb,
    restate,
    two_orgs,
)

NAMES = [relation.name for relation in RELATIONS]


@pytest.fixture
async def place(database: str, tmp_path: Path) -> AsyncIterator[ExportHarness]:
    """January and February of two orgs."""
    async with two_orgs(database, tmp_path / "warehouse") as place:
        yield place


async def test_a_restored_database(place: ExportHarness) -> None:
    """An org whose revision in the table is not this database's is written completely, and no other."""
    await place.export()
    await place.acme.rows("UPDATE flow_outcomes.revision SET stamped_at = now() WHERE org = 'acme' RETURNING 1")
    before = place.files()
    assert (await place.export()).tables["flow_outcome"].files == 2
    after = place.files()
    assert {month for month in after if after[month] != before[month]} == {"acme daily 648", "acme daily 649"}


async def test_a_new_namespace(place: ExportHarness) -> None:
    """A namespace that does not hold the tables gets all of them, whatever another one holds."""
    await place.export()
    config = place.config.model_copy(update={"warehouse": f"{place.config.warehouse}-2", "namespace": "second"})
    done = await export(place.acme.dsn, config)
    assert (done.number, done.tables["flow_outcome"].files) == (1, 4)
    assert {table.reason for table in done.tables.values()} == {"the table is new", ""}


async def test_a_new_warehouse(place: ExportHarness) -> None:
    """Another warehouse with the same catalog gets all tables; the former one keeps its files."""
    await place.export()
    former = place.on_disk()
    moved = place._replace(folder=place.folder.with_name("another"))
    done = await moved.export()
    assert (done.number, done.tables["flow_outcome"][:3:2]) == (1, (4, "the table is new"))
    assert all(place.table(name).location() == f"file://{moved.folder}/flow_outcomes/{name}" for name in NAMES)
    await assert_equal(moved)
    assert (await moved.export()).tables == {}
    assert place.on_disk() == former


async def test_a_table_of_another_program_elsewhere(place: ExportHarness) -> None:
    """A table of the same name and layout that no export wrote is neither written nor dropped."""
    await place.export()
    table = place.table()
    place.catalog().drop_table("flow_outcomes.flow_outcome")
    other = place.catalog().create_table(
        "flow_outcomes.flow_outcome", table.schema(), f"file://{place.folder}-of-another", table.spec()
    )
    append(other, "acme", date(2024, 1, 1))
    with pytest.raises(ExportError, match="no export wrote it"):
        await place.export()
    assert len(place.read()) == 1


async def test_a_new_warehouse_where_months_are_pruned(place: ExportHarness) -> None:
    """It is refused: the pruned months would be missing from the tables that readers open."""
    await place.export()
    before = place.read()
    await prune(place)
    moved = place._replace(folder=place.folder.with_name("another"))
    with pytest.raises(ExportError, match="pruned months are nowhere else"):
        await moved.export()
    assert place.read() == before
    assert not moved.on_disk()


def remove(location: str) -> None:
    """Remove a file of the warehouse."""
    Path(location.removeprefix("file://")).unlink()


def append(table: Table, org: str, month: date) -> None:
    """Write a row as another program does."""
    row: dict[str, Any] = dict.fromkeys(FLOW_OUTCOME.column_names)
    text = {"flow_id": "x", "granularity": "daily", "outcome_key": "x_y", "outcome_name": "y"}
    start = datetime(month.year, month.month, 1, tzinfo=UTC)
    row |= text | {"org": org, "bucket_start": start, "bucket_end": start, "outcome_count": 1}
    other = WarehouseTable(FLOW_OUTCOME, table)
    path = other.new_path(99, Month(org, "daily", month), "")
    rows = pa.Table.from_pylist([row], schema=plain_schema(FLOW_OUTCOME)).cast(other.arrow_schema())
    Path(path.removeprefix("file://")).parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(rows, path.removeprefix("file://"))
    table.add_files([path], check_duplicate_files=False)


async def test_another_writer(place: ExportHarness) -> None:
    """What it wrote is noticed: every month held is written, and what is not held stays and is reported."""
    await place.export()
    append(place.table(), "acme", date(2024, 1, 1))
    assert len(place.read()) == len(await place.stored()) + 1
    done = await place.export()
    assert done.tables["flow_outcome"][:3:2] == (4, "another program wrote into the table")
    assert done.tables["restatement"].files == 0
    await assert_equal(place)
    append(place.table(), "acme", date(2019, 5, 1))
    done = await place.export()
    assert done.left_alone == ["flow_outcome acme daily 2019-05"]
    assert len(place.read()) == len(await place.stored()) + 1
    assert (await place.export()).tables == {}


async def test_another_writer_during_the_commit(place: ExportHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit is never built on a change that the export has not seen; the next export repairs the table."""
    await place.export()
    await restate(place)
    commit = WarehouseTable.commit

    def beaten(self: WarehouseTable, *arguments: Any) -> None:  # noqa: ANN401 - passed on
        if self.relation is FLOW_OUTCOME:
            append(place.table(), "acme", date(2024, 1, 1))
        commit(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(WarehouseTable, "commit", beaten)
        with pytest.raises(ExportError, match="another writer changed the table"):
            await place.export()
    assert (await place.export()).tables["flow_outcome"].files == 4
    await assert_equal(place)


async def test_a_compaction_by_another_program(place: ExportHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """A snapshot that replaces files and no row is not taken for a change."""
    await place.export()
    transaction = place.table().transaction()
    compaction = transaction.update_snapshot().overwrite()
    compaction._operation = Operation.REPLACE
    with monkeypatch.context() as patch:  # pyiceberg itself writes no such snapshot
        patch.setattr("pyiceberg.table.update.snapshot.update_snapshot_summaries", lambda summary, **_: summary)
        compaction.commit()
    transaction.commit_transaction()
    head = place.table().current_snapshot()
    assert head is not None
    assert head.summary is not None
    assert head.summary.operation is Operation.REPLACE
    assert (await place.export()).tables == {}
    await restate(place)
    assert (await place.export()).tables["flow_outcome"].files == 1
    await assert_equal(place)


@pytest.mark.parametrize("kind", ["data", "manifest", "manifest list", "metadata", "everything"])
async def test_missing_files(place: ExportHarness, kind: str) -> None:
    """A file that is gone is noticed, and the table written again."""
    await place.export()
    await restate(place)
    await place.export()
    table = place.table()
    snapshot = table.current_snapshot()
    assert snapshot is not None
    gone = {
        "data": [place.files()["globex daily 649"]],
        "manifest": [manifest.manifest_path for manifest in snapshot.manifests(table.io)],
        "manifest list": [snapshot.manifest_list],
        "metadata": [table.metadata_location],
        "everything": [f"file://{file}" for file in place.on_disk() if "/flow_outcome/" in file],
    }[kind]
    for file in gone:
        remove(file)
    done = await place.export()
    assert done.tables["flow_outcome"].files == (4 if kind in ("data", "everything") else 1)
    await assert_equal(place)
    assert read_with_duckdb(place.table()) == await place.stored()


async def prune(place: ExportHarness, *, marked: bool = True) -> None:
    """Remove acme's January as ``prune`` does."""
    for table, instant in (
        ("figure", "bucket_start"),
        ("figure_history", "bucket_start"),
        ("restated", "bucket_start"),
        ("extraction_window", "window_start"),
    ):
        await place.acme.rows(
            f"DELETE FROM flow_outcomes.{table} WHERE org = 'acme' AND {instant} < '2024-02-01' RETURNING 1"
        )
    if marked:
        await place.acme.rows(
            "INSERT INTO flow_outcomes.pruned_month (org, granularity, month)"
            " VALUES ('acme', 'daily', '2024-01-01') RETURNING 1"
        )


async def test_a_pruned_month_stays(place: ExportHarness) -> None:
    """No export changes a month that was pruned: a full one, or one after another writer or a lost file."""
    await restate(place)
    await place.export()
    before = {relation: place.read(relation) for relation in RELATIONS}
    await prune(place)
    january = place.files()["acme daily 648"]
    assert (await place.export()).tables == {}
    done = await place.export(full=True)
    assert done.left_alone == []
    append(place.table(), "globex", date(2024, 1, 1))
    await place.export()
    remove(place.files()["globex daily 648"])
    await place.export()
    assert place.files()["acme daily 648"] == january
    for relation in RELATIONS:
        assert place.read(relation) == before[relation]
    for relation in (FLOW_OUTCOME, RESTATEMENT, COVERAGE):
        assert len(await place.stored(relation)) < len(before[relation])


async def test_a_pruned_month_that_holds_rows_again(place: ExportHarness) -> None:
    """Rows that are stored into a pruned month do not replace it in the warehouse."""
    await place.export()
    before = place.read()
    await prune(place)
    await restate(place, count=99)
    await place.export(full=True)
    assert place.read() == before


async def test_a_lost_file_of_a_pruned_month(place: ExportHarness) -> None:
    """It is reported by each export, and the other months are written once."""
    await place.export()
    await prune(place)
    remove(place.files()["acme daily 648"])
    for tables in (set(NAMES), set()):
        done = await place.export()
        assert done.missing == ["flow_outcome acme daily 2024-01"]
        assert done.tables.keys() == tables


async def test_months_that_the_database_does_not_hold(place: ExportHarness) -> None:
    """Without a mark they stay too, and a full export reports them."""
    await place.export()
    before = place.read()
    await prune(place, marked=False)
    assert (await place.export()).left_alone == []
    done = await place.export(full=True)
    assert done.left_alone == [
        f"{name} acme daily 2024-01" for name in ("flow_outcome", "flow_outcome_detail", "coverage")
    ]
    assert place.read() == before


async def test_lost_metadata_where_months_are_pruned(place: ExportHarness) -> None:
    """The newest metadata that is complete is registered again; without any the table is not replaced."""
    await place.export()
    await prune(place)
    await restate(place, day=40)
    before_it = place.read()
    await place.export()
    newest = place.table().metadata_location
    remove(newest)
    done = await place.export()
    assert done.tables["flow_outcome"].files == 1
    assert len(place.read()) == len(before_it)
    for file in place.on_disk():
        if "/flow_outcome/metadata/" in file:
            remove(file)
    with pytest.raises(ExportError, match="pruned months are nowhere else"):
        await place.export()


async def test_a_lost_catalog_where_months_are_pruned(place: ExportHarness) -> None:
    """Tables that the catalog has lost are registered again, with the pruned months, and brought up to date."""
    await restate(place)
    await place.export()
    await prune(place)
    await restate(place, day=40)
    before = {relation: place.read(relation) for relation in RELATIONS}
    for relation in RELATIONS:
        place.catalog().drop_table(f"flow_outcomes.{relation.name}")
    done = await place.export()
    assert done.tables["flow_outcome"][:3:2] == (1, "")
    for relation in (FLOW_OUTCOME, COVERAGE):
        rows, stored = place.read(relation), await place.stored(relation)
        assert len(rows) == len(before[relation]) > len(stored)
        assert [row for row in stored if row not in rows] == []


async def test_a_column_that_another_program_renamed(place: ExportHarness) -> None:
    """It is added again and written; the renamed one, which is required, is empty."""
    await place.export()
    with place.table().update_schema() as update:
        update.rename_column("outcome_name", "renamed")
    assert (await place.export()).tables["flow_outcome"].reason == "the table lacked a column"
    await assert_equal(place)
    assert place.table().scan().to_arrow().column("renamed").null_count == len(place.read())


async def test_a_table_of_an_earlier_version(place: ExportHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """A column that the table lacks is added, and every month is written again."""
    narrow = RESTATEMENT._replace(columns=RESTATEMENT.columns[:-1])
    earlier = tuple(narrow if each is RESTATEMENT else each for each in RELATIONS)
    await restate(place)
    with monkeypatch.context() as patch:
        patch.setattr("service.export.exporter.RELATIONS", earlier)
        await place.export()
    assert place.table("restatement").schema().column_names == list(narrow.column_names)
    done = await place.export()
    assert done.tables["restatement"][:3:2] == (1, "the table lacked a column")
    await assert_equal(place)


async def test_a_table_of_another_layout(place: ExportHarness) -> None:
    """A table that the program did not make is not written into."""
    catalog = place.catalog()
    await place.export()
    catalog.drop_table("flow_outcomes.coverage")
    catalog.create_table(
        "flow_outcomes.coverage", pa.schema([pa.field("org", pa.string())]), f"file://{place.folder}/other"
    )
    with pytest.raises(ExportError, match="coverage is not partitioned by org, granularity and month"):
        await place.export()
