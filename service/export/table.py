"""One Iceberg table: what it holds, which rows it holds of the database, and a commit to it."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import BinaryIO, NamedTuple, cast
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.fs import FileInfo, FileSelector, FileType
from pyiceberg.io.pyarrow import (
    compute_statistics_plan,
    data_file_statistics_from_parquet_metadata,
    parquet_path_to_id_mapping,
    schema_to_pyarrow,
)
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat, ManifestContent
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Operation, Snapshot
from pyiceberg.typedef import Record

from service.export.commit import replace_files
from service.export.storage import file_system, path_of
from service.model import instant
from service.postgres.export import Month, OrgRevision, Relation

EXPORT = "flow-outcomes.export"
TAKEN_AT = "flow-outcomes.taken-at"
REVISIONS = "flow-outcomes.revisions"
LOST = "flow-outcomes.lost-months"
TAG = "export-"


class Partition(NamedTuple):
    """The values by which a file is partitioned; another writer may have left them empty."""

    org: str | None
    granularity: str | None
    month: int | None  # since January 1970

    @classmethod
    def of(cls, month: Month) -> Partition:
        """The partition of a month."""
        return cls(month.org, month.granularity, (month.month.year - 1970) * 12 + month.month.month - 1)

    def __str__(self) -> str:
        if self.month is None:
            return f"{self.org} {self.granularity} without a month"
        return str(
            Month(str(self.org), str(self.granularity), date(1970 + self.month // 12, self.month % 12 + 1, 1))
        )


@dataclass(frozen=True)
class NewFile:
    """A file that is written and not committed yet; without ``data``, the month has no row any more."""

    month: Month
    data: DataFile | None

    @property
    def rows(self) -> int:
        """The number of its rows."""
        return 0 if self.data is None else int(self.data.record_count)


@dataclass
class WarehouseTable:
    """A table as an export found it.

    Attributes:
        relation: what it holds.
        table: pyiceberg's table.
        reason: why every month has to be written; empty where only what changed has to be.
        position: the revision of each org that it holds, as far as that is known.
        files: its files, by partition.
        missing: partitions with a file that does not exist.
        listing: the files under its location; None where its file system cannot be listed.
    """

    relation: Relation
    table: Table
    reason: str = ""
    position: dict[str, OrgRevision] = field(default_factory=dict)
    files: dict[Partition, list[DataFile]] = field(default_factory=dict)
    missing: set[Partition] = field(default_factory=set)
    listing: dict[str, FileInfo] | None = None

    def inspect(self) -> None:
        """Read what the table holds.

        Raises:
            FileNotFoundError: a file of its metadata does not exist.
        """
        head = self.table.current_snapshot()
        self.files = {} if head is None else _files(self.table, head)
        self.listing = _listing(self.table)
        known = None if head is None else _known(self.table, head)
        self.missing = {
            partition for partition, files in self.files.items() if not all(self._exists(file) for file in files)
        }
        if head is None:
            self.reason = self.reason or "the table is new"
        elif known is None:
            self.reason = self.reason or "another program wrote into the table"
        elif self.missing - _lost(known):  # what an earlier export could not write again
            self.reason = self.reason or "files of the table are missing"
        self.position = _position(known)

    @property
    def last_export(self) -> int:
        """The highest number of an export in the table's snapshots and tags; 0 where there is none."""
        numbers = [export_number(snapshot) for snapshot in self.table.snapshots()]
        tags = [int(name[len(TAG) :]) for name in self.table.refs() if is_export_tag(name)]
        return max([0, *numbers, *tags])

    def digest_of(self, month: Month) -> str:
        """The digest of a month's rows, from the name of its file; empty where that is unknown."""
        files = self.files.get(Partition.of(month), [])
        name = files[0].file_path.rpartition("/")[2] if len(files) == 1 else ""
        parts = name.removesuffix(".parquet").split("-")
        return parts[2] if len(parts) == 3 else ""  # noqa: PLR2004 - see new_path

    def new_path(self, number: int, month: Month, digest: str) -> str:
        """A path that no file has had: files are never overwritten, as a reader may be reading them."""
        name = "-".join(part for part in (f"{number:08d}", uuid.uuid4().hex, digest) if part)
        folder = f"{quote(month.org, safe='')}/{month.granularity}/{month.month:%Y-%m}"
        return self.table.location_provider().new_data_location(f"{folder}/{name}.parquet")

    def open_new(self, path: str) -> BinaryIO:
        """Open a file to write."""
        return cast("BinaryIO", self.table.io.new_output(path).create(overwrite=True))

    def remove_new(self, path: str) -> None:
        """Remove a file that is not committed."""
        self.table.io.delete(path)

    def arrow_schema(self) -> pa.Schema:
        """The relation's columns, in its order, with the table's field ids."""
        schema = schema_to_pyarrow(self.table.schema(), include_field_ids=True)
        return pa.schema([schema.field(name) for name in self.relation.column_names])

    def new_file(self, month: Month, path: str, metadata: pq.FileMetaData) -> NewFile:
        """A file that was written."""
        schema = self.table.schema()
        statistics = data_file_statistics_from_parquet_metadata(
            parquet_metadata=metadata,
            stats_columns=compute_statistics_plan(schema, self.table.properties),
            parquet_column_mapping=parquet_path_to_id_mapping(schema),
        )
        data = DataFile.from_args(
            content=DataFileContent.DATA,
            file_path=path,
            file_format=FileFormat.PARQUET,
            partition=Record(*Partition.of(month)),
            file_size_in_bytes=len(self.table.io.new_input(path)),
            sort_order_id=None,
            spec_id=self.table.metadata.default_spec_id,
            equality_ids=None,
            key_metadata=None,
            **statistics.to_serialized_dict(),
        )
        return NewFile(month, data)

    def holds(self, month: Month) -> bool:
        """Whether the table has a file of the month."""
        return Partition.of(month) in self.files

    @staticmethod
    def no_file(month: Month) -> NewFile:
        """A month that has no row any more."""
        return NewFile(month, None)

    def commit(
        self, number: int, taken_at: datetime, revisions: Mapping[str, OrgRevision], files: Iterable[NewFile]
    ) -> None:
        """Replace the files of each month that has a new one; one snapshot, with the number of the export.

        Raises:
            CommitFailedException, ValidationException: another writer changed the table; nothing was committed.
        """
        written = list(files)
        added = [each.data for each in written if each.data is not None]
        removed = [data for each in written for data in self.files.get(Partition.of(each.month), [])]
        position = {
            org: {"revision": each.revision, "stamped_at": each.stamped_at and each.stamped_at.isoformat()}
            for org, each in {**self.position, **revisions}.items()
        }
        lost = self.missing - {Partition.of(each.month) for each in written}
        properties = {EXPORT: str(number), TAKEN_AT: instant(taken_at), REVISIONS: json.dumps(position)}
        if lost:
            properties[LOST] = json.dumps(sorted(lost, key=str))
        self.table = replace_files(self.table, added, removed, properties, f"{TAG}{number}")

    def _exists(self, file: DataFile) -> bool:
        if self.listing is None or not file.file_path.startswith(f"{self.table.location().rstrip('/')}/"):
            return bool(self.table.io.new_input(file.file_path).exists())
        return path_of(file.file_path) in self.listing


