"""The content of a file that the configuration names, limited in size."""

from __future__ import annotations

import errno
import os
from pathlib import Path

SIZE_MAX = 16 * 2**20
"""Bytes: a device without an end would fill the memory."""


def read_bytes(file: Path) -> bytes:
    """The content of a file, or of a pipe such as a shell's ``<(command)``.

    Raises:
        OSError: it cannot be read, or is larger than ``SIZE_MAX``.
    """
    with file.open("rb") as stream:
        content = stream.read(SIZE_MAX + 1)
    if len(content) > SIZE_MAX:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    return content
