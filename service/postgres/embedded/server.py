"""A PostgreSQL server that needs no setup, for the demo, small installations and the tests.

The programs come from a wheel. The data is in one folder::

    FOLDER/                 belongs to root where root starts the server; its user may only enter it
        data/               the cluster; belongs to the server's user
        password            the superuser's, mode 0600
        server.log
        owner.lock          held by the process that started the server; contains ``brief`` for a short command
        server.lock         held by that process, the server and every backend; while it is free, none of them
                            runs, whatever ``postmaster.pid`` contains
        postgresql-…/       a copy of the programs, only where the server's user cannot run the wheel's

The server listens on 127.0.0.1 alone, requires the password of every local user, does not run as root, and stops
with the process that started it, also when that is killed.
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

_ATTEMPTS = 5  # to find a free port
FAST, IMMEDIATE = signal.SIGINT, signal.SIGQUIT  # PostgreSQL's shutdown modes
_LOG_LIMIT = 4 * 1024 * 1024  # bytes; a larger log is truncated at a start

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "logging_collector": "off",
    "log_checkpoints": "off",
    "log_min_messages": "warning",
    "max_connections": "100",
}
_NOT_DURABLE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


class AlreadyRunningError(DatabaseUnavailableError):
    """Another process runs the server of this folder, or is starting or stopping it."""


class Embedded:
    """The server of a folder, from :meth:`start` to :meth:`stop` or to the end of this process.

    Args:
        folder: created if missing; an existing one must be empty or from an earlier start.
        durable: False trades safety against a power failure for speed, in tests.
        brief: whether the server stops again soon, so that a long-lived process must not share it.
        timeout: seconds for a start, including the shutdown of an earlier server.
    """

    def __init__(self, folder: Path, *, durable: bool = True, brief: bool = False, timeout: float = 60.0) -> None:
        self.folder = folder.absolute()
        self._brief = brief
        self._data = self.folder / "data"
        self._log = self.folder / "server.log"
        self._settings = SETTINGS if durable else SETTINGS | _NOT_DURABLE
        self._timeout = timeout
        self._locks: list[IO[bytes]] = []
        self._server: subprocess.Popen[bytes] | None = None
        self._waiter: threading.Thread | None = None

    def start(self) -> str:
        """Start the server and return the DSN of its database; blocking: asyncio calls it in a thread.

        Raises:
            ConfigError: the folder cannot be used.
            AlreadyRunningError: another process runs the server of this folder.
            DatabaseUnavailableError: the server did not start.
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
                self._create_cluster(programs, user)
            return self._launch(programs, user, deadline)
        except subprocess.TimeoutExpired as error:
            self.stop()
            raise DatabaseUnavailableError(f"initdb did not finish within {self._timeout:g} s") from error
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Shut the server down in PostgreSQL's fast mode; nothing where it does not run."""
        if self._server is not None and self._waiter is not None:
            for how, timeout in ((FAST, 60.0), (IMMEDIATE, 10.0), (signal.SIGKILL, None)):
                self._server.send_signal(how)
                self._waiter.join(timeout)
                if not self._waiter.is_alive():
                    break
        self._server = self._waiter = None
        while self._locks:
            self._locks.pop().close()

    def __enter__(self) -> str:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _lock(self, deadline: float) -> None:
        owner = _try_lock(self.folder / OWNER)
        if owner is None:
            raise AlreadyRunningError(f"{self.folder}: another process runs the PostgreSQL of this folder")
        self._locks.append(owner)
        owner.truncate(0)
        owner.write(BRIEF if self._brief else b"")
        owner.flush()
        while (lock := _try_lock(self.folder / "server.lock")) is None:
            _stop_orphan(self._data)
            if time.monotonic() > deadline:
                raise DatabaseUnavailableError(
                    f"{self.folder}: the server of an earlier start is still shutting down"
                )
            time.sleep(0.05)
        self._locks.append(lock)
        (self._data / "postmaster.pid").unlink(missing_ok=True)  # stale, as the lock was free

    def _create_cluster(self, programs: Path, user: binaries.User) -> None:
        fresh = self.folder / "data.new"
        binaries.remove(fresh)  # left by a start that was killed
        password = secrets.token_hex(24)
        password_file = self.folder / "password.new"
        password_file.unlink(missing_ok=True)
        try:
            user.write(password_file, password)
            user.make(fresh)
            done = subprocess.run(
                [
                    programs / "initdb",
                    *("--pgdata", fresh, "--username", ROLE, "--pwfile", password_file, "--auth", "scram-sha-256"),
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
            os.chown(password_file, os.geteuid(), os.getegid())
            password_file.replace(self.folder / "password")
            fresh.rename(self._data)
        finally:
            password_file.unlink(missing_ok=True)

    def _launch(self, programs: Path, user: binaries.User, deadline: float) -> str:
        for _ in range(_ATTEMPTS):
            with socket.create_server(("127.0.0.1", 0)) as probe:
                port = probe.getsockname()[1]
            settings = (f"-c{name}={value}" for name, value in {**self._settings, "port": port}.items())
            with open(self._log, "ab", opener=binaries.private) as log:
                if log.tell() > _LOG_LIMIT:
                    log.truncate(0)
                log_start = log.tell()
                command = [str(programs / "postgres"), "-D", str(self._data), *settings]
                self._server, self._waiter = _spawn(command, user, self.folder, log, self._locks)
            while self._server.poll() is None:
                if ready(self._data, self._server.pid):
                    return _create_database(self.folder, port)
                if time.monotonic() > deadline:
                    raise DatabaseUnavailableError(f"PostgreSQL did not start in time: {self._tail(log_start)}")
                time.sleep(0.01)
            if "could not bind" not in self._tail(log_start):
                break
        raise DatabaseUnavailableError(f"PostgreSQL did not start: {self._tail(log_start)}")

    def _tail(self, log_start: int) -> str:
        with self._log.open("rb") as log:
            log.seek(max(log_start, self._log.stat().st_size - 2000))
            return log.read().decode(errors="replace").strip() or "its log is empty"


def _prepare(folder: Path, user: binaries.User) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        names = {entry.name for entry in folder.iterdir()} - {"lost+found"}
        if names and OWNER not in names:
            raise ConfigError([Fault("database.embedded", f"{folder} holds other files: set an empty folder")])
        if folder.stat().st_uid != os.geteuid():
            raise ConfigError(
                [Fault("database.embedded", f"{folder} belongs to another user: set a folder of this user")]
            )
        folder.chmod(0o711 if user.dropped else 0o700)
    except OSError as error:
        raise ConfigError([Fault("database.embedded", f"{folder} cannot be used: {error.strerror}")]) from error
    if blocked := user.blocked(folder):
        message = f"PostgreSQL runs as uid {user.uid}, which cannot enter {blocked}: set another folder"
        raise ConfigError([Fault("database.embedded", message)])


def _try_lock(path: Path) -> IO[bytes] | None:
    lock = open(path, "ab", opener=binaries.private)  # noqa: SIM115 - kept open
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return None
    return lock


def _stop_orphan(data: Path) -> None:
    """Stop a server whose owner ended, on a kernel without parent-death signals."""
    try:
        pid = int((data / "postmaster.pid").read_text().splitlines()[0])
        if os.fsencode(data) in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
            os.kill(pid, FAST)
    except (OSError, ValueError, IndexError):
        return


def _spawn(
    command: list[str], user: binaries.User, folder: Path, log: IO[bytes], locks: list[IO[bytes]]
) -> tuple[subprocess.Popen[bytes], threading.Thread]:
    """Start the server from a thread that runs as long as the server.

    The kernel sends the parent-death signal when the thread that forked ends, as the threads of asyncio's pool do.
    The thread also keeps the locks open when the ``Embedded`` was garbage-collected.
    """
    started = threading.Event()
    outcome: list[subprocess.Popen[bytes] | BaseException] = []

    def run(locks: list[IO[bytes]]) -> None:
        try:
            server = subprocess.Popen(
                command,
                **user.process(folder, dies_with_parent=True),
                stdout=log,
                stderr=log,
                pass_fds=(locks[-1].fileno(),),
                start_new_session=True,  # Ctrl-C reaches this process alone: the server stops last
            )
        except BaseException as error:  # noqa: BLE001 - raised by the caller
            outcome.append(error)
            started.set()
            return
        outcome.append(server)
        started.set()
        server.wait()

    waiter = threading.Thread(target=run, args=(locks,), name="embedded-postgresql", daemon=True)
    waiter.start()
    started.wait()
    match outcome[0]:
        case subprocess.Popen() as server:
            return server, waiter
        case error:
            raise DatabaseUnavailableError(f"PostgreSQL cannot be started: {error}") from error


def _create_database(folder: Path, port: int) -> str:
    """Create the database where it is missing, and return its DSN."""
    try:
        with session.connect(dsn(folder, port, "postgres"), "flow-outcomes") as connection:
            exists = connection.execute("SELECT FROM pg_database WHERE datname = %s", [DATABASE]).fetchone()
            if exists is None:
                connection.execute(f"CREATE DATABASE {DATABASE}")
    except psycopg.OperationalError as error:
        raise DatabaseUnavailableError(f"PostgreSQL started, but accepts no connection: {error}") from error
    return dsn(folder, port, DATABASE)
