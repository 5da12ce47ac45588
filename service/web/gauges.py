"""The status as metrics. Their labels are bounded: configured orgs and jobs, and four states."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime

from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from service.status import JobStatus, Status, Windows
from service.web.daemon_view import Load


class Gauges(Collector):
    """The gauges of one scrape.

    Args:
        status: the last known status, or None.
        age: seconds since the status was read.
        load: the load of each org that this process holds.
        now: the time of the scrape; ages keep growing while the database is unavailable.
        usable: whether the database answered this scrape and can store figures.
    """

    def __init__(
        self, status: Status | None, age: float, load: Mapping[str, Load], now: datetime, *, usable: bool
    ) -> None:
        self._status = status
        self._age = age
        self._load = load
        self._now = now
        self._usable = usable

    def collect(self) -> Iterator[Metric]:
        """Every gauge with its labels."""
        yield _gauge("database_up", "Whether the database answers and can store.", value=float(self._usable))
        yield from self._loads()
        if self._status is not None:
            yield _gauge(
                "status_age_seconds", "Time since the status was read from the database.", value=self._age
            )
            yield _gauge(
                "status_timestamp_seconds",
                "When the status was read from the database, by this process's clock.",
                value=self._now.timestamp() - self._age,
            )
            yield from self._jobs(self._status)
            yield from self._orgs(self._status)
            yield from self._export(self._status)

    def _loads(self) -> Iterator[Metric]:
        in_flight = _gauge("scans_in_flight", "Scans of this process in flight.", "org")
        waiting = _gauge("scans_waiting", "Scans of this process that wait for a slot.", "org")
        for org, load in self._load.items():
            in_flight.add_metric([org], load.in_flight)
            waiting.add_metric([org], load.waiting)
        yield from (in_flight, waiting)

    def _jobs(self, status: Status) -> Iterator[Metric]:
        states = _gauge("windows", "Windows by state; ad hoc windows have no job.", "org", "job", "state")
        gaps = _gauge("gaps", "Due windows that are not complete; ad hoc windows have no job.", "org", "job")
        age = _gauge(
            "newest_complete_age_seconds",
            "Time since the end of the newest complete window, or since the start of the first due window where"
            " none is complete; alert on this.",
            "org",
            "job",
        )
        until = _gauge(
            "newest_complete_timestamp_seconds",
            "The end of the newest complete window, or the start of the first due window where none is complete.",
            "org",
            "job",
        )
        for org, each in status["orgs"].items():
            for name, job in each["jobs"].items():
                _add_counts(states, org, name, job["windows"])
                gaps.add_metric([org, name], len(job["gaps"]))
                if (since := _complete_until(job)) is not None:
                    age.add_metric([org, name], max(0.0, (self._now - since).total_seconds()))
                    until.add_metric([org, name], since.timestamp())
            _add_counts(states, org, "", each["ad_hoc"]["windows"])
            gaps.add_metric([org, ""], len(each["ad_hoc"]["gaps"]))
        yield from (states, gaps, age, until)

    def _orgs(self, status: Status) -> Iterator[Metric]:
        held = _gauge("org_held", "Whether a process holds the org.", "org")
        hold = _gauge("limit_hold_seconds", "Time until the wait after a 429 ends.", "org")
        for name, org in status["orgs"].items():
            held.add_metric([name], float(org["owner"] is not None))
            hold.add_metric([name], max(0.0, org["paused_for"] - self._age))
        yield from (held, hold)

    def _export(self, status: Status) -> Iterator[Metric]:
        export = status["export"]
        if export is None:
            return
        if export["exported_at"] is not None:
            age = self._now - datetime.fromisoformat(export["exported_at"])
            yield _gauge(
                "export_age_seconds",
                "Time since the database snapshot that the warehouse holds; alert on this.",
                value=max(0.0, age.total_seconds()),
            )
        yield _gauge(
            "export_failed", "Whether the last export failed.", value=float(export["failed_at"] is not None)
        )


def _gauge(name: str, text: str, *labels: str, value: float | None = None) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"flow_outcomes_{name}", text, value=value, labels=labels or None)


def _add_counts(family: GaugeMetricFamily, org: str, job: str, windows: Windows) -> None:
    family.add_metric([org, job, "complete"], windows["complete"])
    family.add_metric([org, job, "pending"], windows["pending"])
    family.add_metric([org, job, "running"], windows["running"])
    family.add_metric([org, job, "failed"], windows["failed"])


def _complete_until(job: JobStatus) -> datetime | None:
    newest = job["newest_complete"] or (job["gaps"][0]["window_start"] if job["gaps"] else None)
    return None if newest is None else datetime.fromisoformat(newest)
