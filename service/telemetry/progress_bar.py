"""How far a long command is: a bar with rate and time left on a terminal, a quiet line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any, Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from service.telemetry.events import Emit

QUIET_EVERY = 10.0  # seconds between two lines where there is no terminal


class ProgressBar:
    """Follows the windows and pages of one command, over all its orgs.

    Args:
        stream: where it is shown; never standard output, which is for results.
    """

    def __init__(self, stream: TextIO) -> None:
        self._console = Console(file=stream, highlight=False)
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("windows, {task.fields[pages]} pages"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            redirect_stdout=sys.stdout.isatty(),  # a result that is piped on stays out of the bar's stream
            disable=not self._console.is_terminal,
            transient=False,
        )
        self._task = self._bar.add_task("extracting", total=None, pages=0)
        self._total = self._done = self._pages = 0
        self._said = time.monotonic()

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def watch(self, emit: Emit) -> Emit:
        """An ``emit`` that passes every event on and follows it here."""

        def watched(event: str, **context: Any) -> None:  # noqa: ANN401 - a context holds anything
            self._see(event, context)
            emit(event, **context)

        return watched

    def at(self, done: int, total: int) -> None:
        """Show how many of all windows are done."""
        self._done, self._total = done, total
        self._show()

    def say(self, line: str) -> None:
        """Say a line above the bar."""
        self._console.print(line, markup=False)

    def _see(self, event: str, context: dict[str, Any]) -> None:
        match event:
            case "cycle_started":
                self._total += context["windows"]
            case "window_complete" | "window_doubted" | "window_failed":
                self._done += 1
            case "page_read":
                self._pages += 1
            case _:
                return
        self._show()

    def _show(self) -> None:
        self._bar.update(self._task, completed=self._done, total=self._total or None, pages=self._pages)
        if not self._console.is_terminal and time.monotonic() - self._said >= QUIET_EVERY:
            self._said = time.monotonic()
            self.say(f"{self._done} of {self._total} windows, {self._pages} pages")
