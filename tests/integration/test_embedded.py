"""The embedded PostgreSQL: starts, keeps its data, and never outlives who started it."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from service.config import Database as DatabaseConfig
from service.errors import ConfigError, DatabaseUnavailableError
from service.postgres.embedded import binaries
from service.postgres.embedded.folder import running
from service.postgres.embedded.server import AlreadyRunningError, Embedded
from service.runtime.database import open_database

CHECKOUT = Path(__file__).parents[2]
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="root alone can drop to another user")
OWNER = """
import sys, time
from pathlib import Path
from service.postgres.embedded.server import Embedded, AlreadyRunningError
print(Embedded(Path(sys.argv[1]), durable=False).start(), flush=True)
time.sleep(600)
"""


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """One cluster for all, as making one takes longest; each test leaves its server stopped."""
    parent = Path(tempfile.mkdtemp(prefix="flow-outcomes-test-"))
    parent.chmod(0o711)
    yield parent / "database"
    shutil.rmtree(parent)


@pytest.fixture
def new_folder() -> Iterator[Path]:
    parent = Path(tempfile.mkdtemp(prefix="flow-outcomes-test-"))
    parent.chmod(0o711)
    yield parent / "database"
    shutil.rmtree(parent)


def fetch(dsn: str, query: str) -> object:
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.execute(query.encode())
        row = cursor.fetchone() if cursor.description else None
        return row[0] if row else None


def server_pid(folder: Path) -> int:
    return int((folder / "data" / "postmaster.pid").read_text().split()[0])


def lives(pid: int) -> bool:
    try:
        return b"postgres" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def wait_for_end(pid: int) -> None:
    deadline = time.monotonic() + 20
    while lives(pid):
        assert time.monotonic() < deadline, "the server outlived who started it"
        time.sleep(0.02)


@pytest.fixture
def owner(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that keeps its server in the folder."""
    command = [sys.executable, "-c", OWNER, str(folder)]
    with subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("postgresql://")
        pid = server_pid(folder)
        yield process
        process.kill()
        wait_for_end(pid)


def test_data_is_kept_over_a_restart(folder: Path) -> None:
    """What was stored before a stop is there after the next start, in UTF-8, and the server speaks UTC."""
    with Embedded(folder) as dsn:
        fetch(dsn, "DROP TABLE IF EXISTS kept; CREATE TABLE kept AS SELECT 'Ünïcødé 🦊' AS name")
    assert running(folder) is None
    with Embedded(folder) as dsn:
        assert fetch(dsn, "SELECT name FROM kept") == "Ünïcødé 🦊"
        assert fetch(dsn, "SHOW timezone") == "UTC"
        assert fetch(dsn, "SHOW fsync") == "on"


def test_local_users_are_asked_for_the_password(folder: Path) -> None:
    """Who does not have the password gets in neither by the port nor by a socket, nor reads it from the folder."""
    with Embedded(folder, durable=False) as dsn:
        wrong = dsn.replace(dsn.split(":")[2].split("@")[0], "guess")
        with pytest.raises(psycopg.OperationalError, match="authentication failed"):
            psycopg.connect(wrong)
        assert fetch(dsn, "SHOW unix_socket_directories") == ""
        assert fetch(dsn, "SHOW listen_addresses") == "127.0.0.1"
        assert (folder / "password").stat().st_mode & 0o777 == 0o600


def test_a_pool_thread_that_ends_leaves_the_server(folder: Path) -> None:
    """The server lives with the process, not with the thread that asked for it."""
    embedded = Embedded(folder, durable=False)
    given: list[str] = []
    thread = threading.Thread(target=lambda: given.append(embedded.start()))
    thread.start()
    thread.join()
    try:
        for _ in range(3):
            assert fetch(given[0], "SELECT 1") == 1
            time.sleep(0.05)
    finally:
        embedded.stop()


async def test_starts_beside_a_running_loop(folder: Path) -> None:
    """asyncio.to_thread is enough to start and stop it."""
    embedded = Embedded(folder, durable=False)
    dsn = await asyncio.to_thread(embedded.start)
    assert await asyncio.to_thread(fetch, dsn, "SELECT 1") == 1
    await asyncio.to_thread(embedded.stop)


def test_a_killed_owner_takes_the_server_along(folder: Path, owner: subprocess.Popen[str]) -> None:
    """After SIGKILL of the owner the next start waits for the server to be gone, and finds the data."""
    pid = server_pid(folder)
    owner.kill()
    owner.wait()
    with Embedded(folder, durable=False) as dsn:
        assert not lives(pid)
        assert fetch(dsn, "SELECT 1") == 1


def test_both_killed(folder: Path, owner: subprocess.Popen[str]) -> None:
    """A stale postmaster.pid, even with the number of a process that lives, does not stand in the way."""
    pid = server_pid(folder)
    os.kill(pid, signal.SIGKILL)
    owner.kill()
    owner.wait()
    wait_for_end(pid)
    status = (folder / "data" / "postmaster.pid").read_text()
    (folder / "data" / "postmaster.pid").write_text(status.replace(str(pid), str(os.getpid()), 1))
    with Embedded(folder, durable=False) as dsn:
        assert fetch(dsn, "SELECT 1") == 1


def test_an_orphan_that_was_not_told_is_ended(folder: Path, owner: subprocess.Popen[str]) -> None:
    """A server that is stopped when its owner dies goes down by the next start."""
    pid = server_pid(folder)
    os.kill(pid, signal.SIGSTOP)
    owner.kill()
    owner.wait()
    with pytest.raises(DatabaseUnavailableError, match="still shutting down"):
        Embedded(folder, timeout=0.3).start()
    os.kill(pid, signal.SIGCONT)
    with Embedded(folder, durable=False) as dsn:
        assert fetch(dsn, "SELECT 1") == 1


