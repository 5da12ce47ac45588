"""The program behind a proxy, with a certificate authority of the company's own."""

from __future__ import annotations

import signal
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote

import pytest

from service.simulator import SimulatedOrg, Simulator, SimulatorConfig
from tests.support.certificates import Authority, make_authority, serve_tls
from tests.support.connect_proxy import ConnectProxy
from tests.support.daemon import Daemon
from tests.support.program import Ended, Program

HOSTS = {"base_url": "https://api.acme.example", "login_url": "https://login.acme.example"}
PASSWORD = "p@canary/one:two-three 50%"
PARTS = ("canary", "two-three", quote(PASSWORD, safe=""), b64encode(f"user:{PASSWORD}".encode()).decode()[:20])
JOBS = {"daily": {"since": "P3D", "off_peak": None}}


@asynccontextmanager
async def site(folder: Path) -> AsyncIterator[tuple[Simulator, ConnectProxy, Authority]]:
    """A simulator that only its proxy reaches, by TLS with its own authority."""
    authority = make_authority(folder)
    async with (
        Simulator(SimulatorConfig(orgs={"acme": SimulatedOrg(flows=2)})) as simulator,
        serve_tls(authority, int(simulator.base_url.rpartition(":")[2])) as port,
        ConnectProxy(port, credentials=f"user:{PASSWORD}") as proxy,
    ):
        yield simulator, proxy, authority


def assert_hidden(program: Program, *ended: Ended) -> None:
    """No part of the password is in the output or in a table."""
    tables = program.rows("SELECT tablename AS name FROM pg_tables WHERE schemaname = 'flow_outcomes'")
    stored = [
        str(row["line"])
        for table in tables
        for row in program.rows(f'SELECT t::text AS line FROM flow_outcomes."{table["name"]}" t')
    ]
    text = "\n".join([*stored, *(each.out + each.err for each in ended)])
    assert not [part for part in PARTS if part in text]


async def test_a_company_network(program: Program, tmp_path: Path) -> None:
    """The environment's proxy and ``ca_file`` lead to the API; the password, unescaped, is shown nowhere."""
    async with site(tmp_path) as (simulator, proxy, authority):
        org = {**HOSTS, "ca_file": authority.ca_file.name}
        program.configure(simulator, orgs={"acme": org}, jobs=JOBS, log={"level": "debug"})
        environment = {"https_proxy": proxy.url(f"user:{PASSWORD}"), "NO_PROXY": "db.example"}
        checked = await program.run("check", environment=environment)
        assert checked.code == 0, checked.out
        ended = await program.run("run", "--once", environment=environment)
        assert ended.code == 0, ended.failures()
        assert set(proxy.targets) == {"login.acme.example:443", "api.acme.example:443"}
        assert proxy.refused == 0
        assert {each["state"] for each in program.windows()} == {"complete"}
        assert_hidden(program, checked, ended)


async def test_a_proxy_that_refuses(program: Program, tmp_path: Path) -> None:
    """``check`` and ``last_error`` name the proxy and what to do, and not the password."""
    async with site(tmp_path) as (simulator, proxy, _):
        proxy.credentials = "user:another"
        org = {**HOSTS, "proxy": proxy.url(f"user:{PASSWORD}"), "breaker": {"failures": 2}}
        program.configure(simulator, orgs={"acme": org}, jobs=JOBS, log={"level": "debug"})
        checked = await program.run("check")
        assert checked.code == 1
        text = " ".join(checked.out.split())
        assert f"the proxy http://{proxy.host} refused" in text
        assert "correct the proxy's user and password in orgs.acme.proxy" in text
        ended = await program.run("run", "--once")
        assert ended.code == 1
        errors = [each["last_error"] for each in program.windows() if each["last_error"]]
        assert any("407" in error and "orgs.acme.proxy" in error for error in errors), errors
        assert proxy.refused
        assert_hidden(program, checked, ended)


