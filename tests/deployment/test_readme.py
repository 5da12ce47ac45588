"""The README's commands, typed as they stand: from `pip install` on to a second daemon and an export."""

from __future__ import annotations

import asyncio
import re
import shlex
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from service.simulator import SimulatedOrg, Simulator, SimulatorConfig
from tests.acceptance.program import PATIENCE, Program, Running
from tests.deployment.dockerfile import ROOT

TEXT = (ROOT / "README.md").read_text()
SECRET = "a-simulated-secret"
CONFIG = "flow-outcomes.yaml"
TOGETHER = 2  # daemons that the README starts


def commands() -> list[str]:
    """The lines of the sh blocks that call the program, in their order."""
    blocks = re.findall(r"^```sh\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
    lines = [line.partition("  #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if re.match(r"(\w+=\S+ )*flow-outcomes ", line)]


def configuration(dsn: str, url: str, secret: Path) -> dict[str, Any]:
    """The README's own, with this database, this API and fewer days."""
    [block] = re.findall(r"^```yaml\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
    tree: dict[str, Any] = yaml.safe_load(block)
    assert tree["database"].keys() == {"dsn"}
    tree["database"]["dsn"] = dsn
    [org] = tree["orgs"].values()
    assert org.keys() == {"region", "client_id", "client_secret_file"}
    org |= {"base_url": url, "login_url": url, "client_secret_file": str(secret)}
    [job] = tree["jobs"].values()
    job["since"] = "P3D"
    return tree


def test_there_are_commands() -> None:
    """The README was read, and every command of it is one of the program's."""
    words = [[word for word in shlex.split(line) if "=" not in word][1] for line in commands()]
    assert {"check", "run", "status", "export"} <= set(words)
    assert words.count("run") == TOGETHER
    told = set(re.findall(r"^\| `(\w+)` \|", TEXT, re.MULTILINE))
    assert told == {file.stem for file in (ROOT / "service" / "cli").glob("*.py")} - {"__init__", "arguments"}


@pytest.fixture
async def program(tmp_path: Path, empty_database: str) -> AsyncIterator[Program]:
    """The installed program, on a database with nothing in it."""
    async with Program(tmp_path, empty_database) as program:
        yield program


async def test_the_commands_as_they_stand(program: Program) -> None:
    """Each ends with 0, the daemons when they are asked to; the figures are in the tables and in the export."""
    [name] = yaml.safe_load(re.findall(r"^```yaml\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)[0])["orgs"].values()
    org = SimulatedOrg(client_secret=SECRET, flows=3)
    secret = program.folder / "secret"
    secret.write_text(SECRET)
    daemons: list[Running] = []
    async with Simulator(SimulatorConfig(orgs={name["client_id"]: org})) as simulator:
        (program.folder / CONFIG).write_text(
            yaml.safe_dump(configuration(program.dsn, simulator.base_url, secret))
        )
        for line in commands():
            words = shlex.split(line)
            given = dict(word.split("=", 1) for word in words if re.match(r"[A-Z_]+=", word))
            assert given.get("FLOW_OUTCOMES_HTTP__PORT", "8080").isdigit()
            arguments = words[len(given) + 1 :]
            running = await program.start_bare(
                *arguments,
                environment={**given, "FLOW_OUTCOMES_HTTP__PORT": "0"},  # 8080 may be somebody's
            )
            if arguments[0] == "run":
                daemons.append(running)
                await at_work(daemons)
                continue
            ended = await running.end()
            assert ended.code == 0, f"{line}: {ended.out}{ended.err}"
        for daemon in daemons:
            daemon.process.send_signal(signal.SIGTERM)
        for daemon in daemons:
            assert (await daemon.end()).code == 0
    with psycopg.connect(program.dsn) as connection:
        [stored] = connection.execute("SELECT count(*) FROM flow_outcomes.flow_outcome").fetchall()
    assert stored[0] > 0
    assert list((program.folder / "exported").rglob("figures.parquet"))


async def at_work(daemons: list[Running]) -> None:
    """Until the daemon has started; the first one is then told not to wait for the off-peak hours."""
    await until(daemons[-1], "daemon_started")
    if len(daemons) == 1:
        await until(daemons[0], "org_acquired")
        daemons[0].process.send_signal(signal.SIGUSR1)
        await until(daemons[0], "window_complete", 3)


async def until(running: Running, event: str, times: int = 1) -> None:
    """Until the event is in its log so often."""
    async with asyncio.timeout(PATIENCE):
        while sum(f'"{event}"' in line for line in running.out) < times:
            assert running.process.returncode is None, running.err
            await asyncio.sleep(0.05)
