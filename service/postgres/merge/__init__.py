"""One scan into the tables, in one short transaction: a window is shown whole or not at all.

``transaction`` says what happens in which order; the statements stand in ``scan``, ``windows``, ``figures`` and
``expected``.
"""

from service.postgres.merge.record import Merged, Missing, ScanRecord
from service.postgres.merge.transaction import merge

__all__ = ["Merged", "Missing", "ScanRecord", "merge"]
