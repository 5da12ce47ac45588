"""Databases of the test server."""

from __future__ import annotations

from datetime import datetime

import psycopg

TEMPLATE = "migrated"


def url(server: str, name: str) -> str:
    """Return the server's DSN with another database name, as a URL."""
    return f"{server.rpartition('/')[0]}/{name}"


def create_partitions(dsn: str, start: datetime, end: datetime) -> None:
    """Create the partitions of the figures for a test that stores some without the scanner."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SELECT flow_outcomes.ensure_partitions(%s, %s)", [start, end])
