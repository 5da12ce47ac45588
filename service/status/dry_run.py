"""The dry run behind ``plan``: what each job would request now, and the cost. Sends and writes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TypedDict

from service.config import Config, Job, Org
from service.extraction import (
    AD_HOC_POLICY,
    CyclePolicy,
    ad_hoc_windows,
    deep_spans,
    due_spans,
    due_window,
    known_windows,
    next_pass,
    prune_problem,
    window_states,
)
from service.model import Span, Window, instant
from service.plan import selection
from service.plan.forecast import DEFAULT_ENTRIES, Cost, by_kind, cost, seconds
from service.plan.grouping import OrgSettings
from service.plan.narrowing import known_width
from service.plan.retention import jobs_before_limit
from service.postgres.merge import Retention
from service.postgres.pool import Database
from service.postgres.prune_dates import current_prune_date
from service.postgres.retention import stored_retention_days
from service.postgres.windows import AD_HOC, DeepPasses, Ledger, LedgerWindow, stream_of

_NO_EPOCH = -1  # an epoch that no owner has: its ledger cannot write


class JobPlan(TypedDict):
    """What one job, or the ad hoc windows of an org, would request now.

    ``windows`` is the sum of four kinds: ``new`` ones within the lookback that are not stored, ``lookback`` ones
    that are stored and extracted again, a ``backlog`` before them, and ``deep_lookback`` ones before them that are
    extracted again as the deep lookback is due. ``deep_lookback_at`` says when it is due. ``begins`` is the start
    of the off-peak hours, or now. ``guess`` is true where ``entries_per_bucket`` is a default, before the first
    response.
    """

    windows: int
    new: int
    lookback: int
    backlog: int
    deep_lookback: int
    deep_lookback_at: str | None
    first: str | None
    last: str | None
    begins: str
    scans: int
    queries: int
    pages: int
    entries_per_bucket: float
    guess: bool


class OrgPlan(TypedDict):
    """One org; ``requests`` includes the one for a token, ``seconds`` is the time that they take at the limit.

    ``warnings`` has the jobs that begin before the limit of the org's retention, as far as that is known.
    """

    jobs: dict[str, JobPlan]
    ad_hoc: JobPlan
    warnings: list[str]
    requests: int
    requests_per_second: float
    seconds: float


class Plan(TypedDict):
    """The document; ``ledger`` is false where the database could not be read."""

    at: str
    ledger: bool
    orgs: dict[str, OrgPlan]


async def dry_run(config: Config, database: Database | None, now: datetime) -> Plan:
    """What ``run --once`` would request now, including the lookback.

    Args:
        config: the orgs and jobs.
        database: the pool; None where the database cannot be read: then nothing counts as stored.
        now: the time that decides what is due.

    Raises:
        DatabaseUnavailableError: the database became unavailable.
    """
    orgs = {}
    for org in config.orgs.values():
        ledger = None if database is None else Ledger(database, org.name, _NO_EPOCH)
        jobs = {job.name: await _job(org, job, ledger, database, now) for job in config.jobs_of(org).values()}
        ad_hoc = await _ad_hoc(config, org, ledger, database, now)
        pages = sum(each["pages"] for each in (*jobs.values(), ad_hoc))
        requests = pages + 1 if pages else 0
        orgs[org.name] = OrgPlan(
            jobs=jobs,
            ad_hoc=ad_hoc,
            warnings=await _warnings(config, org, database, now),
            requests=requests,
            requests_per_second=org.requests_per_second,
            seconds=round(seconds(requests, org.requests_per_second), 1),
        )
    return Plan(at=instant(now), ledger=database is not None, orgs=orgs)


async def _warnings(config: Config, org: Org, database: Database | None, now: datetime) -> list[str]:
    kept = await _kept(org, database)
    return [] if kept is None else jobs_before_limit(org, config.jobs_of(org).values(), kept, now)


async def _kept(org: Org, database: Database | None) -> timedelta | None:
    """How long the org keeps its data, as far as it is known without its API."""
    if org.retention is not None or database is None or org.api != "flow-aggregates":
        return org.retention
    days = await stored_retention_days(database, org.name)
    return None if days is None else timedelta(days=days)


async def _job(org: Org, job: Job, ledger: Ledger | None, database: Database | None, now: datetime) -> JobPlan:
    listed = [] if ledger is None else await ledger.windows(stream_of(job.name, job.measure))
    known = known_windows(job, listed)
    pruned_before = None if database is None else await current_prune_date(database, org.name)
    spans = due_spans(org, job, now, pruned_before)
    states = window_states(known, org.flows)
    deep, deep_at = await _deep_lookback(org, job, spans, database, now)
    deep -= {span for span in deep if states[span].needs_work}
    selected = selection.select(spans, states, job.lookback, org.tz, with_lookback=True, deep=deep)
    windows = [known[span].window if span in known else due_window(org, job, span) for span in selected.in_order()]
    isolated = [span for span, each in known.items() if each.isolated]
    stored = sum(1 for span in selected.recent if span in states and not states[span].needs_work)
    begins = now if job.off_peak is None else job.off_peak.next_open(now)
    plan = await _plan(
        org, windows, ledger, now, isolated, CyclePolicy.of(job), begins, stored, len(selected.backlog) - len(deep)
    )
    plan["deep_lookback"] = len(deep)
    plan["new"] -= len(deep)
    plan["deep_lookback_at"] = None if deep_at is None else instant(deep_at)
    return plan


async def _deep_lookback(
    org: Org, job: Job, spans: Sequence[Span], database: Database | None, now: datetime
) -> tuple[set[Span], datetime | None]:
    """The stored windows that the deep lookback would extract now, and when it is due."""
    if database is None or job.deep_lookback is None:
        return set(), None
    passes = DeepPasses(database, org.name, _NO_EPOCH)
    state = await passes.read(stream_of(job.name, job.measure))
    at = next_pass(job, state)
    if at is None or (now < at and state.from_scan is None):
        return set(), at
    kept = await _kept(org, database)
    retention = None if org.api == "query-builder" else Retention(kept)
    deep = set(deep_spans(org, job, spans, retention, now))
    if state.from_scan is not None:
        deep &= await passes.remaining(stream_of(job.name, job.measure))
    return deep, at


async def _ad_hoc(
    config: Config, org: Org, ledger: Ledger | None, database: Database | None, now: datetime
) -> JobPlan:
    listed: list[LedgerWindow] = [] if ledger is None else await ledger.windows(AD_HOC)
    pruned_before = None if database is None else await current_prune_date(database, org.name)
    windows = [each.window for each in listed if not each.settled(org.flows) or each.doubted]
    if pruned_before is not None:
        windows = [window for window in windows if window.span.start >= pruned_before]
    for name, entry in config.ad_hoc.items():
        if entry.org == org.name and (ledger is None or not await ledger.has_entry(name, entry.content_hash)):
            planned = ad_hoc_windows(org, entry, now)
            if prune_problem(org, planned, pruned_before) is None:
                windows += [window for window in planned.windows if window not in windows]
    isolated = [each.window.span for each in listed if each.isolated]
    return await _plan(org, windows, ledger, now, isolated, AD_HOC_POLICY, now, 0, 0)


async def _plan(
    org: Org,
    windows: Sequence[Window],
    ledger: Ledger | None,
    now: datetime,
    isolated: Sequence[Span],
    policy: CyclePolicy,
    begins: datetime,
    stored: int,
    backlog: int,
) -> JobPlan:
    settings = OrgSettings(
        org.name, org.timezone, org.flows, org.page_size, org.concurrency, org.response_entries_max
    )
    total, most, guess = Cost(), 0.0, False
    widths = {} if ledger is None else await ledger.splits(org.api).widths()
    for (step, measure), group in by_kind(windows).items():
        read = None
        if ledger is not None:
            read = await ledger.entries_per_bucket(
                group[0].stream, step, step.bucket_length.total_seconds(), measure
            )
        guess = guess or read is None
        entries = max(read, 1.0) if read is not None else float(len(org.flows) or DEFAULT_ENTRIES)
        most = max(most, entries)
        total += cost(
            group,
            settings,
            entries_per_bucket=entries,
            delay=policy.delay,
            metrics_delay=policy.metrics_delay,
            now=now,
            isolated=isolated,
            widest=min(
                filter(None, (known_width(widths.get(step)), settings.most_buckets(entries))), default=None
            ),
        )
    return JobPlan(
        windows=len(windows),
        new=len(windows) - stored - backlog,
        lookback=stored,
        backlog=backlog,
        deep_lookback=0,
        deep_lookback_at=None,
        first=instant(min(each.span.start for each in windows)) if windows else None,
        last=instant(max(each.span.end for each in windows)) if windows else None,
        begins=instant(begins),
        scans=total.scans,
        queries=total.queries,
        pages=total.pages,
        entries_per_bucket=round(most, 1),
        guess=guess,
    )
