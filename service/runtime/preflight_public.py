"""Checks of an org on the flow-aggregates API beyond its query: how long it keeps its data."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import NamedTuple

from service.config import Job, Org
from service.errors import ExtractionError
from service.genesys import RETENTION_PERMISSION, GenesysClient, read_retention_days
from service.plan.retention import jobs_before_limit
from service.telemetry import counted


class Remark(NamedTuple):
    """The result of one check that never fails: a warning where it has a fix.

    Attributes:
        subject: what was checked.
        detail: what was found.
        fix: what to do about it; empty where nothing is to be done.
    """

    subject: str
    detail: str
    fix: str = ""


async def check_retention(org: Org, jobs: Collection[Job], client: GenesysClient, now: datetime) -> Remark:
    """How long the org keeps its data, and which jobs begin before that."""
    if org.retention is not None:
        kept, source = org.retention, f"orgs.{org.name}.retention"
    else:
        try:
            kept, source = timedelta(days=await read_retention_days(client.call)), "the API"
        except ExtractionError as error:
            fix = f"give the OAuth client's role {RETENTION_PERMISSION}, or set orgs.{org.name}.retention"
            return Remark("retention", f"not known: {error}", fix)
    detail = f"data is kept for {counted(kept.days, 'day')}, says {source}"
    if early := jobs_before_limit(org, jobs, kept, now):
        fix = "set since to a later time: what lies before the limit comes back in part, or not at all"
        return Remark("retention", "; ".join([detail, *early]), fix)
    return Remark("retention", detail)
