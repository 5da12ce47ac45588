"""A real PostgreSQL with nothing to set up, for the demo, for small installations and for the tests.

The server comes from a wheel's binaries and lives in one folder::

    FOLDER/                 root's own, where root starts it: the server's user may only pass through
        data/               the cluster, the server's user's own
        password            of the superuser, 0600
        server.log
        owner.lock          held by the process that started the server; says where that takes but a moment
        server.lock         held by that process, the server and every backend: a lock that is free
                            says that none of them lives, whatever ``postmaster.pid`` says
        postgresql-…/       a copy of the binaries, just where the server's user cannot reach the wheel's

It listens on 127.0.0.1 alone, asks every local user for the password, is no process of root's, and goes down
with the process that started it, killed or not.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import IO

import psycopg

from service.errors import ConfigError, DatabaseUnavailableError, Fault
from service.postgres import session
from service.postgres.embedded import binaries
from service.postgres.embedded.folder import BRIEF, DATABASE, OWNER, ROLE, dsn, ready

ATTEMPTS = 5
FAST, IMMEDIATE = signal.SIGINT, signal.SIGQUIT
LOG_LIMIT = 4 * 1024 * 1024

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "logging_collector": "off",
    "log_checkpoints": "off",
    "log_min_messages": "warning",
    "max_connections": "100",
}
NOT_DURABLE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


class AlreadyRunningError(DatabaseUnavailableError):
    """Another process keeps the server of this folder, or is about to start or stop it."""


class Embedded:
    """A PostgreSQL kept in a folder, from :meth:`start` to :meth:`stop` or to the end of this process.

    Args:
        folder: made where it is missing; an existing one must be empty or of an earlier start.
        durable: False gives up safety against a power failure for speed, in tests.
        brief: it goes again in a moment, so that nobody should rely on it who stays longer.
        timeout: seconds that a start may take, a former server's shutdown included.
    """

    def __init__(self, folder: Path, *, durable: bool = True, brief: bool = False, timeout: float = 60.0) -> None:
        self.folder = folder.absolute()
        self._brief = brief
        self._data = self.folder / "data"
        self._log = self.folder / "server.log"
        self._settings = SETTINGS if durable else SETTINGS | NOT_DURABLE
        self._timeout = timeout
        self._held: list[IO[bytes]] = []
        self._server: subprocess.Popen[bytes] | None = None
        self._keeper: threading.Thread | None = None

    def start(self) -> str:
        """Start the server and give the DSN of its database; blocking, so asyncio calls it in a thread.

        Raises:
            ConfigError: the folder cannot be used.
            AlreadyRunningError: another process keeps it.
            DatabaseUnavailableError: the server did not come up.
        """
        if self._server is not None:
            raise RuntimeError("already started")
        deadline = time.monotonic() + self._timeout
        user = binaries.server_user(self.folder)
        _prepare(self.folder, user)
        try:
            self._lock(deadline)
            programs = binaries.reachable_by(user, self.folder)
            if not (self._data / "PG_VERSION").exists():
                self._create(programs, user)
            return self._launch(programs, user, deadline)
        except subprocess.TimeoutExpired as error:
            self.stop()
            raise DatabaseUnavailableError(f"initdb did not end within {self._timeout:g} s") from error
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Shut the server down, fast but in order; nothing where it does not run."""
        if self._server is not None and self._keeper is not None:
            for how, patience in ((FAST, 60.0), (IMMEDIATE, 10.0), (signal.SIGKILL, None)):
                self._server.send_signal(how)
                self._keeper.join(patience)
                if not self._keeper.is_alive():
                    break
        self._server = self._keeper = None
        while self._held:
            self._held.pop().close()

    def __enter__(self) -> str:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _lock(self, deadline: float) -> None:
        owner = _take(self.folder / OWNER)
        if owner is None:
            raise AlreadyRunningError(f"{self.folder}: another process keeps its PostgreSQL in this folder")
        self._held.append(owner)
        owner.truncate(0)
        owner.write(BRIEF if self._brief else b"")
        owner.flush()
        while (lock := _take(self.folder / "server.lock")) is None:
            _end_orphan(self._data)
            if time.monotonic() > deadline:
                raise DatabaseUnavailableError(
                    f"{self.folder}: the server of an earlier start is still shutting down"
                )
            time.sleep(0.05)
        self._held.append(lock)
        (self._data / "postmaster.pid").unlink(missing_ok=True)  # the lock says that it is stale

    def _create(self, programs: Path, user: binaries.User) -> None:
        fresh = self.folder / "data.new"
        binaries.remove(fresh)  # left by a start that was killed
        password = secrets.token_hex(24)
        handed = self.folder / "password.new"
        handed.unlink(missing_ok=True)
        try:
            user.write(handed, password)
            user.make(fresh)
            done = subprocess.run(  # noqa: S603 - the wheel's own program
                [
                    programs / "initdb",
                    *("--pgdata", fresh, "--username", ROLE, "--pwfile", handed, "--auth", "scram-sha-256"),
                    *("--encoding", "UTF8", "--no-locale", "--locale-provider", "builtin"),
                    *("--builtin-locale", "C.UTF-8", "--set", "timezone=UTC", "--set", "log_timezone=UTC"),
                    *(("--no-sync",) if "fsync" in self._settings else ()),
                ],
                **user.process(self.folder),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=self._timeout,
                check=False,
            )
            if done.returncode:
                raise DatabaseUnavailableError(f"initdb failed: {done.stdout.decode(errors='replace').strip()}")
            os.chown(handed, os.geteuid(), os.getegid())
            handed.replace(self.folder / "password")
            fresh.rename(self._data)
        finally:
            handed.unlink(missing_ok=True)

    def _launch(self, programs: Path, user: binaries.User, deadline: float) -> str:
        for _ in range(ATTEMPTS):
            with socket.create_server(("127.0.0.1", 0)) as probe:
                port = probe.getsockname()[1]
            settings = (f"-c{name}={value}" for name, value in {**self._settings, "port": port}.items())
            with open(self._log, "ab", opener=binaries.private) as log:
                if log.tell() > LOG_LIMIT:
                    log.truncate(0)
                begun = log.tell()
                command = [str(programs / "postgres"), "-D", str(self._data), *settings]
                self._server, self._keeper = _spawn(command, user, self.folder, log, self._held)
            while self._server.poll() is None:
                if ready(self._data, self._server.pid):
                    return _database(self.folder, port)
                if time.monotonic() > deadline:
                    raise DatabaseUnavailableError(f"PostgreSQL did not start in time: {self._tail(begun)}")
                time.sleep(0.01)
            if "could not bind" not in self._tail(begun):
                break
        raise DatabaseUnavailableError(f"PostgreSQL did not start: {self._tail(begun)}")

    def _tail(self, begun: int) -> str:
        with self._log.open("rb") as log:
            log.seek(max(begun, self._log.stat().st_size - 2000))
            return log.read().decode(errors="replace").strip() or "it said nothing"


