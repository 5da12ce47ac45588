"""One org's extraction: from the windows that are due to the rows that are stored.

::

    org_worker   one org's cycles
    cycle        the policy and the result of a cycle
    due_windows  which windows a job owes by now, and their state in the ledger
    ad_hoc       an ad hoc span as windows
    scanner      windows into scans: grouped, split, coarsened
    admission    which scan may start
    pipeline     one scan: fetch, normalise, store
    normalise    pure: a page to rows and rejects
    json_values  JSON values as figures
    name_sync    the names of flows and outcomes that the API knows by id
"""

from service.extraction.ad_hoc import ad_hoc_windows
from service.extraction.cycle import CycleResult
from service.extraction.due_windows import known_of, owed_spans, standings, window_of
from service.extraction.org_worker import CycleRequest, OrgWorker
from service.extraction.scanner import GivenUpError

__all__ = [
    "CycleRequest",
    "CycleResult",
    "GivenUpError",
    "OrgWorker",
    "ad_hoc_windows",
    "known_of",
    "owed_spans",
    "standings",
    "window_of",
]
