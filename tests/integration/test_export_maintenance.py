"""Maintenance of the Iceberg tables: what expires, what is removed, and what never is."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.typedef import Record

from service.export.commit import MANIFESTS_TO_MERGE, replace_files
from service.export.exporter import Exported, export
from service.export.maintenance import referenced
from service.postgres.export import RELATIONS
from service.postgres.export.relations import FLOW_OUTCOME
from tests.support.export_harness import DAYS, ExportHarness, figures, two_orgs

DAY = 86_400
AT_ONCE = timedelta(milliseconds=1)


@pytest.fixture
async def place(database: str, tmp_path: Path) -> AsyncIterator[ExportHarness]:
    """January and February of two orgs, exported three times."""
    async with two_orgs(database, tmp_path / "warehouse") as place:
        await place.export()
        for count in (8, 9):
            await next_export(place, count)
        yield place


async def next_export(place: ExportHarness, count: int, keep: timedelta = timedelta(days=7)) -> Exported:
    """Restate a day and export."""
    await place.acme.store(DAYS[3:4], DAYS[3:4], figures(DAYS[3:4], count=count))
    return await export(place.acme.dsn, place.config.model_copy(update={"keep_snapshots": keep}))


def age(place: ExportHarness, days: float) -> None:
    """Make every file look older."""
    for file in place.on_disk():
        os.utime(file, (time.time() - days * DAY,) * 2)


def needed(place: ExportHarness) -> set[str]:
    """The files that a snapshot of a table needs."""
    return {path for relation in RELATIONS for path in referenced(place.table(relation.name))}


async def test_snapshots_expire_with_their_tags(place: ExportHarness) -> None:
    """The newest export stays, and what another program has tagged."""
    table = place.table()
    [first, *_] = table.snapshots()
    table.manage_snapshots().create_tag(first.snapshot_id, "audit-2024").commit()
    assert (await next_export(place, 10)).expired == 0
    done = await next_export(place, 11, AT_ONCE)
    assert done.expired == 3 + 4 * 5
    assert set(place.table().refs()) == {"main", "audit-2024", "export-5"}
    assert len(place.read(snapshot=first.snapshot_id)) == len(await place.stored())
    assert set(place.table("coverage").refs()) == {"main", "export-5"}
    assert (await export(place.acme.dsn, place.config)).tables == {}


async def test_files_that_no_snapshot_needs(place: ExportHarness) -> None:
    """They go after three days, by the export that follows; younger ones and all that are needed stay."""
    orphan = place.folder / "flow_outcomes" / "flow_outcome" / "data" / "left-by-a-crash.parquet"
    orphan.write_bytes(b"")
    done = await next_export(place, 10, AT_ONCE)
    assert (done.expired, done.removed) == (18, 0)
    age(place, days=2.9)
    assert (await next_export(place, 11)).removed == 0
    assert orphan.exists()
    age(place, days=3.1)
    before = place.on_disk() - needed(place)
    done = await next_export(place, 12)
    assert done.removed == len(before) > 20
    assert not before & place.on_disk()
    assert needed(place) <= place.on_disk()
    for relation in RELATIONS:
        table = place.table(relation.name)
        for snapshot in table.snapshots():
            table.scan(snapshot_id=snapshot.snapshot_id).to_arrow()


async def test_nothing_is_removed_where_nothing_was_committed(place: ExportHarness) -> None:
    """An export with nothing new removes no file, whatever is there."""
    orphan = place.folder / "flow_outcomes" / "coverage" / "metadata" / "left-by-a-crash.avro"
    orphan.write_bytes(b"")
    age(place, days=10)
    assert (await place.export()).removed == 0
    assert orphan.exists()


async def test_files_outside_the_tables(place: ExportHarness) -> None:
    """Files beside the tables are nobody's business here."""
    beside = [place.folder / "notes.txt", place.folder / "flow_outcomes" / "notes.txt"]
    for file in beside:
        file.write_text("dear")
    age(place, days=10)
    await next_export(place, 10, AT_ONCE)
    assert all(file.exists() for file in beside)


async def test_a_lost_lease_removes_nothing(place: ExportHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lease is checked before each removal."""
    age(place, days=10)
    await next_export(place, 10, AT_ONCE)
    age(place, days=10)
    before = place.on_disk() - needed(place)
    assert before
    checks = 0

    def lost(_: object) -> None:
        nonlocal checks
        checks += 1
        if checks > len(RELATIONS) + 1:  # the commits, and the first table's maintenance
            raise RuntimeError("lost")

    with monkeypatch.context() as patch:
        patch.setattr("service.postgres.export.ExportLease.check", lost)
        with pytest.raises(Exception, match="lost"):
            await next_export(place, 11)
    assert checks == len(RELATIONS) + 2
    assert before <= place.on_disk()


async def test_manifests_do_not_gather(place: ExportHarness) -> None:
    """Many exports leave few manifests, and none that names no live file; many months are replaced at once."""

    def data(name: str, month: int) -> DataFile:
        file = DataFile.from_args(
            content=DataFileContent.DATA,
            file_path=f"{table.location()}/data/{name}",
            file_format=FileFormat.PARQUET,
            partition=Record("acme", "daily", month),
            file_size_in_bytes=1,
            record_count=1,
            column_sizes={},
            value_counts={},
            null_value_counts={},
            nan_value_counts={},
            lower_bounds={},
            upper_bounds={},
        )
        file.spec_id = table.metadata.default_spec_id
        return file

    table = place.table()
    old = [file for task in table.scan().plan_files() for file in [task.file]]
    files = [data(f"0-{month}", month) for month in range(1500)]
    table = replace_files(table, files, old, {}, "many")
    again = [data(f"1-{month}", month) for month in range(1500)]
    table = replace_files(table, again, files, {}, "again")
    table = replace_files(table, [], again[2 * MANIFESTS_TO_MERGE :], {}, "few")  # each commit below is faster
    for number in range(2 * MANIFESTS_TO_MERGE):
        new = data(f"{number + 2}-{number}", number)
        table = replace_files(table, [new], [again[number]], {}, f"one-{number}")
    head = table.current_snapshot()
    assert head is not None
    manifests = head.manifests(table.io)
    assert len(manifests) <= MANIFESTS_TO_MERGE + 1
    live = [manifest for manifest in manifests if manifest.has_added_files() or manifest.has_existing_files()]
    assert len(manifests) - len(live) <= 1  # the replaced files of this commit
    assert sum(1 for _ in table.scan().plan_files()) == 2 * MANIFESTS_TO_MERGE
    assert FLOW_OUTCOME.name in table.location()
