"""What ``check`` says of a simulated org and a real database, each of them in trouble in its own way."""

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
from service.postgres.probe import Facts
from service.runtime import preflight
from service.runtime.preflight import Finding, Steps
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


async def ask(dsn: str, org: Org) -> list[Finding]:
    steps = Steps()
    async with Process(dsn, 2, steps.emit).running() as runtime:
        return await preflight.ask(runtime, org, steps)


def lines(findings: list[Finding]) -> list[tuple[str, bool]]:
    return [(each.about, each.good) for each in findings]


async def test_all_is_well(database: str, simulator: Simulator) -> None:
    """A line each for token, permission and query; two requests, and the org is given back."""
    found = await ask(database, org(simulator))
    assert lines(found) == [("acme token", True), ("acme permission", True), ("acme query", True)]
    assert len(simulator.arrivals) == 2
    with psycopg.connect(database) as connection:
        assert connection.execute("SELECT owner FROM flow_outcomes.org_lease").fetchall() == [(None,)]


async def test_the_secret_is_wrong(database: str, simulator: Simulator) -> None:
    """A 401 names the keys to look at, and not the secret."""
    found = await ask(database, org(simulator, client_secret="another-secret"))
    assert lines(found) == [("acme token", False)]
    assert "orgs.acme.client_id" in found[0].mend
    assert "another-secret" not in str(found)


async def test_the_permission_is_missing(database: str, simulator: Simulator) -> None:
    """A 403 names the permission and the scope."""
    found = await ask(database, org(simulator, "forbidden"))
    assert lines(found) == [("forbidden token", True), ("forbidden permission", False)]
    assert "Analytics > Query > Read" in found[1].mend
    assert "analytics:query:read" in found[1].mend


async def test_a_long_wait_is_told(database: str, simulator: Simulator) -> None:
    """A 429 that asks for a minute is not waited out, and is kept for who works the org next."""
    found = await ask(database, org(simulator, "limited"))
    assert found[-1].good is False
    assert "limit" in found[-1].mend
    with psycopg.connect(database) as connection:
        statement = "SELECT held_until > now() + interval '30 s' FROM flow_outcomes.org_lease"
        assert connection.execute(statement).fetchone() == (True,)


async def test_nothing_listens(database: str) -> None:
    """A refused connection says where to look."""
    section = org(None, breaker={"failures": 1})
    found = await ask(database, section)
    assert lines(found) == [("acme token", False)]
    assert "nothing answers there" in found[0].mend


async def test_no_tls(database: str) -> None:
    """A host that is no Genesys Cloud: its certificate or its TLS is what is wrong."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.listen()
        url = f"https://127.0.0.1:{server.getsockname()[1]}"
        section = org(None, base_url=url, login_url=url, breaker={"failures": 1}, query_timeout="PT0.3S")
        found = await ask(database, section)
    assert lines(found) == [("acme token", False)]
    assert found[0].mend


async def test_the_org_is_worked_by_another(
    database: str, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its owner is told with its breaker, and nothing is asked."""
    monkeypatch.setattr(preflight, "TAKE_WITHIN", 0.3)
    async with Process(database, 2, Steps().emit).running() as owner:
        await owner.lease("acme")
        found = await ask(database, org(simulator))
        assert found[0].good
        assert owner.owner in found[0].said
        assert "since 20" in found[0].said
        with psycopg.connect(database) as connection:
            connection.execute("UPDATE flow_outcomes.org_lease SET breaker = 'open'")
        found = await ask(database, org(simulator))
        assert (found[0].good, "breaker open" in found[0].said) == (False, True)
    assert not simulator.arrivals


async def test_the_database_looked_at(database: str, empty_database: str) -> None:
    """A current schema is fine; none yet is fine where the role may make it."""
    assert all(each.good for each in preflight.of_database(await preflight.look(database)))
    found = preflight.of_database(await preflight.look(empty_database))
    assert [(each.about, each.good) for each in found] == [("database", True), ("schema", True)]
    assert "flow-outcomes migrate" in found[1].mend


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
def test_the_database_in_trouble(facts: Facts, word: str) -> None:
    """What keeps the daemon from working is told with what to do."""
    bad = [each for each in preflight.of_database(facts) if not each.good]
    assert len(bad) == 1
    assert word in bad[0].said
    assert bad[0].mend


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
    """A line each; 0 where all is well, 1 where something is not, 2 for a bad configuration."""
    for dsn in (database, empty_database):
        assert await in_thread("check", "--config", file(tmp_path, dsn, simulator)) == 0
        told = capsys.readouterr()
        about = [line.split(": ")[0] for line in told.out.splitlines()]
        assert about == [
            f"ok   {each}"
            for each in ("configuration", "database", "schema", "acme token", "acme permission", "acme query")
        ]
        assert "simulated-secret" not in told.out + told.err
    assert await in_thread("check", "--config", file(tmp_path, "postgresql://127.0.0.1:1/none", simulator)) == 1
    assert "FAIL database" in capsys.readouterr().out
    (tmp_path / "bad.yaml").write_text("orgs: {acme: {}}\nnonsense: 1\n")
    assert await in_thread("check", "--config", str(tmp_path / "bad.yaml")) == 2
    assert capsys.readouterr().err.count("\n") >= 2


async def in_thread(*argv: str) -> int:
    return await asyncio.to_thread(main, argv)


async def test_settings_that_do_not_arrive(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that shows other settings than ours is behind a pooler, and none to work with."""
    monkeypatch.setattr("service.postgres.session.conninfo", lambda dsn, *_, **__: dsn)
    with pytest.raises(DatabaseUnavailableError, match="this is a pooler"):
        await preflight.look(database)
    runtime = Process(database, 2, lambda _, **__: None)
    async with runtime.running():
        acquiring = asyncio.create_task(runtime.lease("acme"))
        while runtime.lease_error is None:  # noqa: ASYNC110 - it has no event of its own
            await asyncio.sleep(0.01)
        acquiring.cancel()
    assert "this is a pooler" in runtime.lease_error
    assert runtime.held == frozenset()
