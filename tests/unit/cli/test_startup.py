"""What a command line without work imports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from service.cli.parser import COMMANDS, GRANULARITIES
from service.model import Granularity

CHECKOUT = Path(__file__).parents[3]
SLOW = {
    "aiohttp",
    "apscheduler",
    "asyncio",
    "msgspec",
    "prometheus_client",
    "psycopg",
    "pydantic",
    "rich",
    "structlog",
    "yaml",
}
SCRIPT = """
import sys
from service.cli import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    print("modules", end.code, *sys.modules)
"""


def imported(*argv: str) -> tuple[str, set[str]]:
    """The exit code of a command line that ends while it is parsed, and the modules it imported."""
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT, *argv], cwd=CHECKOUT, capture_output=True, text=True, timeout=60, check=True
    )
    _, code, *modules = ended.stdout.splitlines()[-1].split()
    return code, set(modules)


@pytest.mark.parametrize(
    "argv",
    [
        ["--version"],
        ["--help"],
        *([command, "--help"] for command in COMMANDS if command != "simulate"),
        *(["config", action, "--help"] for action in ("validate", "show", "schema")),
        *(["alias", action, "--help"] for action in ("add", "remove", "list")),
    ],
    ids=" ".join,
)
def test_help_imports_no_slow_module(argv: list[str]) -> None:
    """``--version``, ``--help`` and each command's ``--help`` need the standard library alone."""
    code, modules = imported(*argv)
    assert code == "0"
    assert modules & SLOW == set()


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["nonsense"],
        ["config"],
        ["run"],
        ["demo", "--port", "70000"],
        ["rejected", "--config", "x", "--limit", "0"],
        ["backfill", "--config", "x", "--granularity", "yearly"],
        ["alias"],
    ],
    ids=" ".join,
)
def test_a_usage_error_imports_no_slow_module(argv: list[str]) -> None:
    """A usage error ends with exit code 2 and needs the standard library alone."""
    code, modules = imported(*argv)
    assert code == "2"
    assert modules & SLOW == set()


def test_simulate_help_imports_no_server() -> None:
    """The simulator declares its own arguments, without its server."""
    code, modules = imported("simulate", "--help")
    assert code == "0"
    assert modules & SLOW == set()


def test_the_granularities_are_those_of_the_model() -> None:
    """The parser lists them itself: importing the model takes longer than parsing."""
    assert ("auto", *Granularity) == GRANULARITIES
