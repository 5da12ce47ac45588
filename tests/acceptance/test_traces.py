"""Traces as a collector receives them, and what happens without one."""

from __future__ import annotations

import base64
import json
import signal
import socket
import time
from datetime import datetime

import pytest

from service.simulator import Fault, Faults, GeneratedCentre, SimulatedOrg, Simulator, SimulatorConfig
from tests.support.collector import Collector, collecting
from tests.support.daemon import Daemon
from tests.support.documents import blocks
from tests.support.program import SECRET, Program

FOUR_DAYS = {"from": "2024-01-01", "to": "2024-01-05", "granularity": "daily"}
GRPC = "opentelemetry-exporter-otlp-proto-grpc"
POISON = "raise ImportError('imported although it must not be')\n"


def simulated(faults: Faults | None = None) -> Simulator:
    settings = SimulatedOrg(
        client_secret=SECRET,
        centre=GeneratedCentre(seed=1, flows=6),
        requests_per_second=None,
        retry_after=1,
        faults=faults or Faults(),
    )
    return Simulator(SimulatorConfig(orgs={"acme": settings}))


def configure(program: Program, simulator: Simulator, **other: object) -> None:
    program.configure(
        simulator,
        orgs={"acme": {"page_size": 4, "breaker": {"failures": 50}}},
        jobs={"daily": {"since": "P4D", "off_peak": None}},
        ad_hoc={"recount": {"org": "acme", **FOUR_DAYS}},
        **other,
    )


def variables(collector: Collector, **other: str) -> dict[str, str]:
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, **other}


def without_the_extra(program: Program) -> dict[str, str]:
    """Variables with which an import of OpenTelemetry fails."""
    package = program.folder / "modules" / "opentelemetry"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(POISON)
    return {"PYTHONPATH": str(package.parent)}


async def test_spans_and_their_parents(program: Program) -> None:
    """A cycle has its scans, a scan its pages and its merge, each with org, job and window."""
    async with collecting() as collector, simulated() as simulator:
        configure(program, simulator)
        ended = await program.run("run", "--once", environment=variables(collector))
        assert ended.code == 0, ended.failures()
    events = {name: ended.find_events(name) for name in ("cycle_started", "window_complete")}
    cycles, scans = collector.named("cycle"), collector.named("scan")
    assert {span.attributes["cycle"] for span in cycles} == {line["cycle"] for line in events["cycle_started"]}
    assert {span.attributes.get("job") for span in cycles} == {"daily", None}
    assert len(collector.named("merge")) == len(scans) > 1
    pages = sum(each.kind == "query" for each in simulator.arrivals)
    assert len(collector.named("page")) == pages > len(scans)
    parents = {"cycle": "", "scan": "cycle", "page": "scan", "merge": "scan"}
    for span in collector.spans:
        parent = collector.parent_of(span)
        assert (parent.name if parent else "") == parents[span.name]
        assert span.attributes["org"] == "acme"
        assert span.attributes["window_start"] < span.attributes["window_end"]  # type: ignore[operator]
        assert span.error == ""
        if parent:
            assert (parent.trace, parent.attributes.get("job")) == (span.trace, span.attributes.get("job"))
            assert parent.attributes["window_start"] <= span.attributes["window_start"]  # type: ignore[operator]
            assert parent.seconds >= span.seconds
    scanned = sum(int(span.attributes["windows"]) for span in scans)
    assert scanned == len(events["window_complete"]) == len(program.windows())
    [service] = {json.dumps(each, sort_keys=True) for each in collector.services}
    assert json.loads(service)["service.name"] == "flow-outcomes"
    assert all(SECRET.encode() not in body for body in collector.bodies)


