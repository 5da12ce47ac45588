"""Which jobs begin before the end of an org's retention."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from service.config import Job, Org
from service.model import instant


def jobs_before_limit(org: Org, jobs: Iterable[Job], kept: timedelta, now: datetime) -> list[str]:
    """A sentence for each job whose ``since`` lies before the limit of the org's retention.

    Args:
        org: whose jobs.
        jobs: its jobs.
        kept: how long the org keeps its data.
        now: the time from which the limit counts back.
    """
    limit = now - kept
    return [
        f"job {job.name} begins at {instant(since)}, before {instant(limit)}, the limit of the org's retention"
        for job in jobs
        if (since := job.since.resolve(now, org.tz)) < limit
    ]
