"""What is complete, what is due, and what a run would cost; reads only.

::

    status        the document behind ``status --json`` and ``/api/status``
    due_calendar  the windows that each job should have in each time zone
    dry_run       the document behind ``plan``
"""

from service.status.dry_run import JobPlan, Plan, dry_run
from service.status.status import (
    NOT_REQUESTED,
    AdHocStatus,
    ExportStatus,
    Gap,
    JobStatus,
    OrgStatus,
    Status,
    Windows,
    read_status,
)

__all__ = [
    "NOT_REQUESTED",
    "AdHocStatus",
    "ExportStatus",
    "Gap",
    "JobPlan",
    "JobStatus",
    "OrgStatus",
    "Plan",
    "Status",
    "Windows",
    "dry_run",
    "read_status",
]
