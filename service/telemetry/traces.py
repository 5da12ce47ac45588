"""Spans for OpenTelemetry, as its environment variables say; without them nothing is recorded or imported."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from importlib import import_module
from typing import Protocol, Self
from urllib.parse import unquote, urlsplit

import structlog

from service.telemetry.events import Event
from service.telemetry.logs import register_secret

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_HEADERS = ("OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS")
_EXPORTERS = "OTEL_TRACES_EXPORTER"


class TraceSpan(Protocol):
    """A span that has started."""

    def set(self, **attributes: object) -> None:
        """Set attributes; None sets nothing."""

    def discard(self) -> None:
        """Do not export the span."""


class Tracer(Protocol):
    """Starts spans and exports those that have ended."""

    def span(self, name: str, attributes: Mapping[str, object]) -> AbstractContextManager[TraceSpan]:
        """A span around a block of code; its parent is the span in which it starts."""

    def close(self) -> None:
        """Export the spans that have ended, within a second; without a wait where the last export failed."""


class _NoSpan:
    """Where nothing is traced: one object for all spans."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def set(self, **_attributes: object) -> None:
        """Set nothing."""

    def discard(self) -> None:
        """Do nothing."""


_NO_SPAN = _NoSpan()
_tracer: Tracer | None = None


def span(name: str, /, **attributes: object) -> AbstractContextManager[TraceSpan]:
    """A span around a block of code, with a log line's fields as attributes; empty where nothing is traced."""
    return _NO_SPAN if _tracer is None else _tracer.span(name, attributes)


def exporters(environment: Mapping[str, str]) -> list[str]:
    """The names of the exporters that the variables request.

    The specification's default sends spans to localhost. Here an exporter or an endpoint must be named.
    """
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return []
    names = environment.get(_EXPORTERS, "").strip()
    if not names and any(environment.get(each) for each in _ENDPOINTS):
        names = "otlp"
    return [name.strip() for name in names.split(",") if name.strip() not in ("", "none")]


def configure() -> None:
    """Trace from now on, if the environment says so; call once, after the log is configured.

    What prevents it is reported as ``traces_unavailable``, and the program goes on without traces.
    """
    global _tracer  # noqa: PLW0603 - one tracer for the process
    names = exporters(os.environ)
    if _tracer is not None or not names:
        return
    for secret in _secrets(os.environ):
        register_secret(secret)
    try:
        _tracer = import_module("service.telemetry.otel").open_tracer(names)
    except ImportError as error:
        _report_unavailable(f"needs the extra otel, in a clone: pip install '.[otel]' ({error})")
    except LookupError as error:
        _report_unavailable(str(error))
    except Exception as error:  # noqa: BLE001 - the SDK's own errors; extraction does not depend on traces
        _report_unavailable(f"{type(error).__name__}: {error}")


def _report_unavailable(reason: str) -> None:
    structlog.get_logger().warning(Event.TRACES_UNAVAILABLE, reason=reason)


def close() -> None:
    """Export what has ended; call once, at the end of the process."""
    global _tracer  # noqa: PLW0603 - one tracer for the process
    if _tracer is not None:
        _tracer.close()
        _tracer = None


def _secrets(environment: Mapping[str, str]) -> list[str]:
    """The secrets of the exporter: the values of its headers, and an endpoint's password."""
    found = []
    for variable in _HEADERS:
        for pair in environment.get(variable, "").split(","):
            value = pair.partition("=")[2].strip()
            found += [value, unquote(value), *unquote(value).split()]
    for variable in _ENDPOINTS:
        try:
            password = urlsplit(environment.get(variable, "")).password or ""
        except ValueError:
            continue
        found += [password, unquote(password)]
    return found
