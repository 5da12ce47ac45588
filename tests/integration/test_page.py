"""The endpoints of the page over HTTP: bounded, validated and cached."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager

import psycopg
import pytest

from service.telemetry import Reporter
from service.web import Load, status_cache
from service.web.assets import assets
from service.web.response_cache import MAX_ENTRIES, CachedResponse, ResponseCache
from tests.support import sample_database
from tests.support.page_harness import Site, serving
from tests.support.sample_database import FLOW, HOSTILE, day

KINDS = ("restated", "renamed", "complete", "owner", "warning")
AWAY = "postgresql://outcomes:hush-hush@127.0.0.1:1/none"


def served(dsn: str) -> AbstractAsyncContextManager[Site]:
    """A server of the sample's orgs, one of which is held here, with three equal warnings."""
    reporter = Reporter()
    for _ in range(3):
        reporter.emit("rate_limited", org="acme", job="daily", retry_after=1, flows=["a", "b"], query_hash="h")
    return serving(dsn, sample_database.config(dsn), {"acme": Load(3, 7)}, reporter)


@pytest.fixture
async def site(database: str) -> AsyncIterator[Site]:
    sample_database.plant(database)
    async with served(database) as site:
        yield site


async def test_each_day_has_its_letter(site: Site) -> None:
    """The planted problems are on their days, all other days are complete, and today waits."""
    _, data, _ = await site.response("/api/calendar?org=acme")
    days = data["jobs"]["daily"]["days"]
    found = {letter: len(days) - 1 - days.index(letter) for letter in "FLNRDA"}
    assert found == {
        "F": sample_database.FAILED,
        "L": sample_database.LATE,
        "N": sample_database.NEVER,
        "R": sample_database.RESTATED,
        "D": sample_database.DOUBTED,
        "A": sample_database.RUNNING,
    }
    assert days.rstrip(".").endswith("W")
    assert days.strip(".").count("C") >= sample_database.SINCE - 7
    assert data["jobs"]["daily"]["notes"][day(sample_database.FAILED)] == "1 failed"


async def test_days_begin_at_the_org_s_midnight(site: Site) -> None:
    """An org in another time zone has no false gap when its clocks change."""
    _, data, _ = await site.response("/api/calendar?org=globex")
    assert set(data["jobs"]["daily"]["days"].strip(".")) == {"C", "W"}


async def test_a_day(site: Site) -> None:
    """A day lists windows that the ledger does not have, and restatements with their old and new figures."""
    _, data, _ = await site.response(f"/api/day?org=acme&job=daily&day={day(sample_database.NEVER)}")
    assert [(each["state"], each["attempts"]) for each in data["windows"]] == [("not requested", 0)]
    _, data, _ = await site.response(f"/api/day?org=acme&job=daily&day={day(sample_database.RESTATED)}")
    assert data["restatements"] == 2
    assert {(each["outcome_name"], each["old_count"], each["new_count"]) for each in data["restated"]} == {
        ("Abandoned", 42, 57),
        (HOSTILE, 100, None),
    }
    _, data, _ = await site.response(f"/api/day?org=acme&job=hourly&day={day(1)}")
    assert len(data["windows"]) == 24
    _, data, _ = await site.response("/api/day?org=acme&job=daily&day=2190-01-01")
    assert data["windows"] == []


async def test_figures_have_gaps(site: Site) -> None:
    """Counts are null where a figure is null or no bucket is stored; the shares of a bucket add up to one."""
    _, data, _ = await site.response(f"/api/flow?org=acme&flow={FLOW}&from={day(60)}&to={day(0)}")
    series = {each["name"]: each for each in data["series"]}
    assert len(series) == data["outcomes"] == 4
    assert len(data["starts"]) == 60
    assert len(series["Abandoned"]["nulls"]) == 5
    assert all(series["Abandoned"]["counted"][place] is None for place in series["Abandoned"]["nulls"])
    gone = 60 - sample_database.FAILED
    assert all(each["counted"][gone] is None and gone not in each["nulls"] for each in series.values())
    for place in range(60):
        known = [each["shares"][place] for each in series.values() if each["shares"][place] is not None]
        assert not known or sum(known) == pytest.approx(1, abs=1e-5)


