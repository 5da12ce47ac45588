"""The dashboard and the alert rules: every query runs, and every metric is one that a daemon tells."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import psycopg
import pytest
import yaml

from service.telemetry import Reporter
from service.web import Load, WebServer
from tests.support import sample_database
from tests.support.fake_daemon import FakeDaemon

FOLDER = Path(__file__).parents[2] / "config" / "grafana"
DASHBOARD: dict[str, Any] = json.loads((FOLDER / "dashboard.json").read_text())
RULES: dict[str, Any] = yaml.safe_load((FOLDER / "alerts.yaml").read_text())
FILLED_IN = {
    "${org:sqlstring}": "'acme','globex'",
    "${flow:sqlstring}": f"'{sample_database.FLOW}'",
    "$__timeFrom()": "now() - interval '30 days'",
    "$__timeTo()": "now()",
}
EVENTS: list[tuple[str, dict[str, Any]]] = [
    ("request_finished", {"status": 200, "seconds": 0.1}),
    ("request_waited", {"seconds": 0.1}),
    ("retry_scheduled", {}),
    ("rate_limited", {}),
    ("window_complete", {"job": "daily", "rows": 3, "rejected": 1}),
    ("outcome_restated", {"job": "daily", "rows": 1}),
    ("outcome_missing", {"job": "daily", "rows": 1}),
    ("circuit_opened", {}),
]


def queries() -> Iterator[tuple[str, str]]:
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            if "rawSql" in target:
                yield panel["title"], target["rawSql"]
    for variable in DASHBOARD["templating"]["list"]:
        if str(variable["query"]).startswith("SELECT"):
            yield variable["name"], variable["query"]


def expressions() -> Iterator[str]:
    for panel in DASHBOARD["panels"]:
        yield from (target["expr"] for target in panel["targets"] if "expr" in target)
    yield from (variable["query"] for variable in DASHBOARD["templating"]["list"])
    yield from (rule["expr"] for group in RULES["groups"] for rule in group["rules"])


@pytest.mark.parametrize(("title", "query"), list(queries()), ids=[title for title, _ in queries()])
def test_each_query_runs_and_finds_something(database: str, title: str, query: str) -> None:
    """On a database with every trouble in it no panel stays empty; a null share stays null."""
    sample_database.plant(database)
    for variable, value in FILLED_IN.items():
        query = query.replace(variable, value)
    assert "$" not in query, title
    with psycopg.connect(database) as connection:
        rows = connection.execute(query.encode()).fetchall()
    assert rows, title
    assert all(any(row[column] is not None for row in rows) for column in range(len(rows[0]))), "an empty column"


async def test_each_metric_is_told(database: str) -> None:
    """A name that nobody tells would be a panel that is empty for ever, and an alert that never fires."""
    sample_database.plant(database)
    reporter = Reporter()
    for event, context in EVENTS:
        reporter.emit(event, org="acme", **context)
    config = sample_database.config(database)
    web = WebServer(FakeDaemon(config, database, {"acme": Load(1, 2)}, reporter))
    address = await web.start("127.0.0.1", 0)
    try:
        async with aiohttp.ClientSession() as session, session.get(f"http://{address}/metrics") as response:
            text = await response.text()
    finally:
        await web.stop()
    told = set(re.findall(r"^(flow_outcomes_\w+)", text, re.MULTILINE))
    asked = {name for expression in expressions() for name in re.findall(r"flow_outcomes_\w+", expression)}
    assert len(asked) > 15
    assert asked <= told


def test_panels_do_not_lie_on_each_other() -> None:
    """Each has a place and a number of its own, and gaps stay gaps."""
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in DASHBOARD["panels"]]
    assert len(set(places)) == len(places)
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(places)
    lines = [panel for panel in DASHBOARD["panels"] if panel["type"] == "timeseries"]
    assert all(panel["fieldConfig"]["defaults"]["custom"]["spanNulls"] is False for panel in lines)
