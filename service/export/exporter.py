"""Figures for a warehouse: Parquet files by org, granularity and month, of one snapshot, only what changed."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from service.export.folder import ExportError, ExportFolder, Manifest, file_of, org_of
from service.export.parquet import Parquet
from service.model import instant
from service.postgres.queries.export import Month, Snapshot, snapshot


class Exported(NamedTuple):
    """What an export did.

    Attributes:
        number: which one into its folder it was.
        files: files written,
        rows: with so many rows.
        removed: files that are gone, for nothing is left to stand in them.
        unchanged: files that are as they were.
    """

    number: int
    files: int
    rows: int
    removed: int
    unchanged: int


async def export(dsn: str, root: Path, *, since_last: bool) -> Exported:
    """Write the figures into a folder, whole or not at all.

    Args:
        dsn: the database.
        root: the folder; made where it is missing.
        since_last: leave the files of months in which nothing changed since the last export into this folder.

    Raises:
        ConfigError: pyarrow is missing, or the folder is none for an export.
        ExportError: the folder cannot be written; it is as it was.
        DatabaseUnavailableError: the database cannot be reached, or went away; the folder is as it was.
        SchemaError: the schema is not there, or not for this role to read.
    """
    parquet = Parquet()
    with ExportFolder(root).opened() as folder:
        before = folder.manifest
        async with snapshot(dsn) as figures:
            after = Manifest(before.export + 1, instant(await figures.taken_at()), await figures.revisions())
            since = await _since(figures, before if since_last else Manifest(), after)
            written: dict[str, int] = {}
            for org, revision in since.items():
                for month in await figures.changed(org, revision):
                    written[file_of(month)] = await _write(parquet, folder, figures, month)
        filled = {file: rows for file, rows in written.items() if rows}
        there = {file: each for file, each in before.partitions.items() if each["rows"]}
        kept = {file: each for file, each in there.items() if since.get(org_of(file)) and file not in written}
        gone = [file for file in there if file not in kept and file not in filled]
        after.partitions = {
            **{file: each for file, each in before.partitions.items() if file not in there},
            **{file: {"rows": 0, "export": after.export} for file in gone},
            **kept,
            **{file: {"rows": rows, "export": after.export} for file, rows in filled.items()},
        }
        folder.commit(after, list(filled), gone)
    return Exported(after.export, len(filled), sum(filled.values()), len(gone), len(kept))


async def _since(figures: Snapshot, before: Manifest, after: Manifest) -> dict[str, int]:
    """The revision of each org that the folder shows; 0 where it has to be written anew.

    That is where the folder does not have it, or has another database's, or this one's from before a backup was
    restored: then the revision of that number is not there, or was stamped at another time.
    """
    since = {}
    for org in after.orgs:
        last = before.orgs.get(org)
        stamp = last and last.stamped_at
        since[org] = last.revision if last and stamp and stamp == await figures.stamp(org, last.revision) else 0
    return since


async def _write(parquet: Parquet, folder: ExportFolder, figures: Snapshot, month: Month) -> int:
    try:
        return await parquet.write(folder.fresh(month), figures.rows(month))
    except OSError as error:  # here, for to the connection's room it would look like its own
        raise ExportError(f"{folder.root} cannot be written: {error.strerror or error}") from error
