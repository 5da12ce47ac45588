"""The progress of a command beside its result."""

from __future__ import annotations

import io
import sys

import pytest

from service.telemetry.progress_bar import ProgressBar


class Terminal(io.StringIO):
    """A terminal that records what it shows."""

    def isatty(self) -> bool:
        """Always true."""
        return True


def test_a_piped_result_is_separate_from_the_bar(capsys: pytest.CaptureFixture[str]) -> None:
    """The bar goes to the terminal, the result to standard output."""
    terminal = Terminal()
    with ProgressBar(terminal) as bar:
        bar.set_progress(3, 7)
        sys.stdout.write("3 of 7 windows stored\n")
    assert capsys.readouterr().out == "3 of 7 windows stored\n"
    assert "3/7" in terminal.getvalue()
    assert "stored" not in terminal.getvalue()
