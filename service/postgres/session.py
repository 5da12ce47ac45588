"""Which server a session may connect to, and the settings that every session has.

The statements, and the code that parses their results, depend on settings that a DSN, the environment
(``PGCLIENTENCODING``, ``PGDATESTYLE``, ``PGTZ``, ``PGOPTIONS``), a role or a database may change. So each session
sets them itself, with ``SET`` after it has connected, which takes precedence over all of these. Start-up options
would not: named parameters of the DSN and of the environment override them, and
``target_session_attrs=read-write`` rejects a session that starts read-only.

A site keeps control of the role, ``synchronous_commit``, tablespaces, ``row_security``, and
``default_transaction_read_only``, which providers set to protect a full disk. While it is on, nothing is written.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from service.errors import ConfigError, Fault

_MIN_VERSION = 14  # of PostgreSQL
CONNECT_TIMEOUT = 5  # seconds
_CONNECT_TIMEOUT_PER_HOST = 2  # seconds, where the DSN has several hosts; libpq's minimum
STATEMENT_TIMEOUT = 60  # seconds
KEEPALIVES = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 20_000}
"""A connection to a machine that is gone ends within 25 s."""

SETTINGS = {
    "client_encoding": "UTF8",
    "standard_conforming_strings": "on",
    "array_nulls": "on",  # off: NULL in an array is parsed as a string
    "transform_null_equals": "off",
    "bytea_output": "hex",
    "datestyle": "ISO, MDY",
    "intervalstyle": "postgres",
    "timezone": "UTC",  # a day in interval arithmetic is then 24 hours
    "extra_float_digits": "1",  # less: shares are rounded on output
    "search_path": "pg_catalog",
    "default_transaction_isolation": "read committed",  # a merge reads what was committed while it waited
    "default_transaction_deferrable": "off",
    "statement_timeout": f"{STATEMENT_TIMEOUT}s",
    "lock_timeout": "30s",
    "idle_in_transaction_session_timeout": "10s",
    "idle_session_timeout": "0",
    "transaction_timeout": "0",
    "exit_on_error": "off",
    "jit": "off",  # compiling a merge's statements took longer than running them
}
MIGRATION_SETTINGS = {
    "search_path": "flow_outcomes",
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "60s",
}
READ_ONLY = {"default_transaction_read_only": "on"}

_POOLER = (
    "the session's settings were not applied: this is a pooler, such as pgbouncer; connect to PostgreSQL itself"
)
_FIRE_TRIGGERS = "SET session_replication_role TO origin"  # only a superuser may, or need to, change it
_MIN_SERVER_VERSION = {"transaction_timeout": 170_000}
_MARKER = "flow_outcomes.direct"  # sent as a start-up option, which a pooler rejects or does not forward
_UNDEFINED_OBJECT = "42704"

_ANY, _READ_WRITE = "any", "read-write"
_NO_WRITES = ("read-only", "standby", "prefer-standby")
_SERVER_KINDS = (_ANY, _READ_WRITE, "primary", *_NO_WRITES)
# libpq sends these as start-up options, where an invalid value ends the connection; SETTINGS has them
_SENT_BY_LIBPQ = ("PGDATESTYLE", "PGTZ", "PGGEQO")
_last_host: dict[tuple[str, ...], int] = {}  # the index of the host that last accepted a connection, see _host_key


def conninfo(dsn: str, application_name: str, *, writes: bool = True) -> str:
    """The DSN with the program's time limits.

    Args:
        dsn: any form that libpq accepts.
        application_name: this process's name in ``pg_stat_activity``.
        writes: connect only to a server that accepts writes; of several hosts libpq finds it.

    Raises:
        ConfigError: the DSN or the environment excludes such a server.
    """
    for name in _SENT_BY_LIBPQ:
        os.environ.pop(name, None)
    parameters = conninfo_to_dict(dsn)
    several = len(_hosts(parameters)) > 1
    if server := _required_server(parameters, writes=writes, several=several):
        dsn = make_conninfo(dsn, target_session_attrs=server)
    return make_conninfo(
        dsn,
        application_name=application_name,
        connect_timeout=_CONNECT_TIMEOUT_PER_HOST if several else CONNECT_TIMEOUT,
        **KEEPALIVES,
        client_encoding="UTF8",  # for the server's messages before the first SET
        options=f"{parameters.get('options') or ''} -c {_MARKER}=on".strip(),  # the DSN's options, never PGOPTIONS
    )


def _required_server(parameters: Mapping[str, Any], *, writes: bool, several: bool) -> str:
    """The ``target_session_attrs`` to add to those of the DSN or the environment; empty for none."""
    wanted = _value(parameters, "target_session_attrs") or _ANY
    stated = f"target_session_attrs={wanted}"
    if wanted not in _SERVER_KINDS:
        raise ConfigError([Fault("database.dsn", f"{stated}: must be one of {', '.join(_SERVER_KINDS)}")])
    if writes and wanted in _NO_WRITES:
        reason = f"{stated} selects a server that accepts no writes, and this command writes: set read-write"
        raise ConfigError([Fault("database.dsn", reason)])
    return _READ_WRITE if writes and several and wanted == _ANY else ""


def _value(parameters: Mapping[str, Any], key: str) -> str:
    """A parameter of the DSN, else of the environment."""
    name = {"target_session_attrs": "PGTARGETSESSIONATTRS"}.get(key, f"PG{key.upper()}")
    return str(parameters.get(key) or os.environ.get(name, ""))


def _hosts(parameters: Mapping[str, Any]) -> list[str]:
    return (_value(parameters, "hostaddr") or _value(parameters, "host")).split(",")


def prefer_last_host(conninfo: str) -> str:
    """Put the host that last accepted a connection first, so that no connection waits for one that is down."""
    parameters = conninfo_to_dict(conninfo)
    place = _last_host.get(_host_key(parameters), 0)
    lists = {name: _value(parameters, name).split(",") for name in ("host", "hostaddr", "port")}
    rotated = {name: ",".join(items[place:] + items[:place]) for name, items in lists.items() if len(items) > 1}
    return make_conninfo(conninfo, **rotated) if place else conninfo


def remember_host(conninfo: str, info: psycopg.ConnectionInfo) -> None:
    """Record which of several hosts accepted the connection, where any host that accepts writes will do."""
    parameters = conninfo_to_dict(conninfo)
    if _value(parameters, "target_session_attrs") not in (_READ_WRITE, "primary"):
        return
    hosts, ports = _hosts(parameters), _value(parameters, "port").split(",")
    for place, host in enumerate(hosts):
        if host in (info.host, info.hostaddr) and ports[place % len(ports)] in ("", str(info.port)):
            _last_host[_host_key(parameters)] = place


def _host_key(parameters: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(_value(parameters, name) for name in ("host", "hostaddr", "port", "target_session_attrs"))


def unsupported(info: psycopg.ConnectionInfo) -> str:
    """Why this database cannot hold the schema, whatever is done to it; empty where it can."""
    encoding = info.parameter_status("server_encoding")
    if info.server_version < _MIN_VERSION * 10_000:
        return f"PostgreSQL {_MIN_VERSION} or newer is required, not {info.server_version // 10_000}"
    return "" if encoding == "UTF8" else f"the database's encoding is {encoding}: it must be UTF8"


@contextmanager
def connect(
    dsn: str, application_name: str, settings: Mapping[str, str] | None = None
) -> Iterator[psycopg.Connection[Any]]:
    """A blocking connection in autocommit mode, to a server that accepts writes.

    Raises:
        ConfigError: as ``conninfo``.
        OperationalError: the server is unreachable; as ``configure``.
    """
    full = conninfo(dsn, application_name)
    with psycopg.connect(prefer_last_host(full), autocommit=True) as connection:
        configure(connection, settings or {})
        remember_host(full, connection.info)
        yield connection


def configure(connection: psycopg.Connection[Any], settings: Mapping[str, str]) -> None:
    """Apply ``SETTINGS`` and these to a new session.

    Raises:
        OperationalError: the connection goes through a pooler, which may give the session and its locks to other
            clients; or a setting cannot be set.
    """
    try:
        cursor = connection.execute(_set_statements(connection.info, settings))
        if not _fires_triggers(cursor, settings):
            connection.execute(_FIRE_TRIGGERS)
    except psycopg.Error as error:
        raise _setup_error(error) from error


async def configure_async(connection: psycopg.AsyncConnection[Any], settings: Mapping[str, str]) -> None:
    """``configure`` for an asynchronous connection."""
    try:
        cursor = await connection.execute(_set_statements(connection.info, settings))
        if not _fires_triggers(cursor, settings):
            await connection.execute(_FIRE_TRIGGERS)
    except psycopg.Error as error:
        raise _setup_error(error) from error


def _set_statements(info: psycopg.ConnectionInfo, settings: Mapping[str, str]) -> bytes:
    """The statements that apply the settings in one round trip.

    None of them takes a snapshot: a standby gives none to a session that is serializable by default.
    """
    changes = (
        f"SET {name} TO '{value}'"
        for name, value in {**SETTINGS, **settings}.items()
        if info.server_version >= _MIN_SERVER_VERSION.get(name, 0)
    )
    return "; ".join((f"SHOW {_MARKER}", "SHOW session_replication_role", *changes)).encode()


def _fires_triggers(cursor: psycopg.Cursor[Any] | psycopg.AsyncCursor[Any], settings: Mapping[str, str]) -> bool:
    """Whether triggers and foreign keys apply to what the session writes; True for a session that only reads."""
    cursor.nextset()
    assert cursor.pgresult is not None  # noqa: S101 - for mypy: the second statement returns a row
    return settings.keys() >= READ_ONLY.keys() or cursor.pgresult.get_value(0, 0) == b"origin"


def _setup_error(error: psycopg.Error) -> psycopg.Error:
    if error.sqlstate == _UNDEFINED_OBJECT and _MARKER in str(error):
        return psycopg.OperationalError(_POOLER)
    if isinstance(error, psycopg.OperationalError):
        return error
    return psycopg.OperationalError(f"a required session setting cannot be set: {error}")
