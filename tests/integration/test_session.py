"""The settings of a session, whatever a site has set, and the servers that a session may connect to."""

from __future__ import annotations

import psycopg
import pytest

from service.errors import ConfigError, DatabaseUnavailableError
from service.postgres import session
from service.postgres.migrate import migrate
from service.postgres.pool import Connection, Database
from service.postgres.probe import open_connection

SITE_SETTINGS = {
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
    names = [list(SITE_SETTINGS)]
    pool = Database(dsn, size=2, application_name="test")
    await pool.open()
    async with (
        pool.connection() as one,
        pool.merge_transaction() as merging,
        open_connection(dsn, "test", timeout=10) as look,
        await Connection.connect(session.conninfo(dsn, "test"), autocommit=True) as alone,
    ):
        found = [
            await (await connection.execute(SHOWN, names)).fetchall() for connection in (one, merging, look, alone)
        ]
    await pool.close()
    with session.connect(dsn, "test", session.MIGRATION_SETTINGS) as migrating:
        found.append(migrating.execute(SHOWN, names).fetchall())
    return found


async def test_the_settings_do_not_depend_on_the_site(database: str) -> None:
    """Each kind of session has the same settings whether the database sets all of them differently, or none."""
    assert SITE_SETTINGS.keys() == session.SETTINGS.keys()
    before = await shown(database)
    for name, value in SITE_SETTINGS.items():
        alter(database, f"SET {name} TO '{value}'")
    with psycopg.connect(database) as connection:
        site = connection.execute(SHOWN, [list(SITE_SETTINGS)]).fetchall()
    for settings in before:
        assert all(one != other for one, other in zip(settings, site, strict=True))
    assert await shown(database) == before


async def test_a_schema_is_made_with_triggers_that_fire(empty_database: str) -> None:
    """A role whose sessions fire no triggers, and that may not change that, is rejected before any write."""
    alter(empty_database, "SET session_replication_role TO replica")
    with psycopg.connect(empty_database, autocommit=True) as connection:
        connection.execute("CREATE ROLE plain LOGIN PASSWORD 'pw'")
        connection.execute(f"GRANT CREATE ON DATABASE {empty_database.rpartition('/')[2]} TO plain".encode())
    try:
        plain = f"postgresql://plain:pw@{empty_database.rpartition('@')[2]}"
        with pytest.raises(DatabaseUnavailableError, match="session_replication_role"):
            migrate(plain)
        assert migrate(empty_database)
        async with open_connection(empty_database, "test", timeout=10, read_only=False) as connection:
            cursor = await connection.execute("SHOW session_replication_role")
            assert await cursor.fetchone() == ("origin",)
    finally:
        with psycopg.connect(empty_database, autocommit=True) as connection:
            connection.execute("DROP OWNED BY plain")
            connection.execute("DROP ROLE plain")


@pytest.mark.parametrize("server", ["standby", "prefer-standby", "read-only"])
async def test_a_writer_rejects_a_dsn_for_standbys(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a session that does not write may select a standby, in the DSN or in the environment."""
    dsn = "postgresql://one,two/x"
    for given in (f"{dsn}?target_session_attrs={server}", dsn):
        with pytest.raises(
            ConfigError, match=f"target_session_attrs={server} selects a server that accepts no writes"
        ):
            session.conninfo(f"{dsn}?target_session_attrs={server}", "test")
        assert server in session.conninfo(given, "test", writes=False) or given == dsn
        monkeypatch.setenv("PGTARGETSESSIONATTRS", server)


def test_of_several_hosts_one_that_accepts_writes() -> None:
    """The DSN's own ``target_session_attrs`` stays, and a single host gets none."""
    assert "target_session_attrs=read-write" in session.conninfo("host=one,two", "test")
    assert "target_session_attrs" not in session.conninfo("host=one,two", "test", writes=False)
    assert "target_session_attrs" not in session.conninfo("host=one", "test")
    assert "target_session_attrs=primary" in session.conninfo("host=one,two target_session_attrs=primary", "test")
