"""The reporter: hands each event to the metrics, other subscribers and the log."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import structlog
from prometheus_client import CollectorRegistry

from service.clock import SystemClock
from service.model import instant
from service.telemetry.events import Event
from service.telemetry.logs import Plain, to_plain
from service.telemetry.metrics import EventMetrics

_LEVELS: dict[str, int] = {event: event.level for event in Event}
_WARNINGS_KEPT = 50
_WARNING_TEXT_MAX = 240  # characters
_NOT_IN_WARNINGS = {"exc_info", "query_hash", "cycle"}

Subscriber = Callable[[str, Mapping[str, Any]], None]
"""Receives each event's name and context, in order and before it is logged; must not raise."""


class Warned(NamedTuple):
    """A warning or an error as the page shows it: redacted, its text bounded."""

    at: str
    level: str
    event: str
    org: str | None
    job: str | None
    text: str


class Reporter:
    """Hands each event to its subscribers and to the log.

    Attributes:
        warned: the last warnings and errors, oldest first.
    """

    def __init__(self) -> None:
        self.warned: deque[Warned] = deque(maxlen=_WARNINGS_KEPT)
        self._metrics = EventMetrics()
        self._subscribers: list[Subscriber] = [self._metrics.count]
        self._log = structlog.get_logger()

    @property
    def registry(self) -> CollectorRegistry:
        """The metrics of this process's events; not the library's global registry."""
        return self._metrics.registry

    def subscribe(self, subscriber: Subscriber) -> None:
        """Call this with each event from now on."""
        self._subscribers.append(subscriber)

    def emit(self, event: str, **context: object) -> None:
        """Report an event; a name that ``Event`` does not have is logged at info."""
        for subscriber in self._subscribers:
            subscriber(event, context)
        level = _LEVELS.get(event, logging.INFO)
        if level >= logging.WARNING:
            self.warned.append(_warned(event, level, context))
        self._log.log(level, str(event), **context)


def _warned(event: str, level: int, context: Mapping[str, Any]) -> Warned:
    plain = {key: to_plain(value) for key, value in context.items() if key not in _NOT_IN_WARNINGS}
    org, job = plain.pop("org", None), plain.pop("job", None)
    text = ", ".join(
        f"{key.replace('_', ' ')} {_in_words(value)}" for key, value in plain.items() if value is not None
    )
    return Warned(
        at=instant(SystemClock().now()),
        level=logging.getLevelName(level).lower(),
        event=str(event),
        org=None if org is None else str(org),
        job=None if job is None else str(job),
        text=text if len(text) <= _WARNING_TEXT_MAX else f"{text[: _WARNING_TEXT_MAX - 1]}…",
    )


def _in_words(value: Plain) -> str:
    """A value of a warning as a reader expects it: a list without brackets and quotes."""
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
