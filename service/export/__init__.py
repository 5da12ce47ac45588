"""Figures for a warehouse: Apache Iceberg tables, or plain Parquet files.

::

    exporter     one export: the months that changed, of one database snapshot, into every table
    worker       the process in which the daemon runs an export
    probe        whether the catalog can be reached and the warehouse written, for ``check``
    extra        whether the packages of the extra ``export`` are installed
    catalog      opens the Iceberg catalog and its tables
    storage      the file systems in which tables are
    table        one Iceberg table: what it holds, and a commit to it
    commit       replaces files of a table in one snapshot
    maintenance  expires snapshots, and removes files that none needs
    parquet      writes rows to a Parquet file
    folder       plain Parquet files in an empty folder

``catalog``, ``storage``, ``table``, ``commit``, ``maintenance``, ``probe`` and ``parquet`` import packages of the
extra, so the other modules import them when they need them.
"""

from service.export import extra
from service.export.exporter import Exported, export
from service.export.folder import Written, write_folder
from service.export.worker import run_probe, run_worker

__all__ = [
    "Exported",
    "Written",
    "export",
    "extra",
    "run_probe",
    "run_worker",
    "write_folder",
]
