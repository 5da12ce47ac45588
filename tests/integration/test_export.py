"""The Parquet export: exact figures, only what changed, all or nothing."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.cli import main
from service.errors import ConfigError, DatabaseUnavailableError
from service.export.exporter import Exported, export
from service.export.folder import MANIFEST, NEW_FILE, PENDING, ExportError, ExportFolder
from service.export.parquet import Parquet
from service.model import FlowBucket, Granularity, OutcomeRow
from service.postgres import aliases
from service.postgres.queries import export as reading
from service.postgres.queries.export import COLUMNS
from tests.support.export_harness import DAYS, ExportHarness, figures, two_orgs

FILES = {f"org={org}/granularity=daily/month=2024-0{month}" for org in ("acme", "globex") for month in (1, 2)}

Rows = AsyncGenerator[list[tuple[Any, ...]], None]


@pytest.fixture
async def place(database: str, tmp_path: Path) -> AsyncIterator[ExportHarness]:
    """January and February of two orgs."""
    async with two_orgs(database, tmp_path / "export") as place:
        yield place


async def test_the_files_hold_what_is_stored(place: ExportHarness) -> None:
    """DuckDB reads back every column of every row, with nulls, zeros, Unicode and instants."""
    await place.acme.store(DAYS[9:10], DAYS[9:10], figures(DAYS[9:10])[:1])  # an outcome that is missing: nulls
    done = await place.export(since_last=False)
    stored = await place.stored()
    assert place.read() == stored
    assert {row[COLUMNS.index("outcome_count")] for row in stored} == {0, 7, None}
    assert done == Exported(1, 4, len(stored), 0, 0)
    assert set(place.files()) == FILES


async def test_unchanged_months_are_not_written(place: ExportHarness) -> None:
    """A second export writes no file; one without --since-last writes them all."""
    await place.export()
    files = place.files()
    assert await place.export() == Exported(2, 0, 0, 0, 4)
    assert place.files() == files
    assert (await place.export(since_last=False)).files == 4
    assert not set(place.files().values()) & set(files.values())


async def test_only_the_months_that_changed(place: ExportHarness) -> None:
    """A late restatement rewrites its own month of its own org; another granularity has its own file."""
    await place.export()
    before = place.files()
    await place.acme.store(DAYS[3:4], DAYS[3:4], figures(DAYS[3:4], count=8))
    await place.globex.store(DAYS[59:], DAYS[59:], figures(DAYS[59:], "Neu"), granularity=Granularity.HOURLY)
    assert (await place.export()).files == 2
    after = place.files()
    assert {file for file in after if after[file] != before.get(file)} == {
        "org=acme/granularity=daily/month=2024-01",
        "org=globex/granularity=hourly/month=2024-02",
    }
    assert place.read() == await place.stored()


async def test_an_alias_reaches_every_month_of_its_outcome(place: ExportHarness) -> None:
    """A new name, and its removal, reaches every month with a figure of the outcome, in that org alone."""
    pool = place.acme.database
    once = OutcomeRow(FlowBucket("billing", *DAYS[40]), "Once", 1, None, rejected=False)
    await place.acme.store(DAYS[40:41], DAYS[40:41], [*figures(DAYS[40:41]), once])
    await place.export()
    await aliases.add(pool, aliases.Alias("acme", None, "Paid", "Settled"))
    await aliases.apply(pool, "acme")
    assert (await place.export()).files == 2
    assert place.read() == await place.stored()
    assert "Settled" in {row[COLUMNS.index("outcome_name")] for row in place.read()}
    await aliases.add(pool, aliases.Alias("acme", "billing", "Once", "Twice"))
    await aliases.apply(pool, "acme")
    assert (await place.export()).files == 1
    await aliases.remove(pool, "acme", None, "Paid")
    await aliases.apply(pool, "acme")
    assert (await place.export()).files == 2
    assert place.read() == await place.stored()


async def test_a_month_without_figures(place: ExportHarness) -> None:
    """The file of a month without figures is removed and marked in the manifest, once."""
    await place.acme.store(DAYS[59:], DAYS[59:], figures(DAYS[59:]), granularity=Granularity.MONTHLY)
    await place.export()
    await place.acme.rows("DELETE FROM flow_outcomes.figure WHERE granularity = 'monthly' RETURNING 1")
    assert (await place.export(since_last=False)).removed == 1
    assert place.read() == await place.stored()
    partitions = json.loads((place.folder / MANIFEST).read_text())["partitions"]
    assert partitions["org=acme/granularity=monthly/month=2024-02/figures.parquet"] == {"rows": 0, "export": 2}
    assert (await place.export()).removed == 0


async def test_one_snapshot(place: ExportHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures stored during an export are part of the next one only."""
    before_it = await place.stored()
    write, writes = Parquet.write, 0

    async def storing(self: Parquet, path: Path, rows: Rows) -> int:
        nonlocal writes
        writes += 1
        if writes == 2:
            await place.acme.store(DAYS, DAYS, figures(DAYS, count=9))
            await place.globex.store(DAYS, DAYS, figures(DAYS, count=9))
        return await write(self, path, rows)

    monkeypatch.setattr(Parquet, "write", storing)
    await place.export()
    assert place.read() == before_it
    assert (await place.export()).files == 4
    assert place.read() == await place.stored()


