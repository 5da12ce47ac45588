"""Stores a scan in one short transaction, so that a reader sees a window complete or not at all.

::

    buffer          a scan's rows until the merge, in memory within a budget
    spill           unlogged tables for what exceeds it
    packing         rows as binary COPY sends them
    binary_copy     the format of binary COPY
    record          what is merged, and the result
    transaction     the steps of a merge, in order
    merge_session   runs its statements
    loader          rows into the temporary tables, or into figure
    columns         ┐
    scan            │
    window_results  │ the statements
    figures         │
    expected        ┘
    partitions      monthly partitions
    statistics      the planner's statistics
    rehearsal       a merge that is rolled back, for ``check``
"""

from service.postgres.merge.buffer import MemoryBudget, ScanBuffer
from service.postgres.merge.packing import ALL_COLUMNS, COLUMNS
from service.postgres.merge.partitions import Partitions
from service.postgres.merge.record import Merged, Missing, RejectedOutcome, Retention, ScanRecord
from service.postgres.merge.rehearsal import rehearse
from service.postgres.merge.spill import sweep_org
from service.postgres.merge.transaction import merge

__all__ = [
    "ALL_COLUMNS",
    "COLUMNS",
    "MemoryBudget",
    "Merged",
    "Missing",
    "Partitions",
    "RejectedOutcome",
    "Retention",
    "ScanBuffer",
    "ScanRecord",
    "merge",
    "rehearse",
    "sweep_org",
]
