"""Each fault of the configuration or the usage is one line on standard error."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.program import SECRET, Program

ORG: dict[str, Any] = {"region": "mypurecloud.com", "client_id": "me", "client_secret": SECRET}
VALID: dict[str, Any] = {
    "database": {"dsn": "postgresql://nobody@127.0.0.1:1/none"},
    "orgs": {"acme": ORG},
    "jobs": {"daily": {"since": "2024-01-01"}},
}


def with_org(**changes: object) -> dict[str, Any]:
    return {**VALID, "orgs": {"acme": {**ORG, **changes}}}


def with_job(**changes: object) -> dict[str, Any]:
    return {**VALID, "jobs": {"daily": {"since": "2024-01-01", **changes}}}


INVALID: dict[str, tuple[Any, list[str]]] = {
    "no database": ({key: VALID[key] for key in ("orgs", "jobs")}, ["database.dsn"]),
    "no orgs": ({**VALID, "orgs": {}}, ["orgs"]),
    "unknown key": ({**VALID, "databse": {}}, ["databse"]),
    "no secret": (with_org(client_secret=None), ["orgs.acme.client_secret"]),
    "secret file missing": (
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
    "invalid duration": (with_job(lookback="three days"), ["jobs.daily.lookback"]),
    "invalid name": ({**VALID, "orgs": {"Acme-1": ORG}}, ["orgs"]),
    "three at once": (
        with_org(requests_per_second=0, page_size="many", concurrency=-1),
        ["orgs.acme.concurrency", "orgs.acme.page_size", "orgs.acme.requests_per_second"],
    ),
    "a list": ([1, 2], [""]),
    "not YAML": ("orgs: [", [""]),
}


async def test_invalid_configuration(tmp_path: Path) -> None:
    """Exit code 2, a line for each fault that starts with its key, no traceback, no secret, nothing on stdout."""
    async with Program(tmp_path, "") as program:
        commands = [
            ("run", "--once"),
            ("run",),
            ("migrate",),
            ("backfill", "--org", "acme", "--from", "2024-01-01", "--to", "2024-02-01"),
        ]

        async def run_with(number: int, name: str, tree: object) -> tuple[str, int, str, str]:
            file = tmp_path / f"{number}.yaml"
            file.write_text(tree if isinstance(tree, str) else yaml.safe_dump(tree))
            ended = await program.run(*commands[number % len(commands)], "--config", str(file))
            return name, ended.code, ended.out, ended.err

        cases = list(enumerate(INVALID.items()))
        for start in range(0, len(cases), 3):
            done = await asyncio.gather(
                *(run_with(number, name, tree) for number, (name, (tree, _)) in cases[start : start + 3])
            )
            for name, code, out, err in done:
                keys = INVALID[name][1]
                assert (code, out) == (2, ""), (name, code, out, err)
                assert "Traceback" not in err
                assert SECRET not in err
                lines = err.splitlines()
                assert len(lines) == len(keys), (name, lines)
                for key, line in zip(keys, lines, strict=True):
                    assert line.startswith(key), (name, line)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ([], "COMMAND"),
        (["rum"], "rum"),
        (["run", "--config"], "--config"),
        (["migrate", "--config", "/nowhere/at/all.yaml"], "all.yaml"),
        (["demo", "--port", "65536"], "--port"),
        (["simulate", "--port", "65536"], "--port"),
    ],
)
async def test_invalid_usage(tmp_path: Path, arguments: list[str], name: str) -> None:
    """Exit code 2 and one line on standard error that names the argument."""
    async with Program(tmp_path, "") as program:
        ended = await (await program.start_bare(*arguments)).end()
    assert (ended.code, ended.out) == (2, "")
    assert len(ended.err.splitlines()) == 1
    assert name in ended.err


async def test_all_invalid_arguments_are_reported_at_once(program: Program) -> None:
    """Exit code 2, and a line for each that names the argument."""
    program.config.write_text(yaml.safe_dump(VALID))
    ended = await program.run("backfill", "--org", "other", "--from", "P3D", "--to", "2024-13-01")
    assert (ended.code, ended.out) == (2, "")
    assert [line.partition(":")[0] for line in ended.err.splitlines()] == ["--org", "--from", "--to"]
    ended = await program.run("backfill", "--org", "acme", "--from", "2024-02-01", "--to", "2024-02-01")
    assert (ended.code, ended.out, ended.err) == (2, "", "--to: must be later than --from 2024-02-01\n")


async def test_the_environment_overrides_the_file(program: Program) -> None:
    """A fault of its value names the variable."""
    program.config.write_text(yaml.safe_dump(VALID))
    ended = await program.run("migrate", environment={"FLOW_OUTCOMES_DATABASE__DSN": program.dsn})
    assert (ended.code, ended.out, ended.err) == (0, "the schema is up to date\n", "")
    ended = await program.run("migrate", environment={"FLOW_OUTCOMES_ORGS__ACME__PAGE_SIZE": "none"})
    assert (ended.code, ended.out) == (2, "")
    assert "orgs.acme.page_size" in ended.err
    assert "FLOW_OUTCOMES_ORGS__ACME__PAGE_SIZE" in ended.err
