"""Bringing the schema up: by two at once, after a kill, with few rights, from any form of DSN."""

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
    """A role that may connect, with a password that no URL holds unquoted."""
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(psycopg.sql.SQL("CREATE ROLE guest LOGIN PASSWORD {}").format(PASSWORD))
        yield "guest"
        connection.execute("DROP ROLE guest")


def as_guest(dsn: str) -> str:
    given = conninfo_to_dict(dsn)
    return f"postgresql://guest:{quote(PASSWORD, safe='')}@{given['host']}:{given['port']}/{given['dbname']}"


def test_two_at_once(empty_database: str) -> None:
    """Two processes that migrate at once apply each file once, and both come home."""
    processes = [begin(empty_database) for _ in range(2)]
    applied = [process.communicate()[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert sorted(applied) == [[], known_migrations()]


def test_a_killed_process_blocks_nobody(empty_database: str, tmp_path: Path) -> None:
    """After a kill in the middle of a file the next start applies it whole, a lock row left behind or not."""
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
    """A file is applied whole or not at all, and those before it stay."""
    (tmp_path / "0001_create_first.sql").write_text("CREATE TABLE first ();")
    (tmp_path / "0002_create_second.sql").write_text("CREATE TABLE second (); SELECT 1/0;")
    with pytest.raises(psycopg.errors.DivisionByZero):
        migrate(empty_database, tmp_path)
    assert pending_migrations(empty_database, tmp_path) == ["0002_create_second"]
    with psycopg.connect(empty_database) as connection:
        assert connection.execute("SELECT to_regclass('flow_outcomes.second')").fetchone() == (None,)


def test_a_file_without_a_transaction(empty_database: str, tmp_path: Path) -> None:
    """CREATE INDEX CONCURRENTLY does not deadlock with the lock that keeps other processes out."""
    (tmp_path / "0001_create_first.sql").write_text("CREATE TABLE first (a int);")
    (tmp_path / "0002_create_index.sql").write_text(
        "-- transactional: false\nCREATE INDEX CONCURRENTLY first_a ON flow_outcomes.first (a);"
    )
    (tmp_path / "0002_create_index.rollback.sql").write_text("DROP INDEX CONCURRENTLY flow_outcomes.first_a;")
    assert migrate(empty_database, tmp_path) == known_migrations(tmp_path)
    assert rollback(empty_database, "0001_create_first", tmp_path) == ["0002_create_index"]


def test_a_role_without_rights_may_start(empty_database: str, guest: str) -> None:
    """Where the schema is current nothing is written; where it is not, the error says what is missing."""
    with pytest.raises(ConfigError, match=rf"lacks {known_migrations()[0]}.* may not change it"):
        migrate(as_guest(empty_database))
    migrate(empty_database)
    with psycopg.connect(empty_database, autocommit=True) as connection:
        connection.execute(f"GRANT USAGE ON SCHEMA flow_outcomes TO {guest}".encode())
        assert migrate(as_guest(empty_database)) == []
        connection.execute(f"DROP OWNED BY {guest}".encode())


async def test_whether_the_schema_is_current(empty_database: str) -> None:
    """It is current once everything was applied, and not before."""
    async with open_connection(empty_database, "test", timeout=10) as connection:
        assert await pending_on(connection) == known_migrations()
        await asyncio.to_thread(migrate, empty_database)
        assert await pending_on(connection) == []


def test_any_form_of_dsn(empty_database: str) -> None:
    """Keywords, a URL with parameters and a search_path elsewhere all end in the same schema."""
    elsewhere = f"{empty_database}?application_name=a%20b&options=-csearch_path%3Dpublic"
    assert migrate(elsewhere) == known_migrations()
    assert rollback(make_conninfo(empty_database)) == known_migrations()[::-1]
    assert migrate(make_conninfo(empty_database, options="-c search_path=pg_catalog")) == known_migrations()
    with psycopg.connect(empty_database) as connection:
        assert connection.execute("SELECT FROM pg_tables WHERE schemaname = 'public'").fetchall() == []


def test_a_database_that_is_away() -> None:
    """No server is no traceback of a driver's, but our own error."""
    with pytest.raises(DatabaseUnavailableError, match="refused"):
        migrate("postgresql://somebody:secret@127.0.0.1:1/nothing")


def test_what_is_no_dsn() -> None:
    """A DSN that libpq cannot read is a fault of the configuration."""
    with pytest.raises(ConfigError, match="not a PostgreSQL DSN"):
        migrate("nonsense")


def test_a_database_of_another_encoding(server: str) -> None:
    """Names are any Unicode: a database that cannot hold it is refused."""
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
        with pytest.raises(ConfigError, match="encoding is LATIN1"):
            migrate(make_conninfo(server, dbname="latin"))
        connection.execute("DROP DATABASE latin WITH (FORCE)")


def test_patience_has_an_end(empty_database: str) -> None:
    """Who finds another process migrating waits, but not for ever."""
    with psycopg.connect(empty_database, autocommit=True) as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", [module.LOCK])
        with pytest.raises(DatabaseUnavailableError, match="another process has been migrating"):
            migrate(empty_database, timeout=0.2)


def test_a_name_that_no_migration_has(empty_database: str) -> None:
    """A rollback to an unknown name undoes nothing."""
    migrate(empty_database)
    with pytest.raises(ValueError, match="no migration is called 0000_nothing"):
        rollback(empty_database, "0000_nothing")
    assert pending_migrations(empty_database) == []