async def test_many_outcomes_are_combined(site: Site, database: str) -> None:
    """A flow has at most twelve series; the last one is the sum of the others."""
    with psycopg.connect(database) as connection:
        connection.execute(
            "INSERT INTO flow_outcomes.series (org, series_no, flow_id, source_key, reported_name, outcome_name,"
            f" revision) SELECT 'acme', 100 + n, '{FLOW}', 'x' || n, 'x' || n, 'x' || n, 1"
            " FROM generate_series(1, 500) n;"
            "INSERT INTO flow_outcomes.figure (org, granularity, series_no, bucket_start, bucket_end, state,"
            " outcome_count, extraction_timestamp, revision) SELECT 'acme', 'daily', 100 + n,"
            " date_trunc('day', now()) - interval '1 day', date_trunc('day', now()), 'reported', 1, now(), 1"
            " FROM generate_series(1, 500) n".encode()
        )
    _, data, _ = await site.response(f"/api/flow?org=acme&flow={FLOW}")
    assert data["outcomes"] == 504
    assert len(data["series"]) == 12
    assert data["series"][-1]["name"] is None
    assert max(count or 0 for count in data["series"][-1]["counted"]) == 504 - 11


async def test_now(site: Site) -> None:
    """Problems are grouped by cause and have a command each; the load is this process's."""
    _, data, _ = await site.response("/api/now")
    assert data["missing"] == 4
    assert [each["state"] for each in data["problems"]] == [
        "failed",
        "not requested",
        "late",
        "doubted",
        "running",
    ]
    (line,) = data["problems"][0]["lines"]
    failed = day(sample_database.FAILED)
    assert (line["org"], line["job"], line["first"], line["last"]) == ("acme", "daily", failed, failed)
    assert line["command"] == (
        f"flow-outcomes backfill --org acme --from {failed} --to {day(sample_database.FAILED - 1)}"
        " --granularity daily"
    )
    acme, globex = data["orgs"]["acme"], data["orgs"]["globex"]
    assert (acme["held_here"], acme["in_flight"], acme["waiting"]) == (True, 3, 7)
    assert (globex["held_here"], globex["breaker"], globex["in_flight"]) == (False, "open", None)
    assert 0 < globex["paused_for"] <= 50


async def test_the_export(site: Site, database: str) -> None:
    """The newest export, and why the last one failed, also without a script."""
    _, data, _ = await site.response("/api/now")
    assert (data["export"]["export"], data["export"]["failed_at"]) == (12, None)
    async with served(database) as another:  # its status is not cached
        with psycopg.connect(database) as connection:
            connection.execute("UPDATE flow_outcomes.export_lease SET failed_at = now(), last_error = '<full>'")
        _, data, _ = await another.response("/api/now")
        assert (data["export"]["export"], data["export"]["last_error"]) == (12, "<full>")
        _, page, _ = await another.response("/")
        assert f"<p>Export to {sample_database.WAREHOUSE}: number 12 of 2" in page
        assert ": &lt;full&gt;</p>" in page


async def test_timeline(site: Site) -> None:
    """Restatements by merge, renames, takeovers, and equal warnings once."""
    _, data, _ = await site.response("/api/timeline")
    kinds = {kind: [each for each in data["events"] if each["kind"] == kind] for kind in KINDS}
    assert [(each["figures"], each["granularity"]) for each in kinds["restated"]] == [(2, "daily")]
    assert [(each["old_name"], each["new_name"], each["flows"]) for each in kinds["renamed"]] == [
        ("Self Service", "SelfServed", 1)
    ]
    assert [(each["event"], each["times"], each["text"]) for each in kinds["warning"]] == [
        ("rate_limited", 3, "retry after 1, flows a, b")
    ]
    assert {each["owner"] for each in kinds["owner"]} == {"host:1", "host:2"}
    hourly = [each for each in kinds["complete"] if each["job"] == "hourly"]
    assert len(hourly) in {1, 2}  # today, and yesterday after this hour
    assert sum(each["windows"] for each in hourly) in {23, 24}
    assert [each["at"] for each in data["events"]] == sorted((each["at"] for each in data["events"]), reverse=True)
    _, data, _ = await site.response("/api/timeline?org=globex")
    assert {each["org"] for each in data["events"]} == {"globex"}


