"""How it stands at this moment: limits in use, queues, breakers, what is still to come and when."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry

from service.clock import Clock
from service.config import Config
from service.postgres.pool import Connection
from service.postgres.queries import dashboard as stored
from service.postgres.queries.dashboard import Pace
from service.postgres.windows import AD_HOC, stream_of
from service.status import NOT_REQUESTED, AdHocStatus, Gap, JobStatus, OrgStatus, Status
from service.telemetry import Warned
from service.web.gauges import Load

MOST_GAPS = 40  # that are told one by one
MOST_WARNINGS = 12
MEASURED_OVER = 15.0  # seconds
_REQUESTS = "flow_outcomes_request_seconds_count"

Document = dict[str, Any]


class Rates:
    """How many requests a second this process sends for each org, from what it counts.

    Args:
        registry: what the process counts.
        clock: the time.
    """

    def __init__(self, registry: CollectorRegistry, clock: Clock) -> None:
        self._registry = registry
        self._clock = clock
        self._samples: deque[tuple[float, dict[str, float]]] = deque()

    def measured(self, orgs: Iterable[str]) -> dict[str, float | None]:
        """Requests a second lately; None where this has not looked for long enough."""
        now = self._clock.monotonic()
        counts = {org: self._registry.get_sample_value(_REQUESTS, {"org": org}) or 0.0 for org in orgs}
        while self._samples and now - self._samples[0][0] > MEASURED_OVER:
            self._samples.popleft()
        self._samples.append((now, counts))
        then, before = self._samples[0]
        if now - then < 1:
            return dict.fromkeys(counts)
        return {org: round((count - before.get(org, 0.0)) / (now - then), 2) for org, count in counts.items()}


class LocalState(NamedTuple):
    """What this process alone knows."""

    load: Mapping[str, Load]
    rates: Mapping[str, float | None]
    warned: Sequence[Warned]


async def paces(connection: Connection, config: Config) -> list[Pace]:
    """How fast windows are coming in.

    Raises:
        DatabaseUnavailableError, SchemaError: as the connection says.
    """
    return await stored.paces(connection, list(config.orgs))


def now(status: Status, config: Config, found: Sequence[Pace], here: LocalState) -> Document:
    """The document of ``/api/now``."""
    speeds = {(each.org, each.stream): each.windows / each.seconds for each in found}
    orgs = {
        name: _org(name, org, config, speeds, here) for name, org in status["orgs"].items() if name in config.orgs
    }
    return {
        "at": status["at"],
        "orgs": orgs,
        "missing": sum(job["missing"] for org in orgs.values() for job in org["jobs"].values())
        + sum(org["ad_hoc"]["missing"] for org in orgs.values()),
        "gaps": _gaps(status),
        "warnings": _warnings(here.warned),
    }


def _warnings(warned: Sequence[Warned]) -> list[Document]:
    """The last of each kind, org and job, the newest first, and how often the like was kept."""
    found: dict[tuple[str, str | None, str | None], Document] = {}
    for each in reversed(warned):
        told = found.setdefault((each.event, each.org, each.job), {**each._asdict(), "times": 0})
        told["times"] += 1
    return list(found.values())[:MOST_WARNINGS]


def _org(
    name: str, org: OrgStatus, config: Config, speeds: Mapping[tuple[str, str], float], here: LocalState
) -> Document:
    load = here.load.get(name)
    jobs = {
        job: _work(each, speeds.get((name, stream_of(job)))) | _newest(each) for job, each in org["jobs"].items()
    }
    return {
        "timezone": config.orgs[name].timezone,
        "owner": org["owner"],
        "here": load is not None,
        "breaker": org["breaker"],
        "breaker_until": org["breaker_until"],
        "paused_for": org["paused_for"],
        "limit": config.orgs[name].requests_per_second,
        "rate": here.rates.get(name) if load is not None else None,
        "in_flight": load.in_flight if load else None,
        "waiting": load.waiting if load else None,
        "restated_last_day": org["restated_last_day"],
        "jobs": jobs,
        "ad_hoc": _work(org["ad_hoc"], speeds.get((name, AD_HOC))),
    }


def _work(work: JobStatus | AdHocStatus, speed: float | None) -> Document:
    counts, gaps = work["windows"], work["gaps"]
    to_come = sum(gap["state"] != "failed" for gap in gaps)
    return {
        "windows": counts,
        "missing": len(gaps),
        "to_come": to_come,
        "done": counts["complete"],
        "owed": counts["complete"] + len(gaps),
        "a_minute": None if speed is None else round(speed * 60, 1),
        "seconds_left": None if not to_come or not speed else round(to_come / speed),
    }


def _newest(job: JobStatus) -> Document:
    return {
        "newest_complete": job["newest_complete"],
        "rejected": job["rejected"],
        "complete_with_error": job["complete_with_error"],
    }


def _gaps(status: Status) -> list[Document]:
    """What is missing and why, and what is in doubt: the worst first; neighbours that say the same told as one."""
    found: list[Document] = []
    for name, org in status["orgs"].items():
        for job, work in org["jobs"].items():
            found += _told(name, job, work["gaps"])
        found += _told(name, None, org["ad_hoc"]["gaps"])
        found += [{"org": name, **told, "state": "doubted", "windows": 1} for told in org["last_errors"]]
    found.sort(key=lambda gap: (_RANK[gap["state"]], gap["window_start"]))
    return found[:MOST_GAPS]


def _told(org: str, job: str | None, gaps: Sequence[Gap]) -> list[Document]:
    found: list[Document] = []
    for gap in gaps:
        reason = gap["reason"].removeprefix(NOT_REQUESTED)
        state = _WORDS[gap["state"]] if reason == gap["reason"] else "never asked"
        last = found[-1] if found else Document(window_end=None)
        if last["window_end"] == gap["window_start"] and (last["state"], last["reason"]) == (state, reason):
            last["window_end"] = gap["window_end"]
            last["windows"] += 1
        else:
            found.append({"org": org, "job": job, **gap, "state": state, "reason": reason, "windows": 1})
    return found


_WORDS = {"failed": "failed", "pending": "late", "running": "being asked"}
_RANK = {"failed": 0, "never asked": 1, "late": 2, "doubted": 3, "being asked": 4}
