"""The overview: limits in use, queues, circuit breakers, progress, gaps and warnings."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry

from service.clock import Clock
from service.config import Config
from service.postgres.queries.dashboard import Pace
from service.postgres.windows import AD_HOC, stream_of
from service.status import NOT_REQUESTED, AdHocStatus, Gap, JobStatus, OrgStatus, Status
from service.telemetry import Warned
from service.web.daemon_view import Load

MAX_GAPS = 40
MAX_WARNINGS = 12
RATE_PERIOD = 15.0
"""Seconds over which requests a second are averaged."""
_REQUESTS = "flow_outcomes_request_duration_seconds_count"

Document = dict[str, Any]


class RequestRates:
    """Requests a second that this process sends for each org, from its metrics.

    Args:
        registry: the process's metrics.
        clock: measures the time between two readings.
    """

    def __init__(self, registry: CollectorRegistry, clock: Clock) -> None:
        self._registry = registry
        self._clock = clock
        self._samples: deque[tuple[float, dict[str, float]]] = deque()

    def measure(self, orgs: Iterable[str]) -> dict[str, float | None]:
        """Requests a second since the reading ``RATE_PERIOD`` ago; None less than a second after the first."""
        now = self._clock.monotonic()
        counts = {org: self._registry.get_sample_value(_REQUESTS, {"org": org}) or 0.0 for org in orgs}
        while self._samples and now - self._samples[0][0] > RATE_PERIOD:
            self._samples.popleft()
        self._samples.append((now, counts))
        then, before = self._samples[0]
        if now - then < 1:
            return dict.fromkeys(counts)
        return {org: round((count - before.get(org, 0.0)) / (now - then), 2) for org, count in counts.items()}


class LocalState(NamedTuple):
    """State that only this process has."""

    load: Mapping[str, Load]
    rates: Mapping[str, float | None]
    warned: Sequence[Warned]


def overview(status: Status, config: Config, paces: Sequence[Pace], local: LocalState) -> Document:
    """The document of ``/api/now``."""
    rates = {(each.org, each.stream): each.windows / each.seconds for each in paces}
    orgs = {
        name: _org(name, org, config, rates, local) for name, org in status["orgs"].items() if name in config.orgs
    }
    works = [work for org in orgs.values() for work in (*org["jobs"].values(), org["ad_hoc"])]
    return {
        "at": status["at"],
        "orgs": orgs,
        "missing": sum(work["missing"] for work in works),
        "gaps": _gaps(status),
        "warnings": _warnings(local.warned),
    }


def _warnings(warned: Sequence[Warned]) -> list[Document]:
    """The last warning of each event, org and job, newest first, with how many were kept."""
    last: dict[tuple[str, str | None, str | None], Document] = {}
    for each in reversed(warned):
        warning = last.setdefault((each.event, each.org, each.job), {**each._asdict(), "times": 0})
        warning["times"] += 1
    return list(last.values())[:MAX_WARNINGS]


def _org(
    name: str, org: OrgStatus, config: Config, rates: Mapping[tuple[str, str], float], local: LocalState
) -> Document:
    load = local.load.get(name)
    jobs = {
        job: _progress(each, rates.get((name, stream_of(job, config.jobs[job].measure)))) | _newest(each)
        for job, each in org["jobs"].items()
    }
    return {
        "timezone": config.orgs[name].timezone,
        "owner": org["owner"],
        "held_here": load is not None,
        "breaker": org["breaker"],
        "breaker_until": org["breaker_until"],
        "paused_for": org["paused_for"],
        "limit": config.orgs[name].requests_per_second,
        "rate": local.rates.get(name) if load is not None else None,
        "in_flight": load.in_flight if load else None,
        "waiting": load.waiting if load else None,
        "restated_last_day": org["restated_last_day"],
        "jobs": jobs,
        "ad_hoc": _progress(org["ad_hoc"], rates.get((name, AD_HOC))),
    }


def _progress(work: JobStatus | AdHocStatus, rate: float | None) -> Document:
    """Progress of a job or of ad hoc work; ``rate`` is in windows a second."""
    counts, gaps = work["windows"], work["gaps"]
    remaining = sum(gap["state"] != "failed" for gap in gaps)
    return {
        "windows": counts,
        "missing": len(gaps),
        "remaining": remaining,
        "complete": counts["complete"],
        "due": counts["complete"] + len(gaps),
        "per_minute": None if rate is None else round(rate * 60, 1),
        "seconds_left": None if not remaining or not rate else round(remaining / rate),
    }


def _newest(job: JobStatus) -> Document:
    return {
        "newest_complete": job["newest_complete"],
        "rejected": job["rejected"],
        "complete_with_error": job["complete_with_error"],
    }


def _gaps(status: Status) -> list[Document]:
    """Missing windows and doubted ones with their reasons, worst first."""
    gaps: list[Document] = []
    for name, org in status["orgs"].items():
        for job, work in org["jobs"].items():
            gaps += _merged(name, job, work["gaps"])
        gaps += _merged(name, None, org["ad_hoc"]["gaps"])
        gaps += [{"org": name, **error, "state": "doubted", "windows": 1} for error in org["last_errors"]]
    gaps.sort(key=lambda gap: (_RANK[gap["state"]], gap["window_start"]))
    return gaps[:MAX_GAPS]


def _merged(org: str, job: str | None, gaps: Sequence[Gap]) -> list[Document]:
    """Merge adjacent gaps with one state and reason."""
    merged: list[Document] = []
    for gap in gaps:
        reason = gap["reason"].removeprefix(NOT_REQUESTED)
        state = _STATES[gap["state"]] if reason == gap["reason"] else "not requested"
        last = merged[-1] if merged else Document(window_end=None)
        if last["window_end"] == gap["window_start"] and (last["state"], last["reason"]) == (state, reason):
            last["window_end"] = gap["window_end"]
            last["windows"] += 1
        else:
            merged.append({"org": org, "job": job, **gap, "state": state, "reason": reason, "windows": 1})
    return merged


_STATES = {"failed": "failed", "pending": "late", "running": "running"}
_RANK = {"failed": 0, "not requested": 1, "late": 2, "doubted": 3, "running": 4}
