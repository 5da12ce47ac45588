"""Text on the command line and on the standard streams, whatever the locale is.

Arguments and files are UTF-8. A character that a standard stream cannot encode is escaped. Imports the standard
library alone.
"""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path


def escape_what_cannot_be_shown() -> None:
    """Escape the characters that standard output and standard error cannot encode, instead of raising."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def arguments() -> list[str]:
    """The arguments of the command line, read as UTF-8."""
    return [os.fsencode(each).decode("utf-8", "surrogateescape") for each in sys.argv[1:]]


def path(text: str) -> Path:
    """The path that an argument names."""
    return Path(os.fsdecode(text.encode("utf-8", "surrogateescape")))
