"""Behind pgbouncer: the program rejects it with the reason; reports may use it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from service.postgres.embedded.binaries import server_user
from service.simulator import SimulatedOrg, Simulator, SimulatorConfig
from tests.support.daemon import Daemon
from tests.support.program import Program

PGBOUNCER = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
TIMEOUT = 20.0
REJECTED = "unsupported startup parameter"
DROPPED = "this is a pooler"
IGNORING = "ignore_startup_parameters = options"

pytestmark = pytest.mark.skipif(PGBOUNCER is None, reason="pgbouncer is not installed: apt-get install pgbouncer")


@contextmanager
def pooler(dsn: str, mode: str, *settings: str) -> Iterator[str]:
    """Start a pgbouncer in this mode; yield the DSN of the database through it."""
    given = conninfo_to_dict(dsn)
    folder = Path(tempfile.mkdtemp(prefix="flow-outcomes-pgbouncer-"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    configuration = f"""
        [databases]
        * = host={given["host"]} port={given["port"]}
        [pgbouncer]
        listen_addr = 127.0.0.1
        listen_port = {port}
        unix_socket_dir =
        auth_type = plain
        auth_file = {folder}/users
        pool_mode = {mode}
    """
    lines = [line.strip() for line in configuration.splitlines()]
    (folder / "pgbouncer.ini").write_text("\n".join([*lines, *settings]))
    (folder / "users").write_text(f'"{given["user"]}" "{given["password"]}"\n')
    user = server_user(folder)  # pgbouncer does not run as root
    for path in (folder, *folder.iterdir()):
        os.chown(path, user.uid, user.gid)
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(PGBOUNCER), str(folder / "pgbouncer.ini")],
            stdout=output,
            stderr=output,
            **user.process(folder, dies_with_parent=True),
        )
    try:
        pooled_dsn = f"{dsn.rpartition('@')[0]}@127.0.0.1:{port}/{given['dbname']}"
        deadline = time.monotonic() + TIMEOUT
        while not accepts_connections(pooled_dsn):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield pooled_dsn
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(folder)


def accepts_connections(dsn: str) -> bool:
    try:
        psycopg.connect(dsn).close()
    except psycopg.OperationalError:
        return False
    return True


@pytest.mark.parametrize(
    ("mode", "settings", "reason"),
    [("session", [], REJECTED), ("session", [IGNORING], DROPPED), ("transaction", [IGNORING], DROPPED)],
)
async def test_the_program_rejects_a_pooler(
    database: str, tmp_path: Path, mode: str, settings: list[str], reason: str
) -> None:
    """If the pooler rejects or drops its settings, the program acquires no org and reports the reason."""
    async with Simulator(SimulatorConfig(orgs={"acme": SimulatedOrg()})) as simulator:
        with pooler(database, mode, *settings) as dsn:
            async with Program(tmp_path, dsn) as program:
                program.configure(simulator, jobs={"daily": {"since": "P3D"}}, http={"port": 0})
                checked = await program.run("check")
                assert checked.code == 1
                [line] = [line for line in checked.out.splitlines() if line.startswith("FAIL database:")]
                assert reason in line
                migrated = await program.run("migrate")
                assert migrated.code == 1
                assert reason in migrated.err
                daemon = await Daemon.start(program)
                assert reason in (await daemon.wait_for_event("database_unavailable"))["reason"]
                status, body = await daemon.get("/readyz")
                assert status == 503
                assert reason in body
                daemon.running.process.send_signal(signal.SIGTERM)
                assert (await daemon.running.end()).code == 0
                assert daemon.count("org_acquired") == 0
        assert simulator.tokens_issued == 0


@pytest.mark.parametrize(("mode", "shared"), [("session", False), ("transaction", True)])
def test_advisory_locks_behind_a_pooler(database: str, mode: str, shared: bool) -> None:
    """In session mode a lock has one holder and ends with it; in transaction mode two sessions hold it."""
    holders = (
        "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database"
        " WHERE l.locktype = 'advisory' AND d.datname = current_database()"
    )
    lock = "SELECT pg_try_advisory_lock(1)"
    with pooler(database, mode) as dsn, psycopg.connect(database, autocommit=True) as direct:
        with psycopg.connect(dsn, autocommit=True) as one, psycopg.connect(dsn, autocommit=True) as two:
            assert one.execute(lock).fetchone() == (True,)
            assert two.execute(lock).fetchone() == (shared,)
        deadline = time.monotonic() + TIMEOUT
        while not shared and direct.execute(holders).fetchone() != (0,):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert direct.execute(holders).fetchone() == (int(shared),)


def test_reports_through_a_pooler(database: str) -> None:
    """Reading the views works in transaction mode."""
    with pooler(database, "transaction") as dsn, psycopg.connect(dsn, autocommit=True) as reader:
        for relation in ("flow_outcome", "restatement", "extraction_window", "flow_outcome_as_of(now())"):
            assert reader.execute(f"SELECT * FROM flow_outcomes.{relation}".encode()).fetchall() == []
