"""The status of each org and job: the document behind ``status --json`` and ``/api/status``.

Windows that became due since the last cycle, or before the first one, are not in the ledger yet. So the due
windows are computed here, as a worker does, and compared with the ledger.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypedDict

from service.config import Config
from service.extraction import ad_hoc_windows, prune_problem
from service.model import Span, instant
from service.postgres.export import ExportState, read_state
from service.postgres.pool import Connection
from service.postgres.prune_dates import prune_dates
from service.postgres.queries import status as ledger
from service.postgres.queries.status import CompleteWithError, JobCounts, JobRange, OrgLeaseState, Unfinished
from service.postgres.windows import AD_HOC, stream_of
from service.status.due_calendar import CalendarKey, DueCalendar, due_calendars

NOT_REQUESTED = "not yet requested: "  # the start of the reason where the ledger does not have the window


class Gap(TypedDict):
    """A window that is due and not complete."""

    window_start: str
    window_end: str
    state: str
    reason: str


class Windows(TypedDict):
    """The number of windows in each state."""

    complete: int
    pending: int
    running: int
    failed: int


class JobStatus(TypedDict):
    """One job of one org.

    ``newest_complete`` is the end of the newest complete window. ``rejected`` counts rejected outcomes, and
    ``complete_with_error`` the complete windows whose later scan failed or is doubted.
    """

    windows: Windows
    newest_complete: str | None
    gaps: list[Gap]
    rejected: int
    complete_with_error: int


class RefusedEntry(TypedDict):
    """An ad hoc entry of the configuration that is not extracted."""

    name: str
    reason: str


class AdHocStatus(TypedDict):
    """The ad hoc windows of one org, and the entries that are refused."""

    windows: Windows
    gaps: list[Gap]
    refused: list[RefusedEntry]


class WindowError(TypedDict):
    """The error of a window that stays complete; ``job`` is None for an ad hoc one."""

    job: str | None
    window_start: str
    window_end: str
    reason: str


class OrgStatus(TypedDict):
    """One org.

    ``owner`` is None where no process holds the org. ``paused_for`` is the rest of the pause after a 429, in
    seconds. ``restated_last_day`` counts the figures that were restated within 24 hours. ``pruned_before`` is None
    where no month was removed.
    """

    breaker: str
    breaker_until: str | None
    owner: str | None
    owner_since: str | None
    paused_for: float
    pruned_before: str | None
    jobs: dict[str, JobStatus]
    ad_hoc: AdHocStatus
    restated_last_day: int
    last_errors: list[WindowError]


class ExportStatus(TypedDict):
    """The last export to the warehouse.

    ``exported_at`` is the time of the newest database snapshot that the warehouse holds. ``failed_at`` is None
    where the last export succeeded. ``owner`` is the process that exports now.
    """

    warehouse: str
    export: int | None
    exported_at: str | None
    failed_at: str | None
    last_error: str | None
    owner: str | None


class Status(TypedDict):
    """The document; ``export`` is None where no warehouse is configured."""

    at: str
    orgs: dict[str, OrgStatus]
    export: ExportStatus | None


@dataclass
class _LedgerState:
    """The rows of the ledger and the leases; by org, or by org and stream."""

    counts: dict[tuple[str, str], JobCounts]
    unfinished: dict[tuple[str, str], list[Unfinished]]
    ad_hoc: dict[str, dict[str, int]]
    leases: dict[str, OrgLeaseState]
    restated: dict[str, int]
    export: ExportState | None
    pruned: dict[str, datetime]
    refused: dict[str, list[RefusedEntry]]
    missing: dict[tuple[str, str], list[Span]] = field(default_factory=dict)
    last_errors: dict[str, list[CompleteWithError]] = field(default_factory=dict)


async def read_status(connection: Connection, config: Config, now: datetime) -> Status:
    """The status of every configured org and job, also before the first run.

    Args:
        connection: the database; only read.
        config: the orgs and jobs.
        now: the time that decides what is due.

    Raises:
        DatabaseUnavailableError, SchemaError: as ``open_connection``.
    """
    async with ledger.snapshot(connection):
        pruned = await prune_dates(connection)
        calendars = await asyncio.to_thread(due_calendars, config, now, pruned)
        state = await _read_ledger(connection, config, calendars, pruned, now)
    return await asyncio.to_thread(_compose, config, calendars, state, now)


async def _read_ledger(
    connection: Connection,
    config: Config,
    calendars: dict[CalendarKey, DueCalendar],
    pruned: dict[str, datetime],
    now: datetime,
) -> _LedgerState:
    orgs = list(config.orgs)
    jobs = {
        JobRange(org.name, stream_of(job.name, job.measure), job.granularity, calendar.span): calendar
        for job in config.jobs.values()
        for org in config.orgs_of(job.name)
        for calendar in [calendars[CalendarKey(job.name, org.timezone, org.api, pruned.get(org.name))]]
    }
    unfinished: dict[tuple[str, str], list[Unfinished]] = defaultdict(list)
    for window in await ledger.unfinished(connection, orgs):
        unfinished[window.org, window.stream].append(window)
    state = _LedgerState(
        counts=await ledger.job_counts(connection, list(jobs)),
        unfinished=unfinished,
        ad_hoc=await ledger.ad_hoc_counts(connection, orgs),
        leases=await ledger.leases(connection, orgs),
        restated=await ledger.restated_last_day(connection, orgs),
        export=None if config.export is None else await read_state(connection),
        pruned=pruned,
        refused=await _refused(connection, config, pruned, now),
    )
    for job, calendar in jobs.items():
        counts = state.counts.get((job.org, job.stream), ledger.NO_WINDOWS)
        if missing := await _missing(connection, job, counts, calendar):
            state.missing[job.org, job.stream] = missing
    if any(counts.complete_with_error for counts in state.counts.values()):
        state.last_errors = await ledger.last_errors(connection, orgs)
    return state


async def _refused(
    connection: Connection, config: Config, pruned: dict[str, datetime], now: datetime
) -> dict[str, list[RefusedEntry]]:
    """The ad hoc entries that start before their org's prune date; not those that were extracted before it."""
    refused: dict[str, list[RefusedEntry]] = defaultdict(list)
    entries = {name: entry for name, entry in config.ad_hoc.items() if entry.org in pruned}
    requested = await ledger.requested_entries(connection, list(pruned)) if entries else set()
    for name, entry in entries.items():
        org = config.orgs[entry.org]
        problem = prune_problem(org, ad_hoc_windows(org, entry, now), pruned[org.name])
        if problem is not None and (org.name, name, entry.content_hash) not in requested:
            refused[org.name].append(RefusedEntry(name=name, reason=problem))
    return refused


