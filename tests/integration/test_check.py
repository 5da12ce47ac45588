"""``check`` with a simulated org and a real database, each with a problem of its own."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest

from service.cli import main
from service.config import Org, config_from
from service.errors import DatabaseUnavailableError
from service.model import Finding
from service.postgres.probe import Facts
from service.runtime import preflight
from service.runtime.preflight import TokenRecorder
from service.runtime.process import Process
from service.simulator import SimulatedOrg, Simulator, SimulatorConfig

WELL = Facts("16.2", "", writable=True, pending=[], schema_exists=True, may_migrate=False, missing_privileges=[])


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    orgs = {
        "acme": SimulatedOrg(),
        "forbidden": SimulatedOrg(permitted=False),
        "limited": SimulatedOrg(requests_per_second=1, retry_after=60),
    }
    async with Simulator(SimulatorConfig(orgs=orgs)) as simulator:
        yield simulator


def org(simulator: Simulator | None, name: str = "acme", **changes: object) -> Org:
    url = simulator.base_url if simulator else "http://127.0.0.1:1"
    section = {
        "base_url": url,
        "login_url": url,
        "client_id": name,
        "client_secret": "simulated-secret",
        "requests_per_second": 100,
    } | changes
    return config_from({"database": {"dsn": "postgresql://127.0.0.1/none"}, "orgs": {name: section}}).orgs[name]


async def check(dsn: str, org: Org) -> list[Finding]:
    steps = TokenRecorder()
    async with Process(dsn, 2, steps.emit).running() as runtime:
        return await preflight.check_org(runtime, org, steps)


def results(findings: list[Finding]) -> list[tuple[str, bool]]:
    return [(each.subject, each.ok) for each in findings]


async def test_everything_in_order(database: str, simulator: Simulator) -> None:
    """Token, permission and query are in order after two requests, and the lease is released."""
    found = await check(database, org(simulator))
    assert results(found) == [("acme token", True), ("acme permission", True), ("acme query", True)]
    assert len(simulator.arrivals) == 2
    with psycopg.connect(database) as connection:
        assert connection.execute("SELECT owner FROM flow_outcomes.org_lease").fetchall() == [(None,)]


async def test_the_secret_is_wrong(database: str, simulator: Simulator) -> None:
    """The fix for a 401 names the keys, and not the secret."""
    found = await check(database, org(simulator, client_secret="another-secret"))
    assert results(found) == [("acme token", False)]
    assert "orgs.acme.client_id" in found[0].fix
    assert "another-secret" not in str(found)


async def test_the_permission_is_missing(database: str, simulator: Simulator) -> None:
    """A 403 names the permission and the scope."""
    found = await check(database, org(simulator, "forbidden"))
    assert results(found) == [("forbidden token", True), ("forbidden permission", False)]
    assert "Analytics > Query > Read" in found[1].fix
    assert "analytics:query:read" in found[1].fix


async def test_a_long_wait_is_reported(database: str, simulator: Simulator) -> None:
    """A 429 with a wait of a minute is reported at once, and its end is stored for the org's next owner."""
    found = await check(database, org(simulator, "limited"))
    assert found[-1].ok is False
    assert "limit" in found[-1].fix
    with psycopg.connect(database) as connection:
        statement = "SELECT paused_until > now() + interval '30 s' FROM flow_outcomes.org_lease"
        assert connection.execute(statement).fetchone() == (True,)


async def test_nothing_listens(database: str) -> None:
    """The fix for a refused connection names the keys to check."""
    section = org(None, breaker={"failures": 1})
    found = await check(database, section)
    assert results(found) == [("acme token", False)]
    assert "the host does not respond" in found[0].fix


