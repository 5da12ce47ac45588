"""The ledger of windows.

::

    ledger    the state of each window, and the last error
    requests  ad hoc windows
"""

from service.postgres.windows.ledger import AD_HOC, Ledger, LedgerWindow, work_of
from service.postgres.windows.requests import ask, progress

__all__ = [
    "AD_HOC",
    "Ledger",
    "LedgerWindow",
    "ask",
    "progress",
    "work_of",
]
