"""Databases of the test server."""

from __future__ import annotations

TEMPLATE = "migrated"


def url(server: str, name: str) -> str:
    """Return the server's DSN with another database name, as a URL."""
    return f"{server.rpartition('/')[0]}/{name}"
