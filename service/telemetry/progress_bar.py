"""The progress of a long command: a bar on a terminal, elsewhere a line every few seconds."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from service.telemetry.events import Event
from service.telemetry.text import counted

LINE_INTERVAL = 10.0
"""Seconds between two lines where there is no terminal."""


class ProgressBar:
    """Counts the windows and pages of one command, over all its orgs.

    Args:
        stream: where the progress is shown; never standard output, which is for results.
        shown: False shows no progress, only the lines that are printed.
    """

    def __init__(self, stream: TextIO, *, shown: bool = True) -> None:
        self._console = Console(file=stream, highlight=False)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("windows, {task.fields[pages]} pages"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            redirect_stdout=sys.stdout.isatty(),  # keeps a piped result out of the bar's stream
            disable=not (shown and self._console.is_terminal),
            transient=False,
        )
        self._task = self._bar.add_task("extracting", total=None, pages=0)
        self._total = self._done = self._pages = 0
        self._lines = shown and not self._console.is_terminal
        self._printed_at = time.monotonic()
        self._printed: str | None = None

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        if self._lines and self._total:
            self._print_state()

    def on_event(self, event: str, context: Mapping[str, Any]) -> None:
        """Count an event of this process; to be subscribed to the reporter."""
        match event:
            case Event.CYCLE_STARTED:
                self._total += context["windows"]
            case Event.WINDOW_COMPLETE | Event.WINDOW_DOUBTED | Event.WINDOW_FAILED:
                self._done += 1
            case Event.PAGE_READ:
                self._pages += 1
            case _:
                return
        self._update()

    def set_progress(self, done: int, total: int, pages: int = 0) -> None:
        """Show how many of all windows are done, where another process extracts them."""
        self._done, self._total, self._pages = done, total, pages
        self._update()

    def print(self, line: str) -> None:
        """Print a line above the bar."""
        self._console.print(line, markup=False)

    def _update(self) -> None:
        self._bar.update(self._task, completed=self._done, total=self._total or None, pages=self._pages)
        if self._lines and time.monotonic() - self._printed_at >= LINE_INTERVAL:
            self._printed_at = time.monotonic()
            self._print_state()

    def _print_state(self) -> None:
        """Print a line with the state, unless the last one says the same."""
        line = f"{self._done} of {counted(self._total, 'window')}, {counted(self._pages, 'page')}"
        if line != self._printed:
            self._printed = line
            self.print(line)
