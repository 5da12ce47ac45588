"""Bodies as gzip, compressed once for all clients."""

from __future__ import annotations

import gzip

SIZE_MIN = 1024
"""Bytes from which a body is compressed."""
_LEVEL = 2  # a sixth of the time of the usual level, for a tenth more bytes


def pack(body: bytes) -> bytes:
    """The body as gzip; empty where it is too short."""
    return gzip.compress(body, _LEVEL, mtime=0) if len(body) >= SIZE_MIN else b""


def accepts_gzip(header: str) -> bool:
    """Whether a client with this ``Accept-Encoding`` accepts gzip."""
    for each in header.lower().split(","):
        name, *parameters = (part.strip() for part in each.split(";"))
        if name == "gzip":
            return not any(one.replace(" ", "") in {"q=0", "q=0.0", "q=0.00", "q=0.000"} for one in parameters)
    return False
