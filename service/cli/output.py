"""Standard output and standard error as they are found: closed, full, or without a reader."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, TypeVar, cast

T = TypeVar("T")


def open_missing() -> None:
    """Open each standard stream that the process was started without.

    Otherwise the next socket or file would get its number, and receive what a library writes to that stream.
    Writing to a missing standard output is an error; what goes to a missing standard error is discarded.
    """
    for descriptor, mode in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            opened = os.open(os.devnull, mode)
            if opened != descriptor:
                os.dup2(opened, descriptor)
                os.close(opened)
    if sys.stdout is None:
        sys.stdout = _stream(1)
    if sys.stderr is None:
        sys.stderr = _stream(2)


class _Checked:
    """A stream that remembers its first error: libraries ignore some, and a buffer delays some."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.error: OSError | None = None

    def write(self, text: str) -> int:
        return self._remember(lambda: self._stream.write(text))

    def flush(self) -> None:
        self._remember(self._stream.flush)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the stream has
        return getattr(self._stream, name)

    def _remember(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except OSError as error:
            self.error = self.error or error
            raise


@contextmanager
def checked_stdout() -> Iterator[Callable[[], OSError | None]]:
    """Within the context, remember whether standard output could not be written.

    Yields a function that writes what is buffered and returns the first error; after one, all output is discarded.
    """
    before = sys.stdout
    checked = _Checked(before)

    def error() -> OSError | None:
        with suppress(OSError):
            checked.flush()
        if checked.error is not None:
            discard(before)
        return checked.error

    sys.stdout = cast("TextIO", checked)
    try:
        yield error
    finally:
        sys.stdout = before


def discard(stream: TextIO) -> None:
    """Discard what is buffered for a stream: the interpreter would try again to write it as it exits."""
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError):
        return
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, descriptor)
    os.close(null)


def _stream(descriptor: int) -> TextIO:
    return open(descriptor, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