def test_a_second_owner_is_refused(folder: Path, owner: subprocess.Popen[str]) -> None:
    """One folder has one owner; another process is told so, and can ask for the running server's DSN."""
    with pytest.raises(DatabaseUnavailableError, match="another process"):
        Embedded(folder, timeout=5).start()
    dsn = running(folder)
    assert dsn is not None
    assert fetch(dsn, "SELECT 1") == 1
    assert owner.poll() is None


async def test_a_database_that_nobody_keeps_is_started_for_who_asks(folder: Path, new_folder: Path) -> None:
    """Whoever only reads makes none where there never was one; who shares one leaves it running."""
    with Embedded(folder, durable=False):
        pass
    config = DatabaseConfig(embedded=folder)
    async with open_database(config, make=False) as dsn:
        assert fetch(dsn, "SELECT 1") == 1
        async with open_database(config, make=False) as shared:
            assert shared == dsn
        assert fetch(dsn, "SELECT 1") == 1
    assert running(folder) is None
    with pytest.raises(DatabaseUnavailableError, match="start the daemon first"):
        async with open_database(DatabaseConfig(embedded=new_folder), make=False):
            pass
    assert not await asyncio.to_thread(new_folder.exists)


async def test_who_stays_does_not_rely_on_who_goes(folder: Path) -> None:
    """A daemon waits for the end of a command that started the server, and then starts it itself."""
    config, begun, end = DatabaseConfig(embedded=folder), asyncio.Event(), asyncio.Event()

    async def stay() -> None:
        begun.set()
        async with open_database(config, long_lived=True, patience=None) as dsn:
            assert end.is_set()
            assert fetch(dsn, "SELECT 1") == 1
            async with open_database(config, long_lived=True) as shared:
                assert shared == dsn

    async with open_database(config) as dsn:
        staying = asyncio.create_task(stay())
        await begun.wait()
        with pytest.raises(AlreadyRunningError):
            async with open_database(config, long_lived=True, patience=0):
                pass
        assert fetch(dsn, "SELECT 1") == 1
        assert not staying.done()
        end.set()
    await staying


def test_a_creation_that_was_cut_short_begins_again(new_folder: Path) -> None:
    """A half-made cluster is never taken for a whole one."""
    (new_folder / "data.new" / "base").mkdir(parents=True)
    (new_folder / "owner.lock").touch()
    (new_folder / "password.new").write_text("half")
    with Embedded(new_folder, durable=False) as dsn:
        assert fetch(dsn, "SELECT 1") == 1
    assert not (new_folder / "data.new").exists()
    assert not (new_folder / "password.new").exists()


def test_a_server_that_cannot_start_says_why(folder: Path) -> None:
    """The error carries what the server said, and the folder is free again."""
    with Embedded(folder, durable=False):
        pass
    settings = folder / "data" / "postgresql.auto.conf"
    settings.write_text("shared_buffers = lots\n")
    with pytest.raises(DatabaseUnavailableError, match=r"invalid value for parameter .*shared_buffers"):
        Embedded(folder).start()
    settings.write_text("")
    with Embedded(folder, durable=False) as dsn:
        assert fetch(dsn, "SELECT 1") == 1


def test_a_folder_with_something_else_is_left_alone(new_folder: Path) -> None:
    """A folder that holds other files is refused, and neither its mode nor theirs changes."""
    new_folder.mkdir(mode=0o700)
    (new_folder / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match="holds something else"):
        Embedded(new_folder).start()
    assert new_folder.stat().st_mode & 0o777 == 0o700
    assert [entry.name for entry in new_folder.iterdir()] == ["thesis.txt"]


@AS_ROOT
def test_root_drops_to_an_ordinary_user(folder: Path) -> None:
    """The server is no process of root's, cannot write beside its data, and no parent folder was opened."""
    before = folder.parent.stat().st_mode
    with Embedded(folder, durable=False) as dsn:
        uids = Path(f"/proc/{server_pid(folder)}/status").read_text().split("Uid:")[1].split()[:4]
        assert "0" not in uids
        assert fetch(dsn, "SELECT 1") == 1
    assert folder.parent.stat().st_mode == before
    assert (folder.stat().st_uid, folder.stat().st_mode & 0o777) == (0, 0o711)
    assert (folder / "data").stat().st_mode & 0o777 == 0o700


@AS_ROOT
def test_a_folder_out_of_reach_is_named(new_folder: Path) -> None:
    """Under a closed parent the error names the parent, which stays closed."""
    new_folder.parent.chmod(0o700)
    with pytest.raises(ConfigError, match=f"cannot enter {new_folder.parent}:"):
        Embedded(new_folder).start()
    assert new_folder.parent.stat().st_mode & 0o777 == 0o700


@AS_ROOT
def test_programs_out_of_reach_are_copied(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the user cannot reach the wheel, a copy of root's own stands beside the data."""
    monkeypatch.setattr(binaries, "_runs", lambda _user, _installed: False)
    with Embedded(folder, durable=False) as dsn:
        assert fetch(dsn, "SELECT lower('ÄÖ')") == "äö"
        command = Path(f"/proc/{server_pid(folder)}/cmdline").read_bytes().decode()
    assert command.startswith(f"{folder}/postgresql-")
    copy = next(folder.glob("postgresql-*"))
    assert all(path.lstat().st_uid == 0 for path in copy.rglob("*"))
    assert not any(path.stat().st_mode & 0o022 for path in copy.rglob("*") if not path.is_symlink())
