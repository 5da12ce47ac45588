"""The export to Iceberg tables: exact rows, only what changed, each table all or nothing."""

from __future__ import annotations

import asyncio
import errno
import sys
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow.parquet as pq
import pytest
import yaml
from pyiceberg.table.snapshots import Operation

from service.cli import main
from service.errors import ConfigError, DatabaseUnavailableError, ExportBusyError, ExportError
from service.export.exporter import export
from service.export.parquet import ROWS_PER_GROUP
from service.export.table import EXPORT, REVISIONS, WarehouseTable
from service.model import FlowBucket, Granularity, OutcomeRow
from service.postgres import aliases
from service.postgres.export import RELATIONS, Relation, held_lease
from service.postgres.export.relations import FLOW_EXECUTION, FLOW_OUTCOME
from service.postgres.export.snapshot import Snapshot
from tests.support.export_harness import (
    DAYS,
    ExportHarness,
    assert_equal,
    figures,
    read_with_duckdb,
    read_with_polars,
    rename_flow,
    restate,
    store_measures,
    two_orgs,
)

NAMES = [relation.name for relation in RELATIONS]
COUNT, NAME = FLOW_OUTCOME.column_names.index("outcome_count"), FLOW_OUTCOME.column_names.index("outcome_name")
MONTHS = {f"{org} daily {month}" for org in ("acme", "globex") for month in (648, 649)}  # since January 1970


@pytest.fixture
async def place(database: str, tmp_path: Path) -> AsyncIterator[ExportHarness]:
    """January and February of two orgs."""
    async with two_orgs(database, tmp_path / "warehouse") as place:
        yield place


@pytest.mark.parametrize("relation", RELATIONS, ids=lambda relation: relation.name)
async def test_readers_see_the_view(place: ExportHarness, relation: Relation) -> None:
    """DuckDB, polars and pyiceberg read every column of every row, with nulls, zeros, Unicode and instants."""
    await place.acme.store(DAYS[9:10], DAYS[9:10], figures(DAYS[9:10], count=5)[:1])  # missing outcomes: nulls
    await store_measures(place)
    await place.export()
    stored, table = await place.stored(relation), place.table(relation.name)
    assert stored
    assert place.read(relation) == stored
    assert read_with_duckdb(table, relation) == stored
    assert read_with_polars(table, relation) == stored
    if relation is FLOW_OUTCOME:
        assert {row[COUNT] for row in stored} == {0, 5, 7, 19, None}
        assert set(place.files()) == MONTHS


async def test_nothing_new_commits_nothing(place: ExportHarness) -> None:
    """A second export writes no file and no metadata; --full writes every month."""
    await place.export()
    before = place.on_disk()
    done = await place.export()
    assert (done.number, done.tables, done.removed, done.expired) == (1, {}, 0, 0)
    assert place.on_disk() == before
    files = place.files()
    assert (await place.export(full=True)).number == 2
    assert not set(place.files().values()) & set(files.values())
    await assert_equal(place)


async def test_only_the_months_that_changed(place: ExportHarness) -> None:
    """A late restatement rewrites its own month of its own org; another granularity has its own file."""
    await place.export()
    before = place.files()
    await restate(place)
    await place.globex.store(DAYS[59:], DAYS[59:], figures(DAYS[59:], "Neu"), granularity=Granularity.HOURLY)
    done = await place.export()
    after = place.files()
    changed = {"acme daily 648", "globex hourly 649"}
    assert {month for month in after if after[month] != before.get(month)} == changed
    assert {name: table.files for name, table in done.tables.items()} == {
        "flow_outcome": 2,
        "flow_outcome_detail": 2,
        "flow_execution": 0,
        "flow_milestone": 0,
        "restatement": 1,
        "coverage": 2,
    }
    await assert_equal(place)


async def test_an_alias_reaches_every_month_of_its_outcome(place: ExportHarness) -> None:
    """A new name, and its removal, reaches every month with a figure of the outcome, in that org alone."""
    pool = place.acme.database
    once = OutcomeRow(FlowBucket("billing", *DAYS[40]), "Once", 1, None, rejected=False)
    await place.acme.store(DAYS[40:41], DAYS[40:41], [*figures(DAYS[40:41]), once])
    await place.export()
    await aliases.add(pool, aliases.Alias("acme", None, "Paid", "Settled"))
    await aliases.apply(pool, "acme")
    assert (await place.export()).tables["flow_outcome"].files == 2
    assert "Settled" in {row[NAME] for row in place.read()}
    await aliases.add(pool, aliases.Alias("acme", "billing", "Once", "Twice"))
    await aliases.apply(pool, "acme")
    assert (await place.export()).tables["flow_outcome"].files == 1
    await aliases.remove(pool, "acme", None, "Paid")
    await aliases.apply(pool, "acme")
    assert (await place.export()).tables["flow_outcome"].files == 2
    await assert_equal(place)


