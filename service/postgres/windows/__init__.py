"""The ledger of windows.

::

    ledger       the state of each window, and the last error
    requests     requested ad hoc windows
    splits       what was learned of queries that were too large or too wide
    deep_passes  when a job's deep lookback last passed
"""

from service.postgres.windows.deep_passes import DeepPass, DeepPasses
from service.postgres.windows.ledger import AD_HOC, Ledger, LedgerWindow, job_of, stream_of
from service.postgres.windows.requests import (
    RequestProgress,
    request_progress,
    request_windows,
    requested_orgs,
)
from service.postgres.windows.splits import SplitLedger

__all__ = [
    "AD_HOC",
    "DeepPass",
    "DeepPasses",
    "Ledger",
    "LedgerWindow",
    "RequestProgress",
    "SplitLedger",
    "job_of",
    "request_progress",
    "request_windows",
    "requested_orgs",
    "stream_of",
]
