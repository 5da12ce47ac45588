"""Servers on fixed ports, which can be stopped and crashed; a primary and its standby."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from service.postgres.embedded.binaries import User, reachable_by, server_user
from service.postgres.embedded.server import IMMEDIATE

TIMEOUT = 30.0
ROLE = "flow_outcomes"
SETTINGS = ("fsync=off", "full_page_writes=on", "unix_socket_directories=", "listen_addresses=127.0.0.1")


def programs_with_fdw() -> Path:
    """The programs of an installed PostgreSQL that has postgres_fdw, which the embedded one lacks; else skips."""
    for library in sorted(Path("/usr/lib/postgresql").glob("*/lib/postgres_fdw.so"), reverse=True):
        return library.parents[1] / "bin"
    pytest.skip("no PostgreSQL with postgres_fdw is installed")


class ClusterServer:
    """A server on a fixed port.

    Attributes:
        port: the port on which it listens while it runs.
    """

    def __init__(self, programs: Path, user: User, data: Path) -> None:
        self._programs, self._user, self._data = programs, user, data
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port: int = probe.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def dsn(self) -> str:
        """The DSN of this server alone."""
        return f"postgresql://{ROLE}@127.0.0.1:{self.port}/postgres"

    def create(self) -> None:
        """Create an empty primary."""
        self._run("initdb", "-D", self._data, "-U", ROLE, "-A", "trust", "-E", "UTF8", "--no-locale", "-N")

    def copy(self, primary: ClusterServer) -> None:
        """Create a standby of ``primary``."""
        self._run("pg_basebackup", "-D", self._data, "-d", primary.dsn, "-R", "-X", "stream", "-c", "fast", "-N")

    def follow(self, primary: ClusterServer) -> None:
        """Configure a cleanly stopped server as a standby of ``primary``."""
        self._user.write(self._data / "standby.signal", "")
        with (self._data / "postgresql.auto.conf").open("a") as settings:
            settings.write(f"primary_conninfo = '{primary.dsn}'\n")

    def start(self) -> None:
        """Start the server and wait until it accepts connections."""
        self._process = subprocess.Popen(
            [
                str(self._programs / "postgres"),
                *("-D", str(self._data)),
                *(f"-c{setting}" for setting in (*SETTINGS, f"port={self.port}")),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **self._user.process(self._data.parent, dies_with_parent=True),
        )
        wait_until(self._accepts_connections)

    def stop(self) -> None:
        """Stop the server cleanly, so that its standby has received everything."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(TIMEOUT)
            self._process = None

    def crash(self) -> None:
        """End the server as a crash would."""
        assert self._process is not None
        self._process.send_signal(IMMEDIATE)
        self._process.wait(TIMEOUT)
        self._process = None

    def promote(self) -> None:
        """Promote the standby to primary."""
        self.run("SELECT pg_promote()")
        wait_until(lambda: self.run("SELECT pg_is_in_recovery()") == [(False,)])

    def wait_for_replay(self, primary: ClusterServer) -> None:
        """Wait until the standby has replayed everything that the primary has written."""
        [(written,)] = primary.run("SELECT pg_current_wal_lsn()")
        wait_until(lambda: self.run(f"SELECT pg_last_wal_replay_lsn() >= '{written}'") == [(True,)])

    def run(self, statement: str) -> list[tuple[object, ...]]:
        """Run a statement as the superuser."""
        options = r"-c default_transaction_isolation=read\ committed"
        with psycopg.connect(self.dsn, autocommit=True, options=options) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def _accepts_connections(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, "the server ended"
        try:
            return self.run("SELECT 1") == [(1,)]
        except psycopg.OperationalError:
            return False

    def _run(self, program: str, *arguments: str | Path) -> None:
        done = subprocess.run(
            [self._programs / program, *arguments],
            **self._user.process(self._data.parent),
            capture_output=True,
            timeout=TIMEOUT,
            check=False,
        )
        assert done.returncode == 0, done.stderr


class StandbyPair:
    """A primary and its standby, whose roles may change."""

    def __init__(self, primary: ClusterServer, standby: ClusterServer) -> None:
        self.primary, self.standby = primary, standby

    def dsn(self, order: str, **settings: str) -> str:
        """Return a DSN with both hosts, ``primary first`` or ``standby first``."""
        servers = [self.primary, self.standby] if order == "primary first" else [self.standby, self.primary]
        hosts = ",".join(f"127.0.0.1:{server.port}" for server in servers)
        return f"postgresql://{ROLE}@{hosts}/postgres?" + "&".join(f"{k}={v}" for k, v in settings.items())

    def fail_over(self) -> None:
        """Stop the primary, promote the standby, and restart the former primary as its standby."""
        former = self.primary
        former.stop()
        self.standby.promote()
        self.primary, self.standby = self.standby, former
        former.follow(self.primary)
        former.start()
        assert former.run("SELECT pg_is_in_recovery()") == [(True,)]


@contextmanager
def temporary_folder(prefix: str) -> Iterator[Path]:
    """A folder that the servers' user can enter."""
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def start_pair() -> Iterator[StandbyPair]:
    """Start both servers, empty."""
    folder = Path(tempfile.mkdtemp(prefix="flow-outcomes-pair-"))
    user = server_user(folder)
    folder.chmod(0o711)
    programs = reachable_by(user, folder)
    servers = []
    for name in ("one", "other"):
        home = folder / name
        user.make(home)
        servers.append(ClusterServer(programs, user, home / "data"))
    one, other = servers
    try:
        one.create()
        one.start()
        other.copy(one)
        other.start()
        yield StandbyPair(one, other)
    finally:
        for server in servers:
            server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def wait_until(true: Callable[[], bool]) -> None:
    """Wait until ``true`` returns True."""
    deadline = time.monotonic() + TIMEOUT
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)
