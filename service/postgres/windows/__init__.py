"""The ledger of windows.

::

    ledger       the state of each window, and the last error
    requests     requested ad hoc windows
    runs         requested runs of what is due
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
from service.postgres.windows.runs import (
    RequestedRun,
    RunProgress,
    begin_run,
    finish_run,
    request_runs,
    requested_runs,
    run_progress,
)
from service.postgres.windows.splits import SplitLedger

__all__ = [
    "AD_HOC",
    "DeepPass",
    "DeepPasses",
    "Ledger",
    "LedgerWindow",
    "RequestProgress",
    "RequestedRun",
    "RunProgress",
    "SplitLedger",
    "begin_run",
    "finish_run",
    "job_of",
    "request_progress",
    "request_runs",
    "request_windows",
    "requested_orgs",
    "requested_runs",
    "run_progress",
    "stream_of",
]
