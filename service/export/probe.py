"""Whether the catalog can be reached and the warehouse written, for ``check``.

What is created in the database is rolled back, and the file that is written is removed. What stays is empty: a
file of a SQLite catalog that does not exist yet, and S3's marker of the warehouse's folder.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from pathlib import Path

from pyarrow.fs import FileSelector
from pyiceberg.catalog import Catalog, load_catalog
from pyiceberg.exceptions import NoSuchNamespaceError, NoSuchTableError
from pyiceberg.io import FileIO, load_file_io
from sqlalchemy import NullPool, create_engine, inspect

from service.config import Export
from service.export.catalog import NAME, properties_of
from service.export.exporter import explain
from service.export.storage import file_system, path_of
from service.model import Finding, State
from service.postgres.export import rehearse_catalog
from service.postgres.export.relations import FLOW_OUTCOME
from service.telemetry import redacted

CATALOG, WAREHOUSE = "export catalog", "export warehouse"
"""The subjects."""
_CONTENT = b"written by flow-outcomes check\n"
_CATALOG_FIX = "check export.catalog: its uri or region, the network, and that its credentials are accepted there"
_WAREHOUSE_FIX = (
    "check that the warehouse exists, that the network reaches it, and that the credentials allow to write, read,"
    " list and remove files there"
)
_FOLDER_FIX = "check export.warehouse, and that this user may write there"


def probe(config: Export, dsn: str | None) -> Iterator[Finding]:
    """Try the catalog, then the warehouse.

    Args:
        config: the section ``export``.
        dsn: the database; None where the catalog is there and cannot be used, so that it is not tried.
    """
    catalog: Catalog | None = None
    try:
        if not config.is_catalog_in_database:
            catalog, detail = _open(config)
            yield Finding(CATALOG, State.OK, detail)
        elif dsn is not None:
            rehearse_catalog(dsn)
            yield Finding(CATALOG, State.OK, "in the database, writable")
    except Exception as error:  # noqa: BLE001 - of any catalog's client
        fix = "" if config.is_catalog_in_database else _CATALOG_FIX
        yield Finding(CATALOG, State.FAILED, redacted(explain(error)), fix)
        if _grants_access(config):
            yield Finding(WAREHOUSE, State.SKIPPED, "the catalog grants access to it", "fix the catalog first")
            return
    yield _warehouse(config, catalog)


def _open(config: Export) -> tuple[Catalog | None, str]:
    """Open the catalog without creating anything in it; returns it with what was found."""
    properties = properties_of(config)
    where = properties["type"]
    if where == "sql":
        engine = create_engine(properties["uri"], poolclass=NullPool)
        exists = inspect(engine).has_table("iceberg_tables")
        return None, f"{where}, reachable" + ("" if exists else "; the first export creates its tables")
    catalog = load_catalog(NAME, **properties)
    try:
        catalog.load_namespace_properties(config.namespace)
    except NoSuchNamespaceError:
        return catalog, f"{where}, reachable; the first export creates the namespace {config.namespace}"
    return catalog, f"{where}, reachable; it has the namespace {config.namespace}"


def _grants_access(config: Export) -> bool:
    """Whether the catalog chooses the location of each table, and may grant access to it."""
    return config.properties()["type"] == "rest"


def _warehouse(config: Export, catalog: Catalog | None) -> Finding:
    root = config.warehouse
    try:
        if _grants_access(config):
            assert catalog is not None  # noqa: S101 - for mypy: probe() returned where there is none
            table = catalog.load_table(f"{config.namespace}.{FLOW_OUTCOME.name}")
            root, io = table.location(), table.io
        else:
            properties = properties_of(config)
            root = properties["warehouse"]
            io = load_file_io(properties, root)
        _write(io, root)
    except (NoSuchNamespaceError, NoSuchTableError):
        detail = "the catalog chooses the location of each table, and the first export creates them"
        return Finding(WAREHOUSE, State.SKIPPED, detail)
    except Exception as error:  # noqa: BLE001 - of any storage's client
        detail = f"{root}: {redacted(explain(error))}"
        fix = _FOLDER_FIX if root.startswith("file:") else _WAREHOUSE_FIX
        return Finding(WAREHOUSE, State.FAILED, detail, fix)
    return Finding(WAREHOUSE, State.OK, f"{root}: a file was written, read, listed and removed")


def _write(io: FileIO, root: str) -> None:
    """Do with a file what an export does with its files, and remove it.

    Raises:
        Exception: whatever the storage's client raises.
    """
    location = f"{root}/flow-outcomes-check-{uuid.uuid4().hex}"
    system = file_system(io, root)
    missing = _missing_folders(Path(path_of(root))) if root.startswith("file:") else []
    try:
        with io.new_output(location).create() as file:
            file.write(_CONTENT)
        try:
            with io.new_input(location).open() as file:
                if file.read() != _CONTENT:
                    raise OSError("the file that was written has another content")
            if system is not None:
                system.get_file_info(FileSelector(path_of(root)))
        finally:
            io.delete(location)
    finally:
        for folder in missing:
            with contextlib.suppress(OSError):
                folder.rmdir()


def _missing_folders(folder: Path) -> list[Path]:
    """The folders that do not exist, the innermost first."""
    return [each for each in (folder, *folder.parents) if not each.exists()]
