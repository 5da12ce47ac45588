"""A DSN's password is never shown: not for an invalid DSN, and not while the database is unavailable."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from psycopg.conninfo import make_conninfo

from tests.support.daemon import Daemon
from tests.support.program import SECRET, Ended, Program

VARIABLE = "FLOW_OUTCOMES_DATABASE__DSN"
ORG = {"region": "mypurecloud.com", "client_id": "me", "client_secret": SECRET}
SPAN = ("--org", "acme", "--from", "2024-01-01", "--to", "2024-02-01")
UNESCAPED = "postgresql://outcomes:p@canary-one%two@127.0.0.1:1/outcomes"

INVALID = {
    UNESCAPED: "@ as %40",
    "postgresql://outcomes:canary%zztwo@127.0.0.1:1/outcomes": "% as %25",
    "postgresql://outcomes:canary/two@127.0.0.1:1/outcomes": "/ as %2F",
    "postgresql://outcomes:canary two@127.0.0.1:1/outcomes": "a space as %20",
    "postgresql://outcomes:canary-two": "a port",
    "postgresql://127.0.0.1:1/outcomes?password=canary&two-one": "is not a valid URL",
    "postgresql://127.0.0.1:1/outcomes?canary-two=x": "is not a valid URL",
    "postgresql://127.0.0.1:1,127.0.0.1:canary/outcomes": "a port",
    "host=127.0.0.1 port=1 password='canary two": "single quotes",
    "host=127.0.0.1 port=1 password=canary two": "single quotes",
    "outcomes:canary-two@127.0.0.1/outcomes": "postgresql://USER@HOST/NAME",
}
COMMANDS = [
    ("run",),
    ("run", "--once"),
    ("check",),
    ("status", "--json"),
    ("plan", "--json"),
    ("migrate",),
    ("backfill", *SPAN),
    ("alias", "list", "--org", "acme"),
    ("rejected", "--json"),
    ("export", "--parquet", "exported"),
]
PAGES = ("/readyz", "/api/status", "/metrics", "/", "/api/now")


def configure(program: Program, dsn: str, **other: Any) -> None:  # noqa: ANN401
    tree = {"database": {"dsn": dsn}, "orgs": {"acme": ORG}, "http": {"port": 0}, "log": {"level": "debug"}}
    program.config.write_text(yaml.safe_dump(tree | other))


def assert_rejected(ended: Ended, message: str) -> None:
    """Exit code 2 and one line, which starts with the key and repeats no part of the DSN."""
    assert (ended.code, ended.out) == (2, ""), ended
    [line] = ended.err.splitlines()
    assert line.startswith("database.dsn: ")
    assert message in line
    for piece in ("canary", "two", "one"):
        assert piece not in line


@pytest.mark.parametrize("dsn", list(INVALID)[::5])
async def test_the_daemon_does_not_start_with_an_invalid_dsn(tmp_path: Path, dsn: str) -> None:
    """Whether the file or the environment gives it; nothing listens."""
    async with Program(tmp_path, "") as program:
        configure(program, dsn)
        of_file = program.run("run")
        of_environment = program.run("run", "--once", environment={VARIABLE: dsn})
        for ended, variable in zip(await asyncio.gather(of_file, of_environment), ("", VARIABLE), strict=True):
            assert_rejected(ended, INVALID[dsn])
            assert (f"(set by {VARIABLE})" in ended.err) == bool(variable)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
async def test_an_invalid_dsn_stops_every_command(tmp_path: Path, command: tuple[str, ...]) -> None:
    """With the same message."""
    async with Program(tmp_path, "") as program:
        configure(program, UNESCAPED)
        assert_rejected(await program.run(*command), "@ as %40")


async def test_a_reload_with_an_invalid_dsn_is_rejected(program: Program) -> None:
    """The daemon keeps the old configuration; the log says what to escape, without the password."""
    configure(program, program.dsn)
    daemon = await Daemon.start(program)
    for times, (dsn, message) in enumerate(INVALID.items(), start=1):
        configure(program, dsn)
        daemon.send(signal.SIGHUP)
        rejected = await daemon.wait_for_event("config_rejected", times)
        [fault] = rejected["faults"]
        assert fault.startswith("database.dsn: ")
        assert message in fault
    await daemon.wait_until(lambda: daemon.count("org_acquired") > 0, "org")
    assert (await daemon.get("/readyz"))[0] == 200
    shown = "".join([(await daemon.get(path))[1] for path in PAGES])
    await daemon.end()
    for piece in ("canary", "two", "one-"):
        assert piece not in "".join(daemon.running.out)
    assert "canary" not in shown


@pytest.mark.parametrize(
    ("dsn", "environment"),
    [
        ("postgresql://outcomes:canary%40one:two-%C3%BC?#[]@127.0.0.1:1/outcomes", {}),
        ("postgresql://127.0.0.1:1/outcomes?user=me&password=canary%25one&sslpassword=two-canary", {}),
        ("host=127.0.0.1 port=1 user=me password='canary \\' one two-'", {}),
        ("postgresql://outcomes:canary-one@two.invalid,127.0.0.1:1/outcomes", {}),
        ("postgresql://me@127.0.0.1:1/outcomes?sslmode=canary-one", {"PGPASSWORD": "canary-two"}),
    ],
)
async def test_a_password_is_not_shown_while_the_database_is_unavailable(
    tmp_path: Path, dsn: str, environment: dict[str, str]
) -> None:
    """In the log at level debug, on every page, and by the commands that use the database."""
    async with Program(tmp_path, "") as program:
        configure(program, dsn)
        daemon = Daemon(program, await program.start("run", environment=environment))
        await daemon.wait_for_event("database_unavailable", 2)
        status, reason = await daemon.get("/readyz")
        assert status == 503
        shown = [reason, *[(await daemon.get(path))[1] for path in PAGES]]
        await daemon.end()
        shown += daemon.running.out
        commands = [program.run(command, environment=environment) for command in ("status", "check", "migrate")]
        for ended in await asyncio.gather(*commands):
            assert ended.code == 1
            shown += (ended.out, ended.err)
    assert not [text for text in shown if "canary" in text or "two-" in text]


async def test_a_short_password_is_not_redacted_elsewhere(tmp_path: Path) -> None:
    """A one-letter password occurs in every message; only the DSN is redacted."""
    async with Program(tmp_path, "") as program:
        configure(program, "postgresql://outcomes:e@127.0.0.1:1/outcomes")
        ended = await program.run("status")
    assert ended.code == 1
    assert "Connection refused" in ended.err
    assert "***" not in ended.err


async def test_a_wrong_password_is_not_shown(program: Program) -> None:
    """In the message of the server that rejects it."""
    with psycopg.connect(program.dsn) as connection:
        port, name = connection.info.port, connection.info.dbname
    configure(program, f"postgresql://flow_outcomes:canary%40one%25two-%2Fthree@127.0.0.1:{port}/{name}")
    for command in (("check",), ("status",), ("plan",), ("migrate",)):
        ended = await program.run(*command)
        assert ended.code == (0 if command == ("plan",) else 1), ended
        assert "authentication failed" in ended.out + ended.err
        assert "canary" not in ended.out + ended.err
        assert "three" not in ended.out + ended.err


async def test_a_password_with_every_special_character_works_escaped(program: Program) -> None:
    """Escaped as the fault of an invalid DSN says."""
    password = "p@%:/?#[]&= ü'\\one-two"
    with psycopg.connect(program.dsn, autocommit=True) as connection:
        port, name = connection.info.port, connection.info.dbname
        connection.execute("CREATE ROLE special SUPERUSER LOGIN PASSWORD " + psycopg.sql.quote(password))
    try:
        escaped = "p%40%25%3A%2F%3F%23[]&=%20ü'\\one-two"
        quoted = make_conninfo(host="127.0.0.1", port=port, dbname=name, user="special", password=password)
        for dsn in (f"postgresql://special:{escaped}@127.0.0.1:{port}/{name}", quoted):
            configure(program, dsn)
            ended = await program.run("migrate")
            assert (ended.code, "up to date" in ended.out) == (0, True), ended
            assert "one-two" not in ended.out + ended.err
    finally:
        with psycopg.connect(program.dsn, autocommit=True) as connection:
            connection.execute("DROP ROLE special")


async def test_a_dsn_in_the_wrong_place_is_not_shown(tmp_path: Path) -> None:
    """A DSN as a key, a name or a host is shown without its password."""
    dsn = "postgresql://outcomes:canary one@two/three@127.0.0.1/outcomes"
    async with Program(tmp_path, "") as program:
        for other in (
            {"database": {dsn: None}},
            {"database": {f"host=one password={SECRET}": None}},
            {"http": {"host": dsn, "port": 0}},
            {"jobs": {"daily": {"since": "P3D", "orgs": [dsn]}}},
        ):
            configure(program, "postgresql://outcomes@127.0.0.1:1/outcomes", **other)
            ended = await program.run("run")
            assert ended.code == 2, ended
            assert "canary" not in ended.out + ended.err
            assert "three" not in ended.out + ended.err
            assert SECRET not in ended.out + ended.err
