"""Whether the figures of complete windows are stored, for ``check``."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import groupby

from service.config import Config, Org
from service.errors import DatabaseUnavailableError
from service.model import Finding, State
from service.postgres.probe import open_connection
from service.postgres.prune_dates import prune_dates
from service.postgres.queries.lost_figures import JobStart, LostMonth, lost_months
from service.postgres.windows import stream_of
from service.telemetry import counted

TIMEOUT = 60.0
"""Seconds for the counts of all orgs."""


async def figure_findings(dsn: str, config: Config, now: datetime) -> list[Finding]:
    """A finding for each org and granularity that lacks outcomes of complete windows; nothing where all is well.

    Raises:
        SchemaError: the schema cannot be read.
    """
    try:
        async with open_connection(dsn, "flow-outcomes check", timeout=TIMEOUT) as connection:
            pruned = await prune_dates(connection)
            jobs = [
                JobStart(org.name, stream_of(name), max(since, pruned.get(org.name, since)))
                for org in config.orgs.values()
                for name, job in config.jobs_of(org).items()
                if job.measure == "outcomes"
                for since in [job.since.resolve(now, org.tz)]
            ]
            lost = await lost_months(connection, jobs)
    except DatabaseUnavailableError as error:
        return [Finding("figures", State.SKIPPED, f"not compared with the ledger: {error}", "run the check again")]
    groups = groupby(lost, key=lambda month: (month.org, month.granularity))
    return [_finding(config.orgs[org], granularity, list(months)) for (org, granularity), months in groups]


def _finding(org: Org, granularity: str, months: list[LostMonth]) -> Finding:
    first = months[0].span_start.astimezone(org.tz).date()
    last_instant = max(month.span_end for month in months) - timedelta(microseconds=1)
    end = last_instant.astimezone(org.tz).date() + timedelta(days=1)
    windows = counted(sum(month.windows for month in months), "window")
    figures, rows = sum(month.figures for month in months), sum(month.rows for month in months)
    return Finding(
        f"{org.name} figures",
        State.FAILED,
        f"{windows} from {first} to {end} are complete in the ledger, and {figures} of their {rows} {granularity}"
        " figures are stored: a restore may have lost the rest",
        "restore the complete dump into an empty database (not with --data-only), or extract them again:"
        f" flow-outcomes backfill --org {org.name} --from {first} --to {end} --granularity {granularity}",
    )
