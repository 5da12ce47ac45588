"""The databases of the tests' own server."""

from __future__ import annotations

TEMPLATE = "migrated"


def url(server: str, name: str) -> str:
    """The server's DSN with another database, still a URL: programs take it through their environment."""
    return f"{server.rpartition('/')[0]}/{name}"
