"""How it stands, per org and job: the document that ``status --json`` and ``/api/status`` give.

The ledger may not list what fell due since the last cycle, or before the first one. So what is owed is reckoned
here, as a worker would, and held against it.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypedDict

from service.config import Config
from service.model import Span, instant
from service.postgres.pool import Connection
from service.postgres.queries import status as ledger
from service.postgres.queries.status import JobCounts, JobRange, OrgLeaseState, Unfinished
from service.postgres.windows import AD_HOC, work_of
from service.status.due_calendar import Due, Key, dues

NEVER_ASKED = "never asked for: "  # what a reason begins with where the ledger does not list the window
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Gap(TypedDict):
    """A window that is due and not complete."""

    window_start: str
    window_end: str
    state: str
    reason: str


class Windows(TypedDict):
    """Windows by state."""

    complete: int
    pending: int
    running: int
    failed: int


class JobStatus(TypedDict):
    """One job of one org; ``newest_complete`` is the end of the newest complete window."""

    windows: Windows
    newest_complete: str | None
    gaps: list[Gap]
    rejected: int
    troubled: int


class AdHocStatus(TypedDict):
    """What was asked for by hand."""

    windows: Windows
    gaps: list[Gap]


class WindowError(TypedDict):
    """An error of a window that stays complete."""

    job: str | None
    window_start: str
    window_end: str
    reason: str


class OrgStatus(TypedDict):
    """One org; ``owner`` is None where no process holds it."""

    breaker: str
    breaker_until: str | None
    owner: str | None
    owner_since: str | None
    held_for: float
    jobs: dict[str, JobStatus]
    ad_hoc: AdHocStatus
    restated_lately: int
    last_errors: list[WindowError]


class Status(TypedDict):
    """The whole document."""

    at: str
    orgs: dict[str, OrgStatus]


@dataclass
class _Found:
    """What the database said."""

    counted: dict[tuple[str, str], JobCounts]
    unfinished: dict[tuple[str, str], list[Unfinished]]
    ad_hoc: dict[str, dict[str, int]]
    holds: dict[str, OrgLeaseState]
    restated: dict[str, int]
    unlisted: dict[tuple[str, str], list[Span]] = field(default_factory=dict)
    last_errors: dict[str, list[WindowError]] = field(default_factory=dict)


async def read_status(connection: Connection, config: Config, now: datetime) -> Status:
    """How every configured org and job stands, also where nothing ever ran.

    Args:
        connection: of the database; it is only read.
        config: what is owed.
        now: the time by which it is.

    Raises:
        DatabaseUnavailableError, SchemaError: as the connection says.
    """
    calendars = await asyncio.to_thread(dues, config, now)
    async with ledger.snapshot(connection):
        found = await _ask(connection, config, calendars)
    return await asyncio.to_thread(_compose, config, calendars, found, now)


async def _ask(connection: Connection, config: Config, calendars: dict[Key, Due]) -> _Found:
    orgs = list(config.orgs)
    owed = [
        JobRange(org.name, work_of(job.name), job.granularity, _whole(calendars[Key(job.name, org.timezone)]))
        for job in config.jobs.values()
        for org in config.orgs_of(job.name)
    ]
    unfinished: dict[tuple[str, str], list[Unfinished]] = defaultdict(list)
    for window in await ledger.unfinished(connection, orgs):
        unfinished[window.org, window.work].append(window)
    found = _Found(
        counted=await ledger.counted(connection, owed),
        unfinished=unfinished,
        ad_hoc=await ledger.ad_hoc(connection, orgs),
        holds=await ledger.holds(connection, orgs),
        restated=await ledger.restated(connection, orgs),
    )
    for key, calendar in calendars.items():
        await _ask_unlisted(connection, config, key, calendar, found)
    if any(each.troubled for each in found.counted.values()):
        for org, errors in (await ledger.last_errors(connection, orgs)).items():
            found.last_errors[org] = [
                WindowError(
                    job=each.job,
                    window_start=instant(each.span.start),
                    window_end=instant(each.span.end),
                    reason=each.reason,
                )
                for each in errors
            ]
    return found


async def _ask_unlisted(connection: Connection, config: Config, key: Key, calendar: Due, found: _Found) -> None:
    """Look for owed windows that the ledger does not list: where its sums say so, and there on which days."""
    work, requested, whole = work_of(key.job), calendar.job.granularity, _whole(calendar)
    for org in config.orgs_of(key.job):
        counted = found.counted.get((org.name, work), ledger.NOTHING)
        if org.timezone != key.timezone or (counted.listed, counted.edges) == (
            len(calendar.spans),
            calendar.edges,
        ):
            continue
        if not counted.listed:
            found.unlisted[org.name, work] = list(calendar.spans)
            continue
        days = await ledger.listed(connection, org.name, work, requested, whole)
        odd = {day for day, sums in calendar.days.items() if days.get(day) != sums}
        spans = [span for span in calendar.spans if span.start.date() in odd]
        unlisted = await ledger.unlisted(connection, [org.name], work, requested, spans)
        found.unlisted[org.name, work] = [span for _, span in unlisted]


def _whole(calendar: Due) -> Span:
    """From the first owed window's start to the last one's end; empty where none is owed."""
    spans = calendar.spans or [Span(_EPOCH, _EPOCH)]
    return Span(spans[0].start, spans[-1].end)


def _compose(config: Config, calendars: dict[Key, Due], found: _Found, now: datetime) -> Status:
    orgs: dict[str, OrgStatus] = {}
    for org in config.orgs.values():
        hold = found.holds.get(org.name, ledger.NO_HOLD)
        why = _why_not_yet(hold)
        orgs[org.name] = OrgStatus(
            breaker=hold.breaker,
            breaker_until=None if hold.breaker_until is None else instant(hold.breaker_until),
            owner=hold.owner,
            owner_since=None if hold.since is None else instant(hold.since),
            held_for=round(hold.held_for, 1),
            jobs={
                job.name: _job(org.name, calendars[Key(job.name, org.timezone)], found, why)
                for job in config.jobs.values()
                if not job.orgs or org.name in job.orgs
            },
            ad_hoc=_by_hand(org.name, found, why),
            restated_lately=found.restated.get(org.name, 0),
            last_errors=found.last_errors.get(org.name, []),
        )
    return Status(at=instant(now), orgs=orgs)


def _job(org: str, calendar: Due, found: _Found, why: str) -> JobStatus:
    key = org, work_of(calendar.job.name)
    counted = found.counted.get(key, ledger.NOTHING)
    states = _none()
    states["complete"] = counted.complete
    owed, last_due = calendar.known, calendar.spans[calendar.due - 1] if calendar.due else None
    gaps: list[tuple[Span, Gap]] = []
    for window in found.unfinished.get(key, []):
        if window.requested != calendar.job.granularity or window.span not in owed:
            continue  # of a former configuration: the next cycle takes it out
        _count(states, window.state)
        if last_due is not None and window.span <= last_due:
            gaps.append((window.span, _gap(window.span, window.state, _reason(window, why))))
    for span in found.unlisted.get(key, []):
        _count(states, "pending")
        if last_due is not None and span <= last_due:
            gaps.append((span, _gap(span, "pending", f"{NEVER_ASKED}{why}")))
    return JobStatus(
        windows=states,
        newest_complete=None if counted.newest is None else instant(counted.newest),
        gaps=[gap for _, gap in sorted(gaps, key=lambda each: each[0])],
        rejected=counted.rejected,
        troubled=counted.troubled,
    )


def _by_hand(org: str, found: _Found, why: str) -> AdHocStatus:
    states = _none()
    for state, count in found.ad_hoc.get(org, {}).items():
        _count(states, state, count)
    gaps = [_gap(each.span, each.state, _reason(each, why)) for each in found.unfinished.get((org, AD_HOC), [])]
    return AdHocStatus(windows=states, gaps=gaps)


def _none() -> Windows:
    return Windows(complete=0, pending=0, running=0, failed=0)


def _count(states: Windows, state: str, by: int = 1) -> None:
    match state:
        case "complete" | "pending" | "running" | "failed":
            states[state] += by


def _gap(span: Span, state: str, reason: str) -> Gap:
    return Gap(window_start=instant(span.start), window_end=instant(span.end), state=state, reason=reason)


def _reason(window: Unfinished, why: str) -> str:
    return window.last_error or ("being extracted" if window.state == "running" else why)


def _why_not_yet(hold: OrgLeaseState) -> str:
    """What keeps an org's due windows waiting that have no error of their own."""
    if hold.owner is None:
        return "not extracted yet: no process works the org"
    if hold.breaker != "closed":
        return f"not extracted yet: the org's breaker is {hold.breaker}"
    if hold.held_for:
        return "not extracted yet: the API asked to wait"
    return "due, and not extracted yet"
