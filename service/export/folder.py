"""Plain Parquet files in a folder, for those without a catalog.

::

    FOLDER/org=acme/granularity=daily/month=2024-03/figures.parquet

Every file is written under a hidden name first, and renamed when all of them are on disk.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import BinaryIO, NamedTuple
from urllib.parse import quote

from service.errors import ConfigError, ExportError, Fault
from service.export import extra
from service.postgres.export import Month, Snapshot, open_snapshot
from service.postgres.export.relations import FLOW_OUTCOME

FILE, NEW_FILE = "figures.parquet", ".figures.parquet.new"
KEY = "--parquet"
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


class Written(NamedTuple):
    """The number of files written, and of rows in them."""

    files: int
    rows: int


async def write_folder(dsn: str, root: Path) -> Written:
    """Write the present figures to a folder that is empty or new; after an error it is as before.

    Raises:
        ConfigError: pyarrow is not installed, or the folder cannot be used.
        ExportError: the folder cannot be written.
        DatabaseUnavailableError: the database cannot be reached, or the connection was lost.
        SchemaError: the schema does not exist, or this role may not read it.
    """
    extra.require(extra.PARQUET)
    made = _prepare(root)
    written: dict[Path, int] = {}
    try:
        async with open_snapshot(dsn) as figures:
            for org in await figures.revisions():
                for month in await figures.changed(FLOW_OUTCOME, org, 0):
                    if rows := await _write(figures, root, month):
                        written[root / file_of(month)] = rows
        _commit(root, written)
    except BaseException:
        _clear(root, made=made)
        raise
    return Written(len(written), sum(written.values()))


def file_of(month: Month) -> str:
    """The path of a month's file, relative to the folder."""
    return f"org={quote(month.org, safe='')}/granularity={month.granularity}/month={month.month:%Y-%m}/{FILE}"


def _prepare(root: Path) -> bool:
    """Create the folder where it does not exist; returns whether it was created."""
    if _SCHEME.match(str(root)):
        raise ConfigError(
            [Fault(KEY, f"{root} is not a folder; a warehouse in object storage is export.warehouse")]
        )
    try:
        made = not root.exists()
        root.mkdir(parents=True, exist_ok=True)
        names = {entry.name for entry in root.iterdir()} - {"lost+found"}
    except OSError as error:
        raise ConfigError([Fault(KEY, f"{root} cannot be used: {error.strerror}")]) from error
    if names:
        raise ConfigError([Fault(KEY, f"{root} is not empty: use an empty or a new folder")])
    return made


async def _write(figures: Snapshot, root: Path, month: Month) -> int:
    from service.export import parquet

    def create() -> BinaryIO:
        path = (root / file_of(month)).with_name(NEW_FILE)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("wb")  # pyarrow would encode the path as UTF-8, whatever the locale is

    schema = parquet.plain_schema(FLOW_OUTCOME)
    try:
        count, _ = await parquet.write(create, schema, figures.rows(FLOW_OUTCOME, month), compression="snappy")
    except OSError as error:  # outside, the open database connection would take it for its own error
        raise ExportError(f"{root} cannot be written: {error.strerror or error}") from error
    return count


def _commit(root: Path, written: dict[Path, int]) -> None:
    try:
        for file in written:
            new = file.with_name(NEW_FILE)
            with new.open("rb+") as data:
                os.fsync(data.fileno())
            new.replace(file)
    except OSError as error:
        raise ExportError(f"{root} cannot be written: {error.strerror or error}") from error


def _clear(root: Path, *, made: bool) -> None:
    """Remove what this export wrote: everything, for the folder was empty."""
    for entry in root.iterdir():
        if entry.name.startswith("org="):
            shutil.rmtree(entry, ignore_errors=True)
    if made:
        shutil.rmtree(root, ignore_errors=True)
