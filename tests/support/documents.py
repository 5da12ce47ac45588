"""The documents, as blocks of code with the heading that each stands under."""

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
    """One fenced block.

    Attributes:
        page: the document, from the root on.
        heading: the nearest one above it.
        language: as its fence says; empty where it says none.
        text: what stands in it.
    """

    page: str
    heading: str
    language: str
    text: str


def blocks(page: str, heading: str | None = None, language: str | None = None) -> list[Block]:
    """The blocks of a document in their order: all, or those under a heading, of a language."""
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
