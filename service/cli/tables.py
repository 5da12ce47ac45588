"""Tables for people, on standard output."""

from __future__ import annotations

import sys

from rich.console import Console

FILE_WIDTH = 160
"""Columns of a table that goes to a file or a pipe."""


def console(*, file_width: int = FILE_WIDTH) -> Console:
    """Standard output, as wide as the terminal."""
    return Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else file_width)


def short_instant(at: str) -> str:
    """An instant without its seconds, or without its time where that is midnight UTC."""
    return at.replace(":00.000Z", "Z").replace("T00:00Z", "")
