"""What PostgreSQL rejects while a command runs."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import psycopg
import pytest

from service.cli import ExitCode, main, status

HINTS: dict[psycopg.Error, str] = {
    psycopg.errors.InsufficientPrivilege("permission denied for table org_lease"): "lacks a privilege: permission",
    psycopg.errors.UndefinedTable(
        'relation "flow_outcomes.org_lease" does not exist'
    ): "run 'flow-outcomes migrate'",
}


@pytest.mark.parametrize("error", HINTS, ids=lambda error: type(error).__name__)
def test_a_missing_privilege_or_table(
    error: psycopg.Error, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """One line says what to do, without a traceback."""

    def run(_: Namespace) -> int:
        raise error

    monkeypatch.setattr(status, "run", run)
    assert main(["status", "--config", str(tmp_path / "none.yaml")]) == ExitCode.INCOMPLETE
    (line,) = capsys.readouterr().err.splitlines()
    assert HINTS[error] in line
