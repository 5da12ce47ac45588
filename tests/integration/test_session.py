"""A session's settings, whatever a site has set, and the servers that it may be with."""

from __future__ import annotations

import psycopg
import pytest

from service.errors import ConfigError, DatabaseUnavailableError
from service.postgres import session
from service.postgres.migrate import migrate
from service.postgres.pool import Connection, Database
from service.postgres.probe import looking

OTHERWISE = {
    "client_encoding": "LATIN1",
    "standard_conforming_strings": "off",
    "array_nulls": "off",
    "transform_null_equals": "on",
    "bytea_output": "escape",
    "datestyle": "German",
    "intervalstyle": "iso_8601",
    "timezone": "Asia/Kolkata",
    "extra_float_digits": "-15",
    "search_path": "public",
    "default_transaction_isolation": "serializable",
    "default_transaction_deferrable": "on",
    "statement_timeout": "30min",
    "lock_timeout": "31min",
    "idle_in_transaction_session_timeout": "32min",
    "idle_session_timeout": "33min",
    "transaction_timeout": "34min",
    "exit_on_error": "on",
    "jit": "on",
}
SHOWN = "SELECT name, setting FROM pg_settings WHERE lower(name) = ANY (%s) ORDER BY name"


def alter(dsn: str, change: str) -> None:
    name = dsn.rpartition("/")[2]
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {name} {change}".encode())


async def shown(dsn: str) -> list[list[tuple[object, ...]]]:
    """The settings of each kind of session."""
    names = [list(OTHERWISE)]
    pool = Database(dsn, size=2, application_name="test")
    await pool.open()
    async with (
        pool.connection() as one,
        pool.merge_transaction() as merging,
        looking(dsn, "test", within=10) as look,
        await Connection.connect(session.conninfo(dsn, "test"), autocommit=True) as alone,
    ):
        found = [
            await (await connection.execute(SHOWN, names)).fetchall() for connection in (one, merging, look, alone)
        ]
    await pool.close()
    with session.connected(dsn, "test", session.MIGRATING) as migrating:
        found.append(migrating.execute(SHOWN, names).fetchall())
    return found


async def test_every_setting_is_the_sessions_own(database: str) -> None:
    """The same in each kind of session where the database sets all of them otherwise, and where it sets none."""
    assert OTHERWISE.keys() == session.SETTINGS.keys()
    before = await shown(database)
    for name, value in OTHERWISE.items():
        alter(database, f"SET {name} TO '{value}'")
    with psycopg.connect(database) as connection:
        otherwise = connection.execute(SHOWN, [list(OTHERWISE)]).fetchall()
    for settings in before:
        assert all(one != other for one, other in zip(settings, otherwise, strict=True))
    assert await shown(database) == before


async def test_a_schema_is_made_with_triggers_that_fire(empty_database: str) -> None:
    """A role that is not to fire them, and may not change that, is refused before anything is written."""
    alter(empty_database, "SET session_replication_role TO replica")
    with psycopg.connect(empty_database, autocommit=True) as connection:
        connection.execute("CREATE ROLE plain LOGIN PASSWORD 'pw'")
        connection.execute(f"GRANT CREATE ON DATABASE {empty_database.rpartition('/')[2]} TO plain".encode())
    try:
        plain = f"postgresql://plain:pw@{empty_database.rpartition('@')[2]}"
        with pytest.raises(DatabaseUnavailableError, match="session_replication_role"):
            migrate(plain)
        assert migrate(empty_database)
        async with looking(empty_database, "test", within=10, read_only=False) as connection:
            cursor = await connection.execute("SHOW session_replication_role")
            assert await cursor.fetchone() == ("origin",)
    finally:
        with psycopg.connect(empty_database, autocommit=True) as connection:
            connection.execute("DROP OWNED BY plain")
            connection.execute("DROP ROLE plain")


@pytest.mark.parametrize("asked", ["standby", "prefer-standby", "read-only"])
async def test_who_writes_wants_a_server_that_does(asked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who only reads may ask for a standby, in the DSN or in the environment."""
    dsn = "postgresql://one,two/x"
    for given in (f"{dsn}?target_session_attrs={asked}", dsn):
        with pytest.raises(
            ConfigError, match=f"target_session_attrs={asked} asks for a server that takes no writes"
        ):
            session.conninfo(f"{dsn}?target_session_attrs={asked}", "test")
        assert asked in session.conninfo(given, "test", writes=False) or given == dsn
        monkeypatch.setenv("PGTARGETSESSIONATTRS", asked)


def test_several_hosts_mean_the_one_that_takes_writes() -> None:
    """Where the DSN leaves it open; one host alone is taken as it is."""
    assert "target_session_attrs=read-write" in session.conninfo("host=one,two", "test")
    assert "target_session_attrs" not in session.conninfo("host=one,two", "test", writes=False)
    assert "target_session_attrs" not in session.conninfo("host=one", "test")
    assert "target_session_attrs=primary" in session.conninfo("host=one,two target_session_attrs=primary", "test")