async def test_a_renamed_flow(place: ExportHarness) -> None:
    """A flow's new name reaches every month of its figures, in that org alone."""
    await store_measures(place)
    await place.export()
    await rename_flow(place, "Rechnung")
    done = await place.export()
    assert {name: table.files for name, table in done.tables.items() if table.files} == {
        "flow_outcome": 2,
        "flow_outcome_detail": 2,
        "flow_execution": 2,
        "flow_milestone": 2,
    }
    assert {row[FLOW_EXECUTION.column_names.index("flow_name")] for row in place.read(FLOW_EXECUTION)} == {
        "Rechnung"
    }
    await assert_equal(place)
    assert (await place.export()).tables == {}


async def test_the_columns_are_the_views(place: ExportHarness) -> None:
    """Each table has the columns of its view, in the view's order."""
    for relation in RELATIONS:
        columns = await place.acme.rows(
            "SELECT column_name FROM information_schema.columns"
            " WHERE table_schema = 'flow_outcomes' AND table_name = %s ORDER BY ordinal_position",
            relation.name,
        )
        assert [name for (name,) in columns] == list(relation.column_names)


async def test_every_snapshot_is_complete(place: ExportHarness) -> None:
    """An export is one snapshot of each table, with a tag, its number and the revision of each org."""
    views = {}
    for number in (1, 2, 3):
        await restate(place, count=10 + number)
        await place.export()
        views[number] = {relation: await place.stored(relation) for relation in RELATIONS}
    for relation in RELATIONS:
        table = place.table(relation.name)
        assert [snapshot.summary[EXPORT] for snapshot in table.snapshots() if snapshot.summary] == ["1", "2", "3"]
        assert Operation.DELETE not in {each.summary.operation for each in table.snapshots() if each.summary}
        for number, views_then in views.items():
            ref = table.refs()[f"export-{number}"]
            assert place.read(relation, ref.snapshot_id) == views_then[relation]
    positions = {
        place.table(name).snapshot_by_name("export-3").summary[REVISIONS]  # type: ignore[union-attr, index]
        for name in NAMES
    }
    assert len(positions) == 1
    assert '"acme": {"revision": 4,' in str(positions.pop())


