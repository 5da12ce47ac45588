"""A DSN with several hosts: a standby, its promotion, and the return of the former primary."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.simulator import Simulator
from tests.faults.test_database import midway, source
from tests.support.cluster import StandbyPair, start_pair
from tests.support.daemon import Daemon, assert_exact, wait_until_complete
from tests.support.fault_harness import DAYS, JOB
from tests.support.program import Program

pytestmark = [pytest.mark.acceptance, pytest.mark.short]

REJECTED = "selects a server that accepts no writes"


@pytest.fixture
def servers() -> Iterator[StandbyPair]:
    with start_pair() as made:
        yield made


def configure(program: Program, simulator: Simulator, dsn: str) -> None:
    program.dsn = dsn
    program.configure(
        simulator,
        orgs={"acme": {"page_size": 6, "concurrency": 3}},
        jobs={"daily": JOB},
        database={"dsn": dsn, "pool_size": 4},
        http={"port": 0},
    )


@pytest.mark.parametrize(
    ("order", "attributes"),
    [
        ("primary first", {"target_session_attrs": "read-write"}),
        ("standby first", {"target_session_attrs": "read-write", "load_balance_hosts": "random"}),
        ("standby first", {}),
    ],
)
async def test_a_failover_is_followed(
    servers: StandbyPair, tmp_path: Path, order: str, attributes: dict[str, str]
) -> None:
    """The daemon continues after a promotion, whichever host is first, and when the former primary returns."""
    async with source() as simulator, Program(tmp_path, "") as program:
        configure(program, simulator, servers.dsn(order, **attributes))
        checked = await program.run("check")
        assert checked.code == 0, checked.out
        daemon = await Daemon.start(program)
        assert await daemon.wait_until_ready() < 10
        await midway(daemon)
        assert daemon.count("database_unavailable") == 0
        await asyncio.to_thread(servers.fail_over)
        stored = daemon.count("window_complete")
        assert stored < DAYS
        assert await daemon.wait_until_ready() < 15
        program.dsn = servers.primary.dsn
        await wait_until_complete(daemon, DAYS - 1)
        assert_exact(program, simulator)
        assert daemon.count("window_failed") == 0
        assert daemon.count("unexpected_error") == 0, daemon.tail()
        await daemon.end()
        assert servers.standby.run("SELECT pg_is_in_recovery()") == [(True,)]


async def test_one_host_that_must_accept_writes(servers: StandbyPair, tmp_path: Path) -> None:
    """On a single standby the daemon waits and gives the reason; it starts work after the promotion."""
    async with source() as simulator, Program(tmp_path, "") as program:
        configure(program, simulator, servers.primary.dsn)
        assert (await program.run("migrate")).code == 0
        await asyncio.to_thread(servers.standby.wait_for_replay, servers.primary)
        for attributes, reason in (
            ("", "no writes"),
            ("?target_session_attrs=read-write", "session is read-only"),
        ):
            configure(program, simulator, servers.standby.dsn + attributes)
            checked = await program.run("check")
            assert checked.code == 1
            assert reason in checked.out
        daemon = await Daemon.start(program)
        await daemon.wait_for_event("database_unavailable")
        status, body = await daemon.get("/readyz")
        assert (status, "read-only" in body) == (503, True), body
        await asyncio.to_thread(servers.primary.stop)
        await asyncio.to_thread(servers.standby.promote)
        assert await daemon.wait_until_ready() < 15
        program.dsn = servers.standby.dsn
        await wait_until_complete(daemon, DAYS - 1)
        assert_exact(program, simulator)
        await daemon.end()


@pytest.mark.parametrize(
    ("by", "kind"),
    [
        ("the DSN", "read-only"),
        ("the environment", "standby"),
        ("the DSN", "prefer-standby"),
        ("the environment", "nonsense"),
    ],
)
async def test_a_dsn_for_standbys_is_rejected(database: str, tmp_path: Path, by: str, kind: str) -> None:
    """A command that writes rejects it with the reason, and sends no request."""
    setting = {} if by == "the DSN" else {"PGTARGETSESSIONATTRS": kind}
    dsn = f"{database}?target_session_attrs={kind}" if by == "the DSN" else database
    async with source() as simulator, Program(tmp_path, "") as program:
        configure(program, simulator, dsn)
        for command in (["check"], ["run"], ["run", "--once"], ["migrate"]):
            ended = await program.run(*command, environment=setting)
            assert ended.code == (1 if command == ["check"] else 2), (command, ended)
            output = ended.out if command == ["check"] else ended.err
            assert f"target_session_attrs={kind}" in output
            assert ("must be one of" if kind == "nonsense" else REJECTED) in output
            assert "Traceback" not in output
        assert not simulator.arrivals


async def test_reading_commands_on_a_standby(servers: StandbyPair, tmp_path: Path) -> None:
    """``status``, ``rejected``, ``plan`` and ``export`` work on it, also where transactions are serializable."""
    async with source() as simulator, Program(tmp_path, "") as program:
        configure(program, simulator, servers.primary.dsn)
        assert (await program.run("run", "--once")).code == 0
        servers.primary.run("ALTER ROLE flow_outcomes SET default_transaction_isolation = serializable")
        await asyncio.to_thread(servers.standby.wait_for_replay, servers.primary)
        for kind in ("standby", "prefer-standby", "read-only", "any"):
            configure(program, simulator, servers.dsn("standby first", target_session_attrs=kind))
            ended = await program.run("status", "--json")
            assert (ended.code, ended.err) == (0, "")
            assert json.loads(ended.out)["orgs"]["acme"]["jobs"]["daily"]["gaps"] == []
        for command in (["rejected"], ["plan"], ["export", "--parquet", str(tmp_path / "export")]):
            ended = await program.run(*command)
            assert (ended.code, ended.err) == (0, ""), (command, ended)
        assert servers.standby.run("SELECT pg_is_in_recovery()") == [(True,)]


async def test_hosts_that_do_not_answer(database: str, tmp_path: Path) -> None:
    """Two unreachable hosts, first in the list, do not delay every connection."""
    one, other = (socket.create_server(("127.0.0.1", 0), backlog=128) for _ in range(2))
    with one, other:
        unreachable = ",".join(f"127.0.0.1:{each.getsockname()[1]}" for each in (one, other))
        user, _, rest = database.rpartition("@")
        async with source() as simulator, Program(tmp_path, "") as program:
            configure(program, simulator, f"{user}@{unreachable},{rest}?target_session_attrs=read-write")
            daemon = await Daemon.start(program)
            assert await daemon.wait_until_ready() < 20
            program.dsn = database
            await wait_until_complete(daemon, DAYS - 1)
            assert_exact(program, simulator)
            for _ in range(3):
                await asyncio.sleep(1.1)  # the result is cached for a second
                assert (await daemon.get("/readyz"))[0] == 200
            await daemon.end()
        one.settimeout(1)
        one.accept()[0].close()  # so it was tried
