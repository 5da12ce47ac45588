"""The folder of an export: its files, and the manifest that says what they are.

::

    FOLDER/_manifest.json                                    written last
           _pending.json                                     a decided export whose files are being put in place
           _lock                                             held by the export at work
           org=acme/granularity=daily/month=2024-03/figures.parquet
                                                    .figures.parquet.new   until the export is decided

An export writes every file under a hidden name first. When all are on the disk it decides, by writing what is to
be done to ``_pending.json``; from there on whoever comes next finishes it. So a crash before that leaves the
former files, and one after it costs nothing but the time until the next export.
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

FORMAT = 1  # of the files and the manifest; another one is written anew from the start
MANIFEST, PENDING, LOCK = "_manifest.json", "_pending.json", "_lock"
FILE, FRESH = "figures.parquet", ".figures.parquet.new"


class ExportError(FlowOutcomesError):
    """The folder cannot be written; what it held before is still there."""


@dataclass
class Manifest:
    """What a folder holds.

    Attributes:
        export: the number of the last export into it; 0 before the first.
        taken_at: when that one's snapshot was taken.
        orgs: how far each org had come.
        partitions: by file, its rows (0: the file is gone) and the export that wrote it last.
    """

    export: int = 0
    taken_at: str = ""
    orgs: dict[str, OrgRevision] = field(default_factory=dict)
    partitions: dict[str, dict[str, int]] = field(default_factory=dict)

    def text(self) -> str:
        """As it stands in the file."""
        orgs = {
            org: {"revision": stand.revision, "stamped_at": stand.stamped_at and stand.stamped_at.isoformat()}
            for org, stand in self.orgs.items()
        }
        told = {"format": FORMAT, "export": self.export, "taken_at": self.taken_at, "orgs": orgs}
        return json.dumps({**told, "partitions": self.partitions}, indent=1)

    @classmethod
    def of(cls, text: str) -> Manifest:
        """As it was written; empty, but for its number, where another version of the format wrote it."""
        told: dict[str, Any] = json.loads(text)
        if told["format"] != FORMAT:
            return cls(export=int(told["export"]), partitions=told["partitions"])
        orgs = {
            org: OrgRevision(each["revision"], each["stamped_at"] and datetime.fromisoformat(each["stamped_at"]))
            for org, each in told["orgs"].items()
        }
        return cls(told["export"], told["taken_at"], orgs, told["partitions"])


def file_of(month: Month) -> str:
    """A month's file, from the export's folder on."""
    return f"org={quote(month.org, safe='')}/granularity={month.granularity}/month={month.start:%Y-%m}/{FILE}"


def org_of(file: str) -> str:
    """The org whose figures stand in a file."""
    return unquote(file.partition("/")[0].removeprefix("org="))


class ExportFolder:
    """A folder that one export at a time works in; see ``opened``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.manifest = Manifest()

    def fresh(self, month: Month) -> Path:
        """Where a month's new file is written until the export is decided."""
        return (self.root / file_of(month)).with_name(FRESH)

    def commit(self, manifest: Manifest, fresh: list[str], gone: list[str]) -> None:
        """Put the new files in the former ones' place, and the manifest last.

        Args:
            manifest: what the folder then holds.
            fresh: the files whose new version is written.
            gone: the files that are to go.
        """
        for folder in {(self.root / file).parent for file in fresh}:
            _sync(folder)
        _write(self.root / PENDING, json.dumps({"manifest": manifest.text(), "fresh": fresh, "gone": gone}))
        self._finish()

    def _finish(self) -> None:
        """Do what was decided; as often as it takes."""
        pending = self.root / PENDING
        if not pending.exists():
            return
        told = json.loads(pending.read_text(encoding="utf-8"))
        for file in told["fresh"]:
            written = (self.root / file).with_name(FRESH)
            if written.exists():
                written.replace(self.root / file)
        for file in told["gone"]:
            (self.root / file).unlink(missing_ok=True)
        for folder in {(self.root / file).parent for file in (*told["fresh"], *told["gone"])}:
            if folder.is_dir():
                _sync(folder)
        _write(self.root / MANIFEST, told["manifest"])
        pending.unlink()
        _sync(self.root)

    def _open(self) -> None:
        self._finish()
        self._sweep()
        file = self.root / MANIFEST
        if file.exists():
            try:
                self.manifest = Manifest.of(file.read_text(encoding="utf-8"))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ExportError(f"{file} is no manifest of an export: remove the folder's content") from error

    def _sweep(self) -> None:
        """Remove what no export decided on."""
        if not (self.root / PENDING).exists():
            for left in self.root.rglob(FRESH):
                left.unlink()

    @contextmanager
    def opened(self) -> Iterator[ExportFolder]:
        """Hold the folder, with what an export before this one decided done and what it left undecided gone.

        Raises:
            ConfigError: it cannot be this folder.
            ExportError: another export is at work in it, or the disk refuses.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            held = {entry.name for entry in self.root.iterdir()} - {"lost+found"}
        except OSError as error:
            raise ConfigError([Fault("--to", f"{self.root} cannot be used: {error.strerror}")]) from error
        if held and not held & {MANIFEST, PENDING, LOCK}:
            raise ConfigError([Fault("--to", f"{self.root} holds something else: give an empty folder")])
        try:
            with (self.root / LOCK).open("ab") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError as error:
                    raise ExportError(f"another export is at work in {self.root}") from error
                self._open()
                try:
                    yield self
                except BaseException:
                    self._sweep()
                    raise
        except OSError as error:
            raise ExportError(f"{self.root} cannot be written: {error.strerror or error}") from error


def _write(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    fresh = path.with_name(f".{path.name}.new")
    with fresh.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    _sync(path.parent)


def _sync(folder: Path) -> None:
    """Have the folder's entries on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
