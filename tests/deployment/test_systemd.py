"""The systemd unit: what it says, and what systemd says of it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from service.runtime.process import GRACE
from tests.support.dockerfile import ROOT

TEXT = (ROOT / "config" / "systemd" / "flow-outcomes.service").read_text()
SETTINGS = dict(re.findall(r"^(\w+)=(.*)$", TEXT, re.MULTILINE))
EXPOSURE = 15  # tenths: of ten that a unit without any hardening has

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not here")


def test_signals_and_time() -> None:
    """A reload is SIGHUP, the end is SIGTERM with time to drain, and a bad configuration is not tried again."""
    assert SETTINGS["ExecReload"] == "/bin/kill -HUP $MAINPID"
    assert "KillSignal" not in SETTINGS
    assert int(SETTINGS["TimeoutStopSec"]) >= GRACE + 10
    assert SETTINGS["RestartPreventExitStatus"] == "2"


def test_it_is_no_root() -> None:
    """It runs as a user of its own, which no right lifts up again."""
    assert SETTINGS["User"] not in ("", "root", "0")
    assert SETTINGS["NoNewPrivileges"] == "yes"
    assert SETTINGS["CapabilityBoundingSet"] == ""


@needs_systemd
@pytest.mark.parametrize("words", [["verify"], ["security", "--offline=true", f"--threshold={EXPOSURE}"]])
def test_systemd_has_nothing_against_it(tmp_path: Path, words: list[str]) -> None:
    """Every key is one that systemd knows, and little is left open."""
    unit = tmp_path / "flow-outcomes.service"
    unit.write_text(TEXT.replace(SETTINGS["ExecStart"].split()[0], "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", *words, str(unit)],  # noqa: S607 - wherever it is
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert words != ["verify"] or done.stderr == ""
