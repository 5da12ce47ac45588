"""What the page asks for, over real HTTP: bounded, validated, kept for a moment, never the database's fault."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import aiohttp
import psycopg
import pytest

from service.telemetry.events import Reporter
from service.web import WebServer
from service.web.gauges import Load
from service.web.response_cache import MOST_KEPT
from tests.support import planted
from tests.support.planted import FLOW, HOSTILE, day

AWAY = "postgresql://outcomes:hush-hush@127.0.0.1:1/none"


@dataclass
class Site:
    address: str
    session: aiohttp.ClientSession
    web: WebServer

    async def ask(self, path: str, **headers: str) -> tuple[int, Any, Any]:
        async with self.session.get(f"http://{self.address}{path}", headers=headers) as response:
            text = await response.text()
            is_json = response.content_type == "application/json" and text
            return response.status, json.loads(text) if is_json else text, response.headers


@asynccontextmanager
async def serving(dsn: str) -> AsyncIterator[Site]:
    reporter, config = Reporter(), planted.config(dsn)
    for _ in range(3):
        reporter.emit("rate_limited", org="acme", job="daily", retry_after=1, query_hash="h")
    web = WebServer(
        reporter.registry,
        lambda: SimpleNamespace(dsn=dsn),
        lambda: config,
        lambda: {"acme": Load(3, 7)},
        lambda: reporter.warned,
    )
    address = await web.start("127.0.0.1", 0)
    try:
        async with aiohttp.ClientSession() as session:
            yield Site(address, session, web)
    finally:
        await web.stop()


@pytest.fixture
async def site(database: str) -> AsyncIterator[Site]:
    planted.plant(database)
    async with serving(database) as site:
        yield site


async def test_each_day_has_its_letter(site: Site) -> None:
    """The planted troubles, each on its day; all others complete, and today waits."""
    _, told, _ = await site.ask("/api/calendar?org=acme")
    days = told["jobs"]["daily"]["days"]
    found = {letter: len(days) - 1 - days.index(letter) for letter in "FLNRDAW"}
    assert found == {
        "F": planted.FAILED,
        "L": planted.LATE,
        "N": planted.NEVER,
        "R": planted.RESTATED,
        "D": planted.DOUBTED,
        "A": planted.ASKING,
        "W": days[::-1].index("W"),
    }
    assert days.strip(".").count("C") >= planted.SINCE - 7
    assert told["jobs"]["daily"]["notes"][day(planted.FAILED)] == "1 failed"


async def test_days_begin_where_the_org_says(site: Site) -> None:
    """An org in another zone has no false gap at its changes of the clock."""
    _, told, _ = await site.ask("/api/calendar?org=globex")
    assert set(told["jobs"]["daily"]["days"].strip(".")) == {"C", "W"}


async def test_a_day(site: Site) -> None:
    """A window the ledger does not know is told too, and restatements with their old and new figure."""
    _, told, _ = await site.ask(f"/api/day?org=acme&job=daily&day={day(planted.NEVER)}")
    assert [(each["state"], each["attempts"]) for each in told["windows"]] == [("never asked", 0)]
    _, told, _ = await site.ask(f"/api/day?org=acme&job=daily&day={day(planted.RESTATED)}")
    assert told["restatements"] == 2
    assert {(each["outcome_name"], each["old_count"], each["new_count"]) for each in told["restated"]} == {
        ("Abandoned", 42, 57),
        (HOSTILE, 100, None),
    }
    _, told, _ = await site.ask(f"/api/day?org=acme&job=hourly&day={day(1)}")
    assert len(told["windows"]) == 24
    _, told, _ = await site.ask("/api/day?org=acme&job=daily&day=2190-01-01")
    assert told["windows"] == []


async def test_shares_have_gaps(site: Site) -> None:
    """Null where a figure is null, null where no bucket is stored, and the sums are the view's."""
    _, told, _ = await site.ask(f"/api/shares?org=acme&flow={FLOW}&from={day(60)}&to={day(0)}")
    series = {each["name"]: each for each in told["series"]}
    assert len(series) == told["outcomes"] == 4
    assert len(told["starts"]) == len(told["labels"]) == 60
    assert len(series["Abandoned"]["nulls"]) == 5
    assert all(series["Abandoned"]["shares"][place] is None for place in series["Abandoned"]["nulls"])
    gone = told["labels"].index(day(planted.FAILED))
    assert all(each["shares"][gone] is None and gone not in each["nulls"] for each in series.values())
    for place in range(60):
        known = [each["shares"][place] for each in series.values() if each["shares"][place] is not None]
        assert not known or sum(known) == pytest.approx(1, abs=1e-5)


async def test_many_outcomes_are_folded(site: Site, database: str) -> None:
    """However many there are, a chart has twelve; what is left together is a sum."""
    with psycopg.connect(database) as connection:
        connection.execute(
            "INSERT INTO flow_outcomes.outcome (org, outcome_no, flow_id, source_key, reported_name, outcome_name,"
            f" revision) SELECT 'acme', 100 + n, '{FLOW}', 'x' || n, 'x' || n, 'x' || n, 1"
            " FROM generate_series(1, 500) n;"
            "INSERT INTO flow_outcomes.figure (org, granularity, outcome_no, bucket_start, bucket_end, state,"
            " outcome_count, extraction_timestamp, revision) SELECT 'acme', 'daily', 100 + n,"
            " date_trunc('day', now()) - interval '1 day', date_trunc('day', now()), 'reported', 1, now(), 1"
            " FROM generate_series(1, 500) n".encode()
        )
    _, told, _ = await site.ask(f"/api/shares?org=acme&flow={FLOW}")
    assert told["outcomes"] == 504
    assert len(told["series"]) == 12
    assert told["series"][-1]["name"] is None
    assert max(count or 0 for count in told["series"][-1]["counts"]) == 504 - 11


