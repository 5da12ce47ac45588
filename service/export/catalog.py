"""The Iceberg catalog, and the tables in it: opened, created, extended and recovered."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

from pyarrow.fs import FileSelector
from pyiceberg.catalog import Catalog, MetastoreCatalog, load_catalog
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.io import load_file_io
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.transforms import IdentityTransform, MonthTransform
from pyiceberg.types import (
    BooleanType,
    DoubleType,
    IcebergType,
    LongType,
    MapType,
    NestedField,
    StringType,
    TimestamptzType,
)
from sqlalchemy import NullPool, create_engine

from service.config import Export
from service.errors import ExportError
from service.export.storage import file_system, path_of
from service.export.table import WarehouseTable
from service.postgres.export import Relation, Type, connect_catalog, create_catalog

NAME = "flow_outcomes"
_RECOVERY_ATTEMPTS = 20  # metadata files that are tried, newest first
_FIRST_NESTED_ID = 1000  # of the keys and values of maps, which have ids of their own
_TYPES: dict[Type, IcebergType] = {
    Type.TEXT: StringType(),
    Type.INSTANT: TimestamptzType(),
    Type.INTEGER: LongType(),
    Type.REAL: DoubleType(),
    Type.FLAG: BooleanType(),
}
_TABLE_PROPERTIES = {
    "format-version": "2",
    "write.parquet.compression-codec": "zstd",
    "commit.retry.num-retries": "2",  # of a failed request; a change by another writer is never built upon
}


class _DatabaseCatalog(SqlCatalog):
    """pyiceberg's SQL catalog in the configured PostgreSQL, over connections as the program makes them."""

    def __init__(self, name: str, dsn: str, **properties: str) -> None:
        MetastoreCatalog.__init__(self, name, **properties)
        create_catalog(dsn)
        self.engine = create_engine(
            "postgresql+psycopg://", creator=lambda: connect_catalog(dsn), poolclass=NullPool
        )
        self._init_catalog()


def properties_of(config: Export) -> dict[str, str]:
    """The properties of the catalog, and of the storage where its tables are."""
    return {
        "warehouse": config.warehouse,
        "py-io-impl": "service.export.storage.WarehouseFileIO",
        **config.properties(),
    }