async def _missing(connection: Connection, job: JobRange, counts: JobCounts, calendar: DueCalendar) -> list[Span]:
    """The job's windows that the ledger does not have; only days whose sums differ are compared one by one."""
    if counts.listed == len(calendar.spans) and (counts.starts, counts.ends) == calendar.edges:
        return []
    if not counts.listed:
        return list(calendar.spans)
    listed = await ledger.sums_by_day(connection, job)
    days = {day for day, sums in calendar.days.items() if listed.get(day) != sums}
    return await ledger.missing(connection, job, [span for span in calendar.spans if span.start.date() in days])


def _compose(
    config: Config, calendars: dict[CalendarKey, DueCalendar], state: _LedgerState, now: datetime
) -> Status:
    orgs: dict[str, OrgStatus] = {}
    for org in config.orgs.values():
        lease = state.leases.get(org.name, ledger.NO_LEASE)
        reason = _pending_reason(lease)
        orgs[org.name] = OrgStatus(
            breaker=lease.breaker,
            breaker_until=None if lease.breaker_until is None else instant(lease.breaker_until),
            owner=lease.owner,
            owner_since=None if lease.since is None else instant(lease.since),
            paused_for=round(lease.paused_for, 1),
            pruned_before=instant(state.pruned[org.name]) if org.name in state.pruned else None,
            jobs={
                job.name: _job(
                    org.name,
                    calendars[CalendarKey(job.name, org.timezone, org.api, state.pruned.get(org.name))],
                    state,
                    reason,
                )
                for job in config.jobs.values()
                if not job.orgs or org.name in job.orgs
            },
            ad_hoc=_ad_hoc(org.name, state, reason),
            restated_last_day=state.restated.get(org.name, 0),
            last_errors=[
                WindowError(
                    job=error.job,
                    window_start=instant(error.window_start),
                    window_end=instant(error.window_end),
                    reason=error.last_error,
                )
                for error in state.last_errors.get(org.name, [])
            ],
        )
    return Status(at=instant(now), orgs=orgs, export=_export(config, state.export))