async def test_the_variables_of_the_sdk(program: Program) -> None:
    """The service's name, its resource, the headers and the sampler are those of the variables."""
    async with collecting() as collector, simulated() as simulator:
        configure(program, simulator)
        given = {
            "OTEL_SERVICE_NAME": "figures",
            "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
            "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20canary-collector-key",
            "OTEL_TRACES_EXPORTER": "otlp",
        }
        assert (await program.run("run", "--once", environment=variables(collector, **given))).code == 0
        assert {each["service.name"] for each in collector.services} == {"figures"}
        assert {each["deployment.environment.name"] for each in collector.services} == {"test"}
        assert {each["Authorization"] for each in collector.headers} == {"Bearer canary-collector-key"}
        before = collector.requests
        for off in (
            {"OTEL_SDK_DISABLED": "true"},
            {"OTEL_TRACES_EXPORTER": "none"},
            {"OTEL_TRACES_SAMPLER": "always_off"},
        ):
            ended = await program.run("run", "--once", environment=variables(collector, **off))
            assert (ended.code, ended.find_events("traces_unavailable")) == (0, [])
        assert collector.requests == before


async def test_no_secret_is_in_a_span(program: Program) -> None:
    """An error has its status and its class; what the server repeated of the secrets is redacted."""
    hostile = Faults(hostile_error=Fault(400, page=2))
    async with collecting() as collector, simulated(hostile) as simulator:
        configure(program, simulator)
        assert (await program.run("run", "--once", environment=variables(collector))).code == 1
        assert simulator.orgs["acme"].fired["hostile_error"]
        secrets = [SECRET, *simulator.tokens._tokens, base64.b64encode(f"acme:{SECRET}".encode()).decode()]
    failed = {span.name: span for span in collector.spans if span.error}
    assert set(failed) == {"page", "scan"}
    for span in failed.values():
        assert str(span.attributes["error.type"]) in span.error
        assert "[redacted]" in span.error
    for body in collector.bodies:
        assert not any(secret.encode() in body for secret in secrets)


async def test_an_export_is_a_span(program: Program) -> None:
    """The daemon's export, which runs in a process of its own, and the command's."""
    async with collecting() as collector, simulated() as simulator:
        warehouse = f"file://{program.folder}/warehouse"
        configure(program, simulator, export={"warehouse": warehouse, "every": "PT1S"}, http={"port": 0})
        daemon = await Daemon.start(program, environment=variables(collector, OTEL_BSP_SCHEDULE_DELAY="100"))
        await daemon.wait_for_event("cycle_finished", job="daily")
        done = await daemon.wait_for_event("export_finished", within=150)
        await daemon.wait_until(lambda: bool(collector.named("export")), "span")
        await daemon.end()
        seen = len(collector.named("export"))
        ended = await program.run("export", environment=variables(collector))
        assert ended.code == 0, ended.err
    first, last = collector.named("export")[0], collector.named("export")[seen]
    assert first.attributes["warehouse"] == last.attributes["warehouse"] == warehouse
    assert {"export", "months", "rows"} <= first.attributes.keys() & last.attributes.keys()
    assert first.seconds == pytest.approx(done["seconds"], abs=5)
    assert {each.parent for each in collector.named("export")} == {b""}