class Warehouse:
    """The configured catalog and namespace.

    Args:
        config: the section ``export``.
        dsn: the database, for a SQL catalog without a ``uri``.

    Raises:
        DatabaseUnavailableError, SchemaError: the catalog is in this database, and cannot be used.
        Exception: whatever pyiceberg and the catalog's client raise where it cannot be reached.
    """

    def __init__(self, config: Export, dsn: str) -> None:
        logging.getLogger("pyiceberg").setLevel(logging.ERROR)
        self._config = config
        self._properties = properties_of(config)
        self._catalog = self._open(dsn)
        self._catalog.create_namespace_if_not_exists(config.namespace)

    def _open(self, dsn: str) -> Catalog:
        properties = dict(self._properties)
        if self._config.is_catalog_in_database:
            return _DatabaseCatalog(NAME, dsn, **properties)
        return load_catalog(NAME, **properties)

    def table(self, relation: Relation, *, keeps_pruned_months: bool) -> WarehouseTable:
        """The table of a relation; created where the warehouse does not hold it, extended where it lacks a column.

        Args:
            relation: what it holds.
            keeps_pruned_months: whether some months may be nowhere else; the table is then not created again where
                its metadata is missing, the catalog has lost it, or it is in another warehouse.

        Raises:
            ExportError: the table has another layout, cannot be recovered, or is in another warehouse.
        """
        identifier = f"{self._config.namespace}.{relation.name}"
        try:
            table = WarehouseTable(relation, self._catalog.load_table(identifier))
            _check_layout(table)
            if not self._is_in_warehouse(table):
                return self._create_here(table, identifier, keeps_pruned_months=keeps_pruned_months)
            self._extend(table)
            table.inspect()
        except NoSuchTableError:  # the catalog may be a new one, or restored
            found = self._register(relation, identifier) if keeps_pruned_months else None
            table = found or self._create(relation, identifier)
        except FileNotFoundError as error:
            table = self._recover(relation, identifier, error, keeps_pruned_months=keeps_pruned_months)
        return table

    def _create(self, relation: Relation, identifier: str) -> WarehouseTable:
        schema = schema_of(relation)
        table = self._catalog.create_table(
            identifier,
            schema,
            location=self._location(relation) if self._chooses_locations else None,
            partition_spec=_partition_spec(relation, schema),
            properties=_TABLE_PROPERTIES,
        )
        created = WarehouseTable(relation, table)
        created.inspect()
        return created

    def _is_in_warehouse(self, table: WarehouseTable) -> bool:
        if not self._chooses_locations:
            return True
        stored, configured = (
            location.rstrip("/").replace("abfss://", "abfs://", 1)
            for location in (table.table.location(), self._location(table.relation))
        )
        return stored == configured

    def _create_here(self, table: WarehouseTable, identifier: str, *, keeps_pruned_months: bool) -> WarehouseTable:
        """Create a table that the catalog has in another warehouse, whose files stay as they are.

        Raises:
            ExportError: another program made the table, or it may hold what is nowhere else.
        """
        if table.table.current_snapshot() is not None and not table.last_export:
            raise ExportError(
                f"the table {identifier} is in {table.table.location()}, and no export wrote it:"
                " drop it, or choose another export.namespace"
            )
        if keeps_pruned_months:
            raise ExportError(
                f"the table {identifier} is in {table.table.location()}, and pruned months are nowhere else:"
                " set export.warehouse as it was, or choose another export.namespace"
            )
        self._catalog.drop_table(identifier)
        return self._create(table.relation, identifier)

    @property
    def _chooses_locations(self) -> bool:
        """Whether the program chooses where a table is; a REST catalog does so itself."""
        return isinstance(self._catalog, MetastoreCatalog)

    def _location(self, relation: Relation) -> str:
        root = str(self._properties["warehouse"]).rstrip("/")
        return f"{root}/{self._config.namespace.replace('.', '/')}/{relation.name}"

    def _extend(self, table: WarehouseTable) -> None:
        """Add columns that a newer version has; what is stored lacks them, so everything is written again.

        A column that is not ours, and that the files to be written lack, must not be required.
        """
        present, wanted = table.table.schema(), schema_of(table.relation)
        stored, ours = {each.name for each in present.fields}, set(table.relation.column_names)
        foreign = [each.name for each in present.fields if each.required and each.name not in ours]
        if foreign:
            with table.table.update_schema() as update:
                for name in foreign:
                    update.make_column_optional(name)
        if any(each.name not in stored for each in wanted.fields):
            with table.table.update_schema(allow_incompatible_changes=True) as update:
                for column in wanted.fields:
                    if column.name not in stored:
                        update.add_column(column.name, column.field_type)
            table.reason = "the table lacked a column"

    def _recover(
        self, relation: Relation, identifier: str, error: FileNotFoundError, *, keeps_pruned_months: bool
    ) -> WarehouseTable:
        """Register the newest metadata of the table that is complete, else create the table again.

        A restored database may refer to metadata that was removed since.
        """
        found = self._register(relation, identifier)
        if found is not None:
            return found
        if keeps_pruned_months:
            raise ExportError(
                f"metadata of the table {identifier} is missing, and pruned months are nowhere else: restore the"
                f" files under {self._location(relation)}, or drop the table from the catalog ({error})"
            )
        with contextlib.suppress(NoSuchTableError):
            self._catalog.drop_table(identifier)
        return self._create(relation, identifier)

    def _register(self, relation: Relation, identifier: str) -> WarehouseTable | None:
        """Register the newest metadata under the table's location that is complete; None where there is none."""
        for location in self._metadata_files(relation):
            with contextlib.suppress(NoSuchTableError):
                self._catalog.drop_table(identifier)
            with contextlib.suppress(FileNotFoundError):
                table = WarehouseTable(relation, self._catalog.register_table(identifier, location))
                _check_layout(table)
                self._extend(table)
                table.inspect()
                return table
        return None

    def _metadata_files(self, relation: Relation) -> Iterator[str]:
        """The metadata files under the table's location, newest first."""
        if not self._chooses_locations:
            return
        folder = f"{self._location(relation)}/metadata"
        system = file_system(load_file_io(self._properties, folder), folder)
        if system is None:
            return
        infos = system.get_file_info(FileSelector(path_of(folder), allow_not_found=True))
        names = sorted(
            (info.base_name for info in infos if info.base_name.endswith(".metadata.json")), reverse=True
        )
        for name in names[:_RECOVERY_ATTEMPTS]:
            yield f"{folder}/{name}"


def schema_of(relation: Relation) -> Schema:
    """The Iceberg schema of a relation."""
    fields = []
    for number, column in enumerate(relation.columns, start=1):
        nested = _FIRST_NESTED_ID + 2 * number
        kind = _TYPES.get(column.type) or MapType(
            key_id=nested,
            key_type=StringType(),
            value_id=nested + 1,
            value_type=StringType(),
            value_required=False,
        )
        fields.append(NestedField(number, column.name, kind, required=column.required))
    return Schema(*fields)


def _check_layout(table: WarehouseTable) -> None:
    """Check that the table is partitioned as the relation is, and that its columns have the relation's types.

    Raises:
        ExportError: another program made the table.
    """
    relation, present, name = table.relation, table.table.schema(), ".".join(table.table.name())
    spec = [(present.find_column_name(each.source_id), str(each.transform)) for each in table.table.spec().fields]
    if spec != [("org", "identity"), ("granularity", "identity"), (relation.instant, "month")]:
        raise ExportError(
            f"the table {name} is not partitioned by org, granularity and month of"
            f" {relation.instant}: drop it, or choose another namespace"
        )
    stored = {each.name: each for each in present.fields}
    for each in schema_of(relation).fields:
        if each.name in stored and not _same_type(stored[each.name].field_type, each.field_type):
            raise ExportError(
                f"the column {each.name} of the table {name} is {stored[each.name].field_type},"
                f" not {each.field_type}: drop the table, or choose another namespace"
            )


def _partition_spec(relation: Relation, schema: Schema) -> PartitionSpec:
    def source(name: str) -> int:
        return schema.find_field(name).field_id

    return PartitionSpec(
        PartitionField(source("org"), 1000, IdentityTransform(), "org"),
        PartitionField(source("granularity"), 1001, IdentityTransform(), "granularity"),
        PartitionField(source(relation.instant), 1002, MonthTransform(), f"{relation.instant}_month"),
    )


def _same_type(stored: Any, wanted: Any) -> bool:  # noqa: ANN401 - a map's nested fields have ids of the table's own
    return type(stored) is type(wanted) if isinstance(wanted, MapType) else bool(stored == wanted)
