"""Spans: what the variables request, and what a span keeps of an error."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from service.errors import HoursOverError, InvalidResponseError
from service.telemetry import logs, otel, register_secret, traces

pytestmark = pytest.mark.unit
ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}
CANARY = "canary-of-a-span-83b1"


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """The exporter of a tracer that is in force."""
    memory = InMemorySpanExporter()
    tracer = otel.OtelTracer([memory])
    monkeypatch.setattr(traces, "_tracer", tracer)
    yield memory
    tracer.close()


def finished(exporter: InMemorySpanExporter) -> list[ReadableSpan]:
    traces.close()
    return list(exporter.get_finished_spans())


@pytest.mark.parametrize(
    ("environment", "names"),
    [
        ({}, []),
        ({"OTEL_SERVICE_NAME": "figures", "OTEL_EXPORTER_OTLP_HEADERS": "a=b"}, []),
        (ENDPOINT, ["otlp"]),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1/x"}, ["otlp"]),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, ["otlp"]),
        ({"OTEL_TRACES_EXPORTER": " console , otlp,"}, ["console", "otlp"]),
        ({**ENDPOINT, "OTEL_TRACES_EXPORTER": "none"}, []),
        ({**ENDPOINT, "OTEL_SDK_DISABLED": "TRUE"}, []),
        ({**ENDPOINT, "OTEL_SDK_DISABLED": "false"}, ["otlp"]),
        ({**ENDPOINT, "OTEL_TRACES_EXPORTER": ""}, ["otlp"]),
    ],
)
def test_what_the_variables_request(environment: dict[str, str], names: list[str]) -> None:
    """An exporter or an endpoint must be named; the SDK can be disabled."""
    assert traces.exporters(environment) == names


def test_without_a_tracer_all_spans_are_one_object() -> None:
    """A span costs a call and nothing else."""
    with traces.span("cycle", org="acme") as first, traces.span("scan") as second:
        first.set(rows=1)
        second.discard()
    assert first is second


def test_attributes(exporter: InMemorySpanExporter) -> None:
    """They have the form of a log line's fields, are redacted, and None is left out."""
    register_secret(CANARY)
    at = datetime(2024, 1, 1, tzinfo=UTC)
    with traces.span("scan", org="acme", job=None, window_start=at, text=f"x {CANARY}", names=["a", "b"]) as span:
        span.set(rows=3)
    [one] = finished(exporter)
    assert dict(one.attributes or {}) == {
        "org": "acme",
        "window_start": "2024-01-01T00:00:00.000Z",
        "text": "x ***",
        "names": '["a", "b"]',
        "rows": 3,
    }


@pytest.mark.parametrize(
    ("error", "description"),
    [
        (InvalidResponseError(f"a page with {CANARY}"), "InvalidResponseError: a page with ***"),
        (ValueError("a token that is not registered"), "ValueError"),
    ],
)
def test_an_error(exporter: InMemorySpanExporter, error: Exception, description: str) -> None:
    """The text of the program's own errors is kept, redacted; of any other error the class alone."""
    register_secret(CANARY)
    with pytest.raises(type(error)), traces.span("scan"):
        raise error
    [one] = finished(exporter)
    assert one.status.description == description
    assert dict(one.attributes or {}) == {"error.type": type(error).__name__}
    assert one.events == ()


@pytest.mark.parametrize("error", [HoursOverError("the off-peak hours are over"), KeyboardInterrupt()])
def test_a_scan_that_stopped_has_not_failed(exporter: InMemorySpanExporter, error: BaseException) -> None:
    """Nothing failed where the off-peak hours ended, or a task was cancelled."""
    with pytest.raises(type(error)), traces.span("scan"):
        raise error
    [one] = finished(exporter)
    assert one.status.is_unset
    assert dict(one.attributes or {}) == {"stopped": type(error).__name__}


def test_a_discarded_span(exporter: InMemorySpanExporter) -> None:
    """It is not exported, and is no parent afterwards."""
    with traces.span("page") as first:
        first.discard()
    with traces.span("merge"):
        pass
    [one] = finished(exporter)
    assert (one.name, one.parent) == ("merge", None)


def test_the_sdk_is_reported_once() -> None:
    """Of many messages of the SDK the log has one, and the next one has the number of those between."""
    stream = io.StringIO()
    logs.configure("info", "json", stream)
    handler = otel._SdkHandler()
    record = logging.LogRecord("opentelemetry.x", logging.WARNING, "", 0, "cannot\nexport %s", ("spans",), None)
    for _ in range(5):
        handler.handle(record)
    handler._next = 0.0
    handler.handle(record)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(line["event"], line["reason"], line["suppressed"]) for line in lines] == [
        ("traces_not_exported", "cannot export spans", 0),
        ("traces_not_exported", "cannot export spans", 4),
    ]


def test_the_end_does_not_wait_for_an_exporter_that_failed() -> None:
    """Nor for one whose export has been running for longer than a second."""

    class Failing(InMemorySpanExporter):
        def export(self, spans: object) -> SpanExportResult:  # noqa: ARG002 - the interface
            return SpanExportResult.FAILURE

    monitored = otel._MonitoredExporter(Failing())
    assert not monitored.is_failing()
    monitored.export([])
    assert monitored.is_failing()
    monitored = otel._MonitoredExporter(InMemorySpanExporter())
    monitored.export([])
    assert not monitored.is_failing()
    monitored._began = 0.0
    assert monitored.is_failing()


@pytest.mark.parametrize(
    ("variables", "secret"),
    [
        ({"OTEL_EXPORTER_OTLP_HEADERS": f"a=b,api-key={CANARY}"}, CANARY),
        ({"OTEL_EXPORTER_OTLP_TRACES_HEADERS": f"authorization=Bearer%20{CANARY}"}, CANARY),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": f"https://name:{CANARY}@127.0.0.1"}, CANARY),
    ],
)
def test_secrets_of_the_exporter(variables: dict[str, str], secret: str) -> None:
    """The values of its headers and a password in its endpoint are redacted from the log."""
    assert secret in traces._secrets(variables)
