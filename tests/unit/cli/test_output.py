"""Output that cannot be written, from outside."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[3]
SHELL = f'"{sys.executable}" -m service'
CONFIG = """
database: {dsn: "postgresql://outcomes@127.0.0.1:1/none"}
orgs: {acme: {region: mypurecloud.com, client_id: id, client_secret: not-a-secret}}
jobs: {}
"""


def ended(command: str, **environment: str) -> tuple[int, str, str]:
    """The exit code of a shell's command, its standard output and standard error."""
    done = subprocess.run(
        ["/bin/bash", "-c", f"{command}"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"PATH": os.environ["PATH"], **environment},
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full")
@pytest.mark.parametrize("arguments", ["--version", "--help", "plan --help"])
@pytest.mark.parametrize("environment", [{}, {"PYTHONUNBUFFERED": "1"}], ids=["buffered", "unbuffered"])
def test_a_full_disk(arguments: str, environment: dict[str, str]) -> None:
    """One line says that the output cannot be written; exit code 1."""
    code, _, err = ended(f"{SHELL} {arguments} > /dev/full", **environment)
    assert (code, err) == (1, "flow-outcomes: cannot write standard output: No space left on device\n")


def test_a_closed_output() -> None:
    """A closed standard output is the same."""
    code, _, err = ended(f"{SHELL} --version >&-")
    assert (code, err) == (1, "flow-outcomes: cannot write standard output: Bad file descriptor\n")


def test_an_output_whose_reader_has_gone() -> None:
    """A pipe without a reader is the same."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "service", "--version"],
        cwd=CHECKOUT,
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "flow-outcomes: cannot write standard output: Broken pipe\n")


def test_a_closed_standard_error(tmp_path: Path) -> None:
    """Without standard error the exit code alone reports a failure, and its number is not another file's."""
    (tmp_path / "config.yaml").write_text(CONFIG)
    for redirection in ("2>&-", "2>/dev/full", "<&- >&- 2>&-"):
        assert ended(f"{SHELL} alias list --org nobody --config {tmp_path}/config.yaml {redirection}")[0] == 2
