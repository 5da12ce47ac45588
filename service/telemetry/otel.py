"""The tracer: OpenTelemetry's SDK, configured by its environment variables. Needs the extra ``otel``.

Only ``traces.configure`` imports this module. The SDK's processor exports in a thread of its own and drops spans
beyond its queue, so that an exporter that fails or hangs delays nothing.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, entry_points, version

import structlog
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    ConsoleSpanExporter,
    SpanExporter,
    SpanExportResult,
)
from opentelemetry.trace import Span as SdkSpan
from opentelemetry.trace import Status, StatusCode

from service.errors import FlowOutcomesError, StoppedError
from service.telemetry import logs
from service.telemetry.events import Event

NAME = "flow-outcomes"
CLOSE_TIMEOUT = 1.0
"""Seconds at the end of the process for spans that are not yet exported."""
REPORT_INTERVAL = 300.0
"""Seconds between two log lines about the exporter."""
_REASON_MAX = 300
_PACKAGES = {"otlp_proto_grpc": "opentelemetry-exporter-otlp-proto-grpc"}
_PROTOCOLS = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}


class OtelTracer:
    """Starts spans, and exports those that have ended.

    Args:
        exporters: the exporters, each in a thread of its own.
    """

    def __init__(self, exporters: Sequence[SpanExporter]) -> None:
        self._provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
        self._exporters = [_MonitoredExporter(each) for each in exporters]
        for each in self._exporters:
            self._provider.add_span_processor(BatchSpanProcessor(each))
        self._tracer = self._provider.get_tracer(NAME)

    @contextmanager
    def span(self, name: str, attributes: Mapping[str, object]) -> Iterator[_Span]:
        """A span around a block of code; an error's text is redacted, and its traceback left out."""
        with self._tracer.start_as_current_span(
            name, record_exception=False, set_status_on_exception=False, end_on_exit=False
        ) as current:
            started = _Span(current)
            started.set(**attributes)
            try:
                yield started
            except BaseException as error:
                started.fail(error)
                raise
            finally:
                started.end()

    def close(self) -> None:
        """Export what has ended, within ``CLOSE_TIMEOUT``; does not wait where the last export failed or hangs."""
        closing = threading.Thread(target=self._provider.shutdown, name="traces", daemon=True)
        closing.start()
        if not any(each.is_failing() for each in self._exporters):
            closing.join(CLOSE_TIMEOUT)


class _Span:
    def __init__(self, span: SdkSpan) -> None:
        self._span = span
        self._discarded = False

    def set(self, **attributes: object) -> None:
        """Set attributes, as the log shows them: redacted and bounded."""
        if not self._span.is_recording():
            return
        for key, value in attributes.items():
            plain = logs.to_plain(value)
            if plain is not None:
                text = json.dumps(plain) if isinstance(plain, (dict, list)) else plain
                self._span.set_attribute(key, text)

    def discard(self) -> None:
        """Do not export the span."""
        self._discarded = True

    def fail(self, error: BaseException) -> None:
        """Set the status; the text is left out where it may quote what the program has not redacted."""
        kind = type(error).__name__
        if isinstance(error, StoppedError) or not isinstance(error, Exception):
            self.set(stopped=kind)
            return
        text = f": {error}" if isinstance(error, FlowOutcomesError) else ""
        self.set(**{"error.type": kind})
        self._span.set_status(Status(StatusCode.ERROR, str(logs.to_plain(f"{kind}{text}"))))

    def end(self) -> None:
        """End the span; one that is discarded never ends, and is therefore not exported."""
        if not self._discarded:
            self._span.end()


class _MonitoredExporter(SpanExporter):
    """An exporter with the result of its last export."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._failed = False
        self._began: float | None = None

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self._began = time.monotonic()
        self._failed = True
        try:
            result = self._exporter.export(spans)
            self._failed = result is not SpanExportResult.SUCCESS
        finally:
            self._began = None
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def is_failing(self) -> bool:
        """Whether the last export failed, or one has been running for longer than the end may take."""
        began = self._began
        return self._failed if began is None else time.monotonic() - began > CLOSE_TIMEOUT


class _SdkHandler(logging.Handler):
    """Reports what the SDK logs about its exporters, once in ``REPORT_INTERVAL``; the rest is counted."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._next = 0.0
        self._suppressed = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Report a record, or count it."""
        now = time.monotonic()
        if now < self._next:
            self._suppressed += 1
            return
        self._next = now + REPORT_INTERVAL
        suppressed, self._suppressed = self._suppressed, 0
        reason = " ".join(record.getMessage().split())
        if record.exc_info and record.exc_info[1] is not None:
            reason = f"{reason} {type(record.exc_info[1]).__name__}: {record.exc_info[1]}"
        structlog.get_logger().warning(
            Event.TRACES_NOT_EXPORTED, reason=logs.redacted(reason)[:_REASON_MAX], suppressed=suppressed
        )


class _LogStream:
    """Sends the spans of the exporter ``console`` to the log, one to a line."""

    def write(self, text: str) -> None:
        logs.write_line(text)

    def flush(self) -> None:
        """The log's own thread writes."""


def open_tracer(names: Sequence[str]) -> OtelTracer:
    """The tracer with these exporters.

    Raises:
        LookupError: the package of an exporter is not installed.
        Exception: what an exporter raises for an invalid variable.
    """
    logger = logging.getLogger("opentelemetry")
    logger.handlers[:] = [_SdkHandler()]
    logger.propagate = False
    return OtelTracer([_exporter(name) for name in names])


def _exporter(name: str) -> SpanExporter:
    if name == "console":
        return ConsoleSpanExporter(out=_LogStream(), formatter=lambda span: span.to_json(indent=None))  # type: ignore[arg-type]
    entry = name
    if name == "otlp":
        protocol = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or os.environ.get(
            "OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"
        )
        entry = _PROTOCOLS.get(protocol.strip(), f"otlp with the protocol {protocol}")
    for each in entry_points(group="opentelemetry_traces_exporter", name=entry):
        exporter: SpanExporter = each.load()()
        return exporter
    package = f"; install {_PACKAGES[entry]}" if entry in _PACKAGES else ""
    raise LookupError(f"no package with the exporter {entry} is installed{package}")


def _resource() -> Resource:
    """What the variables say of the service; by default the program's name and version."""
    try:
        attributes = {SERVICE_NAME: NAME, SERVICE_VERSION: version(NAME)}
    except PackageNotFoundError:  # the sources, not installed
        attributes = {SERVICE_NAME: NAME}
    return Resource(attributes).merge(
        Resource(
            {key: value for key, value in Resource.create().attributes.items() if not _is_unknown(key, value)}
        )
    )


def _is_unknown(key: str, value: object) -> bool:
    return key == SERVICE_NAME and str(value).startswith("unknown_service")
