"""A gateway's or a login page in place of JSON, as one line of text."""

from __future__ import annotations

import html
import re

_SNIFF, _READ = 64, 8192
"""Bytes in which a page's first tag is searched, and bytes that are read."""
WORDS_MAX = 80
"""Characters that are shown."""

_invisible = re.compile(rb"(?is)<(script|style)\b.*?(</\1\s*>|\Z)|<!--.*?(-->|\Z)|<[^>]*(>|\Z)")
_title = re.compile(rb"(?is)<title\b[^>]*>(.*?)</title\s*>")
_BOM = b"\xef\xbb\xbf"


def is_html(body: bytes) -> bool:
    """Whether a body is a page, or XML."""
    return body[:_SNIFF].removeprefix(_BOM).lstrip().startswith(b"<")


def words(body: bytes) -> str:
    """The first visible words of a page, on one line; not redacted."""
    return _line(_invisible.sub(b" ", body[:_READ]))


def title(body: bytes) -> str:
    """The title of a page, or its first words where it has none; on one line, not redacted."""
    found = _title.search(body[:_READ])
    return (_line(found.group(1)) if found else "") or words(body)


def _line(text: bytes) -> str:
    return " ".join(html.unescape(text.removeprefix(_BOM).decode(errors="replace")).split())
