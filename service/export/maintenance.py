"""Maintenance of a table: snapshots expire, and files that no snapshot needs are removed.

A month is always one file, which an export replaces as a whole, so no small files gather and none have to be
combined.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

from pyiceberg.manifest import ManifestFile
from pyiceberg.table import Table
from pyiceberg.table.update.snapshot import ExpireSnapshots, ManageSnapshots

from service.export.storage import file_system, path_of
from service.export.table import WarehouseTable, export_number, is_export_tag

UNREFERENCED_FOR = timedelta(days=3)
"""The age from which a file that no snapshot needs is removed: another writer may commit a younger one."""
_THREADS = 8


def expire(table: WarehouseTable, keep: timedelta, now: datetime) -> int:
    """Drop the snapshots older than ``keep``, with the tags of their exports; returns how many.

    The present snapshot stays, and so do the newest export and what another program's tags and branches name.
    """
    iceberg = table.table
    metadata, head = iceberg.metadata, iceberg.current_snapshot()
    limit = (now - keep).timestamp() * 1000
    exports = [each for each in metadata.snapshots if export_number(each)]
    kept = {each.snapshot_id for each in exports[-1:]} | ({head.snapshot_id} if head else set())
    old = {each.snapshot_id for each in metadata.snapshots if each.timestamp_ms < limit} - kept
    tags = {name for name, ref in metadata.refs.items() if is_export_tag(name) and ref.snapshot_id in old}
    old -= {ref.snapshot_id for name, ref in metadata.refs.items() if name not in tags}
    if not old:
        return 0
    transaction = iceberg.transaction()
    references = ManageSnapshots(transaction)
    for name in tags:
        references.remove_tag(name)
    references.commit()
    ExpireSnapshots(transaction).by_ids(sorted(old)).commit()
    table.table = transaction.commit_transaction()
    return len(old)


def remove_unreferenced(table: WarehouseTable, now: datetime, check: Callable[[], None]) -> int:
    """Remove files under the table's location that no snapshot needs and that are old enough; returns how many.

    Args:
        table: as it is after the export's commit; its listing was made before.
        now: the earlier of the clocks that could be wrong.
        check: called before each removal; raises where this process no longer holds the lease.
    """
    system = file_system(table.table.io, table.table.location())
    if system is None or not table.listing:
        return 0
    limit = now - UNREFERENCED_FOR
    old = {
        path
        for path, info in table.listing.items()
        if info.mtime is not None and info.mtime.astimezone(UTC) < limit
    }
    old -= {path_of(data.file_path) for files in table.files.values() for data in files}
    if not old:
        return 0
    unreferenced = old - referenced(table.table)
    for path in sorted(unreferenced):
        check()
        system.delete_file(path)
    return len(unreferenced)


def referenced(table: Table) -> set[str]:
    """The paths of all files that a snapshot of the table needs, and of its metadata."""
    metadata = table.metadata
    locations = {table.metadata_location, *(entry.metadata_file for entry in metadata.metadata_log)}
    locations |= {each.statistics_path for each in (*metadata.statistics, *metadata.partition_statistics)}
    manifests: dict[str, ManifestFile] = {}
    with ThreadPoolExecutor(_THREADS) as pool:
        for found in pool.map(lambda snapshot: snapshot.manifests(table.io), metadata.snapshots):
            manifests |= {manifest.manifest_path: manifest for manifest in found}
        for files in pool.map(lambda manifest: list(_data_files(table, manifest)), manifests.values()):
            locations.update(files)
    locations |= {snapshot.manifest_list for snapshot in metadata.snapshots} | manifests.keys()
    return {path_of(location) for location in locations}


def _data_files(table: Table, manifest: ManifestFile) -> Iterator[str]:
    for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=True):
        yield entry.data_file.file_path
