"""A commit that replaces files of a table in one snapshot.

pyiceberg's own ``overwrite`` and ``delete`` write two snapshots, the first of which lacks the replaced rows. Its
snapshot producer does both at once. What is added here: the files to replace are looked up in every manifest
(pyiceberg builds a predicate that is as deep as there are partitions), manifests without a live file are
dropped, many small ones are merged, and a table that another writer changed meanwhile fails the commit, so that
the next export sees it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from pyiceberg.exceptions import ValidationException
from pyiceberg.manifest import DataFile, ManifestFile
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Operation
from pyiceberg.table.update.snapshot import _ManifestMergeManager, _OverwriteFiles

MANIFESTS_TO_MERGE = 20
_MANIFEST_BYTES = 8 * 1024 * 1024


class _ReplaceFiles(_OverwriteFiles):
    def _build_delete_files_partition_predicate(self) -> None:
        """Build none: every manifest is read."""

    def _build_manifest_evaluator(self, spec_id: int) -> Callable[[ManifestFile], bool]:  # noqa: ARG002 - pyiceberg's
        return lambda manifest: True  # noqa: ARG005 - every manifest may hold a file to replace

    def _process_manifests(self, manifests: list[ManifestFile]) -> list[ManifestFile]:
        live = [
            manifest
            for manifest in manifests
            if manifest.has_added_files()
            or manifest.has_existing_files()
            or manifest.added_snapshot_id == self._snapshot_id
        ]
        merge = _ManifestMergeManager(
            target_size_bytes=_MANIFEST_BYTES,
            min_count_to_merge=MANIFESTS_TO_MERGE,
            merge_enabled=len(live) >= MANIFESTS_TO_MERGE,
            snapshot_producer=self,
        )
        return merge.merge_manifests(live)

    def _validate_concurrency(self) -> None:
        if self._commit_window is not None and not self._commit_window.is_empty():
            raise ValidationException("another writer changed the table")


def replace_files(
    table: Table,
    added: Iterable[DataFile],
    removed: Iterable[DataFile],
    properties: Mapping[str, str],
    tag: str,
) -> Table:
    """Replace files of the table, and tag the snapshot; both in one commit. Without files, its rows are as before.

    Args:
        table: as it was when the files to remove were listed.
        added: the new files, which exist.
        removed: the files that no reader of the new snapshot sees.
        properties: of the snapshot.
        tag: the snapshot's name.

    Raises:
        CommitFailedException, ValidationException: another writer changed the table; nothing was committed.
    """
    transaction = table.transaction()
    producer = _ReplaceFiles(
        operation=Operation.APPEND if table.current_snapshot() is None else Operation.OVERWRITE,
        transaction=transaction,
        io=table.io,
        snapshot_properties=dict(properties),
    )
    for file in added:
        producer.append_data_file(file)
    for file in removed:
        producer.delete_data_file(file)
    producer.commit()
    transaction._stage(*transaction._set_ref_snapshot(snapshot_id=producer.snapshot_id, ref_name=tag, type="tag"))
    return transaction.commit_transaction()
