"""One org's extraction: from its due windows to stored rows.

::

    org_worker      one org's cycles
    cycle           a cycle: its request, its policy, its result
    due_windows     a job's due windows, and their state in the ledger
    deep_lookback   the windows further back that are extracted again now and then
    ad_hoc          an ad hoc span as windows
    scanner         windows into scans: grouped, split, coarsened
    scan_group      scans side by side, and the first error among them
    size_estimate   how many entries a bucket has, while the first pages are read
    splitter        how large and how wide a query is
    admission       which scan may start
    pipeline        one scan: fetch, normalise, store
    normalise       pure: a page to rows and rejects
    json_values     pure: JSON values as figures
    name_sync       the names of flows and outcomes that the API reports by id
    retention_sync  how long the org keeps its data
"""

from service.extraction.ad_hoc import ad_hoc_windows, prune_problem
from service.extraction.cycle import (
    AD_HOC_POLICY,
    EVERYTHING,
    Cycle,
    CyclePolicy,
    CycleRequest,
    CycleResult,
    Scope,
)
from service.extraction.deep_lookback import deep_spans, next_pass
from service.extraction.due_windows import due_spans, due_window, known_windows, window_states
from service.extraction.org_worker import OrgWorker

__all__ = [
    "AD_HOC_POLICY",
    "EVERYTHING",
    "Cycle",
    "CyclePolicy",
    "CycleRequest",
    "CycleResult",
    "OrgWorker",
    "Scope",
    "ad_hoc_windows",
    "deep_spans",
    "due_spans",
    "due_window",
    "known_windows",
    "next_pass",
    "prune_problem",
    "window_states",
]
