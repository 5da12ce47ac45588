"""Signals before the daemon has installed its handlers."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

# The signals arrive while the command's module is imported, which takes most of a start.
_EARLY = """
import importlib.abc, os, signal, sys

class Early(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "service.cli.run":
            print("importing", flush=True)
            for number in map(int, sys.argv[2].split()):
                os.kill(os.getpid(), number)
            print("lives", flush=True)

sys.meta_path.insert(0, Early())
from service.cli import main
sys.exit(main(["run", "--config", sys.argv[1]]))
"""


@pytest.mark.parametrize(
    ("numbers", "code", "output"),
    [
        ([signal.SIGTERM], 0, "importing\n"),
        ([signal.SIGINT], 0, "importing\n"),
        ([signal.SIGHUP, signal.SIGUSR1], 2, "importing\nlives\n"),
    ],
)
def test_a_signal_during_the_imports_is_handled(
    tmp_path: Path, numbers: list[signal.Signals], code: int, output: str
) -> None:
    """SIGTERM and SIGINT end the process with 0; the others are ignored, and the missing file ends it with 2."""
    ended = subprocess.run(
        [sys.executable, "-c", _EARLY, tmp_path / "none.yaml", " ".join(str(int(number)) for number in numbers)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (code, output), ended.stderr
