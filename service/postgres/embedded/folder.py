"""The folder of an embedded PostgreSQL, for any process: whether a server runs there, and its DSN."""

from __future__ import annotations

import os
from pathlib import Path

ROLE = "flow_outcomes"
DATABASE = "flow_outcomes"
OWNER = "owner.lock"
BRIEF = b"brief"
"""In the owner's lock: the server stops when a short command ends."""
_STATUS_LINE = 7  # of postmaster.pid, from 0
_THIS_SERVER = (  # takes precedence over the environment, which may be meant for another server
    "hostaddr=127.0.0.1&target_session_attrs=any&sslmode=disable&gssencmode=disable&channel_binding=disable"
)


def holds_cluster(folder: Path) -> bool:
    """Whether the folder holds a database cluster that this user can see."""
    try:
        return (folder / "data" / "PG_VERSION").exists()
    except OSError:
        return False


def running_dsn(folder: Path, *, long_lived: bool = False) -> str | None:
    """The DSN of the server that runs in this folder; None where none is ready.

    Args:
        folder: the cluster's folder.
        long_lived: whether a server does not count that stops when a short command ends.
    """
    try:
        status = (folder / "data" / "postmaster.pid").read_text().splitlines()
        os.kill(int(status[0]), 0)
        if long_lived and (folder / OWNER).read_bytes() == BRIEF:
            return None
    except (OSError, ValueError, IndexError):
        return None
    return dsn(folder, int(status[3]), DATABASE) if _is_ready(status) else None


def ready(data: Path, pid: int) -> bool:
    """Whether the server with this process id accepts connections."""
    try:
        status = (data / "postmaster.pid").read_text().splitlines()
    except OSError:
        return False
    return _is_ready(status) and status[0] == str(pid)


def dsn(folder: Path, port: int, database: str) -> str:
    """The DSN of the server on this port."""
    password = (folder / "password").read_text()
    return f"postgresql://{ROLE}:{password}@127.0.0.1:{port}/{database}?{_THIS_SERVER}"


def _is_ready(status: list[str]) -> bool:
    return len(status) > _STATUS_LINE and status[_STATUS_LINE].strip() == "ready"
