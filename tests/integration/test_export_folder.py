"""``export --parquet``: plain Parquet files in an empty or a new folder."""

from __future__ import annotations

import asyncio
import errno
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, BinaryIO

import duckdb
import pytest
import yaml

from service.cli import main
from service.errors import ConfigError, DatabaseUnavailableError, ExportError
from service.export.folder import Written, write_folder
from tests.support.export_harness import DAYS, ExportHarness, figures, read, two_orgs

FILES = {
    f"org={org}/granularity=daily/month=2024-0{month}/figures.parquet"
    for org in ("acme", "globex")
    for month in (1, 2)
}


@pytest.fixture
async def place(database: str, tmp_path: Path) -> AsyncIterator[ExportHarness]:
    """January and February of two orgs."""
    async with two_orgs(database, tmp_path / "exported") as place:
        yield place


def files(folder: Path) -> set[str]:
    return {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}


async def test_the_files_hold_what_is_stored(place: ExportHarness) -> None:
    """DuckDB reads back every column of every row, from a file for each org, granularity and month."""
    await place.acme.store(DAYS[9:10], DAYS[9:10], figures(DAYS[9:10])[:1])  # missing outcomes: nulls
    assert await write_folder(place.acme.dsn, place.folder) == Written(4, 480)
    assert files(place.folder) == FILES
    with duckdb.connect() as duck:
        source = f"read_parquet('{place.folder}/**/*.parquet', hive_partitioning = true)"
        assert read(duck, source) == await place.stored()


async def test_a_folder_that_is_not_empty(place: ExportHarness) -> None:
    """It is refused, also with the files of an earlier export, and stays as it is; an empty one is accepted."""
    place.folder.mkdir()
    (place.folder / "lost+found").mkdir()
    await write_folder(place.acme.dsn, place.folder)
    with pytest.raises(ConfigError, match="is not empty: use an empty or a new folder"):
        await write_folder(place.acme.dsn, place.folder)
    assert files(place.folder) == FILES


@pytest.mark.parametrize("given", ["s3://bucket/x", "gs://bucket", "file:///tmp/x", "s3:/bucket", "abfs://c@a/x"])
async def test_a_scheme(place: ExportHarness, given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A location in object storage is no folder, and none of that name appears."""
    monkeypatch.chdir(place.folder.parent)
    with pytest.raises(ConfigError, match=r"is not a folder; .* is export\.warehouse"):
        await write_folder(place.acme.dsn, Path(given))
    assert list(place.folder.parent.iterdir()) == []


async def test_a_full_disk(place: ExportHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a file cannot be written, the folder is as before: empty, or not there."""
    opened = 0
    open_file = Path.open

    def full(self: Path, *arguments: Any, **named: Any) -> BinaryIO:  # noqa: ANN401 - passed on
        nonlocal opened
        opened += 1
        if opened % 2 == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return open_file(self, *arguments, **named)  # type: ignore[no-any-return]

    monkeypatch.setattr(Path, "open", full)
    for there in (False, True):
        if there:
            place.folder.mkdir()
        with pytest.raises(ExportError, match="cannot be written: No space left on device"):
            await write_folder(place.acme.dsn, place.folder)
        assert place.folder.exists() == there
        assert not there or list(place.folder.iterdir()) == []
    assert opened == 4


async def test_an_unavailable_database(tmp_path: Path) -> None:
    """Without a server nothing is left behind."""
    with pytest.raises(DatabaseUnavailableError):
        await write_folder("postgresql://nobody@127.0.0.1:1/nothing", tmp_path / "exported")
    assert not (tmp_path / "exported").exists()


async def test_the_command(place: ExportHarness, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It needs no section ``export``; without pyarrow it says how to install it, and exits 2."""
    file = tmp_path / "flow-outcomes.yaml"
    org = {"region": "mypurecloud.com", "client_id": "a", "client_secret": "a-secret"}
    file.write_text(yaml.safe_dump({"database": {"dsn": place.acme.dsn}, "orgs": {"acme": org}}))
    command = ["export", "--config", str(file), "--parquet", str(place.folder)]
    assert await asyncio.to_thread(main, command) == 0
    assert capsys.readouterr().out == f"wrote 4 files with 480 rows to {place.folder}\n"
    assert await asyncio.to_thread(main, command) == 2
    assert capsys.readouterr().err.startswith("--parquet: ")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "pyarrow", None)
        assert await asyncio.to_thread(main, command) == 2
    assert "export: needs pyarrow. In a clone: .venv/bin/pip install" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        main([*command, "--full"])
    assert ended.value.code == 2
