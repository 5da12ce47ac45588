"""What is complete, what is due and what a run would cost; reads only.

::

    status        the document behind ``status --json`` and ``/api/status``
    due_calendar  what each job has to have in each time zone
    dry_run       the document behind ``plan``
"""

from service.status.dry_run import JobPlan, Plan, dry_run
from service.status.status import (
    NEVER_ASKED,
    AdHocStanding,
    Gap,
    JobStanding,
    OrgStanding,
    Standing,
    Windows,
    standing,
)

__all__ = [
    "NEVER_ASKED",
    "AdHocStanding",
    "Gap",
    "JobPlan",
    "JobStanding",
    "OrgStanding",
    "Plan",
    "Standing",
    "Windows",
    "dry_run",
    "standing",
]
