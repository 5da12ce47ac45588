"""What the export to a warehouse reads and writes in the database.

::

    relations   the relations that are exported: columns, partition, changed months
    snapshot    reads them as of one instant
    lease       one process exports at a time; the result of the last export
    catalog     connections for the Iceberg catalog that is kept in this database
"""

from service.postgres.export.catalog import connect_catalog, create_catalog, rehearse_catalog
from service.postgres.export.lease import ExportLease, ExportState, held_lease, read_state
from service.postgres.export.relations import RELATIONS, Column, Relation, Type
from service.postgres.export.snapshot import ROWS_PER_FETCH, Month, OrgRevision, Snapshot, open_snapshot

__all__ = [
    "RELATIONS",
    "ROWS_PER_FETCH",
    "Column",
    "ExportLease",
    "ExportState",
    "Month",
    "OrgRevision",
    "Relation",
    "Snapshot",
    "Type",
    "connect_catalog",
    "create_catalog",
    "held_lease",
    "open_snapshot",
    "read_state",
    "rehearse_catalog",
]
