"""A command as a whole process: how long it took, what processor time and memory it used."""

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


class Measured(NamedTuple):
    """One run; seconds and megabytes.

    Attributes:
        wall: from its start to its end.
        cpu: the process's own and its children's, not the server's.
        peak: resident.
        out: what it said.
        ended: when, on the machine's monotonic clock.
    """

    wall: float
    cpu: float
    peak: float
    out: str
    ended: float


def measured(command: Sequence[str | Path], **environment: str) -> Measured:
    """Run it, which has to end well.

    Raises:
        RuntimeError: it did not.
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
        raise RuntimeError(f"{command} ended with {process.returncode}: {out[-3000:]}")
    return Measured(ended - began, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, out, ended)


@dataclass
class Ground:
    """A PostgreSQL and a folder to measure in."""

    folder: Path
    dsn: str
    _made: int = 0

    def database(self) -> str:
        """A new, empty database; its DSN, as a URL, which every contender understands."""
        self._made += 1
        name = f"bench_{self._made}"
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return urlsplit(self.dsn)._replace(path=f"/{name}").geturl()

    def wal(self) -> float:
        """Megabytes that the server has written to its log since it was made."""
        with psycopg.connect(self.dsn) as connection:
            row = connection.execute(
                "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0') / 2^20"
            ).fetchone()
        return float(row[0]) if row else 0.0

    def vacuum(self, dsn: str) -> None:
        """Have the server tidy a database up, as it does by itself after a while."""
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
        """A file for the program: a daily job over one org or several, each at a URL."""
        urls = {"acme": urls} if isinstance(urls, str) else urls
        self._made += 1
        path = self.folder / f"bench_{self._made}.yaml"
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
        measured([PROGRAM, "migrate", "--config", path])
        return path


@contextmanager
def ground(*, durable: bool = True) -> Iterator[Ground]:
    """A PostgreSQL while the block lasts."""
    with tempfile.TemporaryDirectory(prefix="flow-outcomes-bench-") as name:
        folder = Path(name)
        folder.chmod(0o711)  # the server's user passes through, where root runs this
        with Embedded(folder / "postgresql", durable=durable) as dsn:
            yield Ground(folder, dsn)


def told(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
