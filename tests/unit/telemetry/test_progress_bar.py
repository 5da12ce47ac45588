"""How far a long command is, beside its result."""

from __future__ import annotations

import io
import sys

import pytest

from service.telemetry.progress_bar import ProgressBar


class Terminal(io.StringIO):
    """What a terminal shows."""

    def isatty(self) -> bool:
        """It is one."""
        return True


def test_a_result_that_is_piped_on_is_no_part_of_the_bar(capsys: pytest.CaptureFixture[str]) -> None:
    """The bar is on the terminal, the result on standard output."""
    terminal = Terminal()
    with ProgressBar(terminal) as bar:
        bar.set_progress(3, 7)
        sys.stdout.write("3 of 7 windows stored\n")
    assert capsys.readouterr().out == "3 of 7 windows stored\n"
    assert "3/7" in terminal.getvalue()
    assert "stored" not in terminal.getvalue()