def _prepare(folder: Path, user: binaries.User) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        found = {entry.name for entry in folder.iterdir()} - {"lost+found"}
        if found and OWNER not in found:
            raise ConfigError([Fault("database.embedded", f"{folder} holds something else: give an empty folder")])
        if folder.stat().st_uid != os.geteuid():
            raise ConfigError([Fault("database.embedded", f"{folder} belongs to another user")])
        folder.chmod(0o711 if user.dropped else 0o700)
    except OSError as error:
        raise ConfigError([Fault("database.embedded", f"{folder} cannot be used: {error.strerror}")]) from error
    if blocked := user.blocked(folder):
        message = f"uid {user.uid}, as which PostgreSQL runs, cannot enter {blocked}: give a folder elsewhere"
        raise ConfigError([Fault("database.embedded", message)])


def _take(path: Path) -> IO[bytes] | None:
    lock = open(path, "ab", opener=binaries.private)  # noqa: SIM115 - kept open
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return None
    return lock


def _end_orphan(data: Path) -> None:
    """Ask a server to end whose owner is gone, for a kernel that has no parent-death signal."""
    try:
        pid = int((data / "postmaster.pid").read_text().splitlines()[0])
        if os.fsencode(data) in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
            os.kill(pid, FAST)
    except (OSError, ValueError, IndexError):
        return


def _spawn(
    command: list[str], user: binaries.User, folder: Path, log: IO[bytes], locks: list[IO[bytes]]
) -> tuple[subprocess.Popen[bytes], threading.Thread]:
    """Start the server from a thread that lives as long as it.

    The kernel sends the parent-death signal when the thread that forked ends, and asyncio's pool threads do.
    The thread keeps the locks too: a server whose ``Embedded`` was dropped still has an owner.
    """
    started = threading.Event()
    outcome: list[subprocess.Popen[bytes] | BaseException] = []

    def keep(locks: list[IO[bytes]]) -> None:
        try:
            server = subprocess.Popen(  # noqa: S603 - the wheel's own program
                command,
                **user.process(folder, dies_with_parent=True),
                stdout=log,
                stderr=log,
                pass_fds=(locks[-1].fileno(),),
                start_new_session=True,  # Ctrl-C is ours to answer: the server goes last
            )
        except BaseException as error:  # noqa: BLE001 - raised again by the caller
            outcome.append(error)
            started.set()
            return
        outcome.append(server)
        started.set()
        server.wait()

    keeper = threading.Thread(target=keep, args=(locks,), name="embedded-postgresql", daemon=True)
    keeper.start()
    started.wait()
    match outcome[0]:
        case subprocess.Popen() as server:
            return server, keeper
        case error:
            raise DatabaseUnavailableError(f"PostgreSQL cannot be started: {error}") from error


def _database(folder: Path, port: int) -> str:
    try:
        with session.connected(dsn(folder, port, "postgres"), "flow-outcomes", session.NONE) as connection:
            found = connection.execute("SELECT FROM pg_database WHERE datname = %s", [DATABASE]).fetchone()
            if found is None:
                connection.execute(f"CREATE DATABASE {DATABASE}")
    except psycopg.OperationalError as error:
        raise DatabaseUnavailableError(f"PostgreSQL started, but does not answer: {error}") from error
    return dsn(folder, port, DATABASE)
