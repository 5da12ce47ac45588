"""How every session with PostgreSQL begins: which server it may be with, and the settings that it has.

The statements, and the reading of their answers, rely on settings. A DSN, the environment
(``PGCLIENTENCODING``, ``PGDATESTYLE``, ``PGTZ``, ``PGOPTIONS``), a role or a database may set them to something
else. So each session sets them itself, by ``SET`` after it has connected, which nothing overrides. Start-up
options would not do: named values of the DSN and of the environment win over them, and a session that begins
read-only is refused by ``target_session_attrs=read-write``.

What a site decides stays its own: the role, ``synchronous_commit``, tablespaces, ``row_security``, and
``default_transaction_read_only``, by which a provider protects a full disk. Where it is on, nothing is written.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from service.errors import ConfigError, Fault

OLDEST = 14  # of PostgreSQL
CONNECT_TIMEOUT = 5  # seconds
CONNECT_TIMEOUT_EACH = 2  # where there are several hosts; the least that libpq takes
STATEMENT_TIMEOUT = 60

SETTINGS = {
    "client_encoding": "UTF8",
    "standard_conforming_strings": "on",
    "array_nulls": "on",  # with it off, NULL in an array is read as a word
    "transform_null_equals": "off",
    "bytea_output": "hex",
    "datestyle": "ISO, MDY",
    "intervalstyle": "postgres",
    "timezone": "UTC",  # intervals are then absolute, whatever zone the role was given
    "extra_float_digits": "1",  # with less, a share is rounded on its way out
    "search_path": "pg_catalog",
    "default_transaction_isolation": "read committed",  # a merge reads what others committed while it waited
    "default_transaction_deferrable": "off",
    "statement_timeout": f"{STATEMENT_TIMEOUT}s",
    "lock_timeout": "30s",
    "idle_in_transaction_session_timeout": "10s",
    "idle_session_timeout": "0",
    "transaction_timeout": "0",
    "exit_on_error": "off",
    "jit": "off",  # compiling a merge's statements took longer than running them
}
MIGRATING = {"search_path": "flow_outcomes", "statement_timeout": "0", "lock_timeout": "0"} | {
    "idle_in_transaction_session_timeout": "60s"
}
NONE: dict[str, str] = {}
READ_ONLY = {"default_transaction_read_only": "on"}

POOLER = "the session's settings did not arrive: this is a pooler (pgbouncer?), give PostgreSQL's own address"
FIRE_TRIGGERS = "SET session_replication_role TO origin"  # for superusers only, who may have set it of a role
_SINCE = {"transaction_timeout": 170_000}
_DIRECT = "flow_outcomes.direct"  # set at the connection itself: a pooler refuses it, or keeps it to itself
_UNKNOWN = "42704"

_ANY, _WRITABLE = "any", "read-write"
_NO_WRITES = ("read-only", "standby", "prefer-standby")
_TAKEN = (_ANY, _WRITABLE, "primary", *_NO_WRITES)
# libpq sends these at the connection, where a wrong value ends it; what they set, each session sets itself
_SENT_BY_LIBPQ = ("PGDATESTYLE", "PGTZ", "PGGEQO")
_served: dict[tuple[str, ...], int] = {}  # by what a connection asks for, the place of the host that it had last


def conninfo(dsn: str, application_name: str, *, writes: bool = True) -> str:
    """The DSN with our time limits, whatever form it came in.

    Args:
        dsn: any form that libpq takes.
        application_name: what the server calls us.
        writes: only a server that takes writes will do; where there are several hosts, such a one is looked for.

    Raises:
        ConfigError: the DSN or the environment allows no such server.
    """
    for name in _SENT_BY_LIBPQ:
        os.environ.pop(name, None)
    given = conninfo_to_dict(dsn)
    several = len(_hosts(given)) > 1
    if server := _server(given, writes=writes, several=several):
        dsn = make_conninfo(dsn, target_session_attrs=server)
    return make_conninfo(
        dsn,
        application_name=application_name,
        connect_timeout=CONNECT_TIMEOUT_EACH if several else CONNECT_TIMEOUT,
        keepalives_idle=10,
        keepalives_interval=5,
        keepalives_count=3,
        tcp_user_timeout=20_000,
        client_encoding="UTF8",  # the server's messages are read before any SET
        options=f"{given.get('options') or ''} -c {_DIRECT}=on".strip(),  # the DSN's, never PGOPTIONS
    )


def _server(given: Mapping[str, Any], *, writes: bool, several: bool) -> str:
    """The kind of server to insist on beyond what the DSN and the environment say; empty where they say enough."""
    wanted = _value(given, "target_session_attrs") or _ANY
    stated = f"target_session_attrs={wanted}"
    if wanted not in _TAKEN:
        raise ConfigError([Fault("database.dsn", f"{stated}: must be one of {', '.join(_TAKEN)}")])
    if writes and wanted in _NO_WRITES:
        reason = f"{stated} asks for a server that takes no writes, and this has to write: set read-write"
        raise ConfigError([Fault("database.dsn", reason)])
    return _WRITABLE if writes and several and wanted == _ANY else ""


def _value(given: Mapping[str, Any], key: str) -> str:
    """What the DSN says, else the environment."""
    name = {"target_session_attrs": "PGTARGETSESSIONATTRS"}.get(key, f"PG{key.upper()}")
    return str(given.get(key) or os.environ.get(name, ""))


def _hosts(given: Mapping[str, Any]) -> list[str]:
    return (_value(given, "hostaddr") or _value(given, "host")).split(",")


def served_first(conninfo: str) -> str:
    """The same with the host first that served last: while one of them is down, no connection waits for it."""
    given = conninfo_to_dict(conninfo)
    place = _served.get(_key(given), 0)
    lists = {name: _value(given, name).split(",") for name in ("host", "hostaddr", "port")}
    turned = {name: ",".join(items[place:] + items[:place]) for name, items in lists.items() if len(items) > 1}
    return make_conninfo(conninfo, **turned) if place else conninfo


def note_served(conninfo: str, info: psycopg.ConnectionInfo) -> None:
    """Note which of several hosts it was; only where each of them that takes writes is as good."""
    given = conninfo_to_dict(conninfo)
    if _value(given, "target_session_attrs") not in (_WRITABLE, "primary"):
        return
    hosts, ports = _hosts(given), _value(given, "port").split(",")
    for place, host in enumerate(hosts):
        if host in (info.host, info.hostaddr) and ports[place % len(ports)] in ("", str(info.port)):
            _served[_key(given)] = place


def _key(given: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(_value(given, name) for name in ("host", "hostaddr", "port", "target_session_attrs"))


def trouble(info: psycopg.ConnectionInfo) -> str:
    """Why the schema can never live in this database; empty where it can."""
    encoding = info.parameter_status("server_encoding")
    if info.server_version < OLDEST * 10_000:
        return f"PostgreSQL {OLDEST} or newer is needed, not {info.server_version // 10_000}"
    return "" if encoding == "UTF8" else f"the database's encoding is {encoding}: it must be UTF8"


@contextmanager
def connected(dsn: str, application_name: str, settings: Mapping[str, str]) -> Iterator[psycopg.Connection[Any]]:
    """A session in autocommit mode that may write, for who does not wait on it in an event loop.

    Raises:
        ConfigError: as ``conninfo``.
        OperationalError: it cannot be had; as ``begin``.
    """
    asked = conninfo(dsn, application_name)
    with psycopg.connect(served_first(asked), autocommit=True) as connection:
        begin(connection, settings)
        note_served(asked, connection.info)
        yield connection


def begin(connection: psycopg.Connection[Any], settings: Mapping[str, str]) -> None:
    """Give a new session its settings.

    Raises:
        OperationalError: there is a pooler in between, which may hand the session and its locks on to others; or
            one of the settings cannot be set.
    """
    try:
        cursor = connection.execute(statements(connection.info, settings))
        if not _fires_triggers(cursor, settings):
            connection.execute(FIRE_TRIGGERS)
    except psycopg.Error as error:
        raise _refusal(error) from error


async def begin_async(connection: psycopg.AsyncConnection[Any], settings: Mapping[str, str]) -> None:
    """As ``begin``."""
    try:
        cursor = await connection.execute(statements(connection.info, settings))
        if not _fires_triggers(cursor, settings):
            await connection.execute(FIRE_TRIGGERS)
    except psycopg.Error as error:
        raise _refusal(error) from error


def statements(info: psycopg.ConnectionInfo, settings: Mapping[str, str]) -> bytes:
    """What gives a session its settings in one round trip.

    None of it takes a snapshot: a standby has none for who is serializable by default.
    """
    wanted = {**SETTINGS, **settings}
    changes = (
        f"SET {name} TO '{value}'" for name, value in wanted.items() if info.server_version >= _SINCE.get(name, 0)
    )
    return "; ".join((f"SHOW {_DIRECT}", "SHOW session_replication_role", *changes)).encode()


def _fires_triggers(cursor: psycopg.Cursor[Any] | psycopg.AsyncCursor[Any], settings: Mapping[str, str]) -> bool:
    """Whether what the session writes is seen by triggers and foreign keys; not looked at where it only reads."""
    cursor.nextset()
    assert cursor.pgresult is not None  # noqa: S101 - for mypy: the second statement has an answer
    return settings.keys() >= READ_ONLY.keys() or cursor.pgresult.get_value(0, 0) == b"origin"


def _refusal(error: psycopg.Error) -> psycopg.Error:
    """Why the session cannot be had."""
    if error.sqlstate == _UNKNOWN and _DIRECT in str(error):
        return psycopg.OperationalError(POOLER)
    if isinstance(error, psycopg.OperationalError):
        return error
    return psycopg.OperationalError(f"a setting that the program relies on cannot be set: {error}")
