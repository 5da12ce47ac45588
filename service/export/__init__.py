"""Figures for a warehouse: Parquet files of one snapshot, only what changed.

::

    exporter  which months are written
    folder    the files, and the manifest that says what they are
    parquet   rows into a file
"""

from service.export.exporter import Exported, export

__all__ = [
    "Exported",
    "export",
]
