"""Migrating: two processes at once, after a kill, with few privileges, from any form of DSN."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from service.errors import ConfigError, DatabaseUnavailableError
from service.postgres import migrate as module
from service.postgres.migrate import known_migrations, migrate, pending_migrations, pending_on, rollback
from service.postgres.probe import open_connection

CHECKOUT = Path(__file__).parents[2]
MIGRATE = """
import sys
from pathlib import Path
from service.postgres.migrate import migrate
print(*migrate(sys.argv[1], Path(sys.argv[2]) if sys.argv[2:] else None))
"""
PASSWORD = "p@ss/w:rd %41?#&=é"


def begin(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", MIGRATE, *arguments]
    return subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True)


@pytest.fixture
def guest(server: str) -> Iterator[str]:
    """A role that may connect, with a password that a URL has to quote."""
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(psycopg.sql.SQL("CREATE ROLE guest LOGIN PASSWORD {}").format(PASSWORD))
        yield "guest"
        connection.execute("DROP ROLE guest")


def as_guest(dsn: str) -> str:
    given = conninfo_to_dict(dsn)
    return f"postgresql://guest:{quote(PASSWORD, safe='')}@{given['host']}:{given['port']}/{given['dbname']}"


def test_two_at_once(empty_database: str) -> None:
    """Two processes that migrate at once apply each file once, and both succeed."""
    processes = [begin(empty_database) for _ in range(2)]
    applied = [process.communicate()[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert sorted(applied) == [[], known_migrations()]


def test_a_killed_process_blocks_no_other(empty_database: str, tmp_path: Path) -> None:
    """After a kill in the middle of a file the next start applies all of it, also if a lock row remains."""
    (tmp_path / "0001_create_first.sql").write_text("CREATE TABLE first ();")
    (tmp_path / "0002_create_second.sql").write_text("CREATE TABLE second (); SELECT pg_sleep(60);")
    process = begin(empty_database, str(tmp_path))
    with psycopg.connect(empty_database, autocommit=True) as connection:
        sleeps = "SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()"
        deadline = time.monotonic() + 20
        while not connection.execute(sleeps.encode()).fetchall():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.kill()
        process.communicate()
        assert connection.execute("SELECT count(*) FROM flow_outcomes.yoyo_lock").fetchone() == (1,)
        (tmp_path / "0002_create_second.sql").write_text("CREATE TABLE second (whole int);")
        assert migrate(empty_database, tmp_path) == ["0002_create_second"]
        connection.execute("SELECT whole FROM flow_outcomes.second")


def test_a_file_that_fails_leaves_nothing(empty_database: str, tmp_path: Path) -> None:
    """A file is applied completely or not at all, and those before it remain."""
    (tmp_path / "0001_create_first.sql").write_text("CREATE TABLE first ();")
    (tmp_path / "0002_create_second.sql").write_text("CREATE TABLE second (); SELECT 1/0;")
    with pytest.raises(psycopg.errors.DivisionByZero):
        migrate(empty_database, tmp_path)
    assert pending_migrations(empty_database, tmp_path) == ["0002_create_second"]
    with psycopg.connect(empty_database) as connection:
        assert connection.execute("SELECT to_regclass('flow_outcomes.second')").fetchone() == (None,)


def test_a_file_without_a_transaction(empty_database: str, tmp_path: Path) -> None:
    """CREATE INDEX CONCURRENTLY does not deadlock with the migration lock."""
    (tmp_path / "0001_create_first.sql").write_text("CREATE TABLE first (a int);")
    (tmp_path / "0002_create_index.sql").write_text(
        "-- transactional: false\nCREATE INDEX CONCURRENTLY first_a ON flow_outcomes.first (a);"
    )
    (tmp_path / "0002_create_index.rollback.sql").write_text("DROP INDEX CONCURRENTLY flow_outcomes.first_a;")
    assert migrate(empty_database, tmp_path) == known_migrations(tmp_path)
    assert rollback(empty_database, "0001_create_first", tmp_path) == ["0002_create_index"]


def test_a_role_without_rights_may_start(empty_database: str, guest: str) -> None:
    """If the schema is current nothing is written; if not, the error names the missing files."""
    with pytest.raises(ConfigError, match=rf"lacks {known_migrations()[0]}.* may not change it"):
        migrate(as_guest(empty_database))
    migrate(empty_database)
    with psycopg.connect(empty_database, autocommit=True) as connection:
        connection.execute(f"GRANT USAGE ON SCHEMA flow_outcomes TO {guest}".encode())
        assert migrate(as_guest(empty_database)) == []
        connection.execute(f"DROP OWNED BY {guest}".encode())


async def test_whether_the_schema_is_current(empty_database: str) -> None:
    """It is current once every file was applied, and not before."""
    async with open_connection(empty_database, "test", timeout=10) as connection:
        assert await pending_on(connection) == known_migrations()
        await asyncio.to_thread(migrate, empty_database)
        assert await pending_on(connection) == []


def test_any_form_of_dsn(empty_database: str) -> None:
    """Keywords, a URL with parameters and another search_path all give the same schema."""
    elsewhere = f"{empty_database}?application_name=a%20b&options=-csearch_path%3Dpublic"
    assert migrate(elsewhere) == known_migrations()
    assert rollback(make_conninfo(empty_database)) == known_migrations()[::-1]
    assert migrate(make_conninfo(empty_database, options="-c search_path=pg_catalog")) == known_migrations()
    with psycopg.connect(empty_database) as connection:
        assert connection.execute("SELECT FROM pg_tables WHERE schemaname = 'public'").fetchall() == []


def test_an_unavailable_database() -> None:
    """A missing server raises our own error, not the driver's."""
    with pytest.raises(DatabaseUnavailableError, match="refused"):
        migrate("postgresql://somebody:secret@127.0.0.1:1/nothing")


def test_an_invalid_dsn() -> None:
    """A DSN that libpq cannot parse is a configuration error."""
    with pytest.raises(ConfigError, match="not a PostgreSQL DSN"):
        migrate("nonsense")


def test_a_database_of_another_encoding(server: str) -> None:
    """Names are any Unicode; a database that cannot store it is rejected."""
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
        with pytest.raises(ConfigError, match="encoding is LATIN1"):
            migrate(make_conninfo(server, dbname="latin"))
        connection.execute("DROP DATABASE latin WITH (FORCE)")


def test_the_wait_for_another_migration_ends(empty_database: str) -> None:
    """A process waits for another one that migrates, up to a timeout."""
    with psycopg.connect(empty_database, autocommit=True) as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", [module.LOCK])
        with pytest.raises(DatabaseUnavailableError, match="another process has been migrating"):
            migrate(empty_database, timeout=0.2)


def test_an_unknown_migration(empty_database: str) -> None:
    """A rollback to an unknown name rolls nothing back."""
    migrate(empty_database)
    with pytest.raises(ValueError, match="no migration is called 0000_nothing"):
        rollback(empty_database, "0000_nothing")
    assert pending_migrations(empty_database) == []
