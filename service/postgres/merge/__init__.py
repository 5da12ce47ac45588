"""One scan into the tables, in one short transaction: a window is shown complete or not at all.

::

    staging         a scan's rows until the merge: memory, then unlogged tables
    packing         rows as binary COPY sends them
    binary_copy     the format of binary COPY
    record          what is merged, and the result
    transaction     which statement runs when
    merge_session   runs the statements of one merge
    loader          rows into the temporary tables
    scan            ┐
    window_results  │ the statements
    figures         │
    expected        ┘
    partitions      partitions made ahead
    statistics      the planner's statistics after many new outcomes
"""

from service.postgres.merge.partitions import Partitions
from service.postgres.merge.record import Merged, Missing, ScanRecord
from service.postgres.merge.staging import Staging, sweep_org
from service.postgres.merge.transaction import merge

__all__ = [
    "Merged",
    "Missing",
    "Partitions",
    "ScanRecord",
    "Staging",
    "merge",
    "sweep_org",
]
