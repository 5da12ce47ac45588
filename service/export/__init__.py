"""The export: Parquet files of one database snapshot, rewritten only where figures changed.

::

    exporter  selects the months to write
    folder    the files and their manifest
    parquet   writes rows to a file
"""

from service.export.exporter import Exported, export

__all__ = [
    "Exported",
    "export",
]
