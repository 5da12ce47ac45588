"""The systemd unit: its settings, and systemd's own checks."""

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
EXPOSURE = 15  # tenths of a point; a unit without hardening has almost ten points

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)


def test_signals_and_timeouts() -> None:
    """A reload sends SIGHUP, a stop SIGTERM with time to drain; an invalid configuration is not retried."""
    assert SETTINGS["ExecReload"] == "/bin/kill -HUP $MAINPID"
    assert "KillSignal" not in SETTINGS
    assert int(SETTINGS["TimeoutStopSec"]) >= GRACE + 10
    assert SETTINGS["RestartPreventExitStatus"] == "2"


def test_it_does_not_run_as_root() -> None:
    """It runs as its own user, without privileges or a way to gain them."""
    assert SETTINGS["User"] not in ("", "root", "0")
    assert SETTINGS["NoNewPrivileges"] == "yes"
    assert SETTINGS["CapabilityBoundingSet"] == ""


@needs_systemd
@pytest.mark.parametrize("words", [["verify"], ["security", "--offline=true", f"--threshold={EXPOSURE}"]])
def test_systemd_accepts_it(tmp_path: Path, words: list[str]) -> None:
    """Systemd knows every key, and the exposure is low."""
    unit = tmp_path / "flow-outcomes.service"
    unit.write_text(TEXT.replace(SETTINGS["ExecStart"].split()[0], "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", *words, str(unit)],  # noqa: S607 - from PATH
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert words != ["verify"] or done.stderr == ""
