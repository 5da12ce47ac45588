"""Runs every code block of the README in order, except for ports and the server's address."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import psycopg
import pytest
import yaml
from psycopg.conninfo import conninfo_to_dict

from service.cli.parser import COMMANDS
from service.config.starting import starting_configuration
from tests.support.documents import ROOT, blocks

README = "README.md"
TIMEOUT = 120.0
RUN, OWN = "Run it", "With your own PostgreSQL"
INSTALLATION = 0  # of the shell blocks of "Run it"
CONFIG = "flow-outcomes.yaml"

# What a reader waits for after a line, by a pattern of the line.
WAITS = {
    r"^flow-outcomes simulate": "until grep -qs simulator_started simulated.log; do sleep 0.1; done",
    r"> first.log": "until [ $(grep -cs window_complete first.log) -ge 365 ]; do sleep 0.1; done",
    r"> second.log": "until grep -qs daemon_started second.log; do sleep 0.1; done",
    r"^kill %.first": "until grep -qs org_acquired second.log; do sleep 0.1; done",
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def shell(script: str, folder: Path, path: str, **environment: str) -> str:
    """Run a script in bash with only HOME and PATH; return its output."""
    running = subprocess.Popen(
        ["/bin/bash", "-euc", script],
        cwd=folder,
        env={"HOME": str(folder), "PATH": path, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = running.communicate(timeout=TIMEOUT)
    finally:
        if running.poll() is None:
            os.killpg(running.pid, signal.SIGKILL)
            running.communicate()
    assert running.returncode == 0, output + "".join(log.read_text()[-2000:] for log in folder.glob("*.log"))
    return output


@pytest.fixture
def own_database(server: str) -> Iterator[str]:
    """The DSN of the database that the README's statements create, on the test server."""
    [statements] = blocks(README, OWN, "sql")
    with psycopg.connect(server, autocommit=True) as superuser:
        for statement in statements.text.split(";\n"):
            superuser.execute(statement.encode())
        [config] = blocks(README, OWN, "yaml")
        documented = conninfo_to_dict(yaml.safe_load(config.text)["database"]["dsn"])
        actual = conninfo_to_dict(server)
        try:
            user = f"{documented['user']}:{documented['password']}"
            yield f"postgresql://{user}@{actual['host']}:{actual['port']}/{documented['dbname']}"
        finally:
            superuser.execute(f"DROP DATABASE {documented['dbname']} WITH (FORCE)".encode())
            superuser.execute(f"DROP ROLE {documented['user']}".encode())


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """An empty folder that the embedded PostgreSQL's user can enter."""
    folder = Path(tempfile.mkdtemp(prefix="flow-outcomes-test-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


def test_the_walkthrough(open_folder: Path, own_database: str) -> None:
    """Every line from ``init`` to the export succeeds, embedded and on a server; a second daemon takes over."""
    folder = open_folder
    _, *embedded = (block.text for block in blocks(README, RUN, "sh"))
    [own] = (block.text for block in blocks(README, OWN, "sh"))
    port = str(free_port())
    lines = ["trap 'kill $(jobs -p) || true' EXIT"]
    for line in "".join(embedded).splitlines():
        lines += waited_for(line.replace("9000", port))
    lines += ["kill %?first", "wait %?first", "mv first.log embedded.log"]
    lines.append(f"sed -i 's|^  embedded: .*|  dsn: {own_database}|' {CONFIG}")
    for line in own.splitlines():
        lines += waited_for(line.replace("PORT=8081", "PORT=0"))
    output = shell(
        "\n".join(lines), folder, f"{Path(sys.executable).parent}:/usr/bin:/bin", FLOW_OUTCOMES_HTTP__PORT="0"
    )
    assert "FAIL" not in output
    days = [int(each) for each in re.findall(r"^acme +daily +(\d+) +0 +0 +0 +0 ", output, re.MULTILINE)]
    assert len(days) == 2, output
    assert min(days) >= 365
    assert list((folder / "exported").rglob("figures.parquet"))
    assert '"daemon_stopped"' in (folder / "first.log").read_text()
    [query] = blocks(README, "Query it", "sql")
    with psycopg.connect(own_database) as connection:
        assert len(connection.execute(query.text.encode()).fetchall()) > 7


def waited_for(line: str) -> list[str]:
    """The line, and what a reader waits for after it."""
    return [line, *(wait for pattern, wait in WAITS.items() if re.search(pattern, line))]


def test_the_org_of_init() -> None:
    """The block of the org is the one that ``init`` writes."""
    [shown] = blocks(README, RUN, "yaml")
    written = yaml.safe_load(starting_configuration(date(2026, 11, 28), embedded=True))["orgs"]["acme"]
    for key, value in yaml.safe_load(shown.text)["orgs"]["acme"].items():
        assert written[key] == value


def test_every_command_is_documented() -> None:
    """The table has exactly the existing commands."""
    documented = set(re.findall(r"^\| `(\w+)` \|", (ROOT / README).read_text(), re.MULTILINE))
    assert documented == set(COMMANDS)


@pytest.mark.image
def test_in_an_empty_folder(tmp_path: Path) -> None:
    """In a new clone with an empty environment, both forms of the demo and the installation work."""
    git = shutil.which("git")
    assert git is not None
    subprocess.run([git, "clone", "--quiet", ROOT, tmp_path / "clone"], check=True)
    demo, tests = (block.text for block in blocks(README, "Try it", "sh"))
    assert (demo, tests) == ("make demo\n", "make test\n")
    assert "`make demo ARGS=--once`" in (ROOT / README).read_text()
    pip = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    output = shell("make demo ARGS=--once", tmp_path / "clone", "/usr/bin:/bin", **pip)
    assert re.search(r"acme +│ daily ", output)
    installation = blocks(README, RUN, "sh")[INSTALLATION].text
    output = shell(f"{installation}\nflow-outcomes --version", tmp_path / "clone", "/usr/bin:/bin", **pip)
    assert output.splitlines()[-1].startswith("flow-outcomes ")
    output = run_until_ctrl_c("exec make demo ARGS='--port 0'", tmp_path / "clone", pip)
    assert "Ctrl-C ends it" in output
    assert "Traceback" not in output


def run_until_ctrl_c(command: str, folder: Path, environment: dict[str, str]) -> str:
    """Run a command until it prints how to end it, send SIGINT, and return its output."""
    with (folder.parent / "output").open("w+") as output:
        running = subprocess.Popen(
            ["/bin/bash", "-c", command],
            cwd=folder,
            env={"HOME": str(folder), "PATH": "/usr/bin:/bin", **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            deadline = time.monotonic() + TIMEOUT
            while "Ctrl-C" not in (text := (folder.parent / "output").read_text()):
                assert running.poll() is None, text
                assert time.monotonic() < deadline, text
                time.sleep(0.2)
            os.killpg(running.pid, signal.SIGINT)
            running.wait(timeout=30)
        finally:
            if running.poll() is None:
                os.killpg(running.pid, signal.SIGKILL)
    return (folder.parent / "output").read_text()