async def test_a_full_disk(place: ExportHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a file cannot be written, all former files stay and no new ones remain."""
    await place.export()
    before_it, files = place.read(), place.files()
    await place.acme.store(DAYS, DAYS, figures(DAYS, count=9))
    write, writes = Parquet.write, 0

    async def full(self: Parquet, path: Path, rows: Rows) -> int:
        nonlocal writes
        writes += 1
        if writes == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return await write(self, path, rows)

    with monkeypatch.context() as patch:
        patch.setattr(Parquet, "write", full)
        with pytest.raises(ExportError, match="No space left on device"):
            await place.export()
    assert writes == 2
    assert (place.read(), place.files()) == (before_it, files)
    assert list(place.folder.rglob(NEW_FILE)) == []
    assert (await place.export()).files == 2
    assert place.read() == await place.stored()


def crashing_at(patch: pytest.MonkeyPatch, last: int) -> None:
    """Interrupt after this many renames and removals, as a crash does, without cleaning up."""
    taken = 0

    def crashing(name: str) -> Callable[..., object]:
        original = getattr(Path, name)

        def step(self: Path, *arguments: object, **named: object) -> object:
            nonlocal taken
            if taken == last:
                raise KeyboardInterrupt
            taken += 1
            return original(self, *arguments, **named)

        return step

    patch.setattr(ExportFolder, "_remove_uncommitted", lambda _: None)
    for name in ("replace", "unlink"):
        patch.setattr(Path, name, crashing(name))


async def test_a_crash_at_each_step_of_the_commit(place: ExportHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a crash at any rename or removal the next export finds the former files or completes the new ones."""
    await place.export()
    for step in range(6):
        before_it, number = place.read(), json.loads((place.folder / MANIFEST).read_text())["export"]
        await place.acme.store(DAYS, DAYS, figures(DAYS, count=10 + step))
        with monkeypatch.context() as patch:
            crashing_at(patch, step)
            with contextlib.nullcontext() if step == 5 else pytest.raises(KeyboardInterrupt):
                await place.export()
        assert (place.folder / PENDING).exists() == (1 <= step < 5)
        if step == 0:
            assert place.read() == before_it
        done = await place.export()
        assert done == Exported(number + (1 if step == 0 else 2), *((2, 240, 0, 2) if step == 0 else (0, 0, 0, 4)))
        assert place.read() == await place.stored()
        assert list(place.folder.rglob(".*")) == []


async def test_another_database(place: ExportHarness) -> None:
    """An org whose revision in the folder is not this database's is written completely."""
    await place.export()
    await place.acme.rows("UPDATE flow_outcomes.revision SET stamped_at = now() WHERE org = 'acme' RETURNING 1")
    assert await place.export() == Exported(2, 2, len(await place.stored()) // 2, 0, 2)


async def test_a_removed_org(place: ExportHarness) -> None:
    """An org that the database no longer has is removed from the folder."""
    await place.export()
    for table in ("org", "figure"):
        await place.acme.rows(f"DELETE FROM flow_outcomes.{table} WHERE org = 'globex' RETURNING 1")
    assert await place.export() == Exported(2, 0, 0, 2, 2)
    assert place.read() == await place.stored()


async def test_one_export_at_a_time(place: ExportHarness) -> None:
    """A second export into the same folder is rejected and changes nothing."""
    with ExportFolder(place.folder).opened(), pytest.raises(ExportError, match="another export is running"):
        await place.export()


async def test_a_folder_with_other_files(place: ExportHarness) -> None:
    """A folder with other files is rejected."""
    place.folder.mkdir()
    (place.folder / "letter.txt").write_text("dear")
    with pytest.raises(ConfigError, match="holds other files"):
        await place.export()


async def test_memory_stays_flat(place: ExportHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """A month is read in batches, which together hold every row."""
    monkeypatch.setattr(reading, "ROWS_PER_FETCH", 7)
    parts: list[int] = []
    batch = Parquet._batch

    def counted(self: Parquet, rows: list[tuple[Any, ...]]) -> object:
        parts.append(len(rows))
        return batch(self, rows)

    monkeypatch.setattr(Parquet, "_batch", counted)
    done = await place.export()
    assert max(parts) == 7
    assert sum(parts) == done.rows
    assert place.read() == await place.stored()


async def test_an_unavailable_database(tmp_path: Path) -> None:
    """Without a server the export raises the program's own error and writes no manifest."""
    with pytest.raises(DatabaseUnavailableError):
        await export("postgresql://nobody@127.0.0.1:1/nothing", tmp_path / "export", since_last=True)
    assert not (tmp_path / "export" / MANIFEST).exists()


async def test_the_command(place: ExportHarness, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command prints what it wrote; without pyarrow it names the package to install and exits 2."""
    file = tmp_path / "flow-outcomes.yaml"
    org = {"region": "mypurecloud.com", "client_id": "a", "client_secret": "a-secret"}
    file.write_text(yaml.safe_dump({"database": {"dsn": place.acme.dsn}, "orgs": {"acme": org}}))
    command = ["export", "--config", str(file), "--to", str(place.folder), "--since-last"]
    assert await asyncio.to_thread(main, command) == 0
    assert capsys.readouterr().out.endswith("wrote 4 files with 480 rows, 0 removed, 0 unchanged\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "pyarrow", None)
        assert await asyncio.to_thread(main, command) == 2
    assert capsys.readouterr().err == "export: needs pyarrow: pip install 'flow-outcomes[export]'\n"
