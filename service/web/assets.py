"""The page's own files, read once into memory; no other file is served."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import NamedTuple

from service.web.compression import pack

_FOLDER = Path(__file__).with_name("static")
_TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".LICENSE": "text/plain",
}


class Asset(NamedTuple):
    """A file's content, the same as gzip, its MIME type and its digest."""

    body: bytes
    packed: bytes
    content_type: str
    etag: str


@cache
def assets() -> dict[str, Asset]:
    """Every file by its name."""
    return {
        file.name: Asset(body, pack(body), _TYPES[file.suffix], etag_of(body))
        for file in sorted(_FOLDER.iterdir())
        if file.suffix in _TYPES
        for body in (file.read_bytes(),)
    }


def etag_of(body: bytes) -> str:
    """The digest for the ETag header."""
    return hashlib.blake2b(body, digest_size=12).hexdigest()
