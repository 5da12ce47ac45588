"""The state of every org: problems, progress, limits in use, queues, circuit breakers."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry

from service.clock import Clock
from service.config import Config
from service.postgres.queries.dashboard import Pace
from service.postgres.windows import AD_HOC, stream_of
from service.status import AdHocStatus, JobStatus, OrgStatus, Status
from service.web.daemon_view import Load
from service.web.problems import problems

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
    """What the status does not have: this process's load and rates, and the figures restated since midnight."""

    load: Mapping[str, Load]
    rates: Mapping[str, float | None]
    restated_today: Mapping[str, int]


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
        "problems": problems(status, config),
        "export": status["export"],
    }


def _org(
    name: str, org: OrgStatus, config: Config, rates: Mapping[tuple[str, str], float], local: LocalState
) -> Document:
    load = local.load.get(name)
    jobs = {
        job: _progress(each, rates.get((name, stream_of(job, config.jobs[job].measure))))
        | _newest(each)
        | _kind(config, job)
        for job, each in org["jobs"].items()
    }
    return {
        "timezone": config.orgs[name].timezone,
        "api": config.orgs[name].api,
        "owner": org["owner"],
        "held_here": load is not None,
        "breaker": org["breaker"],
        "breaker_until": org["breaker_until"],
        "paused_for": org["paused_for"],
        "limit": config.orgs[name].requests_per_second,
        "rate": local.rates.get(name) if load is not None else None,
        "in_flight": load.in_flight if load else None,
        "waiting": load.waiting if load else None,
        "restated_today": local.restated_today.get(name, 0),
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


def _kind(config: Config, job: str) -> Document:
    return {"window": config.jobs[job].window, "granularity": config.jobs[job].granularity}


def _newest(job: JobStatus) -> Document:
    return {
        "newest_complete": job["newest_complete"],
        "first_gap": job["gaps"][0]["window_start"] if job["gaps"] else None,
        "rejected": job["rejected"],
        "complete_with_error": job["complete_with_error"],
    }
