"""The faults of a DSN, and its secrets.

libpq parses the DSN, as it does when it connects. Its messages quote the DSN with the password, so none is passed
on. libpq also accepts a DSN with an unescaped ``@`` or ``/`` in the password: what follows becomes a host, a port
or a database, which every message about a connection names. So such a DSN is a fault. No fault repeats a part of
the DSN.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import psycopg
from psycopg.pq import Conninfo

_SCHEMES = ("postgresql://", "postgres://")
_SECRETS = ("password", "sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key")
_NUMBERS = (
    *("connect_timeout", "tcp_user_timeout"),
    *("keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count"),
)
_PORT_MAX, _DIGITS_MAX = 65_535, 9

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SEPARATORS = re.compile(r"[@%:/?&=,]")
_IN_QUERY = re.compile(rf"[?&](?:{'|'.join(_SECRETS)})=([^&]*)")

_KINDS = "must be a URL such as postgresql://USER@HOST/NAME, or KEY=VALUE pairs"
_ESCAPES = "in USER and PASSWORD write @ as %40, % as %25, : as %3A, / as %2F, ? as %3F, # as %23, a space as %20"
_QUOTES = "put a value with a space or a quote in single quotes, with \\' for a quote and \\\\ for a backslash"


def fault_in(dsn: str) -> str:
    """The DSN's fault and how to correct it; empty for a valid DSN."""
    is_url = dsn.startswith(_SCHEMES)
    if not is_url and ("=" not in dsn or "://" in dsn.partition("=")[0]):
        return _KINDS
    if "\0" in dsn or (is_url and _CONTROL.search(dsn)):
        return "must not contain line breaks or other control characters"
    if is_url and _is_misread(dsn):
        return f"contains an @ or / that is not percent-encoded; {_ESCAPES}"
    options = _options(dsn)
    hint = _ESCAPES if is_url else _QUOTES
    if options is None:
        form = "URL" if is_url else "list of KEY=VALUE pairs"
        return (
            f"is not a valid {form}, or has a parameter that PostgreSQL's client library does not support; {hint}"
        )
    if not all(_is_port(port) for port in options.get("port", "").split(",")):
        return f"has a port that is not a whole number from 1 to {_PORT_MAX}; {hint}"
    wrong = next((key for key in _NUMBERS if not _is_number(options.get(key, "0"))), None)
    return f"has a {wrong} that is not a whole number" if wrong else ""


def secrets_in(dsn: str) -> frozenset[str]:
    """The DSN's secrets, as written and decoded, and the pieces into which a wrong parse would split them.

    After ``//``, everything from the first ``:`` to the last ``@`` counts as a secret.
    """
    secrets = {value for key, value in (_options(dsn) or {}).items() if key in _SECRETS}
    secrets.update(_IN_QUERY.findall(dsn))
    _, _, rest = dsn.partition("//")
    secrets.add(rest.rpartition("@")[0].partition(":")[2])
    return frozenset(secrets | set(_pieces(secrets)))


def _options(dsn: str) -> dict[str, str] | None:
    """The options that libpq reads from the DSN; None where it rejects it."""
    try:
        return {
            option.keyword.decode(): option.val.decode()
            for option in Conninfo.parse(dsn.encode())
            if option.val is not None
        }
    except (psycopg.Error, UnicodeError):
        return None


def _is_misread(url: str) -> bool:
    """Whether an ``@`` is in what libpq reads as a host, or as the database of a URL that may have a password.

    libpq ends user and password at the first ``@`` before the first ``/``.
    """
    rest = url.partition("://")[2]
    before, _, after = rest.partition("/")
    hosts, query, _ = (before.partition("@")[2] if "@" in before else before).partition("?")
    if "@" in hosts:
        return True
    database = "" if query else after.partition("?")[0]
    return "@" in database and ":" in rest[: rest.rindex("@")]


def _is_number(text: str) -> bool:
    digits = text.strip().removeprefix("-")
    return digits.isascii() and digits.isdigit() and len(digits) <= _DIGITS_MAX


def _is_port(text: str) -> bool:
    return not text or (_is_number(text) and 1 <= int(text) <= _PORT_MAX)


def _pieces(secrets: set[str]) -> Iterator[str]:
    for secret in secrets:
        yield from _SEPARATORS.split(secret)
