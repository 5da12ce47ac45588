"""The code blocks of the documents, with their headings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "ARCHITECTURE.md",
    *(f"docs/{f.name}" for f in (ROOT / "docs").glob("*.md")),
)


class Block(NamedTuple):
    """A fenced block.

    Attributes:
        page: path of the document, relative to the root.
        heading: the nearest heading above the block.
        language: the language of the fence; empty if it has none.
        text: the content.
    """

    page: str
    heading: str
    language: str
    text: str


def blocks(page: str, heading: str | None = None, language: str | None = None) -> list[Block]:
    """Return the blocks of a document, in order; optionally of one heading or language."""
    return [
        block for block in _blocks(page) if heading in (None, block.heading) and language in (None, block.language)
    ]


def _blocks(page: str) -> Iterator[Block]:
    heading = fence = language = ""
    lines: list[str] = []
    for line in (ROOT / page).read_text().splitlines():
        if match := re.match(r"(\s*```)(\w*)$", line):
            if fence:
                yield Block(page, heading, language, "\n".join(lines) + "\n")
                fence = ""
            else:
                fence, language, lines = match[1], match[2], []
        elif fence:
            lines.append(line.removeprefix(fence[:-3]))
        elif line.startswith("#"):
            heading = line.lstrip("#").strip()
    assert not fence, f"{page}: a block has no end"