async def test_one_database_snapshot(place: ExportHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures stored during an export are part of the next one only, in every table."""
    before = {relation: await place.stored(relation) for relation in RELATIONS}
    new_path, calls = WarehouseTable.new_path, 0

    def storing(self: WarehouseTable, *arguments: Any) -> str:  # noqa: ANN401 - passed on
        nonlocal calls
        calls += 1
        return new_path(self, *arguments)

    taken_at, times = Snapshot.taken_at, 0

    async def then_stored(self: Snapshot) -> datetime:
        nonlocal times
        times += 1
        at = await taken_at(self)  # the first statement takes the snapshot
        await restate(place, count=9)
        return at

    monkeypatch.setattr(WarehouseTable, "new_path", storing)
    with monkeypatch.context() as patch:
        patch.setattr(Snapshot, "taken_at", then_stored)
        await place.export()
    assert times == 1
    assert calls == 12
    for relation in RELATIONS:
        assert place.read(relation) == before[relation]
    await place.export()
    await assert_equal(place)


async def test_a_full_disk(place: ExportHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a file cannot be written, readers see the former export, and no new file remains."""
    await place.export()
    before, rows = place.on_disk(), place.read()
    await place.acme.store(DAYS, DAYS, figures(DAYS, count=9))
    open_new, opened = WarehouseTable.open_new, 0

    def full(self: WarehouseTable, path: str) -> BinaryIO:
        nonlocal opened
        opened += 1
        if opened == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return open_new(self, path)

    with monkeypatch.context() as patch:
        patch.setattr(WarehouseTable, "open_new", full)
        with pytest.raises(
            ExportError, match=r"flow_outcome cannot be written: OSError: .*No space left on device"
        ):
            await place.export()
    assert opened == 2
    assert (place.on_disk(), place.read()) == (before, rows)
    [state] = await place.acme.rows("SELECT export, last_error FROM flow_outcomes.export_lease")
    assert state[0] == 1
    assert "No space left" in state[1]
    assert (await place.export()).tables["flow_outcome"].files == 2
    await assert_equal(place)
    assert await place.acme.rows("SELECT export, last_error FROM flow_outcomes.export_lease") == [(2, None)]


async def test_one_export_at_a_time(place: ExportHarness) -> None:
    """A second export is refused while one runs, and names it."""
    async with held_lease(place.acme.dsn):
        with pytest.raises(ExportBusyError, match="another process exports: flow-outcomes export"):
            await place.export()
    await place.export()


async def test_a_suspended_exporter(place: ExportHarness) -> None:
    """The session of an exporter whose lease has expired is terminated, and it commits nothing more."""
    async with held_lease(place.acme.dsn) as lease:
        await place.acme.rows(
            "UPDATE flow_outcomes.export_lease SET expires_at = now() - interval '1 second' RETURNING 1"
        )
        await place.export()
        with pytest.raises(Exception, match=r"terminating connection|connection is closed"):
            await lease._renew("SELECT %(owner)s::text, %(lifetime)s::float8")


async def test_memory_stays_flat(place: ExportHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """A month is read in batches and written in row groups, which together hold every row."""
    monkeypatch.setattr("service.postgres.export.snapshot.ROWS_PER_FETCH", 7)
    monkeypatch.setattr("service.export.parquet.ROWS_PER_GROUP", 20)
    await place.export()
    assert ROWS_PER_GROUP > 20
    file = pq.ParquetFile(place.files()["acme daily 648"].removeprefix("file://"))
    sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
    assert set(sizes[:-1]) == {21}
    await assert_equal(place)


async def test_an_unavailable_database(place: ExportHarness) -> None:
    """Without a server the export raises the program's own error."""
    with pytest.raises(DatabaseUnavailableError):
        await export("postgresql://nobody@127.0.0.1:1/nothing", place.config)
    assert not place.folder.exists()


async def test_the_command(place: ExportHarness, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It prints what it wrote; without the packages it says how to install them, and exits 2."""
    file = tmp_path / "flow-outcomes.yaml"
    org = {"region": "mypurecloud.com", "client_id": "a", "client_secret": "a-secret"}
    tree: dict[str, Any] = {"database": {"dsn": place.acme.dsn}, "orgs": {"acme": org}}
    file.write_text(yaml.safe_dump(tree))
    command = ["export", "--config", str(file)]
    assert await asyncio.to_thread(main, command) == 2
    assert capsys.readouterr().err == "export: is required, or --parquet DIR for plain files\n"
    file.write_text(yaml.safe_dump(tree | {"export": {"warehouse": f"file://{place.folder}"}}))
    assert await asyncio.to_thread(main, command) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == f"export 1 to file://{place.folder}: wrote 12 months with 1080 rows"
    assert [line.split(":")[0] for line in out[1:]] == [f"  {name}" for name in NAMES]
    assert await asyncio.to_thread(main, command) == 0
    assert capsys.readouterr().out == f"export 1 to file://{place.folder}: nothing new\n"
    assert await asyncio.to_thread(main, [*command, "--full"]) == 0
    assert "(requested)" in capsys.readouterr().out
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "pyiceberg", None)
        assert await asyncio.to_thread(main, command) == 2
    assert capsys.readouterr().err == (
        "export: needs pyiceberg. In a clone: .venv/bin/pip install '.[export]'. For the image: docker build"
        " --build-arg REQUIREMENTS=requirements-export.txt\n"
    )


async def test_the_catalog_of_another_database(place: ExportHarness, tmp_path: Path) -> None:
    """``uri`` chooses where a SQL catalog is; the database of the figures then has no catalog."""
    uri = f"sqlite:///{tmp_path}/catalog.db"
    config = place.config.model_validate(
        {"warehouse": place.config.warehouse, "catalog": {"type": "sql", "uri": uri}}
    )
    assert (await export(place.acme.dsn, config)).tables["flow_outcome"].files == 4
    assert await place.acme.rows("SELECT to_regclass('flow_outcomes.iceberg_tables')") == [(None,)]


async def test_an_unreachable_catalog(place: ExportHarness) -> None:
    """The error says what cannot be opened; nothing is written."""
    config = place.config.model_validate(
        {"warehouse": place.config.warehouse, "catalog": {"type": "rest", "uri": "http://127.0.0.1:1"}}
    )
    with pytest.raises(ExportError, match="the catalog cannot be opened"):
        await export(place.acme.dsn, config)


def test_unknown_extras() -> None:
    """A missing package is a fault of the configuration, which the command line reports with exit code 2."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "sqlalchemy", None)
        with pytest.raises(ConfigError, match="needs sqlalchemy"):
            asyncio.run(export("postgresql://nobody@127.0.0.1:1/nothing", None))  # type: ignore[arg-type]
