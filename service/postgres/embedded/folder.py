"""What the folder of an embedded PostgreSQL tells to any process: whether there is one, who keeps it, its DSN."""

from __future__ import annotations

import os
from pathlib import Path

ROLE = "flow_outcomes"
DATABASE = "flow_outcomes"
OWNER = "owner.lock"
BRIEF = b"brief"
"""In the owner's lock: the server goes when a command that takes a moment ends."""
_THIS_ALONE = (
    "hostaddr=127.0.0.1&target_session_attrs=any&sslmode=disable&gssencmode=disable&channel_binding=disable"
)


def holds_one(folder: Path) -> bool:
    """Whether a database was ever kept there that this user can see."""
    try:
        return (folder / "data" / "PG_VERSION").exists()
    except OSError:
        return False


def running(folder: Path, *, long_lived: bool = False) -> str | None:
    """The DSN of the server that another process keeps in this folder; None where there is none ready.

    Args:
        folder: where it is kept.
        long_lived: only one that does not go with a command that takes a moment.
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
    """Whether the server of this process takes connections."""
    try:
        status = (data / "postmaster.pid").read_text().splitlines()
    except OSError:
        return False
    return _is_ready(status) and status[0] == str(pid)


def dsn(folder: Path, port: int, database: str) -> str:
    """Where a server on this port is reached, whatever the environment says of other servers."""
    password = (folder / "password").read_text()
    return f"postgresql://{ROLE}:{password}@127.0.0.1:{port}/{database}?{_THIS_ALONE}"


def _is_ready(status: list[str]) -> bool:
    return len(status) > 7 and status[7].strip() == "ready"  # noqa: PLR2004 - the file's eighth line
