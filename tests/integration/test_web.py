"""The server over HTTP, with a database that is available, unavailable, hung or read-only."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
import psycopg
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from service.config import Config, config_from
from service.errors import ConfigError
from service.telemetry import Reporter
from service.web import Load, WebServer, status_cache
from tests.support.fake_daemon import FakeDaemon

LABELS = ("org", "job", "state")
PROMTOOL = shutil.which("promtool")
AWAY = "postgresql://outcomes:hush-hush@127.0.0.1:1/none"


@dataclass
class Site:
    """A server and a client."""

    address: str
    session: aiohttp.ClientSession

    async def request(
        self, path: str, method: str = "GET", headers: Mapping[str, str] | None = None
    ) -> tuple[int, str, Mapping[str, str]]:
        async with self.session.request(method, f"http://{self.address}{path}", headers=headers) as response:
            return response.status, await response.text(), response.headers

    async def metrics(self) -> dict[tuple[str, ...], float]:
        _, text, _ = await self.request("/metrics")
        return {
            (
                sample.name,
                *(sample.labels[key] for key in ("org", "job", "state") if key in sample.labels),
            ): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }


def config(dsn: str = AWAY) -> Config:
    org = {"region": "mypurecloud.com", "client_id": "id", "client_secret": "not-a-secret"}
    return config_from(
        {
            "database": {"dsn": dsn},
            "orgs": {"acme": org},
            "jobs": {"daily": {"since": "P3D", "off_peak": None}},
        }
    )


@asynccontextmanager
async def serving(
    dsn: str | None, load: Mapping[str, Load] | None = None, reporter: Reporter | None = None
) -> AsyncIterator[Site]:
    web = WebServer(FakeDaemon(config(), dsn, load or {}, reporter or Reporter()))
    address = await web.start("127.0.0.1", 0)
    try:
        async with aiohttp.ClientSession() as session:
            yield Site(address, session)
    finally:
        await web.stop()


@pytest.fixture
async def site(database: str) -> AsyncIterator[Site]:
    async with serving(database, {"acme": Load(3, 7)}) as site:
        yield site


async def test_every_path_answers(site: Site) -> None:
    """With a database of the current schema every path answers 200."""
    for path in ("/healthz", "/readyz", "/metrics", "/api/status", "/"):
        status, _, headers = await site.request(path)
        assert status == 200, path
        assert headers["Content-Security-Policy"].startswith("default-src 'none'")
        assert "script-src 'self';" in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "aiohttp" not in headers["Server"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
async def test_only_reading_methods_are_accepted(site: Site, method: str) -> None:
    """Any method but GET and HEAD is rejected, on every path."""
    for path in ("/healthz", "/api/status", "/", "/nowhere"):
        status, _, headers = await site.request(path, method)
        assert status == 405
        assert headers["Allow"] == "GET,HEAD"


async def test_head_and_unknown_paths(site: Site) -> None:
    """HEAD answers as GET without the body; an unknown path is 404."""
    status, body, _ = await site.request("/api/status", "HEAD")
    assert (status, body) == (200, "")
    assert (await site.request("/../etc/passwd"))[0] == 404


async def test_status_is_what_the_command_prints(site: Site) -> None:
    """The document has the orgs, their jobs and the gaps."""
    _, text, headers = await site.request("/api/status")
    assert headers["Content-Type"].startswith("application/json")
    daily = json.loads(text)["orgs"]["acme"]["jobs"]["daily"]
    assert len(daily["gaps"]) == daily["windows"]["pending"] > 0


async def test_metrics(site: Site, database: str) -> None:
    """The status is exported as gauges beside the process's counters, with the age to alert on."""
    with psycopg.connect(database) as connection:
        connection.execute(
            "INSERT INTO flow_outcomes.extraction_window (org, work, job, window_start, window_end,"
            " requested_granularity, granularity, state, due_at) SELECT 'acme', 'job:daily', 'daily',"
            " d, d + interval '1 day', 'daily', 'daily', 'complete', d"
            " FROM (SELECT date_trunc('day', now(), 'UTC') - interval '2 days') AS of (d)"
        )
        connection.execute(
            "INSERT INTO flow_outcomes.org_lease (org, owner, expires_at, paused_until)"
            " VALUES ('acme', 'me', now() + interval '1 min', now() + interval '1 min')"
        )
    found = await site.metrics()
    assert found["flow_outcomes_windows", "acme", "daily", "complete"] == 1
    assert found["flow_outcomes_windows", "acme", "daily", "pending"] >= 1
    assert found["flow_outcomes_gaps", "acme", "daily"] >= 1
    assert 86400 <= found["flow_outcomes_newest_complete_age_seconds", "acme", "daily"] <= 2 * 86400 + 60
    assert found["flow_outcomes_org_held", "acme"] == 1
    assert 50 < found["flow_outcomes_limit_hold_seconds", "acme"] <= 60
    assert found["flow_outcomes_scans_in_flight", "acme"] == 3
    assert found["flow_outcomes_scans_waiting", "acme"] == 7
    assert found[("flow_outcomes_database_up",)] == 1
    newest = found["flow_outcomes_newest_complete_timestamp_seconds", "acme", "daily"]
    assert newest % 86400 == 0
    assert newest == pytest.approx(
        time.time() - found["flow_outcomes_newest_complete_age_seconds", "acme", "daily"], abs=30
    )
    assert found[("flow_outcomes_status_timestamp_seconds",)] == pytest.approx(time.time(), abs=30)
    assert found[("flow_outcomes_build_info",)] == 1
    assert 0 < found[("process_start_time_seconds",)] < time.time()
    assert all(name[0].startswith(("flow_outcomes_", "process_")) for name in found)


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", "text/plain; version=0.0.4; charset=utf-8"),
        ("*/*", "text/plain; version=0.0.4; charset=utf-8"),
        ("text/plain;version=0.0.4;q=1,*/*;q=0.1", "text/plain; version=0.0.4; charset=utf-8"),
        ("application/openmetrics-text", "application/openmetrics-text; version=1.0.0; charset=utf-8"),
        (  # Prometheus 2.42
            "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=underscores",
        ),
        ("text/plain;version=soon", "text/plain; version=0.0.4; charset=utf-8"),
        ("application/openmetrics-text;version=1.x", "text/plain; version=0.0.4; charset=utf-8"),
        ("application/openmetrics-text;version=2.\u00e9", "text/plain; version=0.0.4; charset=utf-8"),
    ],
)
async def test_the_format_of_the_metrics(site: Site, accept: str, content_type: str) -> None:
    """A client that accepts OpenMetrics gets it; any other, also one with an invalid header, gets the text."""
    status, text, headers = await site.request("/metrics", headers={"Accept": accept})
    assert (status, headers["Content-Type"]) == (200, content_type)
    parse = openmetrics if "openmetrics" in content_type else text_string_to_metric_families
    names = [family.name for family in parse(text)]
    assert len(set(names)) == len(names)
    assert {"flow_outcomes_database_up", "process_open_fds"} <= set(names)


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed: apt-get install prometheus")
async def test_promtool_finds_no_fault_in_the_metrics(database: str) -> None:
    """``promtool check metrics`` has nothing to say of a scrape in which every metric has a value."""
    reporter = Reporter()
    job = {"org": "acme", "job": "daily", "rows": 1, "rejected": 1}
    reporter.emit("org_acquired", org="acme")
    reporter.emit("request_finished", org="acme", status=200, seconds=0.1)
    reporter.emit("request_waited", org="acme", seconds=0.1)
    reporter.emit("clocks_compared", seconds=0.1, doubted=False)
    for event in (
        *("retry_scheduled", "rate_limited", "window_complete", "window_doubted", "window_failed"),
        *("outcome_restated", "outcome_missing"),
    ):
        reporter.emit(event, **job)
    async with serving(database, {"acme": Load(3, 7)}, reporter) as site:
        _, text, _ = await site.request("/metrics")
    assert [family.name for family in text_string_to_metric_families(text) if not family.samples] == []
    assert PROMTOOL is not None
    done = await asyncio.to_thread(
        subprocess.run, [PROMTOOL, "check", "metrics"], input=text.encode(), capture_output=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")


async def test_a_job_without_complete_windows_has_an_age(site: Site) -> None:
    """A job without a complete window is as old as its first due window, so that an alert fires."""
    found = await site.metrics()
    assert found["flow_outcomes_newest_complete_age_seconds", "acme", "daily"] > 2 * 86400


async def test_the_database_is_unavailable() -> None:
    """The process is alive, reports why it is not ready, and exports its counters, without secrets."""
    reporter = Reporter()
    reporter.emit("rate_limited", org="acme", retry_after=1)
    async with serving(AWAY, reporter=reporter) as site:
        assert (await site.request("/healthz"))[0] == 200
        for path in ("/readyz", "/api/status", "/"):
            status, text, _ = await site.request(path)
            assert status == (200 if path == "/" else 503)
            assert "refused" in text
            assert "hush" not in text
        found = await site.metrics()
        assert found["flow_outcomes_rate_limited_total", "acme"] == 1
        assert found[("flow_outcomes_database_up",)] == 0


async def test_the_last_status_is_kept_while_the_database_is_unavailable(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ages keep growing from the last status that was read."""
    daemon = FakeDaemon(config(), database)
    monkeypatch.setattr("service.web.server.METRICS_MAX_AGE", -1.0)
    monkeypatch.setattr("service.web.server.METRICS_COST_FACTOR", 0.0)
    web = WebServer(daemon)
    address = await web.start("127.0.0.1", 0)
    async with aiohttp.ClientSession() as session:
        site = Site(address, session)
        before = await site.metrics()
        daemon.dsn = AWAY
        after = await site.metrics()
    await web.stop()
    age = "flow_outcomes_newest_complete_age_seconds", "acme", "daily"
    assert after[("flow_outcomes_database_up",)] == 0
    assert after[age] > before[age]


async def test_not_ready_without_the_schema(empty_database: str) -> None:
    """The daemon is not ready without the current schema."""
    async with serving(empty_database) as site:
        status, text, _ = await site.request("/readyz")
        assert status == 503
        assert "flow-outcomes migrate" in json.loads(text)["reason"]


async def test_not_ready_with_a_read_only_database(database: str) -> None:
    """A demoted primary answers queries but is not ready."""
    name = database.rpartition("/")[2]
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on".encode())
    async with serving(database) as site:
        status, text, _ = await site.request("/readyz")
        assert status == 503
        assert "no writes" in json.loads(text)["reason"]


async def test_a_hung_database_does_not_hang_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """A database that accepts the connection and does not answer delays a response by a bounded time."""
    monkeypatch.setattr(status_cache, "WAIT_TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        port = mute.getsockname()[1]
        async with serving(f"postgresql://127.0.0.1:{port}/none") as site, asyncio.timeout(5):
            answers = await asyncio.gather(
                *(site.request("/api/status") for _ in range(5)), site.request("/metrics")
            )
            assert [answer[0] for answer in answers] == [503] * 5 + [200]
            assert "did not answer" in answers[0][1]
            assert (await site.request("/readyz"))[0] == 503
            assert (await site.request("/healthz"))[0] == 200


async def test_a_port_in_use() -> None:
    """An address that cannot be bound is a fault of the configuration."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        web = WebServer(FakeDaemon(config(), None))
        with pytest.raises(ConfigError, match=r"http: cannot listen on 127\.0\.0\.1 port"):
            await web.start("127.0.0.1", taken.getsockname()[1])