async def test_strips(site: Site) -> None:
    """The last 90 days of each job of each org."""
    _, data, _ = await site.response("/api/strips")
    assert data["batches"] == 1
    assert [each["org"] for each in data["strips"]] == ["acme", "globex"]
    days = data["strips"][0]["jobs"]["daily"]["days"]
    assert len(days) == 90
    assert len(days) - 1 - days.index("F") == sample_database.FAILED
    _, data, _ = await site.response("/api/strips?batch=1")
    assert data["strips"] == []


async def test_flows_are_searched_as_text(site: Site) -> None:
    """Pattern characters in a search match themselves; the result is limited and says whether there is more."""
    _, data, _ = await site.response("/api/flows?org=acme&q=ALES")
    assert [flow["name"] for flow in data["flows"]] == ["Sales"]
    _, data, _ = await site.response("/api/flows?org=acme&q=%25")
    assert data["flows"] == []
    _, data, _ = await site.response("/api/flows?org=acme&limit=1")
    assert (len(data["flows"]), data["more"]) == (1, True)


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
        ("/api/flow?org=acme", "flow"),
        ("/api/flow?org=acme&flow=a%00b", "flow"),
        (f"/api/flow?org=acme&flow={'x' * 600}", "flow"),
        ("/api/flow?org=acme&flow=x&granularity=yearly", "granularity"),
        ("/api/flow?org=acme&flow=x&granularity=hourly&from=2024-01-01&to=2024-03-01", "31 days"),
        ("/api/flow?org=acme&flow=x&at=2024-01-01T00:00:00", "at"),
        ("/api/flow?org=acme&flow=x&at=9999-01-01T00:00:00Z", "at"),
        ("/api/differences?org=acme&flow=x&with=monday", "with"),
        ("/api/instants?org=acme", "flow"),
        ("/api/overview?org=acme&measure=mood", "measure"),
        ("/api/overview", "org"),
        ("/api/figures.csv", "org"),
        ("/api/figures.csv?org=acme&formulas=run", "formulas"),
        ("/api/figures.csv?org=acme&from=2020-01-01&to=2026-01-01", "days"),
        ("/api/strips?batch=-1", "batch"),
        ("/api/flows?org=acme&limit=-1", "limit"),
        ("/api/flows?org=acme&limit=999999999999999999999", "limit"),
        ("/api/now?x=1", "x"),
    ],
)
async def test_invalid_parameters(site: Site, path: str, word: str) -> None:
    """400 with a message about what is valid."""
    status, data, _ = await site.response(path)
    assert status == 400
    assert word in data["error"]


async def test_an_unchanged_response_is_not_sent_again(site: Site) -> None:
    """A client with the ETag gets 304 without a body."""
    for path in ("/api/calendar?org=acme", "/api/timeline", "/static/main.js", "/static/base.css"):
        status, _, headers = await site.response(path)
        assert status == 200
        assert headers["Cache-Control"] == "no-cache"
        status, body, again = await site.response(path, **{"If-None-Match": headers["ETag"]})
        assert (status, body) == (304, "")
        assert again["ETag"] == headers["ETag"]
        assert (await site.response(path, **{"If-None-Match": 'W/"other"'}))[0] == 200


async def test_the_cache_is_bounded(site: Site) -> None:
    """The number of cached responses is bounded."""
    for back in range(MAX_ENTRIES + 5):
        assert (await site.response(f"/api/day?org=acme&job=daily&day={day(back)}"))[0] == 200
    assert len(site.web._responses._entries) == MAX_ENTRIES


