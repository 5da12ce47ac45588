"""Measures a command's time, CPU time and memory, and sets up the server for it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import psycopg
import yaml

from service.postgres.embedded.server import Embedded

PROGRAM = Path(sys.executable).with_name("flow-outcomes")
HERE = Path(__file__).resolve().parent.parent


class Measurement(NamedTuple):
    """One run of a command.

    Attributes:
        wall: seconds from start to end.
        cpu: CPU seconds of the process and its children, without the server.
        peak: peak resident memory, in megabytes.
        out: its output.
        ended: when it ended, in seconds of the monotonic clock.
    """

    wall: float
    cpu: float
    peak: float
    out: str
    ended: float


def measure_command(command: Sequence[str | Path], **environment: str) -> Measurement:
    """Run a command and measure it.

    Raises:
        RuntimeError: the command failed.
    """
    began = time.monotonic()
    with subprocess.Popen(  # noqa: S603 - the benchmark's own commands
        [str(each) for each in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": str(HERE), **environment},
    ) as process:
        out = process.stdout.read() if process.stdout else ""
        _, status, used = os.wait4(process.pid, 0)
        ended = time.monotonic()
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{command} exited with {process.returncode}: {out[-3000:]}")
    return Measurement(ended - began, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, out, ended)


@dataclass
class Testbed:
    """A PostgreSQL server and a folder for a benchmark."""

    folder: Path
    dsn: str
    _created: int = 0

    def database(self) -> str:
        """Create an empty database; return its DSN as a URL, which every contender accepts."""
        self._created += 1
        name = f"bench_{self._created}"
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return urlsplit(self.dsn)._replace(path=f"/{name}").geturl()

    def wal(self) -> float:
        """Return the megabytes of WAL that the server has written so far."""
        with psycopg.connect(self.dsn) as connection:
            row = connection.execute(
                "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0') / 2^20"
            ).fetchone()
        return float(row[0]) if row else 0.0

    def vacuum(self, dsn: str) -> None:
        """Vacuum and analyze a database, as the server does by itself after a while."""
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("VACUUM (ANALYZE)")

    def configuration(
        self,
        dsn: str,
        urls: str | Mapping[str, str],
        since: str,
        *,
        job: Mapping[str, object] | None = None,
        **org: object,
    ) -> Path:
        """Write a configuration with a daily job for one or several orgs, each at a URL; return its path."""
        urls = {"acme": urls} if isinstance(urls, str) else urls
        self._created += 1
        path = self.folder / f"bench_{self._created}.yaml"
        tree = {
            "database": {"dsn": dsn},
            "http": {"port": 0},
            "log": {"level": "info"},
            "orgs": {
                name: {
                    "base_url": url,
                    "login_url": url,
                    "client_id": "benchmark",
                    "client_secret": "benchmark",
                    **org,
                }
                for name, url in urls.items()
            },
            "jobs": {"daily": {"since": since, "off_peak": None, **(job or {})}},
        }
        path.write_text(yaml.safe_dump(tree), encoding="utf-8")
        measure_command([PROGRAM, "migrate", "--config", path])
        return path


@contextmanager
def start_testbed(*, durable: bool = True) -> Iterator[Testbed]:
    """Start a PostgreSQL server while the context is entered."""
    with tempfile.TemporaryDirectory(prefix="flow-outcomes-bench-") as name:
        folder = Path(name)
        folder.chmod(0o711)  # the server's user must be able to enter it if this runs as root
        with Embedded(folder / "postgresql", durable=durable) as dsn:
            yield Testbed(folder, dsn)


def print_line(text: str) -> None:
    """Print a line and flush."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
