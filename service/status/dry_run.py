"""A dry run: what every job would ask for now, and what that would cost. Asks nothing and writes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TypedDict

from service.config import Config, Job, Org
from service.extraction import (
    AD_HOC_POLICY,
    ad_hoc_windows,
    due_spans,
    due_window,
    known_windows,
    window_states,
)
from service.model import Span, Window, instant
from service.plan import selection
from service.plan.forecast import DEFAULT_ENTRIES, Cost, by_granularity, cost, seconds
from service.plan.grouping import MetricsDelay, OrgSettings
from service.postgres.pool import Database
from service.postgres.windows import AD_HOC, Ledger, LedgerWindow, work_of

_NOBODY = -1  # an epoch that no owner has: with it a ledger only reads


class JobPlan(TypedDict):
    """What one job, or ad hoc work, would ask for now.

    ``windows`` are of three kinds: ``new`` ones within the lookback that are not stored, ``lookback`` ones that
    are stored and read again, and a ``backlog`` before them. ``begins`` is when the off-peak hours let it begin.
    ``guess`` says that no answer was ever read, so that ``entries_per_bucket`` is a guess.
    """

    windows: int
    new: int
    lookback: int
    backlog: int
    first: str | None
    last: str | None
    begins: str
    scans: int
    queries: int
    pages: int
    entries_per_bucket: float
    guess: bool


class OrgPlan(TypedDict):
    """One org; its token is one more request."""

    jobs: dict[str, JobPlan]
    ad_hoc: JobPlan
    requests: int
    requests_per_second: float
    seconds: float


class Plan(TypedDict):
    """The whole dry run; ``ledger`` says whether the database could be read."""

    at: str
    ledger: bool
    orgs: dict[str, OrgPlan]


async def dry_run(config: Config, database: Database | None, now: datetime) -> Plan:
    """What would be asked now, the lookback taken along, as with ``--once``.

    Args:
        config: what is owed.
        database: where the ledger is; None where it cannot be read, and then nothing counts as stored.
        now: the time.

    Raises:
        DatabaseUnavailableError: it went away.
    """
    orgs = {}
    for org in config.orgs.values():
        ledger = None if database is None else Ledger(database, org.name, _NOBODY)
        jobs = {
            job.name: await _job(org, job, ledger, now)
            for job in config.jobs.values()
            if not job.orgs or org.name in job.orgs
        }
        by_hand = await _by_hand(config, org, ledger, now)
        pages = sum(each["pages"] for each in (*jobs.values(), by_hand))
        requests = pages + 1 if pages else 0
        orgs[org.name] = OrgPlan(
            jobs=jobs,
            ad_hoc=by_hand,
            requests=requests,
            requests_per_second=org.requests_per_second,
            seconds=round(seconds(requests, org.requests_per_second), 1),
        )
    return Plan(at=instant(now), ledger=database is not None, orgs=orgs)


async def _job(org: Org, job: Job, ledger: Ledger | None, now: datetime) -> JobPlan:
    listed = [] if ledger is None else await ledger.windows(work_of(job.name))
    known = known_windows(job, listed)
    spans = due_spans(org, job, now)
    standing = window_states(known, org.flows)
    taken = selection.select(spans, standing, job.lookback, org.tz, with_lookback=True)
    windows = [known[span].window if span in known else due_window(org, job, span) for span in taken.in_order()]
    alone = [span for span, each in known.items() if each.ask_alone]
    stored = sum(1 for span in taken.recent if span in standing and not standing[span].needs_work)
    begins = now if job.off_peak is None else job.off_peak.next_open(now)
    return await _plan(
        org, windows, ledger, now, alone, (job.delay, job.metrics_delay), begins, stored, len(taken.backlog)
    )


async def _by_hand(config: Config, org: Org, ledger: Ledger | None, now: datetime) -> JobPlan:
    listed: list[LedgerWindow] = [] if ledger is None else await ledger.windows(AD_HOC)
    found = [each.window for each in listed if not each.settled(org.flows) or each.doubted]
    for name, entry in config.ad_hoc.items():
        if entry.org == org.name and (ledger is None or not await ledger.entry_known(name, entry.content_hash)):
            found += [window for window in ad_hoc_windows(org, entry, now).windows if window not in found]
    alone = [each.window.span for each in listed if each.ask_alone]
    return await _plan(
        org, found, ledger, now, alone, (AD_HOC_POLICY.delay, AD_HOC_POLICY.metrics_delay), now, 0, 0
    )


async def _plan(
    org: Org,
    windows: Sequence[Window],
    ledger: Ledger | None,
    now: datetime,
    alone: Sequence[Span],
    delay: tuple[timedelta, MetricsDelay],
    begins: datetime,
    stored: int,
    backlog: int,
) -> JobPlan:
    settings = OrgSettings(org.name, org.timezone, org.flows, org.page_size, org.concurrency)
    total, most, guess = Cost(), 0.0, False
    for step, group in by_granularity(windows).items():
        read = None
        if ledger is not None:
            read = await ledger.entries_per_bucket(group[0].stream, step, step.bucket_length.total_seconds())
        guess = guess or read is None
        entries = max(read, 1.0) if read is not None else float(len(org.flows) or DEFAULT_ENTRIES)
        most = max(most, entries)
        total += cost(
            group,
            settings,
            entries_per_bucket=entries,
            delay=delay[0],
            metrics_delay=delay[1],
            now=now,
            isolated=alone,
        )
    return JobPlan(
        windows=len(windows),
        new=len(windows) - stored - backlog,
        lookback=stored,
        backlog=backlog,
        first=instant(min(each.span.start for each in windows)) if windows else None,
        last=instant(max(each.span.end for each in windows)) if windows else None,
        begins=instant(begins),
        scans=total.scans,
        queries=total.queries,
        pages=total.pages,
        entries_per_bucket=round(most, 1),
        guess=guess,
    )
