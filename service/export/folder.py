"""The folder of an export: its files and their manifest.

::

    FOLDER/_manifest.json                                    written last
           _pending.json                                     a committed export whose files are being renamed
           _lock                                             locked while an export runs
           org=acme/granularity=daily/month=2024-03/figures.parquet
                                                    .figures.parquet.new   until the export is committed

An export writes every file under a hidden name first. When all of them are on disk it commits by writing the
pending renames and removals to ``_pending.json``; after a crash the next export completes them. A crash before the
commit leaves the former files.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from service.errors import ConfigError, Fault, FlowOutcomesError
from service.postgres.queries.export import Month, OrgRevision

FORMAT = 1
"""Format of the files and the manifest; a folder with another format is rewritten completely."""
MANIFEST, PENDING, LOCK = "_manifest.json", "_pending.json", "_lock"
FILE, NEW_FILE = "figures.parquet", ".figures.parquet.new"


class ExportError(FlowOutcomesError):
    """The export folder cannot be written; its former content is intact."""


@dataclass
class Manifest:
    """The content of a folder.

    Attributes:
        export: the number of the last export; 0 before the first.
        taken_at: the time of its database snapshot.
        orgs: the last revision of each org.
        partitions: for each file its number of rows (0: removed) and the export that wrote it last.
    """

    export: int = 0
    taken_at: str = ""
    orgs: dict[str, OrgRevision] = field(default_factory=dict)
    partitions: dict[str, dict[str, int]] = field(default_factory=dict)

    def to_json(self) -> str:
        """The manifest as it is stored."""
        orgs = {
            org: {"revision": stand.revision, "stamped_at": stand.stamped_at and stand.stamped_at.isoformat()}
            for org, stand in self.orgs.items()
        }
        document = {"format": FORMAT, "export": self.export, "taken_at": self.taken_at, "orgs": orgs}
        return json.dumps({**document, "partitions": self.partitions}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Read a stored manifest; of another format only the number and the files are kept."""
        document: dict[str, Any] = json.loads(text)
        if document["format"] != FORMAT:
            return cls(export=int(document["export"]), partitions=document["partitions"])
        orgs = {
            org: OrgRevision(each["revision"], each["stamped_at"] and datetime.fromisoformat(each["stamped_at"]))
            for org, each in document["orgs"].items()
        }
        return cls(document["export"], document["taken_at"], orgs, document["partitions"])


def file_of(month: Month) -> str:
    """The path of a month's file, relative to the folder."""
    return f"org={quote(month.org, safe='')}/granularity={month.granularity}/month={month.start:%Y-%m}/{FILE}"


def org_of(file: str) -> str:
    """The org of a file."""
    return unquote(file.partition("/")[0].removeprefix("org="))


class ExportFolder:
    """A folder for exports, one at a time; see ``opened``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.manifest = Manifest()

    def new_file(self, month: Month) -> Path:
        """The path of a month's new file until the export is committed."""
        return (self.root / file_of(month)).with_name(NEW_FILE)

    def commit(self, manifest: Manifest, written: list[str], removed: list[str]) -> None:
        """Replace the former files by the new ones, then the manifest.

        Args:
            manifest: the folder's new content.
            written: the files with a new version.
            removed: the files to remove.
        """
        for folder in {(self.root / file).parent for file in written}:
            _sync(folder)
        _write(
            self.root / PENDING,
            json.dumps({"manifest": manifest.to_json(), "written": written, "removed": removed}),
        )
        self._complete()

    def _complete(self) -> None:
        """Complete a committed export; safe to repeat."""
        pending = self.root / PENDING
        if not pending.exists():
            return
        steps = json.loads(pending.read_text(encoding="utf-8"))
        for file in steps["written"]:
            new = (self.root / file).with_name(NEW_FILE)
            if new.exists():
                new.replace(self.root / file)
        for file in steps["removed"]:
            (self.root / file).unlink(missing_ok=True)
        for folder in {(self.root / file).parent for file in (*steps["written"], *steps["removed"])}:
            if folder.is_dir():
                _sync(folder)
        _write(self.root / MANIFEST, steps["manifest"])
        pending.unlink()
        _sync(self.root)

    def _open(self) -> None:
        self._complete()
        self._remove_uncommitted()
        file = self.root / MANIFEST
        if file.exists():
            try:
                self.manifest = Manifest.from_json(file.read_text(encoding="utf-8"))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ExportError(f"{file} is not an export's manifest: empty the folder") from error

    def _remove_uncommitted(self) -> None:
        if not (self.root / PENDING).exists():
            for file in self.root.rglob(NEW_FILE):
                file.unlink()

    @contextmanager
    def opened(self) -> Iterator[ExportFolder]:
        """Lock the folder, complete a committed export and remove the files of an uncommitted one.

        Raises:
            ConfigError: the folder cannot be used.
            ExportError: another export runs in it, or it cannot be written.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            names = {entry.name for entry in self.root.iterdir()} - {"lost+found"}
        except OSError as error:
            raise ConfigError([Fault("--to", f"{self.root} cannot be used: {error.strerror}")]) from error
        if names and not names & {MANIFEST, PENDING, LOCK}:
            raise ConfigError([Fault("--to", f"{self.root} holds other files: use an empty folder")])
        try:
            with (self.root / LOCK).open("ab") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError as error:
                    raise ExportError(f"another export is running in {self.root}") from error
                self._open()
                try:
                    yield self
                except BaseException:
                    self._remove_uncommitted()
                    raise
        except OSError as error:
            raise ExportError(f"{self.root} cannot be written: {error.strerror or error}") from error


def _write(path: Path, text: str) -> None:
    """Write a file atomically."""
    new = path.with_name(f".{path.name}.new")
    with new.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    _sync(path.parent)


def _sync(folder: Path) -> None:
    """Flush the folder's entries to disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
