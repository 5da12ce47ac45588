"""One export: the months that changed since each table's own last export, of one database snapshot."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from service.config import Export
from service.errors import ConfigError, ExportError, FlowOutcomesError
from service.export import extra
from service.postgres.export import (
    RELATIONS,
    ExportLease,
    Month,
    OrgRevision,
    Relation,
    Snapshot,
    held_lease,
    open_snapshot,
)
from service.telemetry import redacted, traces

if TYPE_CHECKING:
    from service.export.catalog import Warehouse
    from service.export.table import NewFile, WarehouseTable

T = TypeVar("T")


class TableExport(NamedTuple):
    """What an export wrote into one table.

    Attributes:
        files: the months that were written.
        rows: the rows in them.
        reason: why every month was written; empty where only what changed was.
        location: of the table's metadata, for readers without a catalog.
    """

    files: int
    rows: int
    reason: str
    location: str


@dataclass
class Exported:
    """The result of an export.

    Attributes:
        number: of the newest export; 0 where there is none and nothing to export.
        taken_at: the time of the database snapshot.
        tables: what was written into each table, by its name; empty where nothing was new.
        left_alone: months of tables that the database neither holds nor marks as pruned.
        missing: months of tables with a file that does not exist and cannot be written again.
        expired: snapshots that expired.
        removed: files that no snapshot needed.
    """

    number: int
    taken_at: datetime
    tables: dict[str, TableExport] = field(default_factory=dict)
    left_alone: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    expired: int = 0
    removed: int = 0

    @property
    def files(self) -> int:
        """The files written."""
        return sum(table.files for table in self.tables.values())

    @property
    def rows(self) -> int:
        """The rows written."""
        return sum(table.rows for table in self.tables.values())


@dataclass
class _TableUpdate:
    """One table, and what is to be committed to it.

    Attributes:
        table: the table.
        files: one for each month that is written.
        digests: of the months of a relation without revisions.
        emptied: months whose rows were removed since the table's last export, as their history says.
    """

    table: WarehouseTable
    files: list[NewFile] = field(default_factory=list)
    digests: dict[Month, str] = field(default_factory=dict)
    emptied: set[Month] = field(default_factory=set)


async def export(dsn: str, config: Export, *, full: bool = False) -> Exported:
    """Bring the warehouse up to date. Readers of a table see all of an export or nothing of it.

    Args:
        dsn: the database.
        config: the catalog and the warehouse.
        full: write every month that the database holds.

    Raises:
        ConfigError: a package of the extra ``export`` is missing.
        ExportBusyError: another process exports.
        ExportError: the warehouse cannot be read or written.
        LeaseLostError: this process was suspended, and another one may export.
        DatabaseUnavailableError: the database cannot be reached, or the connection was lost.
        SchemaError: the schema does not exist, or this role may not use it.
    """
    extra.require(extra.ICEBERG)
    with traces.span("export", warehouse=config.warehouse) as exporting:
        done = await _export(dsn, config, full=full)
        exporting.set(export=done.number, months=done.files, rows=done.rows)
        return done


async def _export(dsn: str, config: Export, *, full: bool) -> Exported:
    async with held_lease(dsn) as lease:
        try:
            done = await _Exporter(dsn, config, lease, full=full).run()
        except ConfigError:
            raise
        except FlowOutcomesError as error:
            with contextlib.suppress(Exception):  # the first error is the one to report
                await lease.record_failure(redacted(str(error)))
            raise
        await lease.record_success(config.target, done.number, done.taken_at)
        return done


class _Exporter:
    def __init__(self, dsn: str, config: Export, lease: ExportLease, *, full: bool) -> None:
        self._dsn = dsn
        self._config = config
        self._lease = lease
        self._full = full
        self._left_alone: list[str] = []
        self._missing: list[str] = []
        self._written: list[tuple[WarehouseTable, str]] = []

    async def run(self) -> Exported:
        warehouse = await self._in_thread("the catalog cannot be opened", self._open)
        try:
            async with open_snapshot(self._dsn) as database:
                taken_at, revisions = await database.taken_at(), await database.revisions()
                pruned = await database.pruned()
                updates = [await self._table(warehouse, relation, pruned) for relation in RELATIONS]
                number = max(update.table.last_export for update in updates) + 1
                for update in updates:
                    for month in await self._months(database, update, revisions, pruned):
                        await self._write(database, update, month, number)
                    self._report(update, pruned)
            changed = any(update.files for update in updates) or any(
                update.table.last_export == 0 for update in updates
            )
            done = Exported(
                number if changed else number - 1, taken_at, left_alone=self._left_alone, missing=self._missing
            )
            if changed:
                for update in updates:
                    await self._commit(update, done, revisions)
        except BaseException:
            await self._remove_written()
            raise
        for update in updates:
            await self._maintain(update.table, done)
        return done

    def _open(self) -> Warehouse:
        from service.export.catalog import Warehouse

        return Warehouse(self._config, self._dsn)

    async def _table(self, warehouse: Warehouse, relation: Relation, pruned: set[Month]) -> _TableUpdate:
        table = await self._in_thread(
            f"the table {relation.name} cannot be read",
            lambda: warehouse.table(relation, keeps_pruned_months=bool(pruned)),
        )
        return _TableUpdate(table)

    async def _months(
        self, database: Snapshot, update: _TableUpdate, revisions: Mapping[str, OrgRevision], pruned: set[Month]
    ) -> list[Month]:
        """The months to write; a month that was pruned is never written."""
        table, relation = update.table, update.table.relation
        if self._full and not table.reason:
            table.reason = "requested"
        wanted: list[Month] = []
        for org in revisions:
            since = 0 if table.reason else await self._since(database, table, org)
            if relation.changed:
                months = await database.changed(relation, org, since)
                update.emptied |= set(months) if since else set()
            else:
                digests = await database.digests(relation, org)
                update.digests |= digests
                months = [
                    month for month, digest in digests.items() if table.reason or digest != table.digest_of(month)
                ]
            wanted += months
        return [month for month in wanted if month not in pruned]

    async def _since(self, database: Snapshot, table: WarehouseTable, org: str) -> int:
        """The revision of an org that the table holds; 0 where the org must be written completely.

        That is an org that the table does not hold, or holds from another database or from before a backup was
        restored: the database then has no revision of that number, or one with another time stamp.
        """
        last = table.position.get(org)
        if last is None or last.stamped_at is None:
            return 0
        return last.revision if await database.stamp(org, last.revision) == last.stamped_at else 0

    def _report(self, update: _TableUpdate, pruned: set[Month]) -> None:
        """Report the months of the table that had to be written, and that the database does not hold."""
        from service.export.table import Partition

        table, name = update.table, update.table.relation.name
        written = {Partition.of(file.month) for file in update.files}
        if table.reason:
            unwritten = table.files.keys() - written - {Partition.of(month) for month in pruned}
            self._left_alone += [f"{name} {each}" for each in sorted(unwritten, key=str)]
        self._missing += [f"{name} {each}" for each in sorted(table.missing - written, key=str)]

    async def _write(self, database: Snapshot, update: _TableUpdate, month: Month, number: int) -> None:
        from service.export import parquet

        table = update.table
        path = table.new_path(number, month, update.digests.get(month, ""))
        self._written.append((table, path))
        rows = database.rows(table.relation, month)
        what = f"the table {table.relation.name} cannot be written"
        _, metadata = await _explained(
            what, parquet.write(lambda: table.open_new(path), table.arrow_schema(), rows)
        )
        if metadata is not None:
            update.files.append(await self._in_thread(what, lambda: table.new_file(month, path, metadata)))
            return
        self._written.pop()
        if month in update.emptied and table.holds(month):
            update.files.append(table.no_file(month))

    async def _commit(self, update: _TableUpdate, done: Exported, revisions: Mapping[str, OrgRevision]) -> None:
        table = update.table
        name = table.relation.name
        self._lease.check()
        # from here on the result may be unknown: readers may need the files
        self._written = [each for each in self._written if each[0] is not table]
        await self._in_thread(
            f"the table {name} cannot be committed",
            lambda: table.commit(done.number, done.taken_at, revisions, update.files),
        )
        done.tables[name] = TableExport(
            len(update.files),
            sum(file.rows for file in update.files),
            table.reason if update.files else "",
            table.table.metadata_location,
        )

    async def _maintain(self, table: WarehouseTable, done: Exported) -> None:
        from service.export import maintenance

        self._lease.check()
        now = datetime.now(UTC)
        what = f"the table {table.relation.name} cannot be maintained"
        expired = await self._in_thread(what, lambda: maintenance.expire(table, self._config.keep_snapshots, now))
        done.expired += expired
        if done.tables or expired:
            done.removed += await self._in_thread(
                what, lambda: maintenance.remove_unreferenced(table, min(now, done.taken_at), self._lease.check)
            )

    async def _remove_written(self) -> None:
        """Remove the files of an export that failed, except those of a commit whose result is unknown."""
        for table, path in self._written:
            with contextlib.suppress(Exception):
                await asyncio.to_thread(table.remove_new, path)

    async def _in_thread(self, what: str, call: Callable[[], T]) -> T:
        return await _explained(what, asyncio.to_thread(call))


async def _explained(what: str, result: Awaitable[T]) -> T:
    """The result; an error of a library becomes one of the program's.

    Raises:
        ExportError: with the library's message.
    """
    try:
        return await result
    except FlowOutcomesError:
        raise
    except Exception as error:  # pyiceberg, pyarrow, SQLAlchemy, botocore and requests have errors of their own
        raise ExportError(f"{what}: {explain(error)}") from error


def explain(error: Exception) -> str:
    """The message of an error of a library, on one line; the program's own errors have no type before them."""
    text = " ".join(str(error).split())
    return (text if isinstance(error, FlowOutcomesError) else f"{type(error).__name__}: {text}")[:_LONGEST_REASON]


_LONGEST_REASON = 1000