@pytest.mark.parametrize("state", ["hangs", "fails", "refuses"])
async def test_a_collector_that_takes_nothing(program: Program, state: str) -> None:
    """Extraction and the end of the process are not delayed, and the log has one line about it at most."""
    async with collecting() as collector, simulated() as simulator:
        configure(program, simulator, http={"port": 0})
        collector.status = None if state == "hangs" else 503
        environment = variables(collector, OTEL_BSP_SCHEDULE_DELAY="50", OTEL_EXPORTER_OTLP_TIMEOUT="60")
        if state == "refuses":
            environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://127.0.0.1:{unused_port()}"
        daemon = await Daemon.start(program, environment=environment)
        await daemon.wait_for_event("cycle_finished", job="daily")
        if state != "hangs":
            await daemon.wait_for_event("traces_not_exported")
        for _ in range(3):
            before = daemon.count("cycle_finished")
            daemon.send(signal.SIGUSR1)
            await daemon.wait_for_event("cycle_finished", times=before + 1)
        assert daemon.count("window_failed") == 0
        assert bool(collector.requests) == (state != "refuses")
        assert await daemon.end() < 10  # the exporter gives up after 60
        lines = [line["reason"] for line in daemon.events if line["event"] == "traces_not_exported"]
        assert len(lines) == (state != "hangs")
        assert not [line for line in daemon.events if "opentelemetry" in str(line.get("logger"))]


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_the_collector_hangs_at_the_end(program: Program) -> None:
    """A run that ends before its first export waits a second at most for it."""
    async with collecting() as collector, simulated() as simulator:
        configure(program, simulator)
        collector.status = None
        ended = await program.run("run", "--once", environment=variables(collector))
        after = time.time()
        assert (ended.code, collector.requests) == (0, 1)
        [finished] = ended.find_events("cycle_finished", job="daily")
        assert after - timestamp(finished) < 5  # the exporter gives up after ten


def timestamp(line: dict[str, object]) -> float:
    return datetime.fromisoformat(str(line["timestamp"])).timestamp()


@pytest.mark.parametrize(
    "given", [{"OTEL_TRACES_EXPORTER": "console"}, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}]
)
async def test_without_the_extra(program: Program, given: dict[str, str]) -> None:
    """One warning says what to install, and the run goes on."""
    async with simulated() as simulator:
        configure(program, simulator)
        ended = await program.run("run", "--once", environment={**without_the_extra(program), **given})
    assert (ended.code, ended.err) == (0, "")
    [warning] = ended.find_events("traces_unavailable")
    assert warning["level"] == "warning"
    assert "pip install '.[otel]'" in warning["reason"]


async def test_nothing_is_imported_without_the_variables(program: Program) -> None:
    """The name of the service alone requests no traces."""
    async with simulated() as simulator:
        configure(program, simulator)
        environment = {**without_the_extra(program), "OTEL_SERVICE_NAME": "figures"}
        ended = await program.run("run", "--once", environment=environment)
    assert (ended.code, ended.err) == (0, "")
    assert ended.find_events("traces_unavailable") == []


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (
            {"OTEL_TRACES_EXPORTER": "otlp,carrier_pigeon"},
            "no package with the exporter carrier_pigeon is installed",
        ),
        (
            {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            f"no package with the exporter otlp_proto_grpc is installed; install {GRPC}",
        ),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_CERTIFICATE": "/nonexistent"}, None),
    ],
    ids=["unknown", "grpc", "certificate"],
)
async def test_an_exporter_that_cannot_be_used(
    program: Program, given: dict[str, str], reason: str | None
) -> None:
    """The warning names what is missing, and the run goes on."""
    async with simulated() as simulator:
        configure(program, simulator)
        ended = await program.run("run", "--once", environment=given)
    assert (ended.code, ended.err) == (0, "")
    warnings = ended.find_events("traces_unavailable")
    assert (
        [line["reason"] for line in warnings] == [reason] if reason else ended.find_events("traces_not_exported")
    )


async def test_the_console(program: Program) -> None:
    """The exporter ``console`` writes each span as one line into the log, as docs/operating.md shows."""
    [block] = blocks("docs/operating.md", "Traces", "sh")
    given, *command = (
        next(line for line in block.text.splitlines() if "console" in line).partition("  #")[0].split()
    )
    async with simulated() as simulator:
        configure(program, simulator)
        ended = await program.run(*command[1:], environment=dict([given.split("=")]))
    lines = [json.loads(line) for line in ended.out.splitlines()]
    spans = [line for line in lines if "event" not in line]
    assert {span["name"] for span in spans} == {"cycle", "scan", "page", "merge"}
    assert all(span["attributes"]["org"] == "acme" for span in spans)
