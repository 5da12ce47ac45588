"""What events add to the metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

from service.telemetry.events import Event

_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)  # seconds


class EventMetrics:
    """Counters and gauges of one process.

    Attributes:
        registry: what ``/metrics`` shows of them.
    """

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call] # a second series each, which is not used
        self.registry = CollectorRegistry()
        self._requests = self._counter("requests", "Responses by HTTP status, or how the request ended.", "status")
        self._retries = self._counter("retries", "Requests sent again after a failure.")
        self._rate_limited = self._counter("rate_limited", "Responses with status 429.")
        self._margin = self._gauge(
            "rate_limit_margin", "Share of the limit that is not used since the API answered 429.", "org"
        )
        self._windows = self._counter("scanned_windows", "Scanned windows by result.", "job", "result")
        self._rows = self._counter("rows", "Figures reported in stored windows.", "job")
        self._rejected = self._counter("rejected_entries", "Rejected outcomes.", "job")
        self._restated = self._counter("restatements", "Stored figures that a later scan changed.", "job")
        self._missing = self._counter("missing_outcomes", "Figures that became null.", "job")
        self._request_seconds = self._histogram(
            "request_duration_seconds", "Time from sending a request to the last byte of its response."
        )
        self._limit_wait = self._histogram(
            "limit_wait_duration_seconds", "Time that a request waited for its slot under the org's limit."
        )
        self._clock_difference = self._gauge(
            "clock_difference_seconds",
            "Largest difference between the clocks of this process, the database and the APIs.",
        )
        self._clock_doubted = self._gauge(
            "clock_doubted", "1 while two of these clocks differ by more than five minutes."
        )
        self._breaker = self._gauge("breaker_state", "0 closed, 1 half-open, 2 open.", "org")

    def count(self, event: str, context: Mapping[str, Any]) -> None:  # noqa: C901, PLR0912 - one case an event
        """Add what an event counts."""
        org, job = context.get("org") or "", context.get("job") or ""
        match event:
            case Event.REQUEST_FINISHED:
                self._requests.labels(org, str(context["status"])).inc()
                self._request_seconds.labels(org).observe(context["seconds"])
            case Event.REQUEST_WAITED:
                self._limit_wait.labels(org).observe(context["seconds"])
            case Event.RETRY_SCHEDULED:
                self._retries.labels(org).inc()
            case Event.RATE_LIMITED:
                self._rate_limited.labels(org).inc()
            case Event.RATE_LIMIT_MARGIN_CHANGED:
                self._margin.labels(org).set(context["margin"])
            case Event.WINDOW_COMPLETE:
                self._windows.labels(org, job, "complete").inc()
                self._rows.labels(org, job).inc(context["rows"])
                self._rejected.labels(org, job).inc(context["rejected"])
            case Event.WINDOW_DOUBTED:
                self._windows.labels(org, job, "doubted").inc()
            case Event.WINDOW_FAILED:
                self._windows.labels(org, job, "failed").inc()
            case Event.OUTCOME_RESTATED:
                self._restated.labels(org, job).inc(context["rows"])
            case Event.OUTCOME_MISSING:
                self._missing.labels(org, job).inc(context["rows"])
            case Event.CLOCKS_COMPARED:
                self._clock_difference.set(context["seconds"])
                self._clock_doubted.set(context["doubted"])
            case Event.ORG_ACQUIRED | Event.CIRCUIT_CLOSED:  # a new owner's breaker is closed
                self._breaker.labels(org).set(0)
                if event == Event.ORG_ACQUIRED:
                    self._margin.labels(org).set(0)
            case Event.ORG_RELEASED | Event.ORG_LOST:  # the state is another process's
                self._breaker.remove(org)
                self._margin.remove(org)
            case Event.CIRCUIT_HALF_OPEN:
                self._breaker.labels(org).set(1)
            case Event.CIRCUIT_OPENED:
                self._breaker.labels(org).set(2)
            case _:
                pass

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"flow_outcomes_{name}", text, ["org", *labels], registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"flow_outcomes_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str) -> Histogram:
        return Histogram(f"flow_outcomes_{name}", text, ["org"], registry=self.registry, buckets=_BUCKETS)
