"""docs/operating.md lists every event, metric and exit code, and no others."""

from __future__ import annotations

import ast
import logging
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

from prometheus_client.metrics_core import Metric

from service.cli import ExitCode
from service.status.status import Status
from service.telemetry import Event, Reporter
from service.web import Load
from service.web.gauges import Gauges
from service.web.scrape import Scrape

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "docs" / "operating.md").read_text()
EMITTERS = {"emit", "_emit", "_told", "report"}


def section(heading: str) -> str:
    """The text under a heading of the second level."""
    return TEXT.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def cells(text: str) -> list[list[str]]:
    """The rows of the tables, without headings and rules."""
    rows = [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in text.splitlines()
        if line[:1] == "|"
    ]
    return [row for row in rows if row[0].startswith("`")]


def named(text: str) -> list[str]:
    """The names in the first column of the tables."""
    return [name for row in cells(text) for name in re.findall(r"`([^`]+)`", row[0])]


def emitted() -> set[str]:
    """Every event that the program emits, from the calls in its source."""
    return {event for file in (ROOT / "service").rglob("*.py") for event in events(ast.parse(file.read_text()))}


def events(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node.args:
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in EMITTERS:
                yield from texts(node.args[0])


def texts(node: ast.expr) -> Iterator[str]:
    match node:
        case ast.Constant(value=str() as text):
            yield text
        case ast.Attribute(value=ast.Name(id="Event"), attr=name):
            yield Event[name]
        case ast.IfExp(body=body, orelse=orelse):
            yield from texts(body)
            yield from texts(orelse)


def families() -> Iterator[Metric]:
    """Every metric of a process that holds an org."""
    exported = {"exported_at": "2024-01-01T00:00:00Z", "failed_at": None}
    status = cast("Status", {"orgs": {}, "export": exported})
    gauges = Gauges(status, 0.0, {"acme": Load(0, 0)}, datetime.now(UTC), usable=True)
    yield from Scrape(Reporter().registry, gauges).collect()


def test_every_event_is_there() -> None:
    """Every event has a line in the document and a level, and every line is of an event that the program emits."""
    of_telemetry = {Event.LOG_LINES_DROPPED, Event.TRACES_UNAVAILABLE, Event.TRACES_NOT_EXPORTED}
    assert emitted() | of_telemetry == set(Event)  # the log and the tracer report theirs without an emitter
    assert sorted(named(section("Log events").partition("### Reasons")[0])) == sorted(Event)


def test_each_event_has_the_documented_level() -> None:
    """The document gives the level at which the event is logged."""
    for row in cells(section("Log events").partition("### Reasons")[0]):
        for event in re.findall(r"`([^`]+)`", row[0]):
            assert row[1] == logging.getLevelName(Event(event).level).lower(), event


def test_every_metric_is_there() -> None:
    """Every metric has a line, under the name that a scrape shows."""
    suffixes = {"counter": "_total", "info": "_info"}
    found = [family.name + suffixes.get(family.type, "") for family in families()]
    assert sorted(named(section("Metrics"))) == sorted(found)


def test_every_exit_code_is_there() -> None:
    """The codes are those of the command line."""
    listed = {int(line.split("|")[1]) for line in section("Exit codes").splitlines() if re.match(r"\| \d+ ", line)}
    assert listed == set(ExitCode)


def test_links_lead_somewhere() -> None:
    """Every link within the documents leads to a file and a heading that exist."""
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text()):
            path, _, anchor = target.partition("#")
            to = (page.parent / path) if path else page
            assert to.exists(), f"{page.name}: {target}"
            if anchor:
                headings = re.findall(r"^#+ (.*)$", to.read_text(), re.MULTILINE)
                assert anchor in {re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings}, (
                    target
                )


def test_the_alerts_are_there() -> None:
    """Every alert in the document is in the rules."""
    rules = (ROOT / "config" / "grafana" / "alerts.yaml").read_text()
    named_alerts = re.findall(r"^\| (FlowOutcomes\w+) \|", TEXT, re.MULTILINE)
    assert named_alerts
    assert [each for each in named_alerts if f"alert: {each}\n" not in rules] == []