async def test_now(site: Site) -> None:
    """What is missing comes with its reason, like warnings are told once, and the load is this process's."""
    _, told, _ = await site.ask("/api/now")
    assert told["missing"] == 4
    assert [gap["state"] for gap in told["gaps"]] == ["failed", "never asked", "late", "doubted", "being asked"]
    assert [(each["event"], each["times"], each["text"]) for each in told["warnings"]] == [
        ("rate_limited", 3, "retry after 1")
    ]
    acme, globex = told["orgs"]["acme"], told["orgs"]["globex"]
    assert (acme["here"], acme["in_flight"], acme["waiting"]) == (True, 3, 7)
    assert (globex["here"], globex["breaker"], globex["in_flight"]) == (False, "open", None)
    assert 0 < globex["paused_for"] <= 50


async def test_changes(site: Site) -> None:
    """Restatements and renames, of one org or all."""
    _, told, _ = await site.ask("/api/changes")
    assert len(told["restated"]) == 2
    assert [(each["old_name"], each["new_name"], each["flows"]) for each in told["renamed"]] == [
        ("Self Service", "SelfServed", 1)
    ]
    _, told, _ = await site.ask("/api/changes?org=globex&limit=1")
    assert told == {"restated": [], "renamed": []}


async def test_flows_are_sought_as_text(site: Site) -> None:
    """A pattern's signs mean themselves; the answer is bounded and says so."""
    _, told, _ = await site.ask("/api/flows?org=acme&q=ALES")
    assert [flow["name"] for flow in told["flows"]] == ["Sales"]
    _, told, _ = await site.ask("/api/flows?org=acme&q=%25")
    assert told["flows"] == []
    _, told, _ = await site.ask("/api/flows?org=acme&limit=1")
    assert (len(told["flows"]), told["more"]) == (1, True)


@pytest.mark.parametrize(
    ("path", "word"),
    [
        ("/api/calendar", "org"),
        ("/api/calendar?org=nobody", "org"),
        ("/api/calendar?org=acme&from=2024-01-01&to=2026-01-01", "400 days"),
        ("/api/calendar?org=acme&to=yesterday", "to"),
        ("/api/calendar?org=acme&fro=2024-01-01", "fro"),
        ("/api/day?org=acme&job=daily", "day"),
        ("/api/day?org=globex&job=hourly&day=2024-01-01", "job"),
        ("/api/day?org=acme&job=daily&day=9999-12-31", "day"),
        ("/api/shares?org=acme", "flow"),
        ("/api/shares?org=acme&flow=a%00b", "flow"),
        (f"/api/shares?org=acme&flow={'x' * 600}", "flow"),
        ("/api/shares?org=acme&flow=x&granularity=yearly", "granularity"),
        ("/api/shares?org=acme&flow=x&granularity=hourly&from=2024-01-01&to=2024-03-01", "31 days"),
        ("/api/flows?org=acme&limit=-1", "limit"),
        ("/api/flows?org=acme&limit=999999999999999999999", "limit"),
        ("/api/changes?limit=0", "limit"),
        ("/api/now?x=1", "x"),
    ],
)
async def test_what_cannot_be_answered(site: Site, path: str, word: str) -> None:
    """400, and what would be right."""
    status, told, _ = await site.ask(path)
    assert status == 400
    assert word in told["error"]


async def test_an_answer_is_not_sent_twice(site: Site) -> None:
    """Who knows the ETag gets 304 and no body; another question has another one."""
    for path in ("/api/calendar?org=acme", "/api/changes", "/static/main.js", "/static/page.css"):
        status, _, headers = await site.ask(path)
        assert status == 200
        assert headers["Cache-Control"] == "no-cache"
        status, body, again = await site.ask(path, **{"If-None-Match": headers["ETag"]})
        assert (status, body) == (304, "")
        assert again["ETag"] == headers["ETag"]
        assert (await site.ask(path, **{"If-None-Match": 'W/"other"'}))[0] == 200


async def test_what_is_kept_is_bounded(site: Site) -> None:
    """Many questions do not fill the memory."""
    for back in range(MOST_KEPT + 5):
        assert (await site.ask(f"/api/day?org=acme&job=daily&day={day(back)}"))[0] == 200
    assert len(site.web._answers._kept) == MOST_KEPT


async def test_the_page_has_nothing_from_elsewhere(site: Site) -> None:
    """Every file that it names is there, none of them is another's, and no policy allows one."""
    _, text, headers = await site.ask("/")
    assert "http://" not in text
    assert "https://" not in text
    assert "style=" not in text
    policy = headers["Content-Security-Policy"]
    assert "unsafe" not in policy
    assert "*" not in policy
    for name in ("uplot.js", "uplot.css", "page.css", "main.js", "icon.svg"):
        assert f"/static/{name}" in text
        assert (await site.ask(f"/static/{name}"))[0] == 200
    for name in ("index.html", "../page.py", "..%2fpage.py", "nothing.js"):
        assert (await site.ask(f"/static/{name}"))[0] == 404


async def test_the_database_is_away() -> None:
    """503 with the reason and without the secret; the page itself still comes."""
    async with serving(AWAY) as site:
        for path in ("/api/now", "/api/calendar?org=acme", "/api/changes"):
            status, told, _ = await site.ask(path)
            assert status == 503
            assert "refused" in told["error"]
            assert "hush" not in told["error"]
        assert (await site.ask("/"))[0] == 200
