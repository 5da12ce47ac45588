"""Text for people."""

from __future__ import annotations


def printable(text: str) -> str:
    """Escape what a terminal would obey or could not show."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """A count with its noun: ``1 entry``, ``2 entries``. The plural takes an *s* where none is given."""
    return f"{count} {noun if count == 1 else plural or f'{noun}s'}"