@pytest.mark.parametrize("view", ["/", "/flow", "/health"])
async def test_the_page_loads_only_its_own_files(site: Site, view: str) -> None:
    """Every file that the page names is its own, and the policy allows no other."""
    _, text, headers = await site.response(view)
    assert "http://" not in text
    assert "https://" not in text
    assert "style=" not in text
    policy = headers["Content-Security-Policy"]
    assert "unsafe" not in policy
    assert "*" not in policy
    for name in ("uplot.js", "uplot.css", "base.css", "views.css", "main.js", "icon.svg"):
        assert f'"static/{name}"' in text
        assert (await site.response(f"/static/{name}"))[0] == 200
    for name in ("index.html", "../page.py", "..%2fpage.py", "nothing.js"):
        assert (await site.response(f"/static/{name}"))[0] == 404


async def test_every_url_is_relative(site: Site) -> None:
    """Neither the page nor its scripts and styles name a path from the root, so a proxy can add a prefix."""
    _, page, _ = await site.response("/")
    assert "static/main.js" in page
    own = [each for name, each in assets().items() if name.endswith((".js", ".css")) and "uplot" not in name]
    for text in (page, *(each.body.decode() for each in own)):
        assert not re.findall(r"""["'`(=]/[a-z]""", text)


async def test_more_different_requests_than_can_be_kept(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """While clients wait for 64 different documents, a further one gets 503, and those that wait get theirs."""
    go = asyncio.Event()
    waiting = 0

    async def make(_cache: ResponseCache, _make: object) -> CachedResponse:
        nonlocal waiting
        waiting += 1
        await go.wait()
        return CachedResponse(b"{}", b"", "x")

    monkeypatch.setattr(ResponseCache, "_make", make)
    monkeypatch.setattr(status_cache, "WAIT_TIMEOUT", 30.0)
    urls = [f"/api/day?org=acme&job=daily&day={day(back)}" for back in range(MAX_ENTRIES + 1)]
    tasks = [asyncio.create_task(site.response(url)) for url in urls[:-1]]
    async with asyncio.timeout(20):
        while waiting < MAX_ENTRIES:  # noqa: ASYNC110 - nothing notifies of it
            await asyncio.sleep(0.01)
        status, data, headers = await site.response(urls[-1])
        assert (status, headers["Retry-After"]) == (503, "3")
        assert "try again" in data["error"]
        same = asyncio.create_task(site.response(urls[0]))  # the same document as another client's
        go.set()
        assert [status for status, _, _ in await asyncio.gather(same, *tasks)] == [200] * (MAX_ENTRIES + 1)
        assert (await site.response(urls[-1]))[0] == 200


async def test_a_document_that_nobody_waits_for_makes_room(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Documents whose clients have given up do not keep a further one from being queried."""

    async def make(_cache: ResponseCache, _make: object) -> CachedResponse:
        if hung:
            await asyncio.Event().wait()
        return CachedResponse(b"{}", b"", "x")

    hung = True
    monkeypatch.setattr(ResponseCache, "_make", make)
    monkeypatch.setattr(status_cache, "WAIT_TIMEOUT", 0.01)
    for back in range(MAX_ENTRIES):
        assert (await site.response(f"/api/day?org=acme&job=daily&day={day(back)}"))[0] == 503
    hung = False
    assert (await site.response("/api/timeline"))[0] == 200


async def test_the_database_is_unavailable() -> None:
    """Endpoints answer 503 with the reason and without secrets; the page is still served."""
    async with served(AWAY) as site:
        for path in (
            "/api/now",
            "/api/calendar?org=acme",
            "/api/timeline",
            "/api/overview?org=acme",
            "/api/figures.csv?org=acme",
        ):
            status, data, _ = await site.response(path)
            assert status == 503
            assert "refused" in data["error"]
            assert "hush" not in data["error"]
        assert (await site.response("/"))[0] == 200
