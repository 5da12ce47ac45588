"""The one place that knows every event: how loud it is, and what it counts.

Whatever happens is told as ``emit(event, **context)``; here it becomes a line of the log and a figure to watch.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

from service.clock import SystemClock
from service.model import instant
from service.telemetry.logs import plain

Emit = Callable[..., None]

_LEVELS = {
    "config_rejected": logging.ERROR,
    "window_failed": logging.ERROR,
    "window_restarted": logging.WARNING,
    "window_doubted": logging.WARNING,
    "scan_split": logging.WARNING,
    "granularity_adjusted": logging.WARNING,
    "span_adjusted": logging.WARNING,
    "outcome_missing": logging.WARNING,
    "outcome_restated": logging.INFO,
    "percentage_mismatch": logging.WARNING,
    "entry_rejected": logging.WARNING,
    "rate_limited": logging.WARNING,
    "retry_scheduled": logging.WARNING,
    "circuit_opened": logging.ERROR,
    "circuit_half_open": logging.WARNING,
    "org_lost": logging.WARNING,
    "database_unavailable": logging.ERROR,
    "unexpected_error": logging.ERROR,
    "names_unavailable": logging.WARNING,
    "clock_doubted": logging.WARNING,
    "clock_stepped": logging.WARNING,
    "window_postponed": logging.WARNING,
    "window_reopened": logging.WARNING,
    "clocks_compared": logging.DEBUG,
    "page_read": logging.DEBUG,
    "request_waited": logging.DEBUG,
    "request_sent": logging.DEBUG,
    "request_finished": logging.DEBUG,
}
_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


_MOST_WARNINGS = 50  # that are kept for who looks
_TEXT_MAX = 240
_LEFT_OUT = {"exc_info", "query_hash", "cycle"}


class Warned(NamedTuple):
    """A warning as the page tells it; without secrets, and cut to a bound."""

    at: str
    level: str
    event: str
    org: str | None
    job: str | None
    text: str


class Reporter:
    """Tells each event to the log and to the metrics.

    Attributes:
        registry: what ``/metrics`` shows; one a process, not the library's global one.
        warned: the last warnings and errors, the oldest first.
    """

    def __init__(self) -> None:
        self.warned: deque[Warned] = deque(maxlen=_MOST_WARNINGS)
        disable_created_metrics()  # type: ignore[no-untyped-call] # a second series each, which nobody asks for
        self.registry = CollectorRegistry()
        self._log = structlog.get_logger()
        self._requests = self._counter("requests", "Answers by HTTP status, or how the request ended.", "status")
        self._retries = self._counter("retries", "Requests that are sent again after a failure.")
        self._rate_limited = self._counter("rate_limited", "Answers with status 429.")
        self._windows = self._counter(
            "scanned_windows", "Scanned windows by what became of them.", "job", "result"
        )
        self._rows = self._counter("rows", "Figures reported in stored windows.", "job")
        self._rejected = self._counter("rejected_entries", "Outcomes that were refused.", "job")
        self._restated = self._counter("restatements", "Stored figures that a later scan changed.", "job")
        self._missing = self._counter("missing_outcomes", "Figures that became null.", "job")
        self._seconds = Histogram(
            "flow_outcomes_request_seconds",
            "Time from sending a request to the last byte of its answer.",
            ["org"],
            registry=self.registry,
            buckets=_BUCKETS,
        )
        self._waited = Histogram(
            "flow_outcomes_limit_wait_seconds",
            "Time that a request waited for its turn under the org's limit.",
            ["org"],
            registry=self.registry,
            buckets=_BUCKETS,
        )
        self._clock_difference = Gauge(
            "flow_outcomes_clock_difference_seconds",
            "Largest difference between the clocks of this process, the database and the APIs.",
            registry=self.registry,
        )
        self._clock_doubted = Gauge(
            "flow_outcomes_clock_doubted",
            "1 while two of these clocks differ by more than five minutes.",
            registry=self.registry,
        )
        self._breaker = Gauge(
            "flow_outcomes_breaker_state",
            "0 closed, 1 half-open, 2 open.",
            ["org"],
            registry=self.registry,
        )

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"flow_outcomes_{name}", text, ["org", *labels], registry=self.registry)

    def emit(self, event: str, **context: Any) -> None:  # noqa: ANN401 - a context holds anything
        """Log the event and count it."""
        self._count(event, context)
        level = _LEVELS.get(event, logging.INFO)
        if level >= logging.WARNING:
            self.warned.append(_warned(event, level, context))
        self._log.log(level, event, **context)

    def _count(self, event: str, context: dict[str, Any]) -> None:  # noqa: C901, PLR0912 - one case an event
        org, job = context.get("org") or "", context.get("job") or ""
        match event:
            case "request_finished":
                self._requests.labels(org, str(context["status"])).inc()
                self._seconds.labels(org).observe(context["seconds"])
            case "request_waited":
                self._waited.labels(org).observe(context["seconds"])
            case "retry_scheduled":
                self._retries.labels(org).inc()
            case "rate_limited":
                self._rate_limited.labels(org).inc()
            case "window_complete":
                self._windows.labels(org, job, "complete").inc()
                self._rows.labels(org, job).inc(context["rows"])
                self._rejected.labels(org, job).inc(context["rejected"])
            case "window_doubted":
                self._windows.labels(org, job, "doubted").inc()
            case "window_failed":
                self._windows.labels(org, job, "failed").inc()
            case "outcome_restated":
                self._restated.labels(org, job).inc(context["rows"])
            case "outcome_missing":
                self._missing.labels(org, job).inc(context["rows"])
            case "clocks_compared":
                self._clock_difference.set(context["seconds"])
                self._clock_doubted.set(context["doubted"])
            case "org_acquired" | "circuit_closed":  # who takes an org begins with a closed breaker
                self._breaker.labels(org).set(0)
            case "org_released" | "org_lost":  # nobody here knows of it any more, or ever would
                self._breaker.remove(org)
            case "circuit_half_open":
                self._breaker.labels(org).set(1)
            case "circuit_opened":
                self._breaker.labels(org).set(2)
            case _:
                pass


def _warned(event: str, level: int, context: Mapping[str, Any]) -> Warned:
    told = {key: plain(value) for key, value in context.items() if key not in _LEFT_OUT}
    org, job = told.pop("org", None), told.pop("job", None)
    text = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in told.items() if value is not None)
    return Warned(
        at=instant(SystemClock().now()),
        level=logging.getLevelName(level).lower(),
        event=event,
        org=None if org is None else str(org),
        job=None if job is None else str(job),
        text=text if len(text) <= _TEXT_MAX else f"{text[: _TEXT_MAX - 1]}…",
    )