async def test_nothing_says_that_there_is_a_proxy(program: Program, tmp_path: Path) -> None:
    """A direct connection that fails says that no proxy is set, and an unknown authority which key takes it."""
    async with site(tmp_path) as (simulator, proxy, _):
        program.configure(simulator, orgs={"acme": {**HOSTS, "breaker": {"failures": 1}}}, jobs=JOBS)
        checked = await program.run("check")
        assert checked.code == 1
        assert "no proxy is set: if this network requires one, set orgs.acme.proxy" in " ".join(
            checked.out.split()
        )
        checked = await program.run("check", environment={"HTTPS_PROXY": proxy.url(f"user:{PASSWORD}")})
        assert checked.code == 1
        assert "set orgs.acme.ca_file to a PEM file" in " ".join(checked.out.split())
        assert proxy.targets


async def test_faults(program: Program) -> None:
    """Each fault of the proxies and the file ends the command with 2 and names its key, without the value."""
    async with Simulator(SimulatorConfig(orgs={"acme": SimulatedOrg()})) as simulator:
        for org, environment, key in (
            ({"proxy": f"socks5://user:{PASSWORD}@proxy:1"}, {}, "orgs.acme.proxy"),
            ({"proxy": f"http://user:{PASSWORD}"}, {}, "orgs.acme.proxy"),
            ({"ca_file": "missing.pem"}, {}, "orgs.acme.ca_file"),
            ({"ca_file": "flow-outcomes.yaml"}, {}, "orgs.acme.ca_file"),
            (HOSTS, {"HTTPS_PROXY": f"socks5://user:{PASSWORD}@proxy:1"}, "HTTPS_PROXY"),
            ({}, {"FLOW_OUTCOMES_ORGS__ACME__PROXY": f"ftp://user:{PASSWORD}@proxy"}, "orgs.acme.proxy"),
        ):
            program.configure(simulator, orgs={"acme": org})
            ended = await program.run("run", "--once", environment=environment)
            assert (ended.code, ended.out) == (2, ""), ended.err
            assert len(ended.err.splitlines()) == 1
            assert key in ended.err
            assert not [part for part in PARTS if part in ended.err]


@pytest.mark.counts_days
async def test_a_reload(program: Program, tmp_path: Path) -> None:
    """A changed proxy is used, and certificates that changed in the file."""
    async with site(tmp_path) as (simulator, proxy, authority):
        pem = authority.ca_file.read_bytes()
        make_authority(tmp_path, "other")
        (tmp_path / "ca.pem").write_bytes((tmp_path / "other.pem").read_bytes())
        org = {**HOSTS, "ca_file": "ca.pem", "breaker": {"failures": 1, "open_for": "PT1S"}}

        def configure(proxy_url: str) -> None:
            settings = {**org, "proxy": proxy_url}
            program.configure(simulator, orgs={"acme": settings}, jobs=JOBS, http={"port": 0})

        async with ConnectProxy(status=403) as wrong:
            configure(wrong.url())
            daemon = await Daemon.start(program)
            await daemon.wait_until(lambda: wrong.refused > 0, "CONNECT to the first proxy")
            configure(proxy.url(f"user:{PASSWORD}"))
            daemon.send(signal.SIGHUP)
            reloaded = await daemon.wait_for_event("config_reloaded")
            assert reloaded["changed"] == ["orgs.acme"]
            await daemon.wait_until(lambda: bool(proxy.targets), "CONNECT to the second proxy")
        assert daemon.count("window_complete") == 0
        (tmp_path / "ca.pem").write_bytes(pem)
        daemon.send(signal.SIGHUP)
        reloaded = await daemon.wait_for_event("config_reloaded", 2)
        assert reloaded["changed"] == ["orgs.acme"]
        await daemon.wait_for_event("window_complete", 3)
        await daemon.end()
        text = "".join(daemon.running.out)
        assert not [part for part in PARTS if part in text]