def export_number(snapshot: Snapshot) -> int:
    """The number of the export that made the snapshot; 0 where another program did."""
    return int((snapshot.summary[EXPORT] if snapshot.summary is not None else None) or 0)


def is_export_tag(name: str) -> bool:
    """Whether a reference is the tag of an export."""
    return name.startswith(TAG) and name[len(TAG) :].isdecimal()


def _listing(table: Table) -> dict[str, FileInfo] | None:
    system = file_system(table.io, table.location())
    if system is None:
        return None
    selector = FileSelector(path_of(table.location()), recursive=True, allow_not_found=True)
    return {info.path: info for info in system.get_file_info(selector) if info.type == FileType.File}


def _files(table: Table, head: Snapshot) -> dict[Partition, list[DataFile]]:
    files: dict[Partition, list[DataFile]] = {}
    for manifest in head.manifests(table.io):
        if manifest.content == ManifestContent.DATA:
            for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=True):
                record = entry.data_file.partition
                files.setdefault(Partition(record[0], record[1], record[2]), []).append(entry.data_file)
    return files


def _known(table: Table, head: Snapshot) -> Snapshot | None:
    """The export whose rows the table holds; None where another program changed them since.

    A snapshot that replaces files and no row, such as a compaction, is passed over.
    """
    snapshot: Snapshot | None = head
    while snapshot is not None and _replaces_files_only(snapshot):
        parent = snapshot.parent_snapshot_id
        snapshot = None if parent is None else table.snapshot_by_id(parent)
    return snapshot if snapshot is not None and export_number(snapshot) else None


def _replaces_files_only(snapshot: Snapshot) -> bool:
    return snapshot.summary is not None and snapshot.summary.operation == Operation.REPLACE


def _position(snapshot: Snapshot | None) -> dict[str, OrgRevision]:
    if snapshot is None or snapshot.summary is None:
        return {}
    try:
        stored = json.loads(snapshot.summary[REVISIONS] or "{}")
        return {org: OrgRevision(int(each["revision"]), _time(each["stamped_at"])) for org, each in stored.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def _lost(snapshot: Snapshot) -> set[Partition]:
    stored = snapshot.summary[LOST] if snapshot.summary is not None else None
    try:
        return {Partition(*each) for each in json.loads(stored or "[]")}
    except (ValueError, TypeError):
        return set()


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text).astimezone(UTC)
