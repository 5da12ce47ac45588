"""Exports figures as Parquet files by org, granularity and month, all of one database snapshot."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from service.export.folder import ExportError, ExportFolder, Manifest, file_of, org_of
from service.export.parquet import Parquet
from service.model import instant
from service.postgres.queries.export import Month, Snapshot, snapshot


class Exported(NamedTuple):
    """The result of an export.

    Attributes:
        number: the number of this export into its folder, from 1.
        files: files written.
        rows: rows in the files written.
        removed: files removed because no figure is left for them.
        unchanged: files left as they were.
    """

    number: int
    files: int
    rows: int
    removed: int
    unchanged: int


async def export(dsn: str, root: Path, *, since_last: bool) -> Exported:
    """Write the figures to a folder. The export is atomic: after an error the folder is as before.

    Args:
        dsn: the database.
        root: the folder; created if it does not exist.
        since_last: write only months that changed since the last export to this folder.

    Raises:
        ConfigError: pyarrow is not installed, or the folder holds something else.
        ExportError: the folder cannot be written.
        DatabaseUnavailableError: the database cannot be reached, or the connection was lost.
        SchemaError: the schema does not exist, or this role may not read it.
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
        present = {file: each for file, each in before.partitions.items() if each["rows"]}
        unchanged = {
            file: each for file, each in present.items() if since.get(org_of(file)) and file not in written
        }
        removed = [file for file in present if file not in unchanged and file not in filled]
        after.partitions = {
            **{file: each for file, each in before.partitions.items() if file not in present},
            **{file: {"rows": 0, "export": after.export} for file in removed},
            **unchanged,
            **{file: {"rows": rows, "export": after.export} for file, rows in filled.items()},
        }
        folder.commit(after, list(filled), removed)
    return Exported(after.export, len(filled), sum(filled.values()), len(removed), len(unchanged))


async def _since(figures: Snapshot, before: Manifest, after: Manifest) -> dict[str, int]:
    """The revision of each org that the folder holds; 0 for an org that must be written completely.

    That is an org that the folder does not hold, or holds from another database or from before a backup was
    restored: the database then has no revision of that number, or one with another time stamp.
    """
    since = {}
    for org in after.orgs:
        last = before.orgs.get(org)
        stamp = last and last.stamped_at
        since[org] = last.revision if last and stamp and stamp == await figures.stamp(org, last.revision) else 0
    return since


async def _write(parquet: Parquet, folder: ExportFolder, figures: Snapshot, month: Month) -> int:
    try:
        return await parquet.write(folder.new_file(month), figures.rows(month))
    except OSError as error:  # outside, the open database connection would take it for its own error
        raise ExportError(f"{folder.root} cannot be written: {error.strerror or error}") from error
