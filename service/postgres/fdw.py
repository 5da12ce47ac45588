"""The SQL with which one PostgreSQL reads several installations: a foreign table each, joined by org.

Each public relation becomes a table that is partitioned by list of org. A partition is a foreign table of
postgres_fdw, imported with the column types of the view behind it. So ``org = 'x'`` reads one database, and an
aggregate by org is computed in each of them, side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from psycopg.conninfo import conninfo_to_dict

from service.postgres.session import CONNECT_TIMEOUT, KEEPALIVES

RELATIONS = (
    "flow_outcome",
    "flow_outcome_detail",
    "flow_execution",
    "flow_milestone",
    "restatement",
    "coverage",
    "extraction_window",
    "rejected_entry",
    "outcome_alias",
    "alias_suggestion",
    "flow",
)
"""The public relations; each has a column ``org``."""
AS_OF = ("flow_outcome", "flow_outcome_detail", "flow_execution", "flow_milestone")
"""The relations with a function as of an instant. A foreign table takes no parameter, so the function reads the
view ``…_version``, which has a row for each version of a figure."""
_ALL = (*RELATIONS, *(f"{name}_version" for name in AS_OF))
PASSWORD = "PASSWORD"  # noqa: S105 - a placeholder

# Options of a DSN that are the server's. Others are of the session, of the user mapping, or not allowed here.
_SERVER_OPTIONS = (
    "host",
    "hostaddr",
    "port",
    "dbname",
    "connect_timeout",
    "target_session_attrs",
    "sslmode",
    "sslrootcert",
    "sslcrl",
    "channel_binding",
    "gssencmode",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "tcp_user_timeout",
)


class Installation(NamedTuple):
    """One configuration: its database and its orgs."""

    name: str
    dsn: str
    orgs: Sequence[str]


def fdw_sql(installations: Sequence[Installation]) -> str:
    """The statements for the database that reads all others."""
    parts = [_HEAD]
    for number, each in enumerate(installations, 1):
        parts.append(_server(f"flow_outcomes_{number}", each))
    first = "flow_outcomes_1"
    parts += [
        f"CREATE TABLE flow_outcomes.{relation} (LIKE {first}.{relation}) PARTITION BY LIST (org);"
        for relation in _ALL
    ]
    for number, each in enumerate(installations, 1):
        others = [org for other in installations if other is not each for org in other.orgs]
        parts.append(
            _ATTACH.format(schema=f"flow_outcomes_{number}", named=_array(each.orgs), others=_array(others))
        )
    parts.append(_AS_OF_FUNCTIONS)
    return "\n".join([*parts, "COMMIT;"])


def _server(schema: str, installation: Installation) -> str:
    # postgres_fdw has no limits of its own: a query would wait for a machine that is gone
    given = {key: str(value) for key, value in {"connect_timeout": CONNECT_TIMEOUT, **KEEPALIVES}.items()}
    given |= {key: str(value) for key, value in conninfo_to_dict(installation.dsn).items() if value is not None}
    options = [f"{key} {_literal(given[key])}" for key in _SERVER_OPTIONS if key in given]
    options += ["async_capable 'true'", "fetch_size '10000'", "updatable 'false'"]
    user = [f"user {_literal(given['user'])}"] if "user" in given else []
    separator = ",\n    "
    relations = ", ".join(_ALL)
    return f"""\
-- {_comment(installation.name)}
CREATE SERVER {schema} FOREIGN DATA WRAPPER postgres_fdw OPTIONS (
    {separator.join(options)}
);
CREATE USER MAPPING FOR CURRENT_USER SERVER {schema} OPTIONS ({", ".join([*user, f"password '{PASSWORD}'"])});
CREATE SCHEMA {schema};
IMPORT FOREIGN SCHEMA flow_outcomes LIMIT TO ({relations}) FROM SERVER {schema} INTO {schema};
"""


def _literal(text: str) -> str:
    quoted = text.replace("'", "''")
    return f"E'{quoted.replace(chr(92), chr(92) * 2)}'" if "\\" in text else f"'{quoted}'"


def _array(texts: Sequence[str]) -> str:
    return f"ARRAY[{', '.join(map(_literal, texts))}]::text[]"


def _comment(text: str) -> str:
    """Text on one line."""
    return " ".join(text.split())


_HEAD = """\
-- Reads several installations of flow-outcomes as one. Run it in a database of its own that holds no installation,
-- after each installation was migrated. Replace the users, best by readers, and the passwords.
-- Another role that reads needs a user mapping of its own for each server, and SELECT on these tables.
BEGIN;
CREATE EXTENSION IF NOT EXISTS postgres_fdw;
DO $$
BEGIN
    EXECUTE format('ALTER DATABASE %I SET enable_partitionwise_aggregate = on', current_database());
END
$$;
SET LOCAL enable_partitionwise_aggregate = on;
CREATE SCHEMA flow_outcomes;
"""

# The rows of a foreign table are not compared with the values of its partition. So an org that two databases hold
# would be there twice, and one that no configuration names only where all orgs are read.
_ATTACH = f"""\
DO $do$
DECLARE
    relation text;
    named    text[] := {{named}};
    others   text[] := {{others}};
    held     text[] := ARRAY(
        SELECT org FROM {{schema}}.coverage UNION SELECT org FROM {{schema}}.extraction_window
        UNION SELECT org FROM {{schema}}.flow UNION SELECT org FROM {{schema}}.outcome_alias);
    orgs     text := (SELECT string_agg(quote_literal(org), ', ') FROM (
        SELECT unnest(named) UNION SELECT unnest(held)) every (org));
BEGIN
    IF held && others THEN
        RAISE EXCEPTION 'the database of {{schema}} holds orgs that another configuration names: %',
            (SELECT string_agg(org, ', ' ORDER BY org) FROM unnest(held) org WHERE org = ANY (others))
            USING HINT = 'An org has one database: delete its rows in the other one.';
    END IF;
    FOREACH relation IN ARRAY ARRAY[{", ".join(f"'{name}'" for name in _ALL)}] LOOP
        EXECUTE format('ALTER TABLE flow_outcomes.%I ATTACH PARTITION {{schema}}.%I FOR VALUES IN (%s)',
                       relation, relation, orgs);
    END LOOP;
END
$do$;
"""

# With the columns that the relation has, whatever version the installations have.
_AS_OF_FUNCTIONS = f"""\
DO $do$
DECLARE
    relation text;
    columns  text;
BEGIN
    FOREACH relation IN ARRAY ARRAY[{", ".join(f"'{name}'" for name in AS_OF)}] LOOP
        SELECT string_agg('v.' || quote_ident(attname), ', ' ORDER BY attnum) INTO columns
        FROM pg_attribute
        WHERE attrelid = format('flow_outcomes.%I', relation)::regclass AND attnum > 0 AND NOT attisdropped;
        EXECUTE format(
            'CREATE FUNCTION flow_outcomes.%I(at timestamptz) RETURNS SETOF flow_outcomes.%I LANGUAGE sql STABLE'
            ' AS %L',
            relation || '_as_of', relation,
            -- The instant as a value: an expression such as now() would be compared here, with all versions.
            format('SELECT %s FROM flow_outcomes.%I v'
                   ' WHERE v.valid_from <= (SELECT at) AND v.valid_to > (SELECT at)',
                   columns, relation || '_version'));
    END LOOP;
END
$do$;
"""