async def test_no_tls(database: str) -> None:
    """A host without TLS is reported with a fix."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.listen()
        url = f"https://127.0.0.1:{server.getsockname()[1]}"
        section = org(None, base_url=url, login_url=url, breaker={"failures": 1}, query_timeout="PT0.3S")
        found = await check(database, section)
    assert results(found) == [("acme token", False)]
    assert found[0].fix


async def test_the_org_is_held_by_another_process(
    database: str, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The owner and its circuit breaker are reported, and no request is sent."""
    monkeypatch.setattr(preflight, "LEASE_TIMEOUT", 0.3)
    monkeypatch.setattr(preflight, "SLOT_WAIT", 0.3)
    async with Process(database, 2, TokenRecorder().emit).running() as owner:
        await owner.lease("acme")
        found = await check(database, org(simulator))
        assert found[0].ok
        assert owner.owner in found[0].detail
        assert "since 20" in found[0].detail
        with psycopg.connect(database) as connection:
            connection.execute("UPDATE flow_outcomes.org_lease SET breaker = 'open'")
        found = await check(database, org(simulator))
        assert (found[0].ok, "circuit breaker open" in found[0].detail) == (False, True)
    assert not simulator.arrivals


async def test_the_database_in_order(database: str, empty_database: str) -> None:
    """The current schema is in order; so is none where the role may create it."""
    assert all(each.ok for each in preflight.database_findings(await preflight.inspect_database(database)))
    found = preflight.database_findings(await preflight.inspect_database(empty_database))
    assert [(each.subject, each.ok) for each in found] == [("database", True), ("schema", True)]
    assert "flow-outcomes migrate" in found[1].fix


@pytest.mark.parametrize(
    ("facts", "word"),
    [
        (WELL._replace(unsupported="PostgreSQL 14 or newer is needed"), "14"),
        (WELL._replace(writable=False), "standby"),
        (WELL._replace(missing_privileges=["INSERT on figure"]), "INSERT on figure"),
        (WELL._replace(pending=["0004_create_views"], may_migrate=True), "0004_create_views"),
        (WELL._replace(pending=["0001_create_ledger"], schema_exists=False), "may not"),
    ],
)
def test_the_database_with_problems(facts: Facts, word: str) -> None:
    """Each problem of the database is reported with a fix."""
    bad = [each for each in preflight.database_findings(facts) if not each.ok]
    assert len(bad) == 1
    assert word in bad[0].detail
    assert bad[0].fix


def file(folder: Path, dsn: str, simulator: Simulator) -> str:
    path = folder / "flow-outcomes.yaml"
    path.write_text(
        f"database: {{dsn: '{dsn}'}}\n"
        f"orgs: {{acme: {{base_url: '{simulator.base_url}', login_url: '{simulator.base_url}',"
        " client_id: acme, client_secret: simulated-secret}}\n"
        "jobs: {daily: {since: P5D}}\n"
    )
    return str(path)


async def test_the_command(
    database: str, empty_database: str, tmp_path: Path, simulator: Simulator, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line for each check; exit code 0 if all are in order, 1 if not, 2 for an invalid configuration."""
    for dsn in (database, empty_database):
        assert await in_thread("check", "--config", file(tmp_path, dsn, simulator)) == 0
        printed = capsys.readouterr()
        subjects = [line.split(": ")[0] for line in printed.out.splitlines()]
        assert subjects == [
            f"ok   {each}"
            for each in ("configuration", "database", "schema", "acme token", "acme permission", "acme query")
        ]
        assert "simulated-secret" not in printed.out + printed.err
    assert await in_thread("check", "--config", file(tmp_path, "postgresql://127.0.0.1:1/none", simulator)) == 1
    assert "FAIL database" in capsys.readouterr().out
    (tmp_path / "bad.yaml").write_text("orgs: {acme: {}}\nnonsense: 1\n")
    assert await in_thread("check", "--config", str(tmp_path / "bad.yaml")) == 2
    assert capsys.readouterr().err.count("\n") >= 2


async def in_thread(*argv: str) -> int:
    return await asyncio.to_thread(main, argv)


async def test_settings_that_a_pooler_drops(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that does not take the session's settings is reported as a pooler."""
    monkeypatch.setattr("service.postgres.session.conninfo", lambda dsn, *_, **__: dsn)
    with pytest.raises(DatabaseUnavailableError, match="this is a pooler"):
        await preflight.inspect_database(database)
    runtime = Process(database, 2, TokenRecorder().emit)
    async with runtime.running():
        acquiring = asyncio.create_task(runtime.lease("acme"))
        while runtime.lease_error is None:  # noqa: ASYNC110 - it has no event of its own
            await asyncio.sleep(0.01)
        acquiring.cancel()
    assert "this is a pooler" in runtime.lease_error
    assert runtime.held == frozenset()
