"""The status as metrics; labels are the configured orgs and jobs and four states, so they stay bounded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import NamedTuple

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from service.status import JobStatus, Status, Windows


class Load(NamedTuple):
    """What an org that this process holds is at: scans in flight, and those that wait for a place."""

    in_flight: int
    waiting: int


class Gauges(Collector):
    """The figures of one scrape.

    Args:
        status: the last one that is known; None where there is none.
        age: seconds since it was read.
        reachable: whether the database answered this time.
        load: of each org that this process holds.
        now: the time of the scrape: an age goes on growing while the database is away.
    """

    def __init__(
        self, status: Status | None, age: float, load: Mapping[str, Load], now: datetime, *, reachable: bool
    ) -> None:
        self._status = status
        self._age = age
        self._load = load
        self._now = now
        self._reachable = reachable

    def text(self) -> bytes:
        """In Prometheus' text format."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        return generate_latest(registry)

    def collect(self) -> Iterator[Metric]:
        """Every figure with its labels."""
        yield _gauge("database_up", "Whether the database answered this scrape.", value=float(self._reachable))
        yield from self._loads()
        if self._status is not None:
            yield _gauge("status_age_seconds", "Time since the ledger was read for this.", value=self._age)
            yield from self._jobs(self._status)
            yield from self._orgs(self._status)

    def _loads(self) -> Iterator[Metric]:
        in_flight = _gauge("scans_in_flight", "Scans of this process in flight.", "org")
        waiting = _gauge("scans_waiting", "Scans of this process that wait for a place.", "org")
        for org, load in self._load.items():
            in_flight.add_metric([org], load.in_flight)
            waiting.add_metric([org], load.waiting)
        yield from (in_flight, waiting)

    def _jobs(self, status: Status) -> Iterator[Metric]:
        windows = _gauge("windows", "Windows by state; those of ad hoc work have no job.", "org", "job", "state")
        gaps = _gauge("gaps", "Due windows that are not complete; those of ad hoc work have no job.", "org", "job")
        age = _gauge(
            "newest_complete_age_seconds",
            "Time since the end of the newest complete window, or since the start of the first due one where none"
            " is complete: the figure to alert on.",
            "org",
            "job",
        )
        for org, each in status["orgs"].items():
            for name, job in each["jobs"].items():
                _count(windows, org, name, job["windows"])
                gaps.add_metric([org, name], len(job["gaps"]))
                if (since := _since(job)) is not None:
                    age.add_metric([org, name], max(0.0, (self._now - since).total_seconds()))
            _count(windows, org, "", each["ad_hoc"]["windows"])
            gaps.add_metric([org, ""], len(each["ad_hoc"]["gaps"]))
        yield from (windows, gaps, age)

    def _orgs(self, status: Status) -> Iterator[Metric]:
        held = _gauge("org_held", "Whether a process works the org.", "org")
        hold = _gauge("limit_hold_seconds", "Time for which a 429 still holds the org back.", "org")
        for name, org in status["orgs"].items():
            held.add_metric([name], float(org["owner"] is not None))
            hold.add_metric([name], max(0.0, org["paused_for"] - self._age))
        yield from (held, hold)


def _gauge(name: str, text: str, *labels: str, value: float | None = None) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"flow_outcomes_{name}", text, value=value, labels=labels or None)


def _count(family: GaugeMetricFamily, org: str, job: str, windows: Windows) -> None:
    family.add_metric([org, job, "complete"], windows["complete"])
    family.add_metric([org, job, "pending"], windows["pending"])
    family.add_metric([org, job, "running"], windows["running"])
    family.add_metric([org, job, "failed"], windows["failed"])


def _since(job: JobStatus) -> datetime | None:
    newest = job["newest_complete"] or (job["gaps"][0]["window_start"] if job["gaps"] else None)
    return None if newest is None else datetime.fromisoformat(newest)
