"""Every log event with its level, and how one is reported."""

from __future__ import annotations

import logging
from enum import StrEnum
from typing import Protocol, Self


class Event(StrEnum):
    """The name of an event as the log shows it, with the level at which it is logged."""

    level: int

    def __new__(cls, name: str, level: int = logging.INFO) -> Self:
        """A member: its value is the name."""
        member = str.__new__(cls, name)
        member._value_ = name
        member.level = level
        return member

    # windows and figures
    CYCLE_STARTED = "cycle_started"
    CYCLE_FINISHED = "cycle_finished"
    WINDOW_COMPLETE = "window_complete"
    WINDOW_DOUBTED = "window_doubted", logging.WARNING
    WINDOW_FAILED = "window_failed", logging.ERROR
    WINDOW_POSTPONED = "window_postponed", logging.WARNING
    WINDOW_REOPENED = "window_reopened", logging.WARNING
    WINDOW_RESTARTED = "window_restarted", logging.WARNING
    SCAN_SPLIT = "scan_split", logging.WARNING
    QUERY_NARROWED = "query_narrowed", logging.WARNING
    GRANULARITY_ADJUSTED = "granularity_adjusted", logging.WARNING
    SPAN_ADJUSTED = "span_adjusted", logging.WARNING
    OUTCOME_MISSING = "outcome_missing", logging.WARNING
    OUTCOME_RESTATED = "outcome_restated"
    PERCENTAGE_MISMATCH = "percentage_mismatch", logging.WARNING
    SPLIT_CONTRADICTED = "split_contradicted", logging.WARNING
    DURATION_INVALID = "duration_invalid", logging.WARNING
    AD_HOC_REFUSED = "ad_hoc_refused", logging.ERROR
    ENTRY_REJECTED = "entry_rejected", logging.WARNING
    ALIAS_APPLIED = "alias_applied"
    ALIAS_SUGGESTED = "alias_suggested"
    OUTCOMES_RENAMED = "outcomes_renamed"
    NAMES_UNAVAILABLE = "names_unavailable", logging.WARNING

    # requests
    REGION_UNKNOWN = "region_unknown", logging.WARNING
    TOKEN_RENEWED = "token_renewed"  # noqa: S105 - the name of an event
    RATE_LIMITED = "rate_limited", logging.WARNING
    RATE_LIMIT_CHANGED = "rate_limit_changed"
    RATE_LIMIT_EXHAUSTED = "rate_limit_exhausted"
    RATE_LIMIT_MARGIN_CHANGED = "rate_limit_margin_changed"
    RETRY_SCHEDULED = "retry_scheduled", logging.WARNING
    CIRCUIT_OPENED = "circuit_opened", logging.ERROR
    CIRCUIT_HALF_OPEN = "circuit_half_open", logging.WARNING
    CIRCUIT_CLOSED = "circuit_closed"
    REQUEST_WAITED = "request_waited", logging.DEBUG
    REQUEST_SENT = "request_sent", logging.DEBUG
    REQUEST_FINISHED = "request_finished", logging.DEBUG
    PAGE_READ = "page_read", logging.DEBUG

    # the warehouse
    EXPORT_FINISHED = "export_finished"
    EXPORT_FAILED = "export_failed", logging.ERROR

    # the process
    DAEMON_STARTED = "daemon_started"
    DAEMON_STOPPED = "daemon_stopped"
    CONFIG_RELOADED = "config_reloaded"
    CONFIG_REJECTED = "config_rejected", logging.ERROR
    CLOCK_DOUBTED = "clock_doubted", logging.WARNING
    CLOCK_STEPPED = "clock_stepped", logging.WARNING
    CLOCKS_COMPARED = "clocks_compared", logging.DEBUG
    TRACES_UNAVAILABLE = "traces_unavailable", logging.WARNING
    TRACES_NOT_EXPORTED = "traces_not_exported", logging.WARNING
    LOG_LINES_DROPPED = "log_lines_dropped", logging.WARNING  # reported by the log itself
    RUN_REQUESTED = "run_requested"
    RUN_NOT_REQUESTED = "run_not_requested", logging.ERROR
    MIGRATION_BLOCKED = "migration_blocked", logging.WARNING
    SCHEMA_MIGRATED = "schema_migrated"
    PARTITION_POSTPONED = "partition_postponed", logging.WARNING
    DATABASE_UNAVAILABLE = "database_unavailable", logging.ERROR
    ORG_ACQUIRED = "org_acquired"
    ORG_RELEASED = "org_released"
    ORG_LOST = "org_lost", logging.WARNING
    ORG_INTERRUPTED = "org_interrupted"
    ORG_LOCKED_ELSEWHERE = "org_locked_elsewhere"
    ORG_GIVEN_UP = "org_given_up"
    UNEXPECTED_ERROR = "unexpected_error", logging.ERROR


class Emit(Protocol):
    """Reports an event with its context; the context never holds a secret."""

    def __call__(self, event: str, **context: object) -> None:
        """Report the event; ``event`` is a value of ``Event``."""