def _export(config: Config, state: ExportState | None) -> ExportStatus | None:
    if config.export is None or state is None:
        return None
    if state.target != config.export.target:
        state = state._replace(number=None, exported_at=None)  # of another warehouse
    return ExportStatus(
        warehouse=config.export.warehouse,
        export=state.number,
        exported_at=None if state.exported_at is None else instant(state.exported_at),
        failed_at=None if state.failed_at is None else instant(state.failed_at),
        last_error=state.last_error,
        owner=state.owner,
    )


def _job(org: str, calendar: DueCalendar, state: _LedgerState, pending_reason: str) -> JobStatus:
    key = org, stream_of(calendar.job.name, calendar.job.measure)
    counts = state.counts.get(key, ledger.NO_WINDOWS)
    windows = _no_windows()
    windows["complete"] = counts.complete
    last_due = calendar.last_due
    gaps: list[tuple[Span, Gap]] = []
    for window in state.unfinished.get(key, []):
        if window.requested != calendar.job.granularity or window.span not in calendar.span_set:
            continue  # of an earlier configuration: the next cycle deletes it
        _count(windows, window.state)
        if last_due is not None and window.span <= last_due:
            gaps.append((window.span, _gap(window.span, window.state, _reason(window, pending_reason))))
    for span in state.missing.get(key, []):
        _count(windows, "pending")
        if last_due is not None and span <= last_due:
            gaps.append((span, _gap(span, "pending", f"{NOT_REQUESTED}{pending_reason}")))
    return JobStatus(
        windows=windows,
        newest_complete=None if counts.newest is None else instant(counts.newest),
        gaps=[gap for _, gap in sorted(gaps, key=lambda each: each[0])],
        rejected=counts.rejected,
        complete_with_error=counts.complete_with_error,
    )


def _ad_hoc(org: str, state: _LedgerState, pending_reason: str) -> AdHocStatus:
    windows = _no_windows()
    for name, count in state.ad_hoc.get(org, {}).items():
        _count(windows, name, count)
    gaps = [
        _gap(window.span, window.state, _reason(window, pending_reason))
        for window in state.unfinished.get((org, AD_HOC), [])
    ]
    return AdHocStatus(windows=windows, gaps=gaps, refused=state.refused.get(org, []))


def _no_windows() -> Windows:
    return Windows(complete=0, pending=0, running=0, failed=0)


def _count(windows: Windows, state: str, by: int = 1) -> None:
    match state:
        case "complete" | "pending" | "running" | "failed":
            windows[state] += by


def _gap(span: Span, state: str, reason: str) -> Gap:
    return Gap(window_start=instant(span.start), window_end=instant(span.end), state=state, reason=reason)


def _reason(window: Unfinished, pending_reason: str) -> str:
    return window.last_error or ("being extracted" if window.state == "running" else pending_reason)


def _pending_reason(lease: OrgLeaseState) -> str:
    """Why an org's due windows are pending that have no error of their own."""
    if lease.owner is None:
        return "no daemon currently holds this org"
    if lease.breaker != "closed":
        return f"the org's breaker is {lease.breaker}"
    if lease.paused_for:
        return "rate-limited by the API"
    return "due, not extracted yet"
