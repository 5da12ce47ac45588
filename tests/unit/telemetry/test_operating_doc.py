"""docs/operating.md names every event and every metric, and none that is not there."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

from prometheus_client.metrics_core import Metric

from service import cli
from service.status.status import Status
from service.telemetry.events import _LEVELS, Reporter
from service.web.gauges import Gauges, Load

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "docs" / "operating.md").read_text()
TELLERS = {"emit", "_emit", "_told", "report"}


def section(heading: str) -> str:
    """What stands under a heading of the second level."""
    return TEXT.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def cells(text: str) -> list[list[str]]:
    """The tables' rows, their heads and rules left out."""
    rows = [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in text.splitlines()
        if line[:1] == "|"
    ]
    return [row for row in rows if row[0].startswith("`")]


def named(text: str) -> list[str]:
    """What the first column of the tables names."""
    return [name for row in cells(text) for name in re.findall(r"`([^`]+)`", row[0])]


def emitted() -> set[str]:
    """Every event that the program tells, read off its calls."""
    return {event for file in (ROOT / "service").rglob("*.py") for event in events(ast.parse(file.read_text()))}


def events(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node.args:
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in TELLERS:
                yield from texts(node.args[0])


def texts(node: ast.expr) -> Iterator[str]:
    match node:
        case ast.Constant(value=str() as text):
            yield text
        case ast.IfExp(body=body, orelse=orelse):
            yield from texts(body)
            yield from texts(orelse)


def families() -> Iterator[Metric]:
    """Every metric, of a process that holds an org."""
    yield from Reporter().registry.collect()
    gauges = Gauges(cast("Status", {"orgs": {}}), 0.0, {"acme": Load(0, 0)}, datetime.now(UTC), reachable=True)
    yield from gauges.collect()


def test_every_event_is_there() -> None:
    """An event that the program tells has its line, and no line is of an event that it never tells."""
    assert len(emitted()) > 30
    found = named(section("Log events").partition("### Reasons")[0])
    assert sorted(found) == sorted(emitted())


def test_each_event_is_as_loud_as_it_says() -> None:
    """The level that the document gives is the one that the log has."""
    loud = {
        event: level.lower()
        for event, level in (
            (e, {10: "debug", 30: "warning", 40: "error"}.get(n, "info")) for e, n in _LEVELS.items()
        )
    }
    for row in cells(section("Log events").partition("### Reasons")[0]):
        for event in re.findall(r"`([^`]+)`", row[0]):
            assert row[1] == loud.get(event, "info"), event


def test_every_metric_is_there() -> None:
    """A metric has its line with its labels' names, under the name that a scrape shows."""
    found = [family.name + ("_total" if family.type == "counter" else "") for family in families()]
    assert sorted(named(section("Metrics"))) == sorted(found)


def test_every_exit_code_is_there() -> None:
    """The codes are those of the command line."""
    told = {int(line.split("|")[1]) for line in section("Exit codes").splitlines() if re.match(r"\| \d+ ", line)}
    assert told == {cli.DONE, cli.UNDONE, cli.BAD_USAGE, 130}


def test_links_lead_somewhere() -> None:
    """Every link within the documents leads to a file and a heading that are there."""
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
    """An alert that the document names is one of the rules."""
    rules = (ROOT / "config" / "grafana" / "alerts.yaml").read_text()
    named_alerts = re.findall(r"^\| (FlowOutcomes\w+) \|", TEXT, re.MULTILINE)
    assert named_alerts
    assert [each for each in named_alerts if f"alert: {each}\n" not in rules] == []
