"""The embedded PostgreSQL starts, keeps its data, and stops with the process that started it."""

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
from service.postgres.embedded.folder import running_dsn
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
    """One cluster for all tests, as initdb takes longest; each test stops its server."""
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
        assert time.monotonic() < deadline, "the server outlived the process that started it"
        time.sleep(0.02)


@pytest.fixture
def owner(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process, which runs the server of the folder."""
    command = [sys.executable, "-c", OWNER, str(folder)]
    with subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("postgresql://")
        pid = server_pid(folder)
        yield process
        process.kill()
        wait_for_end(pid)


def test_data_is_kept_over_a_restart(folder: Path) -> None:
    """Data survives a restart; the server uses UTF-8 and UTC."""
    with Embedded(folder) as dsn:
        fetch(dsn, "DROP TABLE IF EXISTS kept; CREATE TABLE kept AS SELECT 'Ünïcødé 🦊' AS name")
    assert running_dsn(folder) is None
    with Embedded(folder) as dsn:
        assert fetch(dsn, "SELECT name FROM kept") == "Ünïcødé 🦊"
        assert fetch(dsn, "SHOW timezone") == "UTC"
        assert fetch(dsn, "SHOW fsync") == "on"


def test_local_users_need_the_password(folder: Path) -> None:
    """Without the password no user connects, by the port or a socket, and no other user can read it."""
    with Embedded(folder, durable=False) as dsn:
        wrong = dsn.replace(dsn.split(":")[2].split("@")[0], "guess")
        with pytest.raises(psycopg.OperationalError, match="authentication failed"):
            psycopg.connect(wrong)
        assert fetch(dsn, "SHOW unix_socket_directories") == ""
        assert fetch(dsn, "SHOW listen_addresses") == "127.0.0.1"
        assert (folder / "password").stat().st_mode & 0o777 == 0o600


def test_a_pool_thread_that_ends_leaves_the_server(folder: Path) -> None:
    """The server stops with the process, not with the thread that started it."""
    embedded = Embedded(folder, durable=False)
    dsns: list[str] = []
    thread = threading.Thread(target=lambda: dsns.append(embedded.start()))
    thread.start()
    thread.join()
    try:
        for _ in range(3):
            assert fetch(dsns[0], "SELECT 1") == 1
            time.sleep(0.05)
    finally:
        embedded.stop()


async def test_starts_beside_a_running_loop(folder: Path) -> None:
    """asyncio.to_thread can start and stop it."""
    embedded = Embedded(folder, durable=False)
    dsn = await asyncio.to_thread(embedded.start)
    assert await asyncio.to_thread(fetch, dsn, "SELECT 1") == 1
    await asyncio.to_thread(embedded.stop)


def test_a_killed_owner_ends_the_server(folder: Path, owner: subprocess.Popen[str]) -> None:
    """After SIGKILL of the owner the next start waits until the server has ended, and finds the data."""
    pid = server_pid(folder)
    owner.kill()
    owner.wait()
    with Embedded(folder, durable=False) as dsn:
        assert not lives(pid)
        assert fetch(dsn, "SELECT 1") == 1


def test_the_owner_and_the_server_killed(folder: Path, owner: subprocess.Popen[str]) -> None:
    """A stale postmaster.pid is ignored, even if its process id is in use."""
    pid = server_pid(folder)
    os.kill(pid, signal.SIGKILL)
    owner.kill()
    owner.wait()
    wait_for_end(pid)
    status = (folder / "data" / "postmaster.pid").read_text()
    (folder / "data" / "postmaster.pid").write_text(status.replace(str(pid), str(os.getpid()), 1))
    with Embedded(folder, durable=False) as dsn:
        assert fetch(dsn, "SELECT 1") == 1


def test_a_stopped_orphan_is_ended(folder: Path, owner: subprocess.Popen[str]) -> None:
    """A server that was suspended while its owner died ends at the next start."""
    pid = server_pid(folder)
    os.kill(pid, signal.SIGSTOP)
    owner.kill()
    owner.wait()
    with pytest.raises(DatabaseUnavailableError, match="still shutting down"):
        Embedded(folder, timeout=0.3).start()
    os.kill(pid, signal.SIGCONT)
    with Embedded(folder, durable=False) as dsn:
        assert fetch(dsn, "SELECT 1") == 1


def test_a_second_owner_is_rejected(folder: Path, owner: subprocess.Popen[str]) -> None:
    """A folder has one owner; another process gets an error, and can read the running server's DSN."""
    with pytest.raises(DatabaseUnavailableError, match="another process"):
        Embedded(folder, timeout=5).start()
    dsn = running_dsn(folder)
    assert dsn is not None
    assert fetch(dsn, "SELECT 1") == 1
    assert owner.poll() is None


async def test_a_reader_starts_the_server(folder: Path, new_folder: Path) -> None:
    """A reader starts a stopped server and shares a running one, but creates no cluster."""
    with Embedded(folder, durable=False):
        pass
    config = DatabaseConfig(embedded=folder)
    async with open_database(config, make=False) as dsn:
        assert fetch(dsn, "SELECT 1") == 1
        async with open_database(config, make=False) as shared:
            assert shared == dsn
        assert fetch(dsn, "SELECT 1") == 1
    assert running_dsn(folder) is None
    with pytest.raises(DatabaseUnavailableError, match="start the daemon first"):
        async with open_database(DatabaseConfig(embedded=new_folder), make=False):
            pass
    assert not await asyncio.to_thread(new_folder.exists)


async def test_a_daemon_does_not_share_a_short_commands_server(folder: Path) -> None:
    """A daemon waits for the end of a command that started the server, and then starts its own."""
    config, begun, end = DatabaseConfig(embedded=folder), asyncio.Event(), asyncio.Event()

    async def stay() -> None:
        begun.set()
        async with open_database(config, long_lived=True, timeout=None) as dsn:
            assert end.is_set()
            assert fetch(dsn, "SELECT 1") == 1
            async with open_database(config, long_lived=True) as shared:
                assert shared == dsn

    async with open_database(config) as dsn:
        staying = asyncio.create_task(stay())
        await begun.wait()
        with pytest.raises(AlreadyRunningError):
            async with open_database(config, long_lived=True, timeout=0):
                pass
        assert fetch(dsn, "SELECT 1") == 1
        assert not staying.done()
        end.set()
    await staying


def test_an_interrupted_initdb_is_repeated(new_folder: Path) -> None:
    """An incomplete cluster is discarded."""
    (new_folder / "data.new" / "base").mkdir(parents=True)
    (new_folder / "owner.lock").touch()
    (new_folder / "password.new").write_text("half")
    with Embedded(new_folder, durable=False) as dsn:
        assert fetch(dsn, "SELECT 1") == 1
    assert not (new_folder / "data.new").exists()
    assert not (new_folder / "password.new").exists()


def test_a_server_that_cannot_start(folder: Path) -> None:
    """The error contains the server's log, and the folder can be used again."""
    with Embedded(folder, durable=False):
        pass
    settings = folder / "data" / "postgresql.auto.conf"
    settings.write_text("shared_buffers = lots\n")
    with pytest.raises(DatabaseUnavailableError, match=r"invalid value for parameter .*shared_buffers"):
        Embedded(folder).start()
    settings.write_text("")
    with Embedded(folder, durable=False) as dsn:
        assert fetch(dsn, "SELECT 1") == 1


def test_a_folder_with_other_files_is_rejected(new_folder: Path) -> None:
    """A folder that holds other files is rejected; its mode and files stay as they are."""
    new_folder.mkdir(mode=0o700)
    (new_folder / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match="holds other files"):
        Embedded(new_folder).start()
    assert new_folder.stat().st_mode & 0o777 == 0o700
    assert [entry.name for entry in new_folder.iterdir()] == ["thesis.txt"]


@AS_ROOT
def test_root_drops_to_an_ordinary_user(folder: Path) -> None:
    """The server does not run as root, can write only its data, and no parent folder's mode changes."""
    before = folder.parent.stat().st_mode
    with Embedded(folder, durable=False) as dsn:
        uids = Path(f"/proc/{server_pid(folder)}/status").read_text().split("Uid:")[1].split()[:4]
        assert "0" not in uids
        assert fetch(dsn, "SELECT 1") == 1
    assert folder.parent.stat().st_mode == before
    assert (folder.stat().st_uid, folder.stat().st_mode & 0o777) == (0, 0o711)
    assert (folder / "data").stat().st_mode & 0o777 == 0o700


@AS_ROOT
def test_an_unreachable_folder(new_folder: Path) -> None:
    """The error names the parent that the server's user cannot enter; its mode stays."""
    new_folder.parent.chmod(0o700)
    with pytest.raises(ConfigError, match=f"cannot enter {new_folder.parent}:"):
        Embedded(new_folder).start()
    assert new_folder.parent.stat().st_mode & 0o777 == 0o700


@AS_ROOT
def test_unreachable_programs_are_copied(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the server's user cannot run the wheel's programs, a copy that belongs to root is made."""
    monkeypatch.setattr(binaries, "_runs", lambda _user, _installed: False)
    with Embedded(folder, durable=False) as dsn:
        assert fetch(dsn, "SELECT lower('ÄÖ')") == "äö"
        command = Path(f"/proc/{server_pid(folder)}/cmdline").read_bytes().decode()
    assert command.startswith(f"{folder}/postgresql-")
    copy = next(folder.glob("postgresql-*"))
    assert all(path.lstat().st_uid == 0 for path in copy.rglob("*"))
    assert not any(path.stat().st_mode & 0o022 for path in copy.rglob("*") if not path.is_symlink())
