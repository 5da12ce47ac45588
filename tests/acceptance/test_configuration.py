"""What is wrong with a configuration or with the usage is said in one line each, and nothing else."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.program import SECRET, Program

ORG: dict[str, Any] = {"region": "mypurecloud.com", "client_id": "me", "client_secret": SECRET}
GOOD: dict[str, Any] = {
    "database": {"dsn": "postgresql://nobody@127.0.0.1:1/none"},
    "orgs": {"acme": ORG},
    "jobs": {"daily": {"since": "2024-01-01"}},
}


def with_org(**changes: object) -> dict[str, Any]:
    return {**GOOD, "orgs": {"acme": {**ORG, **changes}}}


def with_job(**changes: object) -> dict[str, Any]:
    return {**GOOD, "jobs": {"daily": {"since": "2024-01-01", **changes}}}


BAD: dict[str, tuple[Any, list[str]]] = {
    "no database": ({key: GOOD[key] for key in ("orgs", "jobs")}, ["database.dsn"]),
    "no orgs": ({**GOOD, "orgs": {}}, ["orgs"]),
    "unknown key": ({**GOOD, "databse": {}}, ["databse"]),
    "no secret": (with_org(client_secret=None), ["orgs.acme.client_secret"]),
    "secret file away": (
        with_org(client_secret=None, client_secret_file="/nowhere/at/all"),
        ["orgs.acme.client_secret_file"],
    ),
    "plain http": (
        with_org(base_url="http://api.example.com", login_url="https://login.example.com"),
        ["orgs.acme.base_url"],
    ),
    "no such zone": (with_org(timezone="Europe/Nowhere"), ["orgs.acme.timezone"]),
    "too coarse": (with_job(granularity="monthly"), ["jobs.daily.granularity"]),
    "delay too short": (with_job(delay="PT59M"), ["jobs.daily.delay"]),
    "no duration": (with_job(lookback="three days"), ["jobs.daily.lookback"]),
    "bad name": ({**GOOD, "orgs": {"Acme-1": ORG}}, ["orgs"]),
    "three at once": (
        with_org(requests_per_second=0, page_size="many", concurrency=-1),
        ["orgs.acme.concurrency", "orgs.acme.page_size", "orgs.acme.requests_per_second"],
    ),
    "a list": ([1, 2], [""]),
    "not YAML": ("orgs: [", [""]),
}


async def test_bad_configuration(tmp_path: Path) -> None:
    """Exit code 2, a line for each fault that begins with its key, no traceback, no secret, nothing on stdout."""
    async with Program(tmp_path, "") as program:
        commands = [
            ("run", "--once"),
            ("run",),
            ("migrate",),
            ("backfill", "--org", "acme", "--from", "2024-01-01", "--to", "2024-02-01"),
        ]

        async def try_out(number: int, name: str, tree: object) -> tuple[str, int, str, str]:
            file = tmp_path / f"{number}.yaml"
            file.write_text(tree if isinstance(tree, str) else yaml.safe_dump(tree))
            ended = await program.run(*commands[number % len(commands)], "--config", str(file))
            return name, ended.code, ended.out, ended.err

        cases = list(enumerate(BAD.items()))
        for start in range(0, len(cases), 3):
            done = await asyncio.gather(
                *(try_out(number, name, tree) for number, (name, (tree, _)) in cases[start : start + 3])
            )
            for name, code, out, err in done:
                keys = BAD[name][1]
                assert (code, out) == (2, ""), (name, code, out, err)
                assert "Traceback" not in err
                assert SECRET not in err
                lines = err.splitlines()
                assert len(lines) == len(keys), (name, lines)
                for key, line in zip(keys, lines, strict=True):
                    assert line.startswith(key), (name, line)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "COMMAND"),
        (["rum"], "rum"),
        (["run", "--config"], "--config"),
        (["migrate", "--config", "/nowhere/at/all.yaml"], "all.yaml"),
        (["demo", "--port", "65536"], "--port"),
        (["simulate", "--port", "65536"], "--port"),
    ],
)
async def test_bad_usage(tmp_path: Path, arguments: list[str], named: str) -> None:
    """Exit code 2 and one line on standard error that names what is wrong."""
    async with Program(tmp_path, "") as program:
        ended = await (await program.start_bare(*arguments)).end()
    assert (ended.code, ended.out) == (2, "")
    assert len(ended.err.splitlines()) == 1
    assert named in ended.err


async def test_bad_values_of_a_usage_are_told_all_at_once(program: Program) -> None:
    """Exit code 2, and a line for each that names its argument."""
    program.config.write_text(yaml.safe_dump(GOOD))
    ended = await program.run("backfill", "--org", "other", "--from", "P3D", "--to", "2024-13-01")
    assert (ended.code, ended.out) == (2, "")
    assert [line.partition(":")[0] for line in ended.err.splitlines()] == ["--org", "--from", "--to"]
    ended = await program.run("backfill", "--org", "acme", "--from", "2024-02-01", "--to", "2024-02-01")
    assert (ended.code, ended.out, ended.err) == (2, "", "--to: must be later than --from 2024-02-01\n")


async def test_the_environment_wins(program: Program) -> None:
    """A value of the environment wins over the file's, and what is wrong with it is told under its variable."""
    program.config.write_text(yaml.safe_dump(GOOD))
    ended = await program.run("migrate", environment={"FLOW_OUTCOMES_DATABASE__DSN": program.dsn})
    assert (ended.code, ended.out, ended.err) == (0, "the schema is up to date\n", "")
    ended = await program.run("migrate", environment={"FLOW_OUTCOMES_ORGS__ACME__PAGE_SIZE": "none"})
    assert (ended.code, ended.out) == (2, "")
    assert "orgs.acme.page_size" in ended.err
    assert "FLOW_OUTCOMES_ORGS__ACME__PAGE_SIZE" in ended.err
